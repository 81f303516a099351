//! What is not in a directory of this host: contexts on standard input, behind URLs and in repositories, named
//! contexts, and what ADD fetches.

use std::process::{Child, Command, Stdio};

use kiln_tests::{Context, HttpServer, Kiln, LAST_MODIFIED, command, free_port, run, run_with_input, wait_for_port};

/// The files of a context as a tar, compressed by `flag`.
fn archive(context: &Context, flag: &str) -> Vec<u8> {
    let mut tar = command("tar", ["-c", "--owner=7", "--group=8", "--numeric-owner"]);
    if !flag.is_empty() {
        tar.arg(flag);
    }
    tar.current_dir(context.path()).args(["-C", ".", "."]);
    run(tar).success().bytes
}

fn build_with_input(kiln: &Kiln, arguments: &[&str], input: &[u8]) -> kiln_tests::Outcome {
    let mut line = vec!["build", "--progress=plain", "-t", "t"];
    line.extend(arguments);
    run_with_input(kiln.command(line), input).no_panic()
}

/// Proves: D1.12-3, D1.12-4
#[test]
fn standard_input_is_an_archive_of_the_context_or_the_dockerfile() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[
        ("Dockerfile", "FROM scratch\nCOPY a dir /\n"),
        ("Other", "FROM scratch\nCOPY a /other\n"),
        (".dockerignore", "a\n"),
        ("a", "alpha"),
        ("dir/b", "beta"),
    ]);
    for flag in ["", "-z", "-j", "-J"] {
        build_with_input(&kiln, &["-"], &archive(&context, flag)).success();
        let root = kiln.filesystem("t");
        let paths: Vec<&str> = root.paths().collect();
        assert_eq!(paths, ["a", "b"], "tar {flag}");
        // An archive says whose its files are.
        assert_eq!(root.get("a").map(|node| (node.uid, node.gid)), Some((7, 8)));
    }
    build_with_input(&kiln, &["-f", "Other", "-"], &archive(&context, "")).success();
    assert!(kiln.filesystem("t").get("other").is_some());
    build_with_input(&kiln, &["-"], b"FROM busybox\nRUN echo text > /text\n").success();
    assert!(kiln.filesystem("t").get("text").is_some());
    build_with_input(&kiln, &["-"], b"FROM scratch\nCOPY a /\n").failure().says("no context");
    build_with_input(&kiln, &["-f", "-", "-"], b"FROM scratch\n").failure().says("standard input");
}

/// Proves: D1.12-4, D1.12-5
#[test]
fn a_url_is_an_archive_of_the_context_or_a_dockerfile() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM scratch\nCOPY a /\n"), ("a", "alpha")]);
    let web = HttpServer::start(&[
        ("/context.tar.gz", &archive(&context, "-z")),
        ("/some/Dockerfile", b"FROM busybox\nRUN echo from > /url\n"),
        ("/with-context", b"FROM scratch\nCOPY a /named\n"),
    ]);
    kiln.run(["build", "-t", "t", &web.url("/context.tar.gz")]);
    assert!(kiln.filesystem("t").get("a").is_some());
    kiln.run(["build", "-t", "t", &web.url("/some/Dockerfile")]);
    assert!(kiln.filesystem("t").get("url").is_some());
    kiln.build(&context, "t", &["-f", &web.url("/with-context")]);
    assert!(kiln.filesystem("t").get("named").is_some());
    kiln.try_run(["build", &web.url("/none")]).failure().says("404");
}

/// `git daemon` over a repository with a branch, a tag and a directory.
struct GitServer {
    daemon: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl GitServer {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("kiln-git-").tempdir().expect("a directory");
        let mut script = command(
            "sh",
            [
                "-euc",
                "git init -q -b main work; cd work; git config user.email a@b; git config user.name n
             printf 'FROM scratch\\nCOPY . /\\n' > Dockerfile; mkdir sub
             printf 'FROM scratch\\nCOPY f /sub-f\\n' > sub/Dockerfile; echo one > sub/f; chmod 755 sub/f
             ln -s sub/f link; echo first > version; git add .; git commit -qm 1; git tag -a -m v1 v1
             echo second > version; git commit -qam 2
             git checkout -q -b side; echo side > version; git commit -qam 3; git checkout -q main
             cd ..; git clone -q --bare work repo.git; git -C repo.git update-server-info",
            ],
        );
        script.current_dir(directory.path()).env("GIT_CONFIG_GLOBAL", "/dev/null").env("HOME", directory.path());
        script.env("GIT_COMMITTER_DATE", "1700000000 +0000").env("GIT_AUTHOR_DATE", "1700000000 +0000");
        run(script).success();
        let port = free_port();
        let mut daemon = Command::new("git");
        daemon.args(["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1"]);
        daemon.arg(format!("--port={port}")).arg(format!("--base-path={}", directory.path().display()));
        daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut daemon = daemon.spawn().expect("git daemon starts");
        assert!(wait_for_port(port, || matches!(daemon.try_wait(), Ok(None))), "git daemon does not answer");
        Self { daemon, port, directory }
    }

    fn url(&self, rest: &str) -> String {
        format!("git://127.0.0.1:{}/repo.git{rest}", self.port)
    }

    fn commit(&self, name: &str) -> String {
        let mut git = command("git", ["-c", "safe.directory=*", "rev-parse", name]);
        git.current_dir(self.directory.path().join("repo.git"));
        run(git).success().text().trim().to_owned()
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        kiln_tests::signal(&self.daemon, rustix::process::Signal::TERM);
        drop(self.daemon.wait());
    }
}

fn content(kiln: &Kiln, image: &str, path: &str) -> Option<String> {
    let root = kiln.filesystem(image);
    root.get(path).map(|node| format!("{:?}", node.kind))
}

/// Proves: D1.12-6, D1.11-9
#[test]
fn a_repository_is_a_context() {
    let kiln = Kiln::with_busybox();
    let git = GitServer::start();
    kiln.run(["build", "-t", "main", &git.url("")]);
    let root = kiln.filesystem("main");
    let paths: Vec<&str> = root.paths().collect();
    assert_eq!(paths, ["Dockerfile", "link", "sub", "sub/Dockerfile", "sub/f", "version"]);
    let modes = ["version", "sub/f"].map(|path| root.get(path).map(|node| (node.mode, node.uid)));
    assert_eq!(modes, [Some((0o644, 0)), Some((0o755, 0))]);
    let (tag, branch, commit) = (git.url("#v1"), git.url("#side"), git.url(&format!("#{}", git.commit("v1^{}"))));
    for (name, url) in [("tag", &tag), ("branch", &branch), ("commit", &commit)] {
        kiln.run(["build", "-t", name, url]);
    }
    assert_eq!(content(&kiln, "tag", "version"), content(&kiln, "commit", "version"));
    assert_ne!(content(&kiln, "tag", "version"), content(&kiln, "branch", "version"));
    kiln.run(["build", "-t", "sub", &git.url("#main:sub")]);
    assert!(kiln.filesystem("sub").get("sub-f").is_some());
    kiln.run(["build", "-t", "query", &git.url("?branch=main&subdir=sub&keep-git-dir=0")]);
    assert_eq!(kiln.image_id("query"), kiln.image_id("sub"));
    kiln.run(["build", "-t", "kept", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &git.url("")]);
    assert!(kiln.filesystem("kept").get(".git/HEAD").is_some());
    kiln.try_run(["build", &git.url("#nowhere")]).failure().says("nowhere");
    kiln.try_run(["build", &git.url("#main:none")]).failure().says("none");
}

/// Proves: D1.11-6, D1.11-8
#[test]
fn add_takes_repositories() {
    let kiln = Kiln::with_busybox();
    let git = GitServer::start();
    let (plain, head) = (git.url(""), git.commit("main"));
    let dockerfile = format!(
        "FROM scratch\nADD {plain} /plain\nADD --keep-git-dir=true {}#v1 /kept/\nADD --chown=3:4 {}#main:sub /sub\n",
        git.url(""),
        git.url("")
    );
    kiln.build_text(&dockerfile, "t");
    let root = kiln.filesystem("t");
    assert!(root.get("plain/version").is_some() && root.get("plain/.git").is_none());
    assert!(root.get("kept/.git/HEAD").is_some());
    assert_eq!(root.get("sub/f").map(|node| (node.uid, node.gid)), Some((3, 4)));
    kiln.build_text(&format!("FROM scratch\nADD --checksum={head} {plain} /x\n"), "checked");
    let wrong = kiln.context(&[("Dockerfile", &format!("FROM scratch\nADD --checksum=abcdef0 {plain} /x\n"))]);
    kiln.try_build(&wrong, "wrong", &[]).failure().says("abcdef0").says("Dockerfile:2");
}

/// A server of nothing but files serves a repository too.
///
/// Proves: D1.11-8
#[test]
fn a_repository_behind_plain_http() {
    let kiln = Kiln::with_busybox();
    let git = GitServer::start();
    let web = HttpServer::start(&[]);
    let bare = git.directory.path().join("repo.git");
    for path in files(&bare) {
        let name = path.strip_prefix(&bare).unwrap().to_str().unwrap().to_owned();
        web.put(&format!("/repo.git/{name}"), &std::fs::read(&path).unwrap());
    }
    kiln.build_text(&format!("FROM scratch\nADD {} /x\n", web.url("/repo.git#v1")), "t");
    assert!(kiln.filesystem("t").get("x/version").is_some());
}

fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Proves: D1.11-4, D1.11-5, D1.11-6, D1.10-17
#[test]
fn add_fetches_files_and_asks_again_only_whether_they_changed() {
    let kiln = Kiln::with_busybox();
    let tar = archive(&kiln.context(&[("inner", "x")]), "-z");
    let web = HttpServer::start(&[("/a/file.txt", b"alpha"), ("/t.tgz", &tar)]);
    let (file, archive) = (web.url("/a/file.txt?q=1"), web.url("/t.tgz"));
    let dockerfile = format!(
        "FROM scratch\nADD {file} /\nADD {file} /named\nADD --chmod=755 --chown=1:2 {file} /owned\n\
         ADD {archive} /packed/\nADD --unpack=true {archive} /unpacked/\n"
    );
    let context = kiln.context(&[("Dockerfile", &dockerfile), ("l.txt", "local")]);
    kiln.build(&context, "t", &[]);
    let root = kiln.filesystem("t");
    let node = root.get("file.txt").expect("the name is that of the URL's path");
    assert_eq!((node.mode, node.uid, node.mtime), (0o600, 0, LAST_MODIFIED));
    assert_eq!(root.get("owned").map(|node| (node.mode, node.uid, node.gid)), Some((0o755, 1, 2)));
    assert!(root.get("named").is_some() && root.get("packed/t.tgz").is_some() && root.get("unpacked/inner").is_some());
    web.take_log();
    let first = kiln.image_id("t");
    kiln.build(&context, "t", &[]);
    assert_eq!(kiln.image_id("t"), first);
    assert!(web.take_log().iter().all(|line| line.ends_with("304")), "nothing is sent twice");
    web.put("/a/file.txt", b"other");
    kiln.build(&context, "t", &[]);
    assert_ne!(kiln.image_id("t"), first);

    let sum = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
    web.put("/foo", b"foo");
    web.take_log();
    let checked =
        format!("FROM scratch\nADD --checksum={sum} {} /\nADD l.txt {} /both/\n", web.url("/foo"), web.url("/foo"));
    context.write("Dockerfile", checked);
    kiln.build(&context, "checked", &[]);
    assert!(kiln.filesystem("checked").get("both/l.txt").is_some());
}

/// Proves: D1.11-6, D1.10-17
#[test]
fn add_refuses_what_is_not_as_it_should_be() {
    let kiln = Kiln::with_busybox();
    let web = HttpServer::start(&[("/foo", b"bar")]);
    let sum = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
    let url = web.url("/foo");
    for (line, said) in [
        (format!("ADD --checksum={sum} {url} /x"), "digest mismatch"),
        (format!("ADD {} /x", web.url("/none")), "404"),
        (format!("COPY {url} /x"), "COPY takes no URL"),
        (format!("ADD --checksum={sum} l.txt /x"), "--checksum is for"),
        (format!("ADD --checksum=md5:1 {url} /x"), "not a checksum"),
    ] {
        let context = kiln.context(&[("Dockerfile", &format!("FROM scratch\n{line}\n")), ("l.txt", "")]);
        kiln.try_build(&context, "t", &[]).failure().says(said).says("Dockerfile:2");
    }
}

/// Proves: D1.12-13, D1.12-14, --build-context, D1.8-8
#[test]
fn named_contexts_stand_for_stages_and_images() {
    let kiln = Kiln::with_busybox();
    let other = kiln.context(&[("f", "other"), ("g", "hidden"), (".dockerignore", "g\n")]);
    let place = |name: &str| format!("{name}={}", other.path().display());
    let dockerfile = "FROM busybox AS stage\nRUN exit 1\nFROM busybox\nCOPY --from=stage /f /from-stage\n\
         COPY --from=extra . /extra/\nRUN --mount=from=extra,target=/m cat /m/f > /mounted && ls -a /m > /list\n";
    let context = kiln.context(&[("Dockerfile", dockerfile)]);
    let (stage, extra) = (place("stage"), place("extra"));
    let unused = "unused=https://127.0.0.1:1/never.git";
    kiln.build(&context, "t", &["--build-context", &stage, "--build-context", &extra, "--build-context", unused]);
    let root = kiln.filesystem("t");
    assert!(root.get("from-stage").is_some() && root.get("extra/f").is_some() && root.get("mounted").is_some());
    assert!(root.get("extra/g").is_none(), "the context has an ignore file of its own");

    kiln.build_text("FROM busybox\nRUN echo swapped > /swapped\n", "swapped");
    let context = kiln.context(&[("Dockerfile", "FROM elsewhere.example/base:1\nCOPY --from=tools /swapped /tool\n")]);
    let image = ["--build-context", "elsewhere.example/base:1=docker-image://swapped"];
    let options = [image[0], image[1], "--build-context", "tools=docker-image://swapped"];
    kiln.build(&context, "t", &options);
    assert!(kiln.filesystem("t").get("tool").is_some());

    let layout = other.path().join("layout");
    let layout = layout.to_str().unwrap();
    kiln.run(["save", "--format", "oci-dir", "-o", layout, "swapped"]);
    let context = kiln.context(&[("Dockerfile", "FROM base\nRUN cat /swapped > /seen\n")]);
    kiln.build(&context, "t", &["--build-context", &format!("base=oci-layout://{layout}")]);
    kiln.build(&context, "t", &["--build-context", &format!("base=oci-layout://{layout}:latest")]);
    assert!(kiln.filesystem("t").get("seen").is_some());

    let git = GitServer::start();
    let context = kiln.context(&[("Dockerfile", "FROM src AS s\nFROM scratch\nCOPY --from=s /version /v\n")]);
    kiln.build(&context, "t", &["--build-context", &format!("src={}", git.url("#v1"))]);
    assert!(kiln.filesystem("t").get("v").is_some());
    kiln.try_build(&context, "t", &["--build-context", "src=/no/such/directory"]).failure().says("/no/such/directory");
}

/// Proves: --ignorefile, D1.12-9, D1.12-11
#[test]
fn the_ignore_file_may_be_named_or_be_the_dockerfiles_own() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[
        ("Dockerfile", "FROM scratch\nCOPY . /\n"),
        (".dockerignore", "a\n"),
        (".containerignore", "b\n"),
        ("Own", "FROM scratch\nCOPY . /\n"),
        ("Own.dockerignore", "c\n"),
        ("named", "a\nb\n"),
        ("a", ""),
        ("b", ""),
        ("c", ""),
    ]);
    let path = |name: &str| context.path().join(name).to_str().unwrap().to_owned();
    let left = |options: &[&str]| {
        kiln.build(&context, "t", options);
        let root = kiln.filesystem("t");
        ["a", "b", "c"].into_iter().filter(|name| root.get(name).is_some()).collect::<String>()
    };
    assert_eq!(left(&[]), "ac");
    assert_eq!(left(&["-f", &path("Own")]), "ab");
    assert_eq!(left(&["--ignorefile", &path("named")]), "c");
}
