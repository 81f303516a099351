//! The real applications of `fixtures/`: built from the packages of Debian, npm and PyPI, started, asked; three of them
//! then carried to podman and docker. `fixtures/real.sh` has three more, whose packages are large.

use std::{
    env,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use kiln_tests::{Context, Docker, Kiln, Podman, Run, command, fixture, free_port, proxies, run, wait_for_port};

/// The fixture's files in a directory of its own, so that a test may edit them.
fn context(kiln: &Kiln, name: &str) -> Context {
    let context = kiln.directory();
    let mut copy = command("cp", ["-R", "--preserve=mode"]);
    copy.arg(fixture(name).join(".")).arg(context.path());
    run(copy).success();
    if name == "wiki" {
        context.shell("./pack.sh");
    }
    context
}

/// What of this machine the steps need: proxies, and the CA file for npm as a secret.
fn build_options() -> Vec<String> {
    let mut options = Vec::new();
    for proxy in proxies() {
        options.extend(["--build-arg".to_owned(), proxy]);
    }
    if let Ok(file) = env::var("NODE_EXTRA_CA_CERTS") {
        options.extend(["--secret".to_owned(), format!("id=ca,src={file}")]);
    }
    options
}

fn build(kiln: &Kiln, context: &Context, name: &str) -> kiln_tests::Outcome {
    let options = build_options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    kiln.build(context, &format!("{name}:1"), &options)
}

fn fetch(url: &str, more: &[&str]) -> String {
    let mut line = vec!["-sS", "--noproxy", "*", "--max-time", "20", url];
    line.extend(more);
    run(command("curl", line)).success().stdout
}

/// Asks the application what only it can answer.
fn ask(name: &str, port: u16) {
    let url = format!("http://127.0.0.1:{port}/");
    match name {
        "wiki" => {
            assert!(fetch(&url, &[]).contains("<h2>A wiki in an image</h2>"));
            let page = format!("{url}?page=Another");
            fetch(&page, &["--data-urlencode", "text=Saved & <b>escaped</b>, see [[Start]]."]);
            let answer = fetch(&page, &[]);
            assert!(
                answer.contains("Saved &amp; &lt;b&gt;escaped&lt;/b&gt;, see <a href=\"?page=Start\">"),
                "{answer}"
            );
        }
        "node" => assert_eq!(fetch(&format!("{url}echo/kiln"), &[]), "{\"word\":\"kiln\"}"),
        "static" => {
            assert!(fetch(&url, &[]).contains("<h1>A site in an image</h1>"));
            assert!(fetch(&format!("{url}about.html"), &[]).contains("Made by sed."));
        }
        "c" => assert_eq!(fetch(&url, &[]), "Hello from C\n"),
        "python" => assert_eq!(fetch(&format!("{url}echo/kiln"), &[]).trim(), "{\"word\":\"kiln\"}"),
        "redis" => {
            let answer = talk(port, b"SET word kiln\r\nGET word\r\n", "kiln");
            assert!(answer.starts_with("+OK\r\n$4\r\nkiln"), "{answer}");
        }
        _ => assert_eq!(fetch(&url, &[]), "Hello from Java\n"),
    }
}

/// Says something, and reads until it hears the word.
fn talk(port: u16, said: &[u8], word: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout can be set");
    stream.write_all(said).expect("it reads");
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut buffer).expect("it answers");
        heard.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&heard);
        if text.contains(word) {
            return text.into_owned();
        }
        assert_ne!(length, 0, "{word:?} was not said: {text:?}");
    }
}

fn start(kiln: &Kiln, name: &str) -> (Run, u16) {
    let port = free_port();
    let mut container = kiln.start(&format!("{name}:1"), &["-e", &format!("PORT={port}")]);
    let up = wait_for_port(port, || container.is_alive());
    assert!(up, "{name} does not answer:\n{}", container_log(kiln));
    (container, port)
}

/// In the background, on a network of its own, at a published port.
fn publish(kiln: &Kiln, name: &str) {
    let port = free_port();
    let (image, place) = (format!("{name}:1"), format!("{port}:8080"));
    kiln.run(["run", "-d", "--name", "published", "-p", &place, "-e", "PORT=8080", &image]);
    let started = Instant::now();
    let url = format!("http://127.0.0.1:{port}/");
    let answers = || run(command("curl", ["-sS", "--noproxy", "*", "--max-time", "20", &url])).status.success();
    while !answers() {
        assert!(started.elapsed() < Duration::from_secs(120), "{}", kiln.run(["logs", "published"]));
        thread::sleep(Duration::from_millis(100));
    }
    ask(name, port);
    kiln.run(["rm", "-f", "published"]);
}

fn container_log(kiln: &Kiln) -> String {
    std::fs::read_to_string(kiln.home().join("container.log")).unwrap_or_default()
}

/// Loads what kiln saved into podman and docker, and asks there too.
fn carry(kiln: &Kiln, name: &str) {
    let directory = kiln.directory();
    let archive = directory.path().join("image.tar").to_str().unwrap().to_owned();
    kiln.run(["save", "-o", &archive, &format!("{name}:1")]);
    let port = free_port();
    let variable = format!("PORT={port}");
    let image = format!("{name}:1");

    let docker = Docker::start();
    docker.run(["load", "-i", &archive]);
    docker.run(["run", "-d", "--network=host", "--name=real", "-e", &variable, &image]);
    assert!(wait_for_port(port, || true), "{name} in docker:\n{}", docker.run(["logs", "real"]));
    ask(name, port);
    docker.run(["rm", "-f", "real"]);
    drop(docker);

    let podman = Podman::new();
    podman.run(["load", "-i", &archive]);
    let port = free_port();
    let variable = format!("PORT={port}");
    let options = ["-d", "--name=real", "-e", &variable, &image];
    podman.run(Podman::RUN.iter().copied().filter(|option| *option != "--rm").chain(options));
    assert!(wait_for_port(port, || true), "{name} in podman:\n{}", podman.run(["logs", "real"]));
    ask(name, port);
    podman.run(["rm", "-f", "real"]);
}

#[test]
fn the_wiki_answers_in_kiln_podman_and_docker() {
    let kiln = Kiln::new().import_debian();
    build(&kiln, &context(&kiln, "wiki"), "wiki");
    let (container, port) = start(&kiln, "wiki");
    ask("wiki", port);
    container.stop();
    publish(&kiln, "wiki");
    carry(&kiln, "wiki");
}

#[test]
fn the_node_application_answers_and_an_edit_does_not_run_npm_again() {
    let kiln = Kiln::new().import_debian();
    let context = context(&kiln, "node");
    let first = build(&kiln, &context, "node");
    assert!(first.output().contains("added "), "npm ran:\n{first}");
    let (container, port) = start(&kiln, "node");
    ask("node", port);
    container.stop();

    let root = kiln.filesystem("node:1");
    assert!(root.get("app/node_modules/express/package.json").is_some());
    assert!(root.get("run/secrets").is_none(), "the secret's place is gone");

    let source = std::fs::read_to_string(context.path().join("app.js")).unwrap();
    context.write("app.js", source.replace("Hello from Node", "Hello again"));
    let second = build(&kiln, &context, "node");
    assert!(!second.output().contains("added "), "npm ran again:\n{second}");
    thread::sleep(Duration::from_millis(100));
    let (container, port) = start(&kiln, "node");
    assert_eq!(fetch(&format!("http://127.0.0.1:{port}/"), &[]), "Hello again\n");
    container.stop();
    publish(&kiln, "node");
    carry(&kiln, "node");
}

#[test]
fn the_java_application_answers_in_kiln_podman_and_docker() {
    let kiln = Kiln::new().import_debian();
    build(&kiln, &context(&kiln, "java"), "java");
    let (container, port) = start(&kiln, "java");
    ask("java", port);
    container.stop();
    publish(&kiln, "java");
    let config = kiln.inspect("java:1")["Config"].clone();
    let environment = config["Env"].to_string();
    assert!(environment.contains("JAVA_HOME=/usr/lib/jvm/default-java"), "{environment}");
    assert!(environment.contains("PATH=/usr/lib/jvm/default-java/bin:/usr/local/sbin"), "{environment}");
    carry(&kiln, "java");
}

/// Built in one store: they share their caches of packages.
#[test]
fn projects_of_other_kinds_answer() {
    let kiln = Kiln::new().import_debian();
    for name in ["static", "c", "python", "redis"] {
        build(&kiln, &context(&kiln, name), name);
        let (container, port) = start(&kiln, name);
        ask(name, port);
        container.stop();
    }
    assert_eq!(kiln.filesystem("c:1").paths().collect::<Vec<_>>(), ["server"]);
    assert!(kiln.filesystem("python:1").get("root/.cache/pip").is_none(), "a cache is no part of the image");
}
