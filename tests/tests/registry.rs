//! `kiln registry serve`, `push` and `pull`, with kiln and with everybody else at the other end.

use kiln_tests::{Docker, Kiln, Podman, Registry, command, run};

fn small(kiln: &Kiln, name: &str) {
    kiln.build_text("FROM busybox\nRUN echo travelled > /x && chown 33:33 /x\nCMD [\"cat\", \"/x\"]\n", name);
}

fn there_and_back(kiln: &Kiln, registry: &Registry) {
    let name = registry.name("team/app:1");
    small(kiln, &name);
    let id = kiln.image_id(&name);
    kiln.run(["push", &name]);
    kiln.run(["rmi", &name]);
    kiln.try_run(["inspect", &name]).failure();
    kiln.run(["pull", &name]);
    assert_eq!(kiln.image_id(&name), id);
    assert_eq!(kiln.run(["run", "--rm", &name]).stdout, "travelled\n");
    let other = Kiln::new();
    let outcome = other.run(["run", "--rm", &name]);
    assert_eq!(outcome.stdout, "travelled\n", "an image that is absent is pulled:\n{outcome}");
    let based = other.context(&[("Dockerfile", &format!("FROM {name}\nRUN cat /x > /y\n"))]);
    other.build(&based, "based", &[]);
}

#[test]
fn kilns_registry_with_kiln() {
    let kiln = Kiln::with_busybox();
    there_and_back(&kiln, &Registry::kiln(&kiln));
}

#[test]
fn debians_registry_with_kiln() {
    there_and_back(&Kiln::with_busybox(), &Registry::distribution());
}

#[test]
fn kilns_registry_with_skopeo() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let name = registry.name("skopeo/app:1");
    small(&kiln, &name);
    kiln.run(["push", &name]);
    let remote = format!("docker://{name}");
    run(command("skopeo", ["inspect", "--tls-verify=false", &remote])).success().says("sha256:");
    let directory = kiln.directory();
    let layout = format!("oci:{}:x", directory.path().join("layout").display());
    run(command("skopeo", ["copy", "--src-tls-verify=false", &remote, &layout])).success();
    let back = format!("docker://{}", registry.name("skopeo/back:2"));
    run(command("skopeo", ["copy", "--dest-tls-verify=false", &layout, &back])).success();
    kiln.run(["pull", &registry.name("skopeo/back:2")]);
    assert_eq!(kiln.image_id(&registry.name("skopeo/back:2")), kiln.image_id(&name));
}

#[test]
fn kilns_registry_with_docker() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let docker = Docker::start();
    let name = registry.name("docker/app:1");
    small(&kiln, &name);
    kiln.run(["push", &name]);
    docker.run(["pull", &name]);
    docker.run(["run", "--rm", "--network=host", &name]).says("travelled");
    let back = registry.name("docker/back:1");
    docker.run(["tag", &name, &back]);
    docker.run(["push", &back]);
    kiln.run(["pull", &back]);
    assert_eq!(kiln.run(["run", "--rm", &back]).stdout, "travelled\n");
}

#[test]
fn kilns_registry_with_podman() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let podman = Podman::new();
    let name = registry.name("podman/app:1");
    small(&kiln, &name);
    kiln.run(["push", &name]);
    podman.run(["pull", "--tls-verify=false", &name]);
    podman.run(Podman::RUN.iter().copied().chain([name.as_str()])).says("travelled");
    let back = registry.name("podman/back:1");
    podman.run(["push", "--tls-verify=false", &name, &back]);
    kiln.run(["pull", &back]);
    assert_eq!(kiln.run(["run", "--rm", &back]).stdout, "travelled\n");
}

#[test]
fn pushing_to_nobody_is_an_error() {
    let kiln = Kiln::with_busybox();
    kiln.run(["tag", "busybox", "127.0.0.1:1/x:1"]);
    kiln.try_run(["push", "127.0.0.1:1/x:1"]).failure().says("127.0.0.1:1");
    kiln.try_run(["pull", "127.0.0.1:1/y:1"]).failure().says("127.0.0.1:1");
}
