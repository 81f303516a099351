//! Images go to docker, podman, skopeo and umoci, and come from docker and podman.

use std::fs;

use kiln_tests::{Docker, Kiln, Podman, command, run, run_with_input};

const DOCKERFILE: &str = "FROM busybox\nENV A=kept\nWORKDIR /w\nRUN echo first > f && chown 33:100 f && rm -r /home\n\
    RUN mkdir -p d && echo second > d/g && ln f hard\nENTRYPOINT [\"sh\", \"-c\"]\n\
    CMD [\"cat f d/g hard && echo $A && stat -c %u:%g f && test ! -e /home\"]\n";
const ANSWER: &str = "first\nsecond\nfirst\nkept\n33:100\n";

fn built() -> Kiln {
    let kiln = Kiln::with_busybox();
    kiln.build_text(DOCKERFILE, "interop:1");
    assert_eq!(kiln.run(["run", "--rm", "interop:1"]).stdout, ANSWER);
    kiln
}

#[test]
fn docker_loads_and_runs_what_kiln_saved_and_the_other_way_round() {
    let kiln = built();
    let docker = Docker::start().import_busybox();
    let archive = kiln.run(["save", "interop:1"]).bytes;
    run_with_input(docker.command(["load"]), &archive).success().says("interop:1");
    assert_eq!(docker.run(["run", "--rm", "--network=host", "interop:1"]).stdout, ANSWER);
    let id = docker.run(["inspect", "--format", "{{.Id}}", "interop:1"]);
    assert_eq!(id.text(), kiln.image_id("interop:1"));

    let build = docker.command(["build", "--network=host", "-t", "theirs:1", "-"]);
    run_with_input(build, DOCKERFILE.as_bytes()).success();
    let archive = docker.run(["save", "theirs:1"]).bytes;
    run_with_input(kiln.command(["load"]), &archive).success().says("theirs:1");
    assert_eq!(kiln.run(["run", "--rm", "theirs:1"]).stdout, ANSWER);
    kiln.build_text("FROM theirs:1\nRUN echo on top > f\n", "top");
}

#[test]
fn podman_loads_and_runs_what_kiln_saved_and_the_other_way_round() {
    let kiln = built();
    let podman = Podman::new();
    let directory = kiln.directory();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    kiln.run(["save", "-o", &file("ours.tar"), "interop:1"]);
    podman.run(["load", "-i", &file("ours.tar")]).says("interop:1");
    let line = Podman::RUN.iter().copied().chain(["interop:1"]);
    assert_eq!(podman.run(line).stdout, ANSWER);

    podman.run(["save", "--format", "oci-archive", "-o", &file("oci.tar"), "docker.io/library/interop:1"]);
    podman.run(["save", "--format", "docker-archive", "-o", &file("docker.tar"), "docker.io/library/interop:1"]);
    for archive in ["oci.tar", "docker.tar"] {
        let other = Kiln::new();
        other.run(["load", "-i", &file(archive)]);
        assert_eq!(other.run(["run", "--rm", "interop:1"]).stdout, ANSWER, "{archive}");
    }
}

#[test]
fn podman_sees_the_same_changes_of_an_image() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nRUN mkdir -p /x/y && echo a > /x/y/a && echo b > /b && echo c > /c\n", "base:1");
    kiln.build_text(
        "FROM base:1\nRUN rm /b && echo a >> /x/y/a && mkdir /d && echo e > /d/e && chmod 600 /c && echo n > /x/n\n",
        "app:1",
    );
    let podman = Podman::new();
    let directory = kiln.directory();
    let archive = directory.path().join("app.tar").to_str().unwrap().to_owned();
    kiln.run(["save", "-o", &archive, "app:1"]);
    podman.run(["load", "-i", &archive]);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let ours = sorted(&kiln.run(["image", "diff", "app:1"]).stdout);
    assert_eq!(ours, sorted(&podman.run(["image", "diff", "app:1"]).stdout));
    assert_eq!(ours, ["A /d", "A /d/e", "A /x/n", "C /c", "C /x", "C /x/y/a", "D /b"]);
    let layers = |tree: &str| tree.lines().filter(|line| line.contains("── ID: ")).count();
    let theirs = podman.run(["image", "tree", "app:1"]).stdout;
    assert_eq!(layers(&kiln.run(["image", "tree", "app:1"]).stdout), layers(&theirs));
}

#[test]
fn podman_builds_and_kiln_runs() {
    let kiln = Kiln::with_busybox();
    let podman = Podman::new();
    let directory = kiln.context(&[("Dockerfile", DOCKERFILE)]);
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    kiln.run(["save", "-o", &file("base.tar"), "busybox:latest"]);
    podman.run(["load", "-i", &file("base.tar")]);
    let build = ["build", "--isolation=chroot", "--network=host", "--pull-never", "-t", "theirs:1", &file(".")];
    podman.run(build);
    podman.run(["save", "-o", &file("theirs.tar"), "localhost/theirs:1"]);
    kiln.run(["load", "-i", &file("theirs.tar")]);
    assert_eq!(kiln.run(["run", "--rm", "localhost/theirs:1"]).stdout, ANSWER);
}

#[test]
fn skopeo_and_umoci_accept_the_oci_layout() {
    let kiln = built();
    let context = kiln.context(&[("Dockerfile", DOCKERFILE)]);
    let out = kiln.directory();
    let path = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
    let output = format!("type=oci,dest={}", path("oci.tar"));
    kiln.run(["build", "-t", "interop:1", "--output", &output, context.path().to_str().unwrap()]);
    fs::create_dir(path("layout")).unwrap();
    run(command("tar", ["-xf", &path("oci.tar"), "-C", &path("layout")])).success();

    let index: serde_json::Value = serde_json::from_slice(&fs::read(path("layout/index.json")).unwrap()).unwrap();
    let tag = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or("latest");
    let layout = format!("{}:{tag}", path("layout"));
    run(command("skopeo", ["inspect", &format!("oci:{layout}")])).success().says("Layers");
    run(command("skopeo", ["inspect", "--config", &format!("oci:{layout}")])).success().says("A=kept");
    run(command("skopeo", ["copy", &format!("oci:{layout}"), &format!("dir:{}", path("dir"))])).success();
    run(command("skopeo", ["copy", &format!("oci:{layout}"), &format!("docker-archive:{}:c:1", path("copy.tar"))]))
        .success();
    run(command("umoci", ["unpack", "--image", &layout, &path("bundle")])).success();
    let rootfs = format!("{}/rootfs", path("bundle"));
    assert_eq!(fs::read_to_string(format!("{rootfs}/w/d/g")).unwrap(), "second\n");
    assert!(!fs::exists(format!("{rootfs}/home")).unwrap());

    let other = Kiln::new();
    other.run(["load", "-i", &path("oci.tar")]);
    other.run(["load", "-i", &path("copy.tar")]);
    assert_eq!(other.run(["run", "--rm", "c:1"]).stdout, ANSWER);
}
