//! The usual tutorials, command by command, with `kiln` where they say `docker`.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use kiln_tests::{Kiln, OnTerminal, eventually, fixture, free_port, proxies};

/// What a web server at a port of this machine answers, if it does.
fn ask(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[track_caller]
fn answers(port: u16, wanted: &str) {
    eventually(&format!("{wanted:?} at port {port}"), || ask(port).is_some_and(|text| text.contains(wanted)));
}

fn names(kiln: &Kiln, options: &[&str]) -> String {
    let line = ["ps", "--format", "{{.Names}}"].into_iter().chain(options.iter().copied());
    kiln.run(line).stdout.lines().collect::<Vec<_>>().join(" ")
}

#[test]
fn hello_world() {
    let kiln = Kiln::with_busybox();
    kiln.run(["build", "-t", "hello-world", fixture("hello").to_str().unwrap()]);
    kiln.run(["run", "hello-world"]).says("Hello");
    assert_eq!(names(&kiln, &[]), "");
    kiln.run(["ps", "-a"]).says("hello-world").says("Exited (0)");
    kiln.run(["images"]).says("hello-world");
    let id = kiln.run(["ps", "-l", "-q"]);
    kiln.try_run(["rmi", "hello-world"]).code(1).says(id.text());
    kiln.run(["rm", id.text()]);
    kiln.run(["rmi", "hello-world"]).says("Untagged: hello-world:latest");
}

/// A web server of Debian's packages in the background, at a published port; an editor's work in it; its life.
#[test]
fn nginx_is_published_looked_into_changed_and_restarted() {
    let kiln = Kiln::new().import_debian();
    let proxies = proxies();
    let options: Vec<&str> = proxies.iter().flat_map(|proxy| ["--build-arg", proxy]).collect();
    let context = kiln.context(&[(
        "Dockerfile",
        "FROM debian:12\n\
         RUN apt-get update && apt-get install -y --no-install-recommends nginx-light git && rm -rf /var/lib/apt/lists/*\n\
         EXPOSE 80\n\
         STOPSIGNAL SIGQUIT\n\
         CMD [\"nginx\", \"-g\", \"daemon off;\"]\n",
    )]);
    kiln.build(&context, "nginx", &options);

    let port = free_port();
    let place = format!("{port}:80");
    let id = kiln.run(["run", "-d", "-p", &place, "--name", "web", "nginx"]);
    answers(port, "Welcome to nginx");
    kiln.run(["ps"]).says(&id.text()[..12]).says(&format!("0.0.0.0:{port}->80/tcp")).says("Up ").says("web");
    kiln.run(["port", "web"]).says(&format!("80/tcp -> 0.0.0.0:{port}"));
    kiln.run(["top", "web"]).says("nginx: master process");
    let page = "echo changed by hand > /var/www/html/index.nginx-debian.html";
    kiln.run(["exec", "web", "sh", "-c", page]);
    answers(port, "changed by hand");
    // What was changed stays over a restart, and is no other container's.
    kiln.run(["restart", "web"]);
    answers(port, "changed by hand");
    let other = free_port();
    kiln.run(["run", "-d", "--name", "other", "-p", &format!("{other}:80"), "nginx"]);
    answers(other, "Welcome to nginx");
    let file = kiln.context(&[("index.html", "copied in\n")]);
    kiln.run(["cp", file.path().join("index.html").to_str().unwrap(), "web:/var/www/html/index.nginx-debian.html"]);
    answers(port, "copied in");
    kiln.run(["stop", "web"]);
    assert!(ask(port).is_none(), "nobody answers");
    kiln.run(["ps", "-a", "-f", "name=web"]).says("Exited (0)");
    kiln.run(["start", "web"]);
    answers(port, "copied in");
    let usage = kiln.run(["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "web"]);
    assert!(usage.text().starts_with("web ") && !usage.text().ends_with(" 0"), "{usage}");
    // A page of the host instead, read-only.
    let pages = kiln.context(&[("index.html", "from the host\n")]);
    let third = free_port();
    let mount = format!("{}:/var/www/html:ro", pages.path().display());
    kiln.run(["run", "-d", "--rm", "--name", "bound", "-v", &mount, "-p", &format!("{third}:80"), "nginx"]);
    answers(third, "from the host");
    pages.write("index.html", "edited on the host\n");
    answers(third, "edited on the host");
    kiln.run(["rm", "-f", "web", "other", "bound"]);
    assert_eq!(names(&kiln, &["-a"]), "");
}

/// A shell in a container: what is done there is the container's, and not the image's.
#[test]
fn an_interactive_shell_leaves_the_image_alone() {
    let kiln = Kiln::new().import_debian();
    let mut shell = OnTerminal::start(kiln.command(["run", "-it", "--name", "first", "debian:12", "bash"]));
    shell.presses("rm -r /home /srv && mkdir /mine && echo done-$((1+1))\r");
    shell.sees("done-2");
    // A signal of the keyboard is the command's.
    shell.presses("sleep 1000\r");
    thread::sleep(Duration::from_millis(500));
    shell.presses("\x03");
    shell.presses("echo interrupted-$?\r");
    shell.sees("interrupted-130");
    shell.presses("exit 3\r");
    assert_eq!(shell.ends().code(), Some(3));
    kiln.run(["run", "--rm", "debian:12", "sh", "-c", "test -d /home && test -d /srv && test ! -e /mine"]);
    kiln.run(["diff", "first"]).says("D /home").says("D /srv").says("A /mine");

    kiln.run(["start", "first"]);
    let mut shell = OnTerminal::start(kiln.command(["attach", "first"]));
    shell.presses("ls -d /mine; echo seen-$?\r");
    shell.sees("seen-0");
    shell.presses("\x10\x11");
    assert_eq!(shell.ends().code(), Some(0));
    assert_eq!(names(&kiln, &[]), "first", "it runs on without us");
    kiln.run(["exec", "first", "ls", "-d", "/mine"]);
    kiln.run(["stop", "-t", "0", "first"]);
    kiln.run(["start", "first"]);
    kiln.run(["kill", "first"]);
    kiln.run(["wait", "first"]);
    kiln.run(["rm", "first"]);
}

/// git is installed by hand in a container, which becomes an image; the first image goes when nobody needs it.
#[test]
fn a_container_with_git_becomes_an_image() {
    let kiln = Kiln::new().import_debian();
    let install = "apt-get update -q && apt-get install -y -q --no-install-recommends git && git --version";
    let proxies = proxies();
    let variables = proxies.iter().flat_map(|proxy| ["-e", proxy]);
    let line = ["run", "--network", "host", "--name", "work"].into_iter().chain(variables);
    kiln.run(line.chain(["debian:12", "sh", "-c", install])).says("git version");
    let changes = kiln.run(["diff", "work"]).stdout;
    for line in ["A /usr/bin/git\n", "C /var/lib/dpkg/status\n", "C /usr/bin\n"] {
        assert!(changes.contains(line), "{line}{changes}");
    }
    kiln.run(["commit", "-m", "with git", "-a", "me", "-c", "CMD [\"git\", \"--version\"]", "work", "debian-git:1"]);
    kiln.run(["run", "--rm", "--network", "none", "debian-git:1"]).says("git version 2.");
    kiln.run(["history", "debian-git:1"]).says("with git");
    let id = kiln.run(["ps", "-a", "-q"]);
    kiln.try_run(["rmi", "debian:12"]).code(1).says("unable to remove").says(id.text());
    kiln.run(["rm", "work"]);
    kiln.run(["rmi", "debian:12"]).says("Untagged: debian:12");
    kiln.run(["run", "--rm", "--network", "none", "debian-git:1"]).says("git version 2.");
}

#[test]
fn volumes_survive_their_containers() {
    let kiln = Kiln::with_busybox();
    let shell = |options: &[&str], script: &str| {
        let line = ["run"].into_iter().chain(options.iter().copied()).chain(["busybox", "sh", "-c", script]);
        kiln.run(line).stdout
    };
    // Anonymous: kept with the container, found by its name, gone with `rm -v`.
    shell(&["--name", "first", "-v", "/data"], "echo anonymous > /data/f");
    let name = kiln.run(["inspect", "-f", "{{(index .Mounts 0).Name}}", "first"]);
    assert_eq!(kiln.run(["volume", "ls", "-q"]).text(), name.text());
    kiln.run(["rm", "first"]);
    assert_eq!(shell(&["--rm", "-v", &format!("{}:/again", name.text())], "cat /again/f"), "anonymous\n");
    kiln.run(["volume", "rm", name.text()]);
    // Named.
    kiln.run(["volume", "create", "kept"]);
    shell(&["--rm", "-v", "kept:/data"], "echo named > /data/f");
    assert_eq!(
        shell(&["--rm", "-v", "kept:/data:ro"], "cat /data/f; touch /data/g 2>/dev/null || echo ro"),
        "named\nro\n"
    );
    let place = kiln.run(["volume", "inspect", "-f", "{{.Mountpoint}}", "kept"]);
    assert_eq!(fs::read_to_string(format!("{}/f", place.text())).unwrap(), "named\n");
    kiln.run(["volume", "rm", "kept"]);
    // Of the host.
    let directory = kiln.context(&[("f", "of the host\n")]);
    let mount = format!("{}:/data", directory.path().display());
    assert_eq!(shell(&["--rm", "-v", &mount], "cat /data/f; echo back > /data/g"), "of the host\n");
    assert_eq!(fs::read_to_string(directory.path().join("g")).unwrap(), "back\n");
}

#[test]
fn containers_of_a_network_of_ones_own_find_each_other_by_name() {
    let kiln = Kiln::with_busybox();
    kiln.run(["network", "create", "mine"]);
    kiln.run(["network", "ls"]).says("mine").says("bridge");
    let serve = "echo from the server > /index.html; exec httpd -f -p 80 -h /";
    kiln.run(["run", "-d", "--name", "server", "--network", "mine", "busybox", "sh", "-c", serve]);
    let fetch = "for i in $(seq 200); do wget -qO- http://server/ && exit; sleep 0.05; done; exit 1";
    let client = kiln.run(["run", "--rm", "--network", "mine", "busybox", "sh", "-c", fetch]);
    assert_eq!(client.stdout, "from the server\n");
    kiln.run(["network", "inspect", "mine"]).says("\"Name\": \"server\"");
    kiln.try_run(["network", "rm", "mine"]).code(1).says("server");
    kiln.run(["rm", "-f", "server"]);
    kiln.run(["network", "rm", "mine"]);
}
