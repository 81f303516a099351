//! The same work for ordinary users: one with subordinate ids, one without.

use std::fs;

use kiln_tests::{Account, Kiln, Registry, run_with_input};

fn with_subuids() -> Kiln {
    Kiln::of(Account::with_subuids()).import_busybox()
}

#[test]
fn a_user_with_subuids_builds_runs_and_saves() {
    let kiln = with_subuids();
    let context = kiln.context(&[
        (
            "Dockerfile",
            "FROM busybox AS one\nRUN echo made > /made && chown 33:100 /made && chmod 4750 /made\n\
             FROM busybox\nCOPY --from=one /made /made\nCOPY --chown=8:12 a /a\nADD t.tar /t/\n\
             RUN rm -r /home && mkdir -p /d/e && chown -R operator:staff /d\nUSER www-data\nRUN id -un > /tmp/who\n",
        ),
        ("a", "alpha\n"),
    ]);
    context.shell("echo in > in; chown 1000:1001 in; tar --numeric-owner -cf t.tar in; rm in");
    kiln.build(&context, "t", &[]);
    let root = kiln.filesystem("t");
    let owner = |path: &str| root.get(path).map(|node| (node.uid, node.gid, node.mode)).unwrap();
    assert_eq!(owner("made"), (33, 100, 0o4750));
    assert_eq!((owner("a").0, owner("a").1), (8, 12));
    assert_eq!((owner("t/in").0, owner("t/in").1), (1000, 1001));
    assert_eq!((owner("d/e").0, owner("d/e").1), (37, 50));
    assert!(root.get("home").is_none());
    assert_eq!(kiln.output("t", &["cat", "/tmp/who"]), "www-data\n");
    assert_eq!(kiln.run(["run", "--rm", "-u", "12:34", "t", "id", "-u"]).stdout, "12\n");
}

#[test]
fn deleting_and_renaming_lower_directories_works() {
    let kiln = with_subuids();
    kiln.build_text(
        "FROM busybox\nRUN mkdir -p /a/b/c && touch /a/b/c/d\nRUN mv /a/b /moved && rm -r /var && mkdir /var\n\
         RUN test -f /moved/c/d && test ! -e /a/b && test -z \"$(ls -A /var)\"\n",
        "t",
    );
    let root = kiln.filesystem("t");
    assert!(root.get("moved/c/d").is_some() && root.get("a/b").is_none() && root.get("var/spool").is_none());
    let saved = kiln.saved("t");
    for node in root.paths().filter_map(|path| root.get(path)) {
        assert!(node.xattrs.keys().all(|name| !name.contains("overlay")), "{:?}", node.xattrs);
    }
    assert_eq!(saved.layers.len(), 4, "the base and three steps");
}

#[test]
fn mounts_cache_and_secrets_work_for_users() {
    let kiln = with_subuids();
    let context = kiln.context(&[
        (
            "Dockerfile",
            "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c echo $N >> /c/n && cp /c/n /n\n\
             RUN --mount=type=secret,id=s cp /run/secrets/s /s\nRUN --mount=source=f,target=/f cp /f /g\n\
             RUN --mount=type=tmpfs,target=/t touch /t/x\n",
        ),
        ("f", "file\n"),
    ]);
    let secret = kiln.directory();
    let file = secret.write("s", "shh\n");
    let option = format!("id=s,src={}", file.display());
    for number in ["N=1", "N=2"] {
        kiln.build(&context, "t", &["--secret", &option, "--build-arg", number]);
    }
    assert_eq!(kiln.output("t", &["cat", "/n", "/s", "/g"]), "1\n2\nshh\nfile\n");
}

#[test]
fn a_user_serves_pushes_and_pulls() {
    let kiln = with_subuids();
    let registry = Registry::kiln(&kiln);
    let name = registry.name("mine:1");
    kiln.build_text("FROM busybox\nRUN echo mine > /x && chown 5:5 /x\nCMD [\"cat\", \"/x\"]\n", &name);
    let id = kiln.image_id(&name);
    kiln.run(["push", &name]);
    kiln.run(["rmi", &name]);
    kiln.run(["pull", &name]);
    assert_eq!(kiln.image_id(&name), id);
    assert_eq!(kiln.run(["run", "--rm", &name]).stdout, "mine\n");
    let root = Kiln::new();
    root.run(["pull", &name]);
    assert_eq!(root.image_id(&name), id);
    assert_eq!(root.filesystem(&name).get("x").unwrap().uid, 5);
}

#[test]
fn an_archive_with_devices_says_what_a_user_cannot_have() {
    let kiln = with_subuids();
    let tree = kiln.directory();
    tree.shell("mkdir dev; mknod dev/null c 1 3; tar -cf ../devices.tar dev; mv ../devices.tar .");
    let bytes = fs::read(tree.path().join("devices.tar")).unwrap();
    // Either it is kept out of sight and comes back on save, or it is refused; it never is another kind of file.
    let outcome = run_with_input(kiln.command(["import", "-", "devices:1"]), &bytes).no_panic();
    if outcome.status.success() {
        let root = kiln.filesystem("devices:1");
        let kind = root.get("dev/null").map(|node| node.kind.clone());
        assert!(
            matches!(kind, None | Some(kiln_tests::Kind::CharacterDevice { major: 1, minor: 3 })),
            "{kind:?}\n{outcome}"
        );
    } else {
        outcome.says("dev/null");
    }
}

#[test]
fn a_user_without_subuids_builds_and_runs_with_one_id() {
    let kiln = Kiln::of(Account::without_subuids()).import_busybox();
    let context = kiln.context(&[
        (
            "Dockerfile",
            "FROM busybox\nCOPY a /a\nRUN echo made > /made && rm -r /home && mkdir /d\nCMD [\"cat\", \"/made\"]\n",
        ),
        ("a", "alpha\n"),
    ]);
    kiln.build(&context, "t", &[]);
    assert_eq!(kiln.run(["run", "--rm", "t"]).stdout, "made\n");
    let root = kiln.filesystem("t");
    assert_eq!((root.get("made").unwrap().uid, root.get("made").unwrap().gid), (0, 0));
    assert!(root.get("home").is_none());
}

#[test]
fn a_user_without_subuids_is_told_what_will_not_work() {
    let kiln = Kiln::of(Account::without_subuids()).import_busybox();
    kiln.run(["info"]).says("subuid");
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nUSER 33\nRUN true\n")]);
    let outcome = kiln.try_build(&context, "t", &[]);
    if !outcome.status.success() {
        outcome.says("subuid");
    }
}

#[test]
fn nothing_is_written_outside_the_users_own_places() {
    let kiln = with_subuids();
    kiln.build_text("FROM busybox\nRUN echo x > /x\n", "t");
    assert!(!fs::exists("/var/lib/kiln").unwrap() || fs::metadata("/var/lib/kiln").unwrap().is_dir());
    let mut entries: Vec<String> = fs::read_dir(kiln.home())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    entries.sort();
    assert_eq!(entries, ["runtime", "store"]);
}
