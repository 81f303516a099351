//! kiln against registries that ask who it is, that are reached in other ways, or that mean no good.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_tests::{
    Answer, Context, HttpServer, Interposer, Kiln, OnTerminal, Registry, SecureRegistry, Shown, command, run,
    run_with_input,
};

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// An index for two platforms.
fn build_index(kiln: &Kiln, name: &str) {
    let files = [("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY f /f\nLABEL arch=$TARGETARCH\n"), ("f", "x\n")];
    kiln.build(&kiln.context(&files), name, &["--platform", "linux/amd64,linux/arm64"]);
}

fn build(kiln: &Kiln, name: &str) {
    kiln.build_text("FROM busybox\nRUN echo hello >/hello\n", name);
}

/// Proves: registry-auth-flow
#[test]
fn who_we_are_is_not_told_where_a_redirection_leads() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    build(&kiln, &registry.name("app:1"));
    kiln.run(["push", &registry.name("app:1")]);
    let elsewhere = Interposer::new("127.0.0.1:1", |head, _| {
        let host = head.lines().find_map(|line| line.to_lowercase().strip_prefix("host: ").map(str::to_owned));
        let realm = format!("http://{}/token", host.unwrap_or_default());
        let lines = if head.contains(" /token") {
            String::new()
        } else {
            format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"x\"\r\n")
        };
        Answer::Own("401 Unauthorized", lines)
    });
    let away = elsewhere.address();
    let leading = Interposer::new(&registry.address(), move |head, _| match head.split(' ').nth(1) {
        Some(path) if path.contains("/blobs/sha256:") => {
            Answer::Own("307 Temporary Redirect", format!("Location: http://{away}{path}\r\n"))
        }
        _ => Answer::Pass,
    });
    let other = Kiln::new();
    other.try_run(["pull", "--creds", "alice:secret", &leading.name("app:1")]).failure().says("denied");
    let seen = elsewhere.seen();
    assert!(!seen.is_empty(), "the redirection was followed");
    assert!(seen.iter().all(|head| !head.to_lowercase().contains("authorization")), "{seen:?}");
    assert!(seen.iter().all(|head| !head.contains(" /token")), "a stranger's challenge was answered: {seen:?}");
}

/// Proves: registry-tls-and-mirrors
#[test]
fn a_certificate_that_is_trusted_itself_is_believed() {
    let directory = Kiln::new().directory();
    let registry = SecureRegistry::start(directory.path(), Shown::SelfSigned);
    let kiln = Kiln::with_busybox().with_env("HTTPS_PROXY", &registry.proxy());
    let name = "registry.test:5000/app:1";
    build(&kiln, name);
    kiln.try_run(["push", name]).failure().says("certs.d/registry.test:5000/ca.crt").says("--tls-verify=false");
    let trusted = kiln.home().join(".docker/certs.d/registry.test:5000");
    fs::create_dir_all(&trusted).expect("a directory");
    fs::copy(directory.path().join("ca.pem"), trusted.join("ca.crt")).expect("a certificate");
    kiln.run(["push", name]);
    let elsewhere = "other.registry.test:5000/app:1";
    let others = kiln.home().join(".docker/certs.d/other.registry.test:5000");
    fs::create_dir_all(&others).expect("a directory");
    fs::copy(directory.path().join("ca.pem"), others.join("ca.crt")).expect("a certificate");
    kiln.try_run(["pull", elsewhere]).failure();
    fs::remove_dir_all(&trusted).expect("the directory");
    let kiln = kiln.with_env("SSL_CERT_FILE", text(&directory.path().join("ca.pem")));
    kiln.run(["pull", name]);
    let kiln = kiln.with_env("HTTPS_PROXY", "http://127.0.0.1:1").with_env("NO_PROXY", "registry.test:5000");
    kiln.try_run(["pull", name]).failure().says("dns error");
}

/// Proves: registry-tls-and-mirrors
#[test]
fn a_client_certificate_of_the_first_version_is_shown() {
    let directory = Kiln::new().directory();
    let registry = SecureRegistry::start(directory.path(), Shown::Mutual);
    let kiln = Kiln::with_busybox().with_env("HTTPS_PROXY", &registry.proxy());
    let name = "registry.test:5000/app:1";
    build(&kiln, name);
    let given = kiln.directory();
    let copy = |from: &str, to: &str| {
        fs::copy(directory.path().join(from), given.path().join(to)).expect("a file");
    };
    copy("ca.pem", "ca.crt");
    let push = ["push", "--cert-dir", text(given.path()), name];
    kiln.try_run(push).failure();
    copy("client.pem", "client.cert");
    kiln.try_run(push).failure().says("client.cert: its key, NAME.key, is missing");
    given.write("client.key", "nothing\n");
    kiln.try_run(push).failure().says("client.key: there is no private key in it");
    copy("client.key", "client.key");
    kiln.run(push);
}

#[test]
fn refusals_say_what_to_do() {
    let refusing = Interposer::new("127.0.0.1:1", |_, _| {
        Answer::Own("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n".to_owned())
    });
    let (kiln, host) = (Kiln::new(), refusing.address());
    let asked = kiln.try_run(["pull", &refusing.name("app:1")]).failure();
    asked.says(&format!("access to {host} denied")).says(&format!("`kiln login {host}`"));
    let login = kiln.command(["login", "-u", "alice", "--password-stdin", &host]);
    run_with_input(login, b"wrong\n").failure().says("invalid user name or password");
    let login = kiln.try_run(["login", "-u", "alice", "-p", "wrong", &host]).failure();
    login.says("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    kiln.try_run(["pull", "--creds", "alice:wrong", &refusing.name("app:1")])
        .failure()
        .says("invalid user name or password");
}

/// A credential helper of this name, a shell script.
fn helper(directory: &Context, name: &str, script: &str) {
    let path = directory.write(&format!("docker-credential-{name}"), format!("#!/bin/sh\n{script}"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
}

fn configure(kiln: &Kiln, config: &str) {
    fs::create_dir_all(kiln.home().join(".docker")).expect("a directory");
    fs::write(kiln.home().join(".docker/config.json"), config).expect("config.json");
}

/// Proves: docker-login, docker-logout, credential-helpers
#[test]
fn credential_helpers_are_used_and_say_why_they_fail() {
    let open = Registry::kiln(&Kiln::new());
    let host = open.address();
    let programs = Kiln::new().directory();
    let store = "d=$HOME/kept\ncase $1 in\nstore) cat >$d ;;\nget) cat >/dev/null; [ -f $d ] || { echo credentials not \
                 found in native keychain; exit 1; }; cat $d ;;\nerase) rm $d ;;\nesac\n";
    helper(&programs, "keeping", store);
    helper(&programs, "locked", "cat >/dev/null; echo the keychain is locked; exit 1\n");
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", text(programs.path()));
    let kiln = Kiln::new().with_env("PATH", &path);
    let login = || run_with_input(kiln.command(["login", "-u", "alice", "--password-stdin", &host]), b"secret");
    let of_host = |helper: &str| format!("{{\"credHelpers\": {{\"{host}\": \"{helper}\"}}}}");
    configure(&kiln, &of_host("keeping"));
    login().success();
    let kept = fs::read_to_string(kiln.home().join("kept")).expect("what the helper was given");
    assert!(kept.contains("\"Secret\":\"secret\"") && kept.contains(&host), "{kept}");
    let config = fs::read_to_string(kiln.home().join(".docker/config.json")).expect("config.json");
    assert!(!config.contains("c2VjcmV0"), "{config}");
    assert_eq!(kiln.run(["login", "--get-login", &host]).stdout, "alice\n");
    kiln.run(["logout", &host]).says("Removing login credentials");
    assert!(!kiln.home().join("kept").exists());
    kiln.try_run(["pull", &open.name("none:1")]).failure().says("not found");
    configure(&kiln, &of_host("locked"));
    kiln.try_run(["pull", &open.name("none:1")]).failure().says("docker-credential-locked: the keychain is locked");
    login().failure().says("the keychain is locked");
    configure(&kiln, &of_host("absent"));
    kiln.try_run(["pull", &open.name("none:1")]).failure().says("docker-credential-absent").says("is it installed");
}

/// Proves: docker-logout, credential-helpers
#[test]
fn logins_are_forgotten_however_they_were_kept() {
    let kiln = Kiln::new();
    let auth = "{\"auth\": \"YWxpY2U6c2VjcmV0\"}";
    configure(&kiln, &format!("{{\"auths\": {{\"https://r.test:5000/v1/\": {auth}, \"r.test\": {auth}}}}}"));
    assert_eq!(kiln.run(["login", "--get-login", "r.test:5000"]).stdout, "alice\n");
    kiln.run(["logout", "r.test:5000"]).says("Removing login credentials for r.test:5000");
    kiln.try_run(["login", "--get-login", "r.test:5000"]).failure();
    assert_eq!(kiln.run(["login", "--get-login", "r.test"]).stdout, "alice\n");
    let podmans = kiln.home().join("runtime/containers");
    fs::create_dir_all(&podmans).expect("a directory");
    fs::write(podmans.join("auth.json"), format!("{{\"auths\": {{\"r.test:5000\": {auth}}}}}")).expect("auth.json");
    kiln.run(["logout", "r.test:5000"]).says("Not logged in").says("containers/auth.json has a credential for r.test");
}

#[test]
fn a_password_that_is_not_given_leaves_the_terminal_as_it_was() {
    let registry = Registry::kiln(&Kiln::new());
    let kiln = Kiln::new();
    let login = kiln.command(["login", "-u", "alice", &registry.address()]);
    let mut shell = std::process::Command::new("sh");
    let script = "\"$@\"; echo status $?; stty -a | tr ' ' '\\n' | grep -x 'echo\\|isig'";
    shell.args(["-c", script, "sh"]).arg(login.get_program()).args(login.get_args());
    shell.envs(login.get_envs().filter_map(|(key, value)| Some((key, value?)))).current_dir(kiln.home());
    let mut terminal = OnTerminal::start(shell);
    terminal.sees("Password: ");
    terminal.presses("secr\u{3}");
    terminal.sees("status 130");
    terminal.sees("isig");
    terminal.sees("echo");
}

/// Proves: skopeo-copy
#[test]
fn requests_are_made_again_as_often_as_asked() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    build(&kiln, &registry.name("app:1"));
    kiln.run(["push", &registry.name("app:1")]);
    let busy = || {
        let tried = std::sync::atomic::AtomicUsize::new(0);
        Interposer::new(&registry.address(), move |head, _| {
            let asked = head.contains("/manifests/") && tried.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 3;
            if asked { Answer::Own("503 Service Unavailable", String::new()) } else { Answer::Pass }
        })
    };
    Kiln::new().try_run(["pull", "--retry", "0", &busy().name("app:1")]).failure().says("503 Service Unavailable");
    Kiln::new().run(["pull", "--retry", "3", "--retry-delay", "10ms", &busy().name("app:1")]);
    let there = kiln.directory();
    let layout = format!("oci:{}:1", text(there.path()));
    let from = format!("docker://{}", busy().name("app:1"));
    kiln.run(["copy", "--retry-times", "3", "--retry-delay", "10ms", "--preserve-digests", &from, &layout]);
}

#[test]
fn a_layer_that_is_shorter_than_promised_is_told() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::distribution();
    build(&kiln, &registry.name("app:1"));
    kiln.run(["push", &registry.name("app:1")]);
    let directory = kiln.directory();
    let file = directory.path().join("manifest");
    let url = |tag| format!("http://{}/v2/app/manifests/{tag}", registry.address());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let accept = format!("Accept: {kind}");
    run(command("curl", ["-sf", "-H", &accept, "-o", text(&file), &url("1")])).success();
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(&file).expect("the manifest")).expect("the manifest");
    let size = &mut manifest["layers"][0]["size"];
    *size = (size.as_u64().expect("a size") + 10).into();
    fs::write(&file, manifest.to_string()).expect("write the manifest");
    let (content, body) = (format!("Content-Type: {kind}"), format!("@{}", text(&file)));
    run(command("curl", ["-sf", "-X", "PUT", "-H", &content, "--data-binary", &body, &url("2")])).success();
    Kiln::new().try_run(["pull", &registry.name("app:2")]).failure().says("shorter than its");
}

#[test]
fn what_is_there_is_not_said_to_be_pushed() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    build(&kiln, &registry.name("app:1"));
    kiln.run(["push", &registry.name("app:1")]).says("Pushed");
    let again = kiln.run(["push", &registry.name("app:1")]);
    assert!(again.stdout.contains("Layer already exists") && !again.stdout.contains("Pushed"), "{again}");
}

/// Proves: docker-save, docker-push, docker-pull, docker-history, docker-image-inspect, skopeo-copy
#[test]
fn platforms_are_chosen_of_what_the_store_has() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    build_index(&kiln, "multi:1");
    let platforms = |place: &str| {
        let shown = kiln.run(["inspect", "--raw", place]).stdout;
        shown.matches("\"architecture\"").count()
    };
    let there = kiln.directory();
    let (at, one) = (text(there.path()), registry.name("one:1"));
    kiln.run(["push", "--platform", "linux/arm64", "multi:1", &one]);
    assert_eq!(platforms(&format!("docker://{one}")), 0, "it is an image, and no index");
    assert!(kiln.run(["remote", "config", &one]).stdout.contains("\"arm64\""));
    kiln.try_run(["push", "--platform", "linux/s390x", "multi:1", &one]).failure().says("linux/s390x");
    for place in [
        format!("docker://{}", registry.name("all:1")),
        format!("oci:{at}/layout:1"),
        format!("oci-archive:{at}/archive.tar:1"),
        format!("dir:{at}/directory"),
    ] {
        kiln.run(["copy", "--all", "multi:1", &place]);
        assert_eq!(platforms(&place), 2, "{place} has both");
    }
    kiln.run(["copy", "--platform", "linux/arm64", "multi:1", &format!("oci:{at}/arm:1")]);
    let config = kiln.run(["inspect", "--config", &format!("oci:{at}/arm:1")]).stdout;
    assert!(config.contains("\"arm64\""), "{config}");
    let arch =
        |of: &str| kiln.run(["inspect", "--platform", of, "-f", "{{.Architecture}}", "multi:1"]).text().to_owned();
    assert_eq!((arch("linux/arm64").as_str(), arch("linux/amd64").as_str()), ("arm64", "amd64"));
    kiln.try_run(["image", "inspect", "--platform", "linux/s390x", "multi:1"]).failure().says("linux/s390x");
    kiln.run(["history", "--platform", "linux/arm64", "--no-trunc", "multi:1"]).says("LABEL arch=arm64");
    let saved = format!("{at}/saved.tar");
    kiln.run(["save", "--platform", "linux/arm64", "-o", &saved, "multi:1"]);
    let config = kiln.run(["inspect", "--config", &format!("docker-archive:{saved}")]).stdout;
    assert!(config.contains("\"arm64\""), "{config}");
    let pulled = Kiln::new().run(["pull", "-q", &one]);
    pulled.says("WARNING: image platform (linux/arm64) does not match the expected platform");
}

/// Proves: docker-load, docker-rmi
#[test]
fn one_platform_is_loaded_and_removed() {
    let kiln = Kiln::with_busybox();
    build_index(&kiln, "multi:1");
    let there = kiln.directory();
    let (both, layout) = (format!("{}/both.tar", text(there.path())), format!("{}/layout", text(there.path())));
    kiln.run(["save", "-o", &both, "multi:1"]);
    kiln.run(["save", "--format", "oci-dir", "-o", &layout, "multi:1"]);
    let arch = |kiln: &Kiln| kiln.run(["inspect", "-f", "{{.Architecture}}", "multi:1"]).text().to_owned();
    for archive in [&both, &layout] {
        let other = Kiln::new();
        other.run(["load", "--platform", "linux/arm64", "-i", archive]).says("Loaded image: multi:1");
        assert_eq!(arch(&other), "arm64");
        let other = Kiln::new();
        other.run(["load", "-i", archive]);
        assert_eq!(arch(&other), "amd64");
        let other = Kiln::new();
        other.try_run(["load", "--platform", "linux/s390x", "-i", archive]).failure().says("linux/s390x");
        other.run(["images", "-aq"]).never_says("sha");
    }
    // Of one image, only that will do which was asked for: in docker's archives, too.
    let single = format!("{}/single.tar", text(there.path()));
    kiln.run(["save", "-o", &single, "busybox"]);
    let other = Kiln::new();
    other.try_run(["load", "--platform", "linux/arm64", "-i", &single]).failure().says("linux/arm64");
    other.run(["load", "--platform", "linux/amd64", "-i", &single]);
    other.try_run(["rmi", "--platform", "linux/arm64", "busybox"]).failure().says("linux/arm64");
    other.run(["rmi", "--platform", "linux/amd64", "busybox"]).says("Untagged: busybox:latest");

    let ids =
        |platform: &str| kiln.run(["inspect", "--platform", platform, "-f", "{{.Id}}", "multi:1"]).text().to_owned();
    let arm = ids("linux/arm64");
    kiln.try_run(["rmi", "--platform", "linux/s390x", "multi:1"])
        .failure()
        .says("does not provide the specified platform");
    kiln.run(["rmi", "--platform", "linux/arm64", "multi:1"]).says(&format!("Deleted: {arm}"));
    kiln.try_run(["inspect", "--platform", "linux/arm64", "multi:1"]).failure();
    kiln.try_run(["inspect", &arm]).failure();
    assert_eq!(arch(&kiln), "amd64");
    kiln.try_run(["rmi", "--platform", "linux/arm64", "multi:1"]).failure();
    kiln.run(["rmi", "multi:1"]).says("Untagged: multi:1");
}

/// Proves: docker-search
#[test]
fn repositories_are_found_by_a_word() {
    let kiln = Kiln::with_busybox();
    for registry in [Registry::kiln(&kiln), Registry::distribution()] {
        for name in ["team/app:1", "team/other:1", "apple:1"] {
            kiln.run(["tag", "busybox", &registry.name(name)]);
            kiln.run(["push", "-q", &registry.name(name)]);
        }
        let found = kiln.run(["search", "--format", "{{.Name}}", &registry.name("app")]).stdout;
        assert_eq!(found, format!("{}\n{}\n", registry.name("apple"), registry.name("team/app")));
        let one = kiln.run(["search", "--limit", "1", "--format", "{{.Name}}", &registry.name("")]).stdout;
        assert_eq!(one, format!("{}\n", registry.name("apple")));
    }
    let answer = r#"{"num_results": 2, "query": "x", "results": [
        {"name": "web", "description": "A server of pages, which has a description longer than a line has room for",
         "star_count": 7, "is_official": true, "is_automated": false},
        {"name": "somebody/web", "description": null, "star_count": 1}]}"#;
    let hub = HttpServer::start(&[("/v2/", b"{}"), ("/v1/search", answer.as_bytes())]);
    let host = hub.url("").trim_start_matches("http://").to_owned();
    let term = format!("{host}/web");
    let table = kiln.run(["search", &term]);
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert!(lines[0].starts_with("NAME ") && lines[0].contains("STARS     OFFICIAL   AUTOMATED"), "{table}");
    assert!(lines[1].starts_with(&format!("{host}/web ")) && lines[1].contains("…") && lines[1].contains("[OK]"));
    kiln.run(["search", "--no-trunc", &term]).says("has room for");
    let names = |filter: &str| kiln.run(["search", "-f", filter, "--format", "{{.Name}}", &term]).stdout;
    assert_eq!(names("stars=3"), format!("{host}/web\n"));
    assert_eq!(names("is-official=false"), format!("{host}/somebody/web\n"));
    kiln.try_run(["search", "-f", "colour=red", &term]).failure().says("is-official");
}
