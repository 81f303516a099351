//! `kiln registry serve` for a team: users, robots and TLS, with everybody's real clients.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use kiln_tests::{Docker, Kiln, Podman, command, kiln_binary, run, run_with_input, signal};
use rustix::process::Signal;
use tempfile::TempDir;

const PASSWORD: &str = "correct horse";
const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry with TLS, a user who may do everything, one who may only pull, and public repositories.
struct Team {
    server: Child,
    directory: TempDir,
    address: String,
}

impl Team {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-team-").tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        fs::write(path("cert.pem"), made.cert.pem()).expect("a file");
        fs::write(path("key.pem"), made.signing_key.serialize_pem()).expect("a file");
        let lines = |name: &str, allow: &str| {
            let hash = run_with_input(command(kiln_binary(), ["registry", "password", name]), PASSWORD.as_bytes());
            format!("{}allow = {allow}\n", hash.success().stdout)
        };
        let users = [
            lines("alice", r#"{ "**" = ["pull", "push", "delete"] }"#),
            lines("bob", r#"{ "team/**" = ["pull"] }"#),
            "[anonymous]\nallow = { \"public/*\" = [\"pull\"] }\n".to_owned(),
        ];
        fs::write(path("users.toml"), users.concat()).expect("a file");
        let config = format!(
            "data = {:?}\n[http]\nlisten = [\"127.0.0.1:0\"]\n[tls]\ncertificate = {:?}\nkey = {:?}\n[access]\nusers = {:?}\n[log]\naccess = {:?}\n",
            path("data"),
            path("cert.pem"),
            path("key.pem"),
            path("users.toml"),
            path("access.log"),
        );
        fs::write(path("registry.toml"), config).expect("a file");
        let mut serve = command(kiln_binary(), ["registry", "serve", "--config"]);
        let mut server = serve.arg(path("registry.toml")).stdout(Stdio::piped()).spawn().expect("kiln starts");
        let mut line = String::new();
        BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let address = line.trim().rsplit_once("https://").expect("an address").1.to_owned();
        Self { server, directory, address }
    }

    fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    /// With the team's certificate as an authority, and a file of credentials of its own.
    fn trusting(&self, mut command: Command) -> Command {
        command.env("SSL_CERT_FILE", self.directory.path().join("cert.pem"));
        command.env("REGISTRY_AUTH_FILE", self.directory.path().join("auth.json"));
        command
    }

    fn skopeo(&self, arguments: &[&str]) -> Command {
        self.trusting(command("skopeo", arguments.iter().copied()))
    }

    /// An OCI layout with one small image, made without kiln.
    fn layout(&self) -> String {
        let file = self.directory.path().join("file");
        fs::write(&file, "travelled\n").expect("a file");
        let layout = self.directory.path().join("layout");
        let image = format!("{}:x", layout.display());
        run(command("umoci", ["init", "--layout", text(&layout)])).success();
        run(command("umoci", ["new", "--image", &image])).success();
        run(command("umoci", ["insert", "--image", &image, text(&file), "/x"])).success();
        format!("oci:{image}")
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        signal(&self.server, Signal::TERM);
        drop(self.server.wait());
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// Proves: crane-auth, docker-login, docker-logout
#[test]
fn skopeo_and_kiln_with_users_over_tls() {
    let team = Team::start();
    let image = team.layout();
    let remote = format!("docker://{}", team.name("team/app:1"));
    let public = format!("docker://{}", team.name("public/app:1"));
    let login = |user: &str, password: &str| {
        run(team.skopeo(&["login", "--username", user, "--password", password, &team.address]))
    };
    run(team.skopeo(&["copy", &image, &remote])).failure();
    login("alice", "wrong").failure();
    login("alice", PASSWORD).success();
    run(team.skopeo(&["copy", &image, &remote])).success();
    run(team.skopeo(&["copy", &image, &public])).success();
    login("bob", PASSWORD).success();
    run(team.skopeo(&["inspect", &remote])).success();
    run(team.skopeo(&["copy", &image, &remote])).failure().says("denied");
    run(team.skopeo(&["delete", &remote])).failure();
    run(team.skopeo(&["logout", &team.address])).success();
    run(team.skopeo(&["inspect", &remote])).failure();
    run(team.skopeo(&["inspect", &public])).success();

    let certificate = team.directory.path().join("cert.pem");
    let kiln = Kiln::new().with_env("SSL_CERT_FILE", text(&certificate));
    let (app, own) = (team.name("team/app:1"), team.name("team/kiln:1"));
    kiln.try_run(["pull", &app]).failure();
    kiln.run(["pull", &team.name("public/app:1")]);
    let login = |user: &str, password: &str| {
        let login = kiln.command(["login", "--username", user, "--password-stdin", &team.address]);
        run_with_input(login, password.as_bytes())
    };
    login("alice", "wrong").failure();
    login("bob", PASSWORD).success();
    kiln.run(["pull", &app]);
    kiln.run(["tag", &app, &own]);
    kiln.try_run(["push", &own]).failure();
    login("alice", PASSWORD).success();
    kiln.run(["push", &own]);
    // With a token for one repository only, a further one for the other is fetched, and nothing is sent.
    let layout = format!("oci:{}:x", team.directory.path().join("copied").display());
    kiln.run(["copy", &remote, &layout]);
    kiln.run(["copy", &layout, &format!("docker://{}", team.name("other/app:1"))]);
    let log = fs::read_to_string(team.directory.path().join("access.log")).expect("the log");
    let uploads: Vec<&str> = log.lines().filter(|line| line.contains("/v2/other/app/blobs/uploads/")).collect();
    assert!(uploads.len() > 1 && uploads.iter().all(|line| line.contains(":201,")), "{uploads:#?}");
    // The token is one that curl may use, for that repository alone.
    let header = kiln.run(["remote", "auth", "token", "-H", &own]).text().to_owned();
    let asked = |repository: &str| {
        let mut curl = command("curl", ["-sf", "-o", "/dev/null", "-H", &header, "--cacert", text(&certificate)]);
        run({
            curl.arg(format!("https://{}/v2/{repository}/tags/list", team.address));
            curl
        })
    };
    asked("team/kiln").success();
    asked("team/app").failure();
    kiln.run(["remote", "auth", "get", &team.address]).says("\"Username\":\"alice\"").says(PASSWORD);
    kiln.run(["logout", &team.address]);
    kiln.try_run(["remote", "auth", "get", &team.address]).failure().says("not logged into");
    kiln.try_run(["pull", &own]).failure();
}

#[test]
fn podman_and_buildah_with_users_over_tls() {
    let team = Team::start();
    let image = team.layout();
    let podman = Podman::new();
    let podman = |arguments: &[&str]| run(team.trusting(podman.command(arguments.iter().copied())));
    let app = team.name("team/app:1");
    podman(&["login", "--username", "alice", "--password", "wrong", &team.address]).failure();
    podman(&["login", "--username", "alice", "--password", PASSWORD, &team.address]).success();
    run(team.skopeo(&["copy", &image, &format!("docker://{app}")])).success();
    podman(&["pull", &app]).success();
    podman(&["push", &app, &format!("docker://{}", team.name("team/podman:1"))]).success();
    podman(&["rmi", "--all", "--force"]).success();
    podman(&["pull", &team.name("team/podman:1")]).success();

    let storage = team.directory.path().join("buildah");
    let (root, running) = (storage.join("root"), storage.join("run"));
    let buildah = |arguments: &[&str]| {
        let mut command =
            command("buildah", ["--storage-driver", "vfs", "--root", text(&root), "--runroot", text(&running)]);
        command.args(arguments);
        run(team.trusting(command))
    };
    let container = buildah(&["from", &app]).success().stdout.trim().to_owned();
    let own = team.name("team/buildah:1");
    buildah(&["commit", "--quiet", &container, &own]).success();
    buildah(&["push", &own]).success();
    buildah(&["rm", "--all"]).success();
    podman(&["logout", &team.address]).success();
    podman(&["pull", &app]).failure();
    buildah(&["pull", "--policy", "always", &own]).failure();
    podman(&["login", "--username", "bob", "--password", PASSWORD, &team.address]).success();
    podman(&["pull", &own]).success();
    podman(&["push", &own, &format!("docker://{own}")]).failure();
}

/// Proves: registry-docker-media-types-accepted
#[test]
fn docker_logs_in_pushes_pulls_and_logs_out() {
    let team = Team::start();
    let image = team.layout();
    run(team.skopeo(&["login", "--username", "alice", "--password", PASSWORD, &team.address])).success();
    run(team.skopeo(&["copy", &image, &format!("docker://{}", team.name("public/app:1"))])).success();
    let docker = Docker::start();
    let docker_run = |arguments: &[&str]| run(docker.command(arguments.iter().copied()));
    let (public, app) = (team.name("public/app:1"), team.name("team/app:1"));
    docker_run(&["pull", &public]).success();
    docker_run(&["tag", &public, &app]).success();
    docker_run(&["push", &app]).failure();
    let refused = docker_run(&["login", "--username", "alice", "--password", "wrong", &team.address]).failure();
    refused.says("invalid user name or password");
    docker_run(&["login", "--username", "alice", "--password", PASSWORD, &team.address]).success();
    docker_run(&["push", &app]).success();
    docker_run(&["rmi", &public, &app]).success();
    docker_run(&["pull", &app]).success();
    docker_run(&["logout", &team.address]).success();
    docker_run(&["rmi", &app]).success();
    docker_run(&["pull", &app]).failure();
    docker_run(&["login", "--username", "bob", "--password", PASSWORD, &team.address]).success();
    docker_run(&["pull", &app]).success();
    docker_run(&["push", &app]).failure();
}

/// Asks the registry as alice, by curl; `more` are its options.
fn api(team: &Team, target: &str, more: &[&str]) -> kiln_tests::Outcome {
    let mut curl = command("curl", ["--silent", "--show-error", "--fail-with-body", "--user"]);
    curl.arg(format!("alice:{PASSWORD}")).args(more).arg(format!("https://{}/v2/{target}", team.address));
    curl.arg("--cacert").arg(team.directory.path().join("cert.pem"));
    run(curl)
}

#[test]
fn indexes_and_referrers_over_tls_with_everybodys_clients() {
    let team = Team::start();
    let certificate = team.directory.path().join("cert.pem");
    let kiln = Kiln::new().with_env("SSL_CERT_FILE", text(&certificate));
    let login = kiln.command(["login", "--username", "alice", "--password-stdin", &team.address]);
    run_with_input(login, PASSWORD.as_bytes()).success();
    run(team.skopeo(&["login", "--username", "alice", "--password", PASSWORD, &team.address])).success();

    // An index of two platforms, whose members are also signed: an artifact refers to the index.
    let (list, amd, arm) = (team.name("team/multi:1"), team.name("team/multi:amd64"), team.name("team/multi:arm64"));
    for (name, platform) in [(&amd, "linux/amd64"), (&arm, "linux/arm64")] {
        let context = kiln.context(&[
            ("Dockerfile", "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY x /\n"),
            ("x", platform),
        ]);
        kiln.build(&context, name, &["--platform", platform]);
        kiln.run(["push", "-q", name]);
    }
    kiln.run(["manifest", "create", &list, &amd, &arm]);
    let digest = kiln.run(["manifest", "push", &list]).stdout.trim().to_owned();
    let raw = run(team.skopeo(&["inspect", "--raw", &format!("docker://{list}")])).success().stdout;
    let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    api(
        &team,
        &format!("team/multi/blobs/uploads/?digest={empty}"),
        &["--data-binary", "{}", "--header", "Content-Type: application/octet-stream"],
    )
    .success();
    let signature = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_IMAGE}\",\"artifactType\":\"application/vnd.test.signature\",\
         \"config\":{{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\"digest\":\"{empty}\",\"size\":2}},\
         \"layers\":[{{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\"digest\":\"{empty}\",\"size\":2}}],\
         \"subject\":{{\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"digest\":\"{digest}\",\"size\":{}}}}}",
        raw.len()
    );
    let header = format!("Content-Type: {OCI_IMAGE}");
    api(
        &team,
        "team/multi/manifests/signature",
        &["--request", "PUT", "--header", &header, "--data-binary", &signature, "--include"],
    )
    .success()
    .says(&format!("oci-subject: {digest}"));
    api(&team, &format!("team/multi/referrers/{digest}"), &[]).success().says("application/vnd.test.signature");

    let inspect = |arch: &str| {
        let remote = format!("docker://{list}");
        run(team.skopeo(&["inspect", "--override-arch", arch, &remote])).success().says(&format!("\"{arch}\""))
    };
    inspect("amd64");
    inspect("arm64");
    let copied = format!("docker://{}", team.name("copied/multi:1"));
    run(team.skopeo(&["copy", "--all", &format!("docker://{list}"), &copied])).success();
    assert_eq!(run(team.skopeo(&["inspect", "--raw", &copied])).success().stdout, raw);
    run(team.skopeo(&["inspect", &format!("docker://{}", team.name("team/multi:signature"))])).no_panic();

    let podman = Podman::new();
    let podman = |arguments: &[&str]| run(team.trusting(podman.command(arguments.iter().copied())));
    podman(&["pull", "--arch", "arm64", &list]).success();
    podman(&["image", "inspect", "--format", "{{.Labels.arch}}", &list]).success().says("arm64");
    let own = team.name("team/podman-multi:1");
    podman(&["manifest", "create", "made"]).success();
    // These two want to be told.
    let credentials = team.directory.path().join("auth.json");
    let credentials = ["--authfile", text(&credentials)];
    let with = |words: &[&str]| podman(&[&words[..2], &credentials, &words[2..]].concat()).success();
    with(&["manifest", "add", "--all", "made", &format!("docker://{list}")]);
    with(&["manifest", "push", "--all", "made", &format!("docker://{own}")]);
    run(team.skopeo(&["inspect", "--raw", &format!("docker://{own}")])).success().says("arm64");

    let storage = team.directory.path().join("buildah");
    let (root, running) = (storage.join("root"), storage.join("run"));
    let mut buildah =
        command("buildah", ["--storage-driver", "vfs", "--root", text(&root), "--runroot", text(&running)]);
    buildah.args(["pull", "--arch", "arm64", &list]);
    run(team.trusting(buildah)).success();

    let docker = Docker::start();
    let docker_run = |arguments: &[&str]| run(docker.command(arguments.iter().copied()));
    docker_run(&["login", "--username", "alice", "--password", PASSWORD, &team.address]).success();
    docker_run(&["pull", &list]).success();
    docker_run(&["inspect", "--format", "{{.Architecture}}", &list]).success().says("amd64");
    docker_run(&["pull", &format!("{}@{digest}", team.name("team/multi"))]).success();
    docker_run(&["logout", &team.address]).success();

    let other = Kiln::new().with_env("SSL_CERT_FILE", text(&certificate));
    let login = other.command(["login", "--username", "bob", "--password-stdin", &team.address]);
    run_with_input(login, PASSWORD.as_bytes()).success();
    other.run(["pull", "--all-platforms", &list]).says(&digest);
}

/// Proves: registry-tls-cert-key-client-ca-min-version-ciphers
#[test]
fn only_clients_that_show_a_certificate_are_served() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let write = |name: &str, content: String| fs::write(path(name), content).expect("a file");
    let server = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    write("server.crt", server.cert.pem());
    write("server.key", server.signing_key.serialize_pem());
    let key = || rcgen::KeyPair::generate().expect("a key");
    let (authority_key, client_key, stranger_key) = (key(), key(), key());
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    write("clients.crt", parameters.self_signed(&authority_key).expect("an authority").pem());
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let client = rcgen::CertificateParams::new(["somebody".to_owned()]).expect("parameters");
    fs::create_dir(path("certs")).expect("a directory");
    write("certs/ca.crt", server.cert.pem());
    write("certs/client.cert", client.signed_by(&client_key, &issuer).expect("a certificate").pem());
    write("certs/client.key", client_key.serialize_pem());
    write("stranger.cert", client.self_signed(&stranger_key).expect("a certificate").pem());
    write("stranger.key", stranger_key.serialize_pem());
    let tls = format!(
        "[http]\nlisten = [\"127.0.0.1:0\"]\n[tls]\ncertificate = {:?}\nkey = {:?}\nclient_authorities = {:?}\n",
        path("server.crt"),
        path("server.key"),
        path("clients.crt"),
    );
    let serve = |more: &str| {
        write("registry.toml", format!("data = {:?}\n{tls}{more}", path("data")));
        let mut serve = command(kiln_binary(), ["registry", "serve", "--config"]);
        serve.arg(path("registry.toml"));
        serve
    };
    run(serve("ciphers = [\"RC4\"]\n")).failure().says("RC4").says("TLS13_AES_256_GCM_SHA384");
    run(serve("minimum_version = \"1.1\"\n")).failure().says("1.1");
    let strict = "minimum_version = \"1.3\"\nciphers = [\"TLS13_AES_256_GCM_SHA384\"]\n";
    let mut child = serve(strict).stdout(Stdio::piped()).spawn().expect("kiln starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let address = line.trim().rsplit_once("https://").expect("an address").1.to_owned();
    let curl = |more: &[&str]| {
        let mut curl = command("curl", ["-sSf", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"]);
        run({
            curl.arg(path("server.crt")).args(more).arg(format!("https://{address}/v2/"));
            curl
        })
    };
    let shown = |name: &str| [path(&format!("{name}.cert")), path(&format!("{name}.key"))];
    let [certificate, secret] = shown("certs/client");
    let own = ["--cert", text(&certificate), "--key", text(&secret)];
    curl(&own).success().says("200");
    curl(&[]).failure();
    curl(&[&own[..], &["--tls-max", "1.2"]].concat()).failure();
    curl(&[&own[..], &["--tls13-ciphers", "TLS_CHACHA20_POLY1305_SHA256"]].concat()).failure();
    let [certificate, secret] = shown("stranger");
    curl(&["--cert", text(&certificate), "--key", text(&secret)]).failure();
    let kiln = Kiln::new();
    kiln.build_text("FROM scratch\nLABEL a=b\n", "app");
    let name = format!("{address}/app:1");
    kiln.run(["tag", "app", &name]);
    kiln.try_run(["push", &name]).failure();
    kiln.run(["push", "--cert-dir", text(&path("certs")), &name]);
    let places = [format!("docker://{name}"), format!("dir:{}", path("back").display())];
    run(command("skopeo", ["copy", "--src-cert-dir", text(&path("certs")), &places[0], &places[1]])).success();
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().expect("an end").code(), Some(0));
}

/// Proves: registry-env-var-override-of-every-config-key, registry-config-reload-verify
#[test]
fn a_configuration_is_printed_checked_and_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("registry.toml");
    let reference = run(command(kiln_binary(), ["registry", "config"])).success().stdout;
    fs::write(&file, reference).expect("a file");
    run(command(kiln_binary(), ["registry", "config", text(&file)])).success();
    fs::write(&file, "[http]\nlistn = [\"127.0.0.1:0\"]\n").expect("a file");
    for arguments in [&["config"][..], &["serve", "--config"]] {
        let mut command = command(kiln_binary(), ["registry"]);
        command.args(arguments).arg(&file);
        run(command).failure().says("`http.listn`").says("did you mean `listen`?");
    }
    let mut command = command(kiln_binary(), ["registry", "serve", "--listen", "127.0.0.1:0"]);
    command.env("KILN_REGISTRY_LIMITS_UPLOADS", "many");
    run(command).failure().says("KILN_REGISTRY_LIMITS_UPLOADS");
    let robot = run(kiln_tests::command(kiln_binary(), ["registry", "password", "--robot", "ci"])).success();
    assert!(
        robot.stdout.starts_with("[robot.\"ci\"]\nsecret = \"sha256:") && robot.stderr.trim().len() == 64,
        "{robot}"
    );
}
