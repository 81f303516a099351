//! Real containers of a busybox image (Debian's busybox-static). Each runs in a process of its own, as `kiln run`
//! does: this binary, started again with `role=`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy does not know a test binary with its own main"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use kiln_container::network::{Mode, NetworkOptions};
use kiln_container::{Ended, Options, Phase, Terminal, Volume, find, layers_in_use, list, remove, run, users_of_image};
use kiln_image::config::{ImageConfig, RunConfig};
use kiln_image::{Image, Reference};
use kiln_sandbox::user_namespace::{self, Identity};
use kiln_store::Store;
use kiln_store::store::Privilege;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

type Case = (&'static str, fn(&Room));

const CASES: &[Case] = &[
    ("statuses", statuses),
    ("a_removed_container_leaves_nothing", a_removed_container_leaves_nothing),
    ("records", records),
    ("a_killed_supervisor_leaves_the_truth", a_killed_supervisor_leaves_the_truth),
    ("unfinished_containers_are_swept", unfinished_containers_are_swept),
    ("names_given_at_once", names_given_at_once),
    ("files_of_etc", files_of_etc),
    ("volumes", volumes),
    ("signals", signals),
    ("the_third_interrupt_kills", the_third_interrupt_kills),
    ("a_terminal", a_terminal),
];

fn main() -> ExitCode {
    kiln_container::init();
    kiln_sandbox::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, root, words @ ..] = arguments.as_slice()
        && role == "role=run"
    {
        return play(Path::new(root), words);
    }
    // What a test runner asks of a test binary.
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("container: test");
        }
        return ExitCode::SUCCESS;
    }
    let privilege = privilege();
    let wanted = |name: &str| arguments.iter().all(|filter| filter.starts_with('-') || name.contains(filter.as_str()));
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, case) in CASES.iter().filter(|(name, _)| wanted(name)) {
        let room = Room::new(privilege);
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&room))) {
            Ok(()) => passed += 1,
            Err(_) => failed.push(name),
        }
    }
    println!("{privilege:?}: {passed} passed, {} failed {failed:?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn privilege() -> Privilege {
    match user_namespace::enter().expect("a user namespace") {
        Identity::Root => Privilege::Root,
        Identity::Mapped => Privilege::Mapped,
        Identity::Single => Privilege::Single,
    }
}

struct Room {
    place: tempfile::TempDir,
    store: Store,
    image: Image,
}

const APPLETS: [&str; 12] =
    ["sh", "true", "cat", "ls", "echo", "sleep", "hostname", "stty", "touch", "id", "chmod", "mkdir"];

impl Room {
    fn new(privilege: Privilege) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let store = Store::open(&place.path().join("store"), privilege).expect("a store");
        let staging = store.stage().expect("staged");
        let root = staging.upper();
        for directory in ["bin", "etc", "tmp", "data"] {
            fs::create_dir_all(root.join(directory)).expect("mkdir");
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).expect("symlink");
        }
        fs::write(root.join("data/of-the-image"), "image\n").expect("written");
        let layer = store.commit(staging, None).expect("committed");
        let mut config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
        config.rootfs.diff_ids.push(layer.diff_id);
        config.config = RunConfig {
            env: Some(vec!["PATH=/bin".to_owned()]),
            cmd: Some(vec!["echo".to_owned(), "default".to_owned()]),
            volumes: Some(BTreeMap::from([("/data".to_owned(), Default::default())])),
            ..RunConfig::default()
        };
        let name = Reference::parse("busybox:1").expect("a name");
        let image = Image::commit(&store, &config, &[name]).expect("an image");
        Self { place, store, image }
    }

    fn root(&self) -> PathBuf {
        self.place.path().join("store")
    }

    /// `kiln run` in another process; words before `--` are flags.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg("role=run").arg(self.root()).args(words);
        command
    }

    /// Its status and output.
    fn run(&self, words: &[&str]) -> (i32, String) {
        let output = self.command(words).output().expect("started");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().expect("not killed"), text)
    }

    fn start(&self, words: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
        let mut child = self.command(words).stdout(Stdio::piped()).spawn().expect("started");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        (child, stdout)
    }

    fn containers(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root().join("containers")).into_iter().flatten().flatten();
        let hidden = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
        entries.filter(|entry| !hidden(entry)).map(|entry| entry.path()).collect()
    }

    fn volumes(&self) -> usize {
        fs::read_dir(self.root().join("volumes")).map_or(0, Iterator::count)
    }
}

/// `kiln run`, as far as the tests need it.
fn play(root: &Path, words: &[String]) -> ExitCode {
    let store = Store::open(root, privilege()).expect("a store");
    let (flags, args) = match words.iter().position(|word| word == "--") {
        Some(at) => (&words[..at], words[at + 1..].to_vec()),
        None => (words, Vec::new()),
    };
    let value = |name: &str| flags.iter().find_map(|flag| flag.strip_prefix(name)).map(str::to_owned);
    let has = |name: &str| flags.iter().any(|flag| flag == name);
    let image = Image::find(&store, "busybox:1").expect("the image");
    let options = Options {
        image_name: "busybox:1".to_owned(),
        args,
        volumes: flags
            .iter()
            .filter_map(|flag| flag.strip_prefix("-v="))
            .map(|text| Volume::parse(text).expect("a volume"))
            .collect(),
        workdir: value("-w="),
        user: value("-u="),
        name: value("--name="),
        hostname: value("-h="),
        remove: has("--rm"),
        interactive: has("-i"),
        tty: has("-t"),
        network: NetworkOptions {
            mode: if has("--network=none") { Mode::None } else { Mode::Host },
            ..NetworkOptions::default()
        },
        readonly: has("--read-only"),
        ..Options::default()
    };
    match run(store, &image, &options, &Terminal::default(), &mut |_| Ok(())) {
        Ok(Ended::Status(status)) => ExitCode::from(status),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            ExitCode::from(error.exit_status())
        }
    }
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("sent");
}

fn statuses(room: &Room) {
    assert_eq!(room.run(&["--rm"]), (0, "default\n".to_owned()));
    assert_eq!(room.run(&["--rm", "--", "sh", "-c", "exit 5"]).0, 5);
    assert_eq!(room.run(&["--rm", "--", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).0, 137);
    assert_eq!(room.run(&["--rm", "--", "no-such-command"]).0, 127);
    assert_eq!(room.run(&["--rm", "--", "/etc"]).0, 126);
    assert_eq!(room.run(&["--rm", "-u=nobody", "--", "true"]).0, 125);
    assert_eq!(room.run(&["--rm", "-w=relative", "--", "true"]).0, 125);
    assert_eq!(room.run(&["--rm", "--name=-", "--", "true"]).0, 125);
    assert_eq!(room.run(&["--rm", "-w=/new/place", "--", "sh", "-c", "pwd"]), (0, "/new/place\n".to_owned()));
    assert_eq!(room.run(&["--rm", "--read-only", "--", "sh", "-c", "touch /x 2>/dev/null"]).0, 1);
}

fn a_removed_container_leaves_nothing(room: &Room) {
    assert_eq!(room.run(&["--rm", "--", "sh", "-c", "mkdir /d; touch /d/f; chmod 0 /d; echo x > /data/x"]).0, 0);
    assert_eq!(room.run(&["--rm", "--", "no-such-command"]).0, 127);
    assert_eq!((room.containers(), room.volumes()), (Vec::new(), 0));
}

fn records(room: &Room) {
    assert_eq!(room.run(&["--name=first", "--", "sh", "-c", "echo x > /written; exit 3"]).0, 3);
    let (status, text) = room.run(&["--name=first", "--", "true"]);
    assert!(status == 125 && text.contains("already in use"), "{text}");
    let (mut child, mut stdout) = room.start(&["--rm", "--name=second", "--", "sh", "-c", "echo ready; sleep 100"]);
    assert_eq!(line(&mut stdout), "ready");

    let all = list(&room.store).expect("listed");
    let states: Vec<_> = all.iter().map(|one| (one.record.name.as_str(), one.state.phase, one.state.status)).collect();
    assert_eq!(states, [("second", Phase::Running, 0), ("first", Phase::Exited, 3)]);
    let first = find(&room.store, "first").expect("there");
    assert_eq!(first.record.settings.command(), ["sh", "-c", "echo x > /written; exit 3"]);
    assert_eq!(fs::read_dir(first.path.join("upper")).expect("kept").count(), 1);
    assert_eq!(users_of_image(&room.store, &room.image.id).expect("listed").len(), 2);
    assert_eq!(layers_in_use(&room.store).expect("listed"), room.image.layers);

    assert!(remove(&find(&room.store, "second").expect("there"), false, true).is_err());
    assert!(find(&room.store, "third").is_err());
    remove(&find(&room.store, first.record.short_id()).expect("there"), false, true).expect("removed");
    for _ in 0..3 {
        send(&child, Signal::INT);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(child.wait().expect("ended").code(), Some(137));
    assert_eq!((room.containers(), room.volumes()), (Vec::new(), 0));
    assert!(layers_in_use(&room.store).expect("listed").is_empty());
}

fn a_killed_supervisor_leaves_the_truth(room: &Room) {
    let (mut child, mut stdout) = room.start(&["--rm", "--name=gone", "--", "sh", "-c", "echo ready; sleep 100"]);
    assert_eq!(line(&mut stdout), "ready");
    // Whoever watches may go: the container stays.
    child.kill().expect("killed");
    child.wait().expect("reaped");
    let container = find(&room.store, "gone").expect("there");
    assert_eq!(container.state.phase, Phase::Running);
    // Its supervisor may not.
    let parent = fs::read_to_string(format!("/proc/{}/stat", container.state.pid)).expect("it runs");
    let parent = parent.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
    let supervisor = parent.and_then(Pid::from_raw).expect("a parent");
    kill_process(supervisor, Signal::KILL).expect("killed");
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut container = container;
    while container.state.is_alive() {
        assert!(Instant::now() < deadline, "it is said to run");
        std::thread::sleep(Duration::from_millis(5));
        container.refresh();
    }
    assert_eq!((container.state.phase, container.state.status), (Phase::Exited, 137));
    remove(&container, false, true).expect("removed");
    assert_eq!((room.containers(), room.volumes()), (Vec::new(), 0));
}

fn unfinished_containers_are_swept(room: &Room) {
    let half = room.root().join("containers/.aside/half");
    fs::create_dir_all(half.join("upper/x")).expect("mkdir");
    assert!(list(&room.store).expect("listed").is_empty());
    assert_eq!(room.run(&["--rm"]).0, 0);
    assert!(!half.exists() && room.containers().is_empty());
}

fn names_given_at_once(room: &Room) {
    let children: Vec<Child> = (0..4)
        .map(|_| room.command(&["--name=same", "--", "true"]).stdout(Stdio::null()).spawn().expect("started"))
        .collect();
    let statuses: Vec<_> = children.into_iter().map(|mut child| child.wait().expect("ended").code()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == Some(0)).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == Some(125)).count(), 3, "{statuses:?}");
}

fn files_of_etc(room: &Room) {
    let script = "hostname; cat /etc/hostname; cat /etc/hosts; echo x >> /etc/hostname; echo x >> /etc/resolv.conf";
    let (status, text) = room.run(&["--name=etc", "--network=none", "-h=kiln-host", "--", "sh", "-c", script]);
    assert_eq!(status, 0);
    assert!(text.starts_with("kiln-host\nkiln-host\n127.0.0.1\tlocalhost\n"), "{text}");
    assert!(text.lines().any(|line| line.ends_with("\tkiln-host")), "{text}");
    let upper = room.containers().first().expect("kept").join("upper");
    assert_eq!(fs::read_dir(upper).expect("there").count(), 0);
    let (_, text) = room.run(&["--rm", "--network=none", "--", "hostname"]);
    assert!(text.trim().len() == 12 && text.trim().bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
    let (_, text) = room.run(&["--rm", "--", "hostname"]);
    assert_eq!(text.trim(), rustix::system::uname().nodename().to_string_lossy());
}

fn volumes(room: &Room) {
    let host = room.place.path().join("host");
    let bind = format!("-v={}:/host", host.display());
    let script = "cat /data/of-the-image; echo more > /data/more; echo x > /host/x; ls /named; echo y > /named/y";
    let (status, text) = room.run(&["--rm", &bind, "-v=keep:/named", "--", "sh", "-c", script]);
    assert_eq!((status, text.as_str()), (0, "image\n"));
    assert_eq!(fs::read_to_string(host.join("x")).expect("there"), "x\n");
    assert_eq!(room.volumes(), 1, "the named one stays, the image's own went");
    let bind = format!("-v={}:/host:ro", host.display());
    let script = "cat /named/y /data/*; touch /host/z 2>/dev/null || echo no";
    let (_, text) = room.run(&["--rm", &bind, "-v=keep:/named", "-v=fresh:/data", "--", "sh", "-c", script]);
    assert_eq!(text, "y\nimage\nno\n");
    assert_eq!(room.volumes(), 2);
    // A target behind a symlink is looked up inside.
    let (_, text) = room.run(&["--rm", "-v=keep:/etc/../../../named", "--", "cat", "/named/y"]);
    assert_eq!(text, "y\n");
}

fn signals(room: &Room) {
    let script = "for s in HUP INT QUIT USR1 USR2; do trap \"echo $s\" $s; done; trap 'echo TERM; exit 9' TERM; \
                  echo ready; while :; do sleep 0.01; done";
    let (mut child, mut stdout) = room.start(&["--rm", "--", "sh", "-c", script]);
    assert_eq!(line(&mut stdout), "ready");
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::TERM, "TERM"),
    ] {
        send(&child, signal);
        assert_eq!(line(&mut stdout), name);
    }
    assert_eq!(child.wait().expect("ended").code(), Some(9));
}

fn the_third_interrupt_kills(room: &Room) {
    let (mut child, mut stdout) =
        room.start(&["--", "sh", "-c", "trap '' INT TERM; echo ready; while :; do sleep 1; done"]);
    assert_eq!(line(&mut stdout), "ready");
    for signal in [Signal::INT, Signal::TERM] {
        send(&child, signal);
        std::thread::sleep(Duration::from_millis(50));
        assert!(child.try_wait().expect("asked").is_none());
    }
    send(&child, Signal::INT);
    assert_eq!(child.wait().expect("ended").code(), Some(137));
    let all = list(&room.store).expect("listed");
    assert_eq!(all.first().map(|one| (one.state.phase, one.state.status)), Some((Phase::Exited, 137)));
}

/// Reads until the text has come.
fn expect(master: &mut File, wanted: &str) -> String {
    let (mut text, deadline) = (String::new(), Instant::now() + Duration::from_secs(10));
    while !text.contains(wanted) {
        assert!(Instant::now() < deadline, "{wanted:?} in {text:?}");
        let mut buffer = [0; 1024];
        let mut polled = [PollFd::new(&*master, PollFlags::IN)];
        if poll(&mut polled, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).expect("polled") == 0 {
            continue;
        }
        let length = master.read(&mut buffer).unwrap_or_else(|error| panic!("{error}: {wanted:?} in {text:?}"));
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    text
}

fn a_terminal(room: &Room) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    unlockpt(&master).expect("unlocked");
    let slave: OwnedFd = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .expect("its other side");
    let size = |columns: u16| Winsize { ws_row: 33, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size(77)).expect("set");
    let before = tcgetattr(&slave).expect("a terminal");
    assert!(before.local_modes.contains(LocalModes::ICANON));
    let script = "stty size; read a; trap 'stty size' WINCH; trap 'echo interrupted; exit 4' INT; echo got $a; \
                  while :; do sleep 0.01; done";
    let stream = || Stdio::from(slave.try_clone().expect("cloned"));
    let mut child = room.command(&["--rm", "-i", "-t", "--", "sh", "-c", script]);
    let mut child = child.stdin(stream()).stdout(stream()).stderr(stream()).spawn().expect("started");
    let mut master = File::from(master);
    expect(&mut master, "33 77\r\n");
    // Control-C is the container's terminal's to understand: ours is raw.
    assert!(!tcgetattr(&slave).expect("a terminal").local_modes.contains(LocalModes::ISIG));
    master.write_all(b"word\r").expect("written");
    let text = expect(&mut master, "got word\r\n");
    assert!(text.starts_with("word\r\n"), "echoed once: {text:?}");
    tcsetwinsize(&master, size(99)).expect("set");
    send(&child, Signal::WINCH);
    expect(&mut master, "33 99\r\n");
    master.write_all(&[3]).expect("written");
    expect(&mut master, "interrupted\r\n");
    assert_eq!(child.wait().expect("ended").code(), Some(4));
    let after = tcgetattr(&slave).expect("a terminal");
    assert_eq!(
        (after.local_modes, after.input_modes, after.output_modes),
        (before.local_modes, before.input_modes, before.output_modes)
    );
}
