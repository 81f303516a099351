//! The ways that lead to `kiln registry serve`: TLS, HTTP/2, a socket in the file system, a proxy.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use kiln_tests::{Podman, command, eventually, free_port, kiln_binary, run, sha256, signal, wait_for_port};
use rustix::process::Signal;
use tempfile::TempDir;

/// A process; ended when it is dropped.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        signal(&self.0, Signal::TERM);
        drop(self.0.wait());
    }
}

/// A registry with TLS and a socket.
struct Server {
    _process: Ending,
    directory: TempDir,
    /// `127.0.0.1:PORT`
    address: String,
}

impl Server {
    /// `http` and `tls` are further lines of these sections.
    fn start(http: &str, tls: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-ways-").tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("trusted")).expect("a directory");
        make_certificate(directory.path());
        let config = format!(
            "data = {:?}\n[http]\nlisten = [\"127.0.0.1:0\", \"unix:{}\"]\n{http}\n[tls]\ncertificate = {:?}\nkey = {:?}\n{tls}\n",
            path("data"),
            path("socket").display(),
            path("trusted/ca.crt"),
            path("key.pem"),
        );
        fs::write(path("registry.toml"), config).expect("a file");
        let mut serve = command(kiln_binary(), ["registry", "serve", "--config"]);
        let mut child = serve.arg(path("registry.toml")).stdout(Stdio::piped()).spawn().expect("kiln starts");
        // It says both places before it serves.
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map(|line| line.expect("a line"));
        let (first, second) = (lines.next().expect("a place"), lines.next().expect("a place"));
        let address = first.rsplit_once("https://").expect("an address").1.to_owned();
        assert!(second.ends_with("/socket"), "{second}");
        Self { _process: Ending(child), directory, address }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn over_tls(&self) -> Way {
        let options = vec!["--cacert".to_owned(), text(&self.path("trusted/ca.crt")).to_owned()];
        Way { options, origin: format!("https://{}", self.address) }
    }

    fn over_the_socket(&self) -> Way {
        let options = vec!["--unix-socket".to_owned(), text(&self.path("socket")).to_owned()];
        Way { options, origin: "http://registry".to_owned() }
    }

    /// Content of so many bytes, in a file, and the path of its blob.
    fn push(&self, way: &Way, seed: u64, length: usize) -> (Vec<u8>, String) {
        let content = noise(seed, length);
        fs::write(self.path("content"), &content).expect("a file");
        let digest = sha256(&content);
        let mut curl = way.curl();
        curl.args(["--header", "Content-Type: application/octet-stream", "--request", "POST", "--data-binary"]);
        curl.arg(format!("@{}", self.path("content").display()));
        curl.arg(way.url(&format!("/v2/a/blobs/uploads/?digest=sha256:{digest}")));
        run(curl).success();
        (content, format!("/v2/a/blobs/sha256:{digest}"))
    }
}

/// A key, and a certificate that vouches for itself, in place of those that were there.
fn make_certificate(directory: &Path) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    fs::write(directory.join("trusted/ca.crt"), made.cert.pem()).expect("a file");
    fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
}

/// How curl gets there.
struct Way {
    options: Vec<String>,
    origin: String,
}

impl Way {
    fn with(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    fn curl(&self) -> Command {
        let mut curl = command("curl", ["--silent", "--show-error", "--fail"]);
        curl.args(&self.options);
        curl
    }

    /// Reads a blob over one connection: whole, a part in its middle, and its end, into files of this name.
    fn read(&self, path: &str, into: &Path) -> Command {
        let mut curl = self.curl();
        let url = self.url(path);
        for (number, range) in PARTS.into_iter().enumerate() {
            if number > 0 {
                curl.args(["--next", "--silent", "--show-error", "--fail"]).args(&self.options);
            }
            curl.args(range.map(|range| ["--range", range]).into_iter().flatten());
            curl.arg("--output").arg(into.with_extension(number.to_string())).arg(&url);
        }
        curl
    }
}

/// What [`Way::read`] asks for.
const PARTS: [Option<&str>; 3] = [None, Some("1000-5000999"), Some("-3000000")];

/// Checks what [`Way::read`] wrote.
fn check_parts(content: &[u8], into: &Path) {
    let end = content.len() - 3_000_000;
    for (number, expected) in [content, &content[1_000..5_001_000], &content[end..]].into_iter().enumerate() {
        let read = fs::read(into.with_extension(number.to_string())).expect("what curl wrote");
        assert!(read == expected, "part {number} is not right: {} bytes, not {}", read.len(), expected.len());
    }
}

/// Bytes that do not repeat.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(length).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

/// Several clients read the blob along these ways while another one reads it slowly, so that none is alone.
fn read_beside_each_other(server: &Server, ways: &[&Way], content: &[u8], path: &str) {
    let mut slow = server.over_the_socket().curl();
    slow.args(["--limit-rate", "10k", "--output", "/dev/null"]).arg(server.over_the_socket().url(path));
    let mut slow = slow.stderr(Stdio::null()).spawn().expect("curl starts");
    let readers: Vec<(Child, PathBuf)> = (0..2)
        .flat_map(|round| ways.iter().enumerate().map(move |(number, way)| (format!("read-{round}-{number}"), way)))
        .map(|(name, way)| (way.read(path, &server.path(&name)).spawn().expect("curl starts"), server.path(&name)))
        .collect();
    for (mut child, into) in readers {
        assert!(child.wait().expect("an end").success());
        check_parts(content, &into);
    }
    slow.kill().expect("the slow reader is still there");
    drop(slow.wait());
}

/// Proves: registry-tls-cert-key-client-ca-min-version-ciphers, registry-http-2-h2c-unix-socket-prefix-host-relativeurls
#[test]
fn blobs_come_whole_and_in_part_over_tls_and_a_socket_to_many_at_once() {
    let server = Server::start("", "");
    let (tls, socket) = (server.over_tls().with("--http1.1"), server.over_the_socket());
    for (seed, way) in [(1, &tls), (2, &socket)] {
        let (content, path) = server.push(way, seed, 12_000_000);
        // Once to whoever has it verified, then as what is known to be right.
        run(way.read(&path, &server.path("alone"))).success();
        check_parts(&content, &server.path("alone"));
        read_beside_each_other(&server, &[&tls, &socket], &content, &path);
    }
}

/// An OCI layout with one image, made without kiln.
fn layout(server: &Server) -> String {
    let file = server.path("file");
    fs::write(&file, noise(9, 3_000_000)).expect("a file");
    let layout = server.path("layout");
    let image = format!("{}:x", layout.display());
    run(command("umoci", ["init", "--layout", text(&layout)])).success();
    run(command("umoci", ["new", "--image", &image])).success();
    run(command("umoci", ["insert", "--image", &image, text(&file), "/x"])).success();
    format!("oci:{image}")
}

/// Proves: registry-http-2-h2c-unix-socket-prefix-host-relativeurls
#[test]
fn http_2_is_spoken_with_those_who_would_like_to() {
    let server = Server::start("", "http2 = true");
    let image = layout(&server);
    let version = |option: &str| {
        let mut curl = server.over_tls().with(option).curl();
        curl.args(["--output", "/dev/null", "--write-out", "%{http_version}", &server.over_tls().url("/v2/")]);
        run(curl).success().stdout
    };
    assert_eq!((version("--http2").as_str(), version("--http1.1").as_str()), ("2", "1.1"));
    let (new, old) = (server.over_tls().with("--http2"), server.over_tls().with("--http1.1"));
    let (content, path) = server.push(&new, 3, 12_000_000);
    run(new.read(&path, &server.path("alone"))).success();
    check_parts(&content, &server.path("alone"));
    read_beside_each_other(&server, &[&new, &old], &content, &path);
    // Many at once over one connection.
    let mut curl = new.curl();
    curl.args(["--parallel", "--parallel-max", "12", "--output", text(&server.path("stream-#1"))]);
    curl.args(["--write-out", "%{num_connects}\n", &format!("{}?[1-12]", new.url(&path))]);
    let connects = run(curl).success().stdout;
    assert!(connects.lines().filter(|line| *line == "0").count() >= 10, "{connects}");
    for number in 1..=12 {
        assert!(fs::read(server.path(&format!("stream-{number}"))).expect("a file") == content);
    }
    // Go's clients speak it whenever it is offered.
    let trusted = server.path("trusted");
    let remote = format!("docker://{}/team/app:1", server.address);
    run(command("skopeo", ["copy", "--dest-cert-dir", text(&trusted), &image, &remote])).success();
    let back = format!("dir:{}", server.path("back").display());
    run(command("skopeo", ["copy", "--src-cert-dir", text(&trusted), &remote, &back])).success();
    let podman = Podman::new();
    podman.run(["pull", "--cert-dir", text(&trusted), &remote]);
    let name = remote.trim_start_matches("docker://");
    podman.run(["push", "--cert-dir", text(&trusted), name, &remote.replace(":1", ":2")]);
}

/// Proves: registry-http-2-h2c-unix-socket-prefix-host-relativeurls
#[test]
fn a_proxy_gives_it_a_part_of_a_host() {
    let server = Server::start("prefix = \"/registry/\"", "");
    let image = layout(&server);
    let port = free_port();
    // Clients that know only hosts are led below the prefix; what the answers lead to is where it says.
    let config = format!(
        "user root; daemon off; pid {0}/nginx.pid; error_log {0}/nginx.log;\nevents {{}}\nhttp {{\n access_log off;\n\
         client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;\n\
         uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;\n\
         server {{ listen 127.0.0.1:{port}; client_max_body_size 0; proxy_set_header Host $http_host;\n\
         location /v2/ {{ proxy_pass http://unix:{0}/socket:/registry/v2/; }}\n\
         location /registry/ {{ proxy_pass http://unix:{0}/socket:; }} }}\n}}\n",
        server.directory.path().display()
    );
    fs::write(server.path("nginx.conf"), config).expect("a file");
    let mut nginx = command("nginx", ["-c", text(&server.path("nginx.conf")), "-e", text(&server.path("nginx.log"))]);
    let mut nginx = Ending(nginx.spawn().expect("nginx starts"));
    let up = wait_for_port(port, || matches!(nginx.0.try_wait(), Ok(None)));
    assert!(up, "{:?}", fs::read_to_string(server.path("nginx.log")));
    let remote = format!("docker://127.0.0.1:{port}/team/app:1");
    run(command("skopeo", ["copy", "--dest-tls-verify=false", &image, &remote])).success();
    let back = format!("dir:{}", server.path("back").display());
    run(command("skopeo", ["copy", "--src-tls-verify=false", &remote, &back])).success();
    let get = |url: String| run(command("curl", ["--silent", "--show-error", "--fail", &url])).success().stdout;
    assert!(get(format!("http://127.0.0.1:{port}/registry/r/team/app")).contains("href=\"/registry/r/team/app:1\""));
}

/// Proves: registry-tls-cert-key-client-ca-min-version-ciphers, registry-config-reload-verify
#[test]
fn a_new_certificate_is_shown_without_a_restart() {
    let server = Server::start("", "");
    let asked = |authority: &Path| {
        let mut curl = command("curl", ["--silent", "--fail", "--cacert", text(authority)]);
        curl.arg(server.over_tls().url("/v2/"));
        run(curl)
    };
    let (current, former) = (server.path("trusted/ca.crt"), server.path("former.crt"));
    fs::copy(&current, &former).expect("a copy");
    asked(&former).success();
    // A certificate whose key did not come yet is no reason to stop.
    fs::write(&current, "half").expect("a file");
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    asked(&former).success();
    make_certificate(server.directory.path());
    eventually("the new certificate is shown", || asked(&current).status.success());
    asked(&former).failure();
}
