//! One build for several platforms: an index, its images, and what of it goes where.

use std::fs;
use std::path::Path;

use kiln_tests::{Account, Context, Kiln, Registry, busybox_tar, command, run};
use serde_json::Value;

const BOTH: &str = "--platform=linux/amd64,linux/arm64";

/// A stage of the building machine that runs, and one of each platform that only copies.
const CROSS: &str = "FROM --platform=$BUILDPLATFORM busybox AS build\nRUN cat /proc/sys/kernel/random/uuid > /once\n\
    ARG TARGETARCH\nRUN echo \"built on $(uname -m) for $TARGETARCH\" > /for\n\
    FROM scratch\nARG TARGETPLATFORM\nARG BUILDPLATFORM\nLABEL target=$TARGETPLATFORM build=$BUILDPLATFORM\n\
    COPY --from=build /once /for /\n";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cross(kiln: &Kiln) -> Context {
    kiln.context(&[("Dockerfile", CROSS)])
}

/// Entries of an index as `os/architecture`.
fn platforms(index: &Value) -> Vec<String> {
    let entries = index["manifests"].as_array().unwrap_or_else(|| panic!("no index: {index}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let platform =
        |entry: &Value| format!("{}/{}", text(&entry["platform"]["os"]), text(&entry["platform"]["architecture"]));
    entries.iter().map(platform).collect()
}

/// Proves: --platform, D1.4-7, D1.5-8
#[test]
fn several_platforms_become_an_index_and_shared_stages_run_once() {
    let kiln = Kiln::with_busybox();
    let outcome = kiln.build(&cross(&kiln), "t", &[BOTH, "--no-cache"]);
    let lines: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("uuid") && line.contains('[')).collect();
    assert_eq!(lines.len(), 1, "the stage of the building machine is one: {outcome}");
    assert!(lines[0].contains("[linux/amd64 build 2/3]"), "{}", lines[0]);
    assert!(outcome.stderr.contains("[linux/amd64->arm64 build 3/3]"), "{outcome}");
    let index = json(&kiln.run(["manifest", "inspect", "t"]).stdout);
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    let out = kiln.directory();
    kiln.build(
        &cross(&kiln),
        "t",
        &["--platform=linux/amd64", "--platform=linux/arm64", "-o", out.path().to_str().unwrap()],
    );
    let file = |name: &str| read(&out.path().join(name));
    assert_eq!(file("linux_amd64/once"), file("linux_arm64/once"));
    assert!(file("linux_amd64/for").ends_with("for amd64\n") && file("linux_arm64/for").ends_with("for arm64\n"));
    // The name leads to the image of this machine, and there is one line for all.
    assert_eq!(kiln.inspect("t")["Architecture"], "amd64");
    assert_eq!(kiln.inspect("t")["Config"]["Labels"]["target"], "linux/amd64");
    assert_eq!(kiln.inspect("t")["RepoTags"], serde_json::json!(["t:latest"]));
    let images = kiln.run(["images", "--format", "{{.Repository}}:{{.Tag}}"]).stdout;
    let mut images: Vec<&str> = images.lines().collect();
    images.sort_unstable();
    assert_eq!(images, ["busybox:latest", "t:latest"]);
    kiln.run(["image", "prune", "-f"]);
    assert_eq!(platforms(&json(&kiln.run(["manifest", "inspect", "t"]).stdout)).len(), 2);
    kiln.run(["rmi", "t"]);
    assert_eq!(kiln.run(["images", "--format", "{{.Repository}}"]).stdout, "busybox\n");
}

/// Proves: --platform, --push
#[test]
fn an_index_is_pushed_pulled_and_built_upon() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let name = registry.name("team/app:1");
    kiln.build(&cross(&kiln), &name, &[BOTH, "--push", "--provenance"]);
    let index = json(&kiln.run(["inspect", "--raw", &format!("docker://{name}")]).stdout);
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64", "unknown/unknown", "unknown/unknown"]);
    let entries = index["manifests"].as_array().unwrap();
    for (image, said) in [(0, 2), (1, 3)] {
        assert_eq!(entries[said]["annotations"]["vnd.docker.reference.digest"], entries[image]["digest"]);
    }
    let seen =
        run(command("skopeo", ["inspect", "--override-arch=arm64", "--tls-verify=false", &format!("docker://{name}")]));
    assert_eq!(json(&seen.success().stdout)["Architecture"], "arm64");
    // A build takes of an index of the store what each of its own platforms needs.
    let context = kiln.context(&[("Dockerfile", &format!("FROM {name}\nCOPY Dockerfile /more\n"))]);
    kiln.build(&context, "more", &[BOTH]);
    let out = kiln.directory();
    kiln.build(&context, "more", &[BOTH, "-o", out.path().to_str().unwrap()]);
    assert!(read(&out.path().join("linux_arm64/for")).ends_with("for arm64\n"));
    assert!(read(&out.path().join("linux_amd64/for")).ends_with("for amd64\n"));
    let other = Kiln::new();
    other.build(
        &other.context(&[("Dockerfile", &format!("FROM {name}\nCOPY Dockerfile /more\n"))]),
        "far",
        &["--platform=linux/arm64"],
    );
    assert_eq!(other.inspect("far")["Config"]["Labels"]["target"], "linux/arm64");
}

/// Proves: --platform, --output, D1.13-13
#[test]
fn archives_and_layouts_keep_the_index() {
    let kiln = Kiln::with_busybox();
    let context = cross(&kiln);
    let directory = kiln.directory();
    let at = |name: &str| directory.path().join(name).display().to_string();
    kiln.build(
        &context,
        "t:1",
        &[
            BOTH,
            "--output",
            &format!("type=oci,dest={}", at("t.tar")),
            "--output",
            &format!("type=oci,tar=false,dest={}", at("layout")),
            "--output",
            &format!("type=tar,dest={}", at("files.tar")),
        ],
    );
    let index = json(&kiln.run(["inspect", "--raw", &format!("oci:{}:1", at("layout"))]).stdout);
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    for place in [format!("oci:{}:1", at("layout")), format!("oci-archive:{}:1", at("t.tar"))] {
        for architecture in ["amd64", "arm64"] {
            let seen = run(command("skopeo", ["inspect", &format!("--override-arch={architecture}"), &place]));
            assert_eq!(json(&seen.success().stdout)["Architecture"], architecture, "{place}");
        }
    }
    let names = run(command("tar", ["-tf", &at("files.tar")])).success().stdout;
    assert!(names.lines().any(|name| name == "linux_arm64/for") && names.lines().any(|name| name == "linux_amd64/for"));
    // What was saved of an index is the index.
    kiln.run(["save", "-o", &at("saved.tar"), "t:1"]);
    let seen = run(command("skopeo", ["inspect", "--raw", &format!("oci-archive:{}:1", at("saved.tar"))]));
    assert_eq!(platforms(&json(&seen.success().stdout)), ["linux/amd64", "linux/arm64"]);
    let docker = format!("type=docker,dest={}", at("docker.tar"));
    kiln.try_build(&context, "t", &[BOTH, "--output", &docker]).failure().says("one platform");
    assert!(!Path::new(&at("docker.tar")).exists());
}

/// Proves: --platform
#[test]
fn a_step_for_another_machine_says_what_to_install_before_anything_runs() {
    let kiln = Kiln::new();
    let tar = fs::read(busybox_tar()).expect("the base tar");
    let import = kiln.command(["import", "--platform", "linux/s390x", "-", "busybox:latest"]);
    kiln_tests::run_with_input(import, &tar).success();
    let context = kiln.context(&[(
        "Dockerfile",
        "FROM --platform=linux/s390x busybox\nRUN echo one\nFROM scratch\nCOPY --from=0 / /\n",
    )]);
    let outcome = kiln.try_build(&context, "t", &["--platform=linux/s390x"]).failure();
    assert!(outcome.stderr.contains("cannot run programs for linux/s390x"), "{outcome}");
    assert!(outcome.stderr.contains("qemu-user-static") && outcome.stderr.contains("Dockerfile:2"), "{outcome}");
    assert!(!outcome.stderr.contains("DONE"), "nothing was done: {outcome}");
}

/// A program for another machine that does nothing: its header is all the kernel looks at.
fn foreign_program() -> Vec<u8> {
    let mut program = vec![0; 128];
    program[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    program[16] = 2;
    program[18] = 0xf3; // RISC-V
    program
}

/// The kernel keeps handlers for each user namespace: this one's are nobody else's. The handler is busybox itself, which
/// takes the program's name for its own command.
///
/// Proves: --platform
#[test]
fn a_step_for_another_machine_runs_where_the_host_has_a_handler() {
    let kiln = Kiln::of(Account::with_subuids());
    let root = kiln.directory();
    root.write("root/bin/sh", foreign_program());
    root.shell("chmod 755 root/bin/sh; cd root; tar -cf ../root.tar .");
    let tar = fs::read(root.path().join("root.tar")).expect("a tar");
    let import = kiln.command(["import", "--platform", "linux/riscv64", "-", "foreign:latest"]);
    kiln_tests::run_with_input(import, &tar).success();
    let context = kiln.context(&[("Dockerfile", "FROM foreign\nRUN echo ran in another\\'s shell > /ran\n")]);
    let out = kiln.directory();
    let mut build = kiln.command([
        "build",
        "--platform=linux/riscv64",
        "-o",
        out.path().to_str().unwrap(),
        context.path().to_str().unwrap(),
    ]);
    let account = kiln.account();
    let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xf3\x00";
    let words: Vec<String> = std::iter::once(build.get_program())
        .chain(build.get_args())
        .map(|word| format!("'{}'", word.to_str().expect("text").replace('\'', "'\\''")))
        .collect();
    let script = format!(
        "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc\n\
         printf '%s' ':foreign:M:0:{magic}::/bin/busybox:F' > /proc/sys/fs/binfmt_misc/register\n\
         exec setpriv --reuid={} --regid={} --clear-groups {}\n",
        account.uid,
        account.gid,
        words.join(" ")
    );
    // `unshare` itself would map no more than /etc/subuid allows. A shell that is executed once the ids are mapped is root.
    let outer = "mkfifo go; unshare --mount --user sh -c 'read go; exec sh -euc \"$0\"' \"$1\" <go & exec 9>go; \
                 while [ \"$(readlink /proc/$!/ns/user)\" = \"$(readlink /proc/self/ns/user)\" ]; do sleep 0.01; done; \
                 echo 0 0 4294967295 >/proc/$!/uid_map; echo 0 0 4294967295 >/proc/$!/gid_map; echo go >&9; wait $!";
    let mut namespace = command("sh", ["-euc", outer, "sh", &script]);
    namespace.env_clear().envs(build.get_envs().filter_map(|(key, value)| Some((key, value?))));
    namespace.current_dir(kiln.home());
    build.stdin(std::process::Stdio::null());
    run(namespace).success();
    assert_eq!(read(&out.path().join("ran")), "ran in another's shell\n");
}

/// Proves: D1.5-12
#[test]
fn an_index_of_one_image_is_made_when_it_is_asked_for() {
    let kiln = Kiln::new();
    let context = kiln.context(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    kiln.build(&context, "t", &["--build-arg=BUILDKIT_MULTI_PLATFORM=1"]);
    assert_eq!(platforms(&json(&kiln.run(["manifest", "inspect", "t"]).stdout)), ["linux/amd64"]);
}

/// Proves: --arch, --os, --variant
#[test]
fn a_platform_may_be_said_in_parts() {
    let kiln = Kiln::new();
    let context = kiln.context(&[("Dockerfile", "FROM scratch\nARG TARGETPLATFORM\nLABEL p=$TARGETPLATFORM\n")]);
    for (options, expected) in [
        (vec!["--arch=arm64"], "linux/arm64"),
        (vec!["--os=linux", "--arch=arm", "--variant=v6"], "linux/arm/v6"),
        (vec!["--os=windows"], "windows/amd64"),
    ] {
        kiln.build(&context, "t", &options);
        assert_eq!(kiln.inspect("t")["Config"]["Labels"]["p"], expected);
    }
    kiln.try_build(&context, "t", &["--arch=arm64", "--platform=linux/amd64"]).failure().says("cannot be used with");
}
