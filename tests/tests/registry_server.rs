//! `kiln registry serve` as a process, with other people's clients: it says where it listens, it ends when asked to,
//! it loses nothing when it is killed. (kiln's own push and pull are in `registry.rs`.)

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use kiln_tests::{Docker, Outcome, Podman, command, kiln_binary, run, signal};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// A running server; killed when it is dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(data: &Path) -> Self {
        Self::start_with(&["--data", text(data)]).0
    }

    /// Also tells where its data are.
    fn start_with(options: &[&str]) -> (Self, PathBuf) {
        let mut serve = command(kiln_binary(), ["registry", "serve", "--listen", "127.0.0.1:0"]);
        serve.args(options);
        Self::spawn(serve)
    }

    fn spawn(mut serve: Command) -> (Self, PathBuf) {
        let mut child = serve.stdout(Stdio::piped()).spawn().expect("kiln starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let (data, address) = line.trim().rsplit_once(" at http://").expect("an address");
        let data = data.strip_prefix("serving ").expect("a directory").into();
        (Self { child, address: address.to_owned() }, data)
    }

    fn name(&self, repository: &str) -> String {
        format!("docker://{}/{repository}", self.address)
    }

    /// Asks it to end, and returns its exit status.
    fn stop(mut self, by: Signal) -> Option<i32> {
        signal(&self.child, by);
        self.child.wait().expect("an exit status").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An OCI layout with one small image, made without kiln.
fn layout(directory: &Path) -> String {
    let file = directory.join("file");
    fs::write(&file, "travelled\n").expect("a file");
    let layout = directory.join("layout");
    let image = format!("{}:x", layout.display());
    run(command("umoci", ["init", "--layout", text(&layout)])).success();
    run(command("umoci", ["new", "--image", &image])).success();
    run(command("umoci", ["insert", "--image", &image, text(&file), "/x"])).success();
    format!("oci:{image}")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

fn copy(from: &str, to: &str) -> Outcome {
    run(command("skopeo", ["copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", from, to])).success()
}

/// The manifest's bytes, as they are served.
fn manifest(name: &str) -> Vec<u8> {
    run(command("skopeo", ["inspect", "--raw", "--tls-verify=false", name])).success().bytes
}

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::Builder::new().prefix("kiln-server-").tempdir().expect("a directory");
    let data = directory.path().join("data");
    (directory, data)
}

#[test]
fn it_ends_when_asked_to_and_has_its_directory_alone() {
    let (directory, data) = directory();
    let image = layout(directory.path());
    for by in [Signal::TERM, Signal::INT] {
        let server = Server::start(&data);
        copy(&image, &server.name("a/b:1"));
        run(command(kiln_binary(), ["registry", "serve", "--listen", "127.0.0.1:0", "--data", text(&data)]))
            .failure()
            .says("another registry server");
        assert_eq!(server.stop(by), Some(0));
    }
    run(command(kiln_binary(), ["registry", "serve", "--help"])).success().says("asks nobody who they are");
}

#[test]
fn killed_and_started_again_it_serves_what_was_pushed() {
    let (directory, data) = directory();
    let image = layout(directory.path());
    let server = Server::start(&data);
    copy(&image, &server.name("a/b:1"));
    let before = manifest(&server.name("a/b:1"));
    assert_eq!(server.stop(Signal::KILL), None);
    let server = Server::start(&data);
    assert_eq!(manifest(&server.name("a/b:1")), before);
    copy(&server.name("a/b:1"), &format!("dir:{}", directory.path().join("back").display()));
}

/// Proves: registry-in-memory-storage, crane-registry-serve
#[test]
fn in_memory_it_leaves_nothing_behind() {
    let (directory, _) = directory();
    let image = layout(directory.path());
    let (server, data) = Server::start_with(&["--memory"]);
    copy(&image, &server.name("a/b:1"));
    copy(&server.name("a/b:1"), &format!("dir:{}", directory.path().join("back").display()));
    assert!(data.starts_with("/dev/shm") && data.is_dir(), "{}", data.display());
    let (other, killed) = Server::start_with(&["--memory"]);
    assert!(data.is_dir() && killed.is_dir());
    other.stop(Signal::KILL);
    assert_eq!(server.stop(Signal::TERM), Some(0));
    assert!(!data.parent().expect("its own directory").exists());
    // What was killed is removed by the next one.
    assert!(killed.is_dir());
    let (server, _) = Server::start_with(&["--memory"]);
    assert!(!killed.parent().expect("its own directory").exists());
    assert_eq!(server.stop(Signal::TERM), Some(0));
}

#[test]
fn skopeo_copies_lists_and_deletes_every_kind_of_image() {
    let (directory, data) = directory();
    let image = layout(directory.path());
    let server = Server::start(&data);
    let path = |transport: &str, name: &str| format!("{transport}:{}", directory.path().join(name).display());

    copy(&image, &server.name("team/app:oci"));
    run(command(
        "skopeo",
        ["copy", "--format=v2s2", "--dest-tls-verify=false", &image, &server.name("team/app:docker")],
    ))
    .success();
    copy(&server.name("team/app:docker"), &path("docker-archive", "archive.tar"));
    copy(&path("docker-archive", "archive.tar"), &server.name("team/archive:1"));
    copy(&server.name("team/app:oci"), &path("dir", "dir"));
    copy(&path("dir", "dir"), &server.name("team/dir:1"));
    copy(&server.name("team/app:oci"), &server.name("elsewhere/app:1"));
    assert_eq!(manifest(&server.name("team/app:oci")), manifest(&server.name("elsewhere/app:1")));
    assert_eq!(manifest(&server.name("team/app:oci")), manifest(&server.name("team/dir:1")));

    let list = |repository: &str| run(command("skopeo", ["list-tags", "--tls-verify=false", &server.name(repository)]));
    list("team/app").success().says("\"docker\"").says("\"oci\"");
    run(command("skopeo", ["delete", "--tls-verify=false", &server.name("team/app:docker")])).success();
    list("team/app").success().says("\"oci\"").never_says("\"docker\"");
    run(command("skopeo", ["inspect", "--tls-verify=false", &server.name("team/app:docker")])).failure();
    list("unheard/of").failure();
}

#[test]
fn podman_and_docker_push_and_pull() {
    let (directory, data) = directory();
    let image = layout(directory.path());
    let server = Server::start(&data);
    copy(&image, &server.name("team/app:1"));
    let name = format!("{}/team/app:1", server.address);

    let podman = Podman::new();
    podman.run(["pull", "--tls-verify=false", &name]);
    let pushed = format!("{}/podman/app:1", server.address);
    podman.run(["push", "--tls-verify=false", &name, &pushed]);

    let docker = Docker::start();
    docker.run(["pull", &pushed]);
    let again = format!("{}/docker/app:1", server.address);
    docker.run(["tag", &pushed, &again]);
    docker.run(["push", &again]);
    docker.run(["rmi", &pushed, &again]);
    docker.run(["pull", &again]);
    podman.run(["pull", "--tls-verify=false", &again]);
    run(command("skopeo", ["inspect", "--tls-verify=false", &format!("docker://{again}")])).success().says("sha256:");
}

#[test]
fn clients_show_why_they_are_refused() {
    let (directory, data) = directory();
    let image = layout(directory.path());
    let server = Server::start(&data);
    copy(&image, &server.name("a/b:1"));
    server.stop(Signal::TERM);
    let (server, _) = Server::start_with(&["--data", text(&data), "--read-only"]);
    copy(&server.name("a/b:1"), &format!("dir:{}", directory.path().join("back").display()));
    let reason = "the registry is read-only at present";
    run(command("skopeo", ["copy", "--dest-tls-verify=false", &image, &server.name("a/b:2")])).failure().says(reason);
    run(command("skopeo", ["delete", "--tls-verify=false", &server.name("a/b:1")])).failure().says(reason);
    let kiln = kiln_tests::Kiln::new();
    let name = format!("{}/a/b:3", server.address);
    kiln.build_text("FROM scratch\nLABEL a=b\n", &name);
    kiln.try_run(["push", &name]).failure().says(reason);
}

/// A server with these variables, which is asked for a damaged blob; what it says of it, and its access log.
fn asked_for_a_damaged_blob(variables: &[(&str, &str)]) -> (String, String) {
    let (directory, data) = directory();
    let server = Server::start(&data);
    copy(&layout(directory.path()), &server.name("a/b:1"));
    assert_eq!(server.stop(Signal::TERM), Some(0));
    let blobs = fs::read_dir(data.join("blobs/sha256")).expect("blobs").map(|entry| entry.expect("a blob").path());
    let blobs: Vec<PathBuf> = blobs.collect();
    for blob in &blobs {
        let length = fs::metadata(blob).expect("a blob").len();
        fs::write(blob, "x".repeat(usize::try_from(length).expect("a small blob"))).expect("damage");
    }
    let digest = text(blobs.first().expect("a blob")).rsplit('/').next().expect("a name").to_owned();
    let (said, log) = (directory.path().join("said"), directory.path().join("log"));
    let mut serve = command(kiln_binary(), ["registry", "serve", "--listen", "127.0.0.1:0", "--data", text(&data)]);
    serve.env_remove("KILN_LOG").env("KILN_REGISTRY_LOG_ACCESS", &log).envs(variables.iter().copied());
    serve.stderr(fs::File::create(&said).expect("a file"));
    let (server, _) = Server::spawn(serve);
    let target = format!("http://{}/v2/a/b/blobs/sha256:{digest}", server.address);
    run(command("curl", ["--silent", "--fail", "--user-agent", "asker/1", &target])).failure();
    let collected = run(command(kiln_binary(), ["registry", "gc", "--data", text(&data)]));
    collected.success();
    assert_eq!(server.stop(Signal::TERM), Some(0));
    let read = |path: &Path| fs::read_to_string(path).expect("text").replace(&digest, "DIGEST");
    (read(&said), read(&log))
}

/// Proves: registry-access-log-json-logs-log-level-otel-traces
#[test]
fn what_goes_wrong_is_said_and_as_much_more_as_is_asked_for() {
    let (said, log) = asked_for_a_damaged_blob(&[]);
    assert!(said.contains("ERROR") && said.contains("DIGEST") && !said.contains("INFO"), "{said}");
    let request: Value = serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&request["method"], &request["status"]), (&"GET".into(), &404.into()));
    assert_eq!((&request["target"], &request["agent"]), (&"/v2/a/b/blobs/sha256:DIGEST".into(), &"asker/1".into()));
    for key in ["time", "client", "received", "sent", "milliseconds"] {
        assert!(!request[key].is_null(), "{key} is not in {request}");
    }
    // The collector, which runs at once, tells what it removed.
    let (said, _) =
        asked_for_a_damaged_blob(&[("KILN_REGISTRY_LOG_LEVEL", "info"), ("KILN_REGISTRY_LOG_JSON", "true")]);
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let has =
        |level: &str, part: &str| lines.iter().any(|line| line["level"] == level && line.to_string().contains(part));
    assert!(has("ERROR", "DIGEST") && has("INFO", "collected"), "{said}");
    let wrong = [("KILN_REGISTRY_LOG_LEVEL", "loud")];
    let mut serve = command(kiln_binary(), ["registry", "serve", "--listen", "127.0.0.1:0", "--memory"]);
    serve.envs(wrong);
    run(serve).failure().says("KILN_REGISTRY_LOG_LEVEL").says("loud");
}
