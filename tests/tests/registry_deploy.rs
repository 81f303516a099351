//! How the README, the systemd unit and the Dockerfile say that a registry is run: tried as written.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_tests::{Kiln, command, free_port, kiln_binary, project, run, wait_for_port};
use tempfile::TempDir;

/// A directory with the binary under its own name, for what expects it on `PATH`.
fn bin() -> TempDir {
    let directory = tempfile::Builder::new().prefix("kiln-bin-").tempdir().expect("a directory");
    std::os::unix::fs::symlink(kiln_binary(), directory.path().join("kiln")).expect("a link");
    directory
}

/// Runs a shell script in a network of its own, whose loopback works, and with mounts and processes of its own: what it
/// started ends with it.
fn alone(script: &str, directory: &Path) -> kiln_tests::Outcome {
    let bin = bin();
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap_or_default());
    let file = directory.join("script.sh");
    fs::write(&file, format!("set -eu\nip link set lo up\ncd {}\n{script}", directory.display())).expect("a script");
    let mut unshare = command("unshare", ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"]);
    unshare.arg(file).env("PATH", path).env("HOME", directory).env("KILN_ROOT", directory.join("kiln"));
    run(unshare)
}

/// The shell lines below a heading of the README.
fn readme_lines(heading: &str) -> String {
    let text = fs::read_to_string(project().join("README.md")).expect("the README");
    let section = text.split(&format!("\n## {heading}\n")).nth(1).expect("the section");
    let block = section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("a block of shell").to_owned()
}

#[test]
fn the_readmes_lines_make_a_registry_for_a_team() {
    let directory = tempfile::Builder::new().prefix("kiln-readme-").tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(path("registry.crt"), made.cert.pem()).expect("a file");
    fs::write(path("registry.key"), made.signing_key.serialize_pem()).expect("a file");
    let lines = readme_lines("A registry for a team");
    assert!(lines.lines().count() <= 12, "it is to be ten lines and what makes the directory:\n{lines}");
    fs::write(path("lines.sh"), format!("set -eu\n{lines}")).expect("a file");
    fs::write(path("password"), "correct horse").expect("a file");
    let outcome = alone(
        "mkdir upper work
         mount -t overlay overlay -o lowerdir=/etc,upperdir=upper,workdir=work /etc
         mount -t tmpfs tmpfs /srv
         mkdir -p /etc/kiln && cp registry.crt registry.key /etc/kiln
         sh lines.sh <password >served 2>&1 &
         server=$!
         trap 'kill $server 2>/dev/null || true; cat served >&2' EXIT
         asked() { curl -s -o /dev/null -w '%{http_code}' --cacert registry.crt \"$@\"; }
         for _ in $(seq 300); do [ \"$(asked https://localhost/v2/ || true)\" != 000 ] && break; sleep 0.1; done
         echo stranger $(asked https://localhost/v2/)
         echo wrong $(asked -u alice:wrong https://localhost/v2/)
         echo alice $(asked -u alice:'correct horse' https://localhost/v2/)
         export SSL_CERT_FILE=$PWD/registry.crt
         printf 'FROM scratch\\nCOPY password /x\\n' >Dockerfile
         kiln build -q -t localhost/release/app:v1 .
         kiln push localhost/release/app:v1 && exit 9
         kiln login -u alice --password-stdin localhost <password
         kiln push -q localhost/release/app:v1
         echo changed >>password
         kiln build -q -t localhost/release/app:v1 .
         kiln push -q localhost/release/app:v1 && exit 10
         ls -d /srv/registry/blobs
         kill $server; wait $server || echo ended",
        directory.path(),
    );
    let outcome =
        outcome.success().says("stranger 401").says("wrong 401").says("alice 200").says("/srv/registry/blobs");
    assert!(!Path::new("/etc/kiln/users.toml").exists(), "the test leaves the machine alone:\n{outcome}");
}

/// Proves: crane-registry-serve
#[test]
fn one_command_without_a_configuration_serves_loopback() {
    let directory = tempfile::Builder::new().prefix("kiln-alone-").tempdir().expect("a directory");
    let outcome = alone(
        "kiln registry serve >served &
         server=$!
         trap 'kill $server 2>/dev/null || true; cat served' EXIT
         for _ in $(seq 300); do [ -s served ] && break; sleep 0.1; done
         printf 'FROM scratch\\nCOPY Dockerfile /x\\n' >Dockerfile
         kiln build -q -t 127.0.0.1:5000/a:1 -t localhost:5000/b:1 .
         kiln push -q 127.0.0.1:5000/a:1 && kiln push -q localhost:5000/b:1
         kiln rmi -f 127.0.0.1:5000/a:1 && kiln pull -q 127.0.0.1:5000/a:1
         curl -sf http://127.0.0.1:5000/v2/_catalog; curl -sf http://127.0.0.1:5000/healthz
         ls -d kiln/registry/blobs
         ip address add 192.0.2.1/24 dev lo; curl -s http://192.0.2.1:5000/v2/ && exit 9
         kill $server; wait $server; echo ended with $?",
        directory.path(),
    );
    outcome.success().says("http://127.0.0.1:5000").says("[\"a\",\"b\"]").says("ended with 0");
}

fn deploy(name: &str) -> PathBuf {
    project().join("registry-server/deploy").join(name)
}

#[test]
fn the_systemd_unit_is_valid_and_its_commands_work() {
    let directory = tempfile::Builder::new().prefix("kiln-unit-").tempdir().expect("a directory");
    let text = fs::read_to_string(deploy("kiln-registry.service")).expect("the unit");
    let unit = directory.path().join("kiln-registry.service");
    // The binary is not where it will be installed.
    fs::write(&unit, text.replace("/usr/local/bin/kiln", &kiln_binary().display().to_string())).expect("a file");
    let verified = run(command("systemd-analyze", ["verify", "--man=no", unit.to_str().expect("text")])).success();
    assert!(!verified.output().contains("kiln-registry.service:"), "{verified}");

    let config = directory.path().join("registry.toml");
    let port = free_port();
    fs::write(&config, format!("http.listen = [\"127.0.0.1:{port}\"]\n")).expect("a file");
    let words = |key: &str| -> Vec<String> {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).expect("the key");
        let line = line.replace("/etc/kiln/registry.toml", config.to_str().expect("text"));
        line.split(' ').skip(1).map(str::to_owned).collect()
    };
    let (name, value) = text
        .lines()
        .find_map(|line| line.strip_prefix("Environment=")?.split_once('='))
        .expect("the registry's directory");
    assert_eq!((name, value), ("KILN_REGISTRY_DATA", "/var/lib/kiln-registry"));
    run(command(kiln_binary(), words("ExecStartPre"))).success();
    let mut serve = command(kiln_binary(), words("ExecStart"));
    let mut server = serve.env(name, directory.path().join("data")).spawn().expect("kiln starts");
    let up = wait_for_port(port, || matches!(server.try_wait(), Ok(None)));
    kiln_tests::signal(&server, rustix::process::Signal::TERM);
    assert_eq!((up, server.wait().expect("a status").code()), (true, Some(0)));
}

/// Waits for the registry behind a published port, which accepts connections before it does.
fn answers(port: u16) {
    let url = format!("http://127.0.0.1:{port}/healthz");
    let options = ["-sf", "--retry", "60", "--retry-all-errors", "--retry-delay", "1", &url];
    run(command("curl", options)).success().says("ok");
}

#[test]
fn kiln_builds_and_runs_the_registrys_own_image() {
    let kiln = Kiln::with_busybox();
    let context = tempfile::Builder::new().prefix("kiln-context-").tempdir().expect("a directory");
    fs::hard_link(kiln_binary(), context.path().join("kiln"))
        .or_else(|_| fs::copy(kiln_binary(), context.path().join("kiln")).map(drop))
        .expect("the binary");
    let (dockerfile, context) = (deploy("Dockerfile"), context.path().to_str().expect("text"));
    kiln.run(["build", "-t", "kiln-registry", "-f", dockerfile.to_str().expect("text"), context]);
    let port = free_port();
    let published = format!("127.0.0.1:{port}:5000");
    kiln.run(["run", "-d", "--name", "registry", "-p", &published, "-v", "registry:/data", "kiln-registry"]);
    answers(port);
    let name = format!("127.0.0.1:{port}/from/outside:1");
    kiln.run(["tag", "busybox", &name]);
    kiln.run(["push", &name]);
    kiln.run(["restart", "registry"]);
    answers(port);
    Kiln::new().run(["run", "--rm", &name, "true"]);
    kiln.run(["stop", "registry"]);
    assert_eq!(kiln.inspect("registry")["State"]["ExitCode"], 0);
    kiln.run(["rm", "registry"]);
}
