//! What the build cache takes, giving it back, and saying what happened.

use std::process::Stdio;

use kiln_tests::{Context, Kiln, Outcome, command, free_port, run};
use serde_json::Value;

/// The entries that `du` shows.
fn entries(kiln: &Kiln) -> Vec<Value> {
    let lines = kiln.run(["du", "--format", "json"]).stdout;
    lines.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

fn described<'a>(entries: &'a [Value], text: &str) -> Option<&'a Value> {
    entries.iter().find(|entry| entry["Description"].as_str().is_some_and(|description| description.contains(text)))
}

fn cached(outcome: &Outcome) -> usize {
    outcome.output().lines().filter(|line| line.ends_with(" CACHED")).count()
}

/// A stage that no image has, one that has, and a cache mount.
const DOCKERFILE: &str = "FROM busybox AS s\nRUN head -c 300000 /dev/urandom > /intermediate\nFROM busybox\n\
                          COPY --from=s /bin/busybox /kept/busybox\nRUN --mount=type=cache,id=things,target=/c echo x > /c/x\n";

/// Proves: docker-builder-prune
#[test]
fn du_and_prune() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", DOCKERFILE)]);
    kiln.build(&context, "t", &[]);
    let before = entries(&kiln);
    let intermediate = described(&before, "RUN head").expect("the stage's step");
    assert_eq!(intermediate["Reclaimable"], "true", "{before:?}");
    assert_eq!(described(&before, "COPY --from").expect("the image's step")["Shared"], "true");
    assert_eq!(described(&before, "cache mount things").expect("the mount")["Type"], "exec.cachemount");
    kiln.run(["du", "--verbose"]).says("Reclaimable:").says("Total:");
    kiln.try_run(["prune"]).failure().says("--force");

    // Nothing that the image has goes.
    let id = intermediate["ID"].as_str().expect("an id");
    kiln.run(["builder", "prune", "-f"]).says("Deleted build cache objects:").says(id).says("kB");
    let after = entries(&kiln);
    assert!(described(&after, "RUN head").is_none() && described(&after, "cache mount").is_none(), "{after:?}");
    assert!(described(&after, "COPY --from").is_some(), "{after:?}");
    assert_eq!(kiln.output("t", &["/kept/busybox", "echo", "x"]), "x\n");
    let again = kiln.build(&context, "t", &["--explain"]);
    again.says("not cached: pruned on 20");

    // With --all the steps are forgotten; the image stays what it is.
    kiln.run(["prune", "-a", "-f"]);
    assert!(entries(&kiln).is_empty(), "{:?}", entries(&kiln));
    assert_eq!(kiln.output("t", &["/kept/busybox", "echo", "x"]), "x\n");
    assert_eq!(cached(&kiln.build(&context, "t", &[])), 0);
    kiln.run(["prune", "-a", "-f", "--filter", "until=24h"]).says("Total reclaimed space: 0");
    kiln.run(["prune", "-a", "-f", "--filter", "type=exec.cachemount"]);
    assert!(described(&entries(&kiln), "cache mount").is_none());
    assert!(described(&entries(&kiln), "RUN head").is_some());
    kiln.try_run(["prune", "-f", "--filter", "colour=red"]).failure().says("colour");
}

#[test]
fn the_least_recently_used_goes_first() {
    let kiln = Kiln::with_busybox();
    let step = |name: &str| {
        format!(
            "FROM busybox AS s\nRUN head -c 400000 /dev/urandom > /{name}\nFROM scratch\nCOPY --from=s /{name} /x\n"
        )
    };
    for name in ["one", "two", "three"] {
        kiln.build_text(&step(name), "t");
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    let total: u64 = entries(&kiln).iter().filter_map(|entry| entry["Bytes"].as_str()?.parse::<u64>().ok()).sum();
    assert!(total > 2_000_000, "{total}");
    kiln.run(["prune", "-f", "--keep-storage", "1900k"]);
    let left = entries(&kiln);
    assert!(described(&left, "> /one").is_none() && described(&left, "> /three").is_some(), "{left:?}");

    // The ceiling is kept while building.
    let context = kiln.context(&[("Dockerfile", &step("four"))]);
    kiln.build(&context, "t", &["--cache-limit=1m"]);
    let left = entries(&kiln);
    assert!(described(&left, "> /two").is_none(), "{left:?}");
    assert!(described(&left, "> /four").is_some(), "what the build itself made stays: {left:?}");

    // A file says it for all builds; a flag says otherwise, and what nobody knows is an error.
    let configuration = kiln.home().join(".config/kiln/config.toml");
    std::fs::create_dir_all(configuration.parent().expect("a directory")).expect("made");
    std::fs::write(&configuration, "build.cache-limit = \"1m\"\n").expect("written");
    let context = kiln.context(&[("Dockerfile", &step("five"))]);
    kiln.build(&context, "t", &["--cache-limit=1g"]);
    assert!(described(&entries(&kiln), "> /four").is_some(), "the flag goes first");
    let context = kiln.context(&[("Dockerfile", &step("six"))]);
    kiln.build(&context, "t", &[]);
    let left = entries(&kiln);
    assert!(described(&left, "> /four").is_none() && described(&left, "> /six").is_some(), "{left:?}");
    std::fs::write(&configuration, "build.cache-limits = \"1m\"\n").expect("written");
    kiln.try_build(&context, "t", &[]).failure().says("kiln/config.toml").says("cache-limits");
}

/// The machine's file says it for everybody, a user's own goes before it, and the environment before both.
#[test]
fn the_ceiling_is_said_for_everybody_for_one_and_for_one_command() {
    let kiln = Kiln::with_busybox();
    let machine = kiln.directory();
    machine.write("kiln/config.toml", "[build]\ncache-limit = \"1m\"\n");
    let mut number = 0;
    // Whether what was built before is gone after another build.
    let mut prunes = |environment: &[(&str, &str)]| {
        number += 1;
        let text = |what: &str| {
            format!(
                "FROM busybox AS s\nRUN head -c 900000 /dev/urandom > /{what}-{number}\nFROM scratch\nCOPY --from=s /{what}-{number} /x\n"
            )
        };
        kiln.build_text(&text("before"), "t");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let context = kiln.context(&[("Dockerfile", &text("after"))]);
        // A /etc of its own, with one file more.
        let script = format!("mount -t overlay none -o lowerdir={}:/etc /etc && exec \"$@\"", machine.path().display());
        let mut own = command("unshare", ["--mount", "sh", "-c", &script, "sh"]);
        let build = kiln.command(["build", "-t", "t2", context.path().to_str().expect("text")]);
        own.arg(build.get_program()).args(build.get_args());
        own.envs(build.get_envs().filter_map(|(name, value)| Some((name, value?)))).envs(environment.iter().copied());
        run(own).success();
        let left = entries(&kiln);
        assert!(described(&left, &format!("> /after-{number}")).is_some(), "{left:?}");
        described(&left, &format!("> /before-{number}")).is_none()
    };
    assert!(prunes(&[]), "the machine's file");
    assert!(!prunes(&[("KILN_CACHE_LIMIT", "1g")]), "the environment goes before it");
    let own = kiln.home().join(".config/kiln/config.toml");
    std::fs::create_dir_all(own.parent().expect("a directory")).expect("made");
    std::fs::write(&own, "build.cache-limit = \"1g\"\n").expect("written");
    assert!(!prunes(&[]), "the user's file goes before the machine's");
    assert!(prunes(&[("KILN_CACHE_LIMIT", "1m")]), "the environment goes before both");
    let elsewhere = machine.path().to_str().expect("text").to_owned();
    assert!(prunes(&[("XDG_CONFIG_HOME", &elsewhere)]), "the user's file may be elsewhere");
    std::fs::remove_file(&own).expect("it was there");
    machine.write("kiln/config.toml", "build.cache-limit = 5\n");
    kiln.build_text("FROM busybox\n", "t");
}

#[test]
fn a_running_build_loses_nothing() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[(
        "Dockerfile",
        "FROM busybox AS s\nRUN echo early > /early\nFROM busybox\nRUN echo started; while [ ! -e /wait/go ]; do sleep 0.1; done\nCOPY --from=s /early /early\n",
    )]);
    context
        .shell("sed -i 's/^RUN echo started/RUN --mount=type=cache,id=wait,target=\\/wait echo started/' Dockerfile");
    let mut build = kiln.command(["build", "--progress=plain", "-t", "t", context.path().to_str().expect("text")]);
    let mut build = build.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("kiln starts");
    let mut output = std::io::BufReader::new(build.stderr.take().expect("piped"));
    let mut line = String::new();
    let (mut started, mut early) = (false, false);
    while !(started && early) {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut output, &mut line).expect("readable") > 0, "it ended early");
        started |= line.ends_with(" started\n");
        early |= line.contains("DONE") && !line.starts_with("#1 ");
    }
    kiln.run(["prune", "-a", "-f"]).never_says("cache mount wait");
    let mounts = kiln.root().join("cache");
    let data = std::fs::read_dir(mounts).expect("cache mounts").next().expect("one").expect("readable").path();
    std::fs::write(data.join("data/go"), "").expect("written");
    drop(std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink())));
    assert!(build.wait().expect("it ends").success());
    assert_eq!(kiln.output("t", &["cat", "/early"]), "early\n");
}

#[test]
fn every_miss_has_its_reason() {
    let kiln = Kiln::with_busybox();
    let dockerfile = "FROM busybox AS tools\nCOPY tool /tool\nFROM busybox\nARG VERSION=1\nCOPY src /src\nRUN echo $VERSION > /version\n\
                      RUN --mount=from=tools,source=/tool,target=/t cat /t > /out\n";
    let context = kiln.context(&[("Dockerfile", dockerfile), ("src/one", "1\n"), ("src/two", "2\n"), ("tool", "t\n")]);
    kiln.build(&context, "t", &["--explain"]).says("never built");
    kiln.build(&context, "t", &["--explain"]).says("0 done").never_says("not cached");
    kiln.build(&context, "t", &["--explain", "--build-arg=VERSION=2"]).says("variable VERSION `1` → `2`");
    context.write("src/two", "changed\n");
    kiln.build(&context, "t", &["--explain"]).says("two changed").says("COPY src /src came out different");
    context.write("tool", "other\n");
    kiln.build(&context, "t", &["--quiet", "--explain"]).says("/t changed").never_says("src");
    // A step that moved is still the same step.
    context.shell("sed -i '/COPY src/i RUN true' Dockerfile; echo 3 > src/three");
    kiln.build(&context, "t", &["--explain"]).says("three is new");
    let path = context.path().to_str().expect("text");
    let json = kiln.run(["build", "--progress=json", "--no-cache", path]);
    let missed = json.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let reasons: Vec<Value> =
        missed.filter(|event| event["event"] == "missed").map(|event| event["reason"].clone()).collect();
    assert!(reasons.len() > 3 && reasons.iter().all(|reason| reason == "--no-cache"), "{reasons:?}");
}

#[test]
fn a_secret_is_in_no_reason() {
    let kiln = Kiln::with_busybox().with_env("TOKEN", "hunter2");
    let text = "FROM busybox\nARG V=1\nRUN --mount=type=secret,id=TOKEN,env=TOKEN echo $V\n";
    let context = kiln.context(&[("Dockerfile", text)]);
    kiln.build(&context, "t", &["--secret=id=TOKEN"]);
    let again = kiln.build(&context, "t", &["--secret=id=TOKEN", "--explain", "--build-arg=V=2"]);
    again.says("variable V `1` → `2`").never_says("hunter2");
}

#[test]
fn a_dry_run_does_nothing() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[
        ("Dockerfile", "FROM busybox\nRUN echo before > /before\nCOPY a /a\nRUN cat /a > /b\n"),
        ("a", "1\n"),
    ]);
    let path = context.path().to_str().expect("text");
    kiln.run(["build", "--dry-run", "-t", "t", path]).says("RUN     [2/4]").says("never built").says("OPEN    [3/4]");
    assert!(entries(&kiln).is_empty());
    kiln.try_run(["inspect", "t"]).failure();
    kiln.build(&context, "t", &[]);
    kiln.run(["build", "--dry-run", path]).says("CACHED  [4/4]").never_says("OPEN");
    context.write("a", "2\n");
    let dry = kiln.run(["build", "--dry-run", "--progress=json", path]);
    let steps: Vec<Value> = dry.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let outlooks: Vec<&str> = steps.iter().map(|step| step["outlook"].as_str().expect("text")).collect();
    assert_eq!(outlooks, ["base", "cached", "run", "open"]);
    assert_eq!(steps[2]["reason"], "a changed");
}

#[test]
fn what_is_in_a_context() {
    let kiln = Kiln::new();
    let context = kiln.context(&[
        ("Dockerfile", "FROM scratch\n"),
        (".dockerignore", "# not these\nnode_modules\n*.log\n!keep.log\n"),
        ("node_modules/big/file", "12345"),
        ("keep.log", "123"),
        ("drop.log", "1234"),
        ("src/main.c", "12"),
    ]);
    let path = context.path().to_str().expect("text");
    let table = kiln.run(["context", "ls", path]);
    table
        .says("src/main.c")
        .says("node_modules/  (ignored by")
        .says(".dockerignore:2 node_modules)")
        .says("ignored: 2 files, 9B");
    let json = kiln.run(["context", "ls", "--format=json", path]).stdout;
    let entries: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let dropped = entries.iter().find(|entry| entry["path"] == "drop.log").expect("listed");
    assert_eq!(
        (&dropped["line"], &dropped["pattern"], &dropped["size"]),
        (&Value::from(3), &Value::from("*.log"), &Value::from(4))
    );
    assert_eq!(entries.iter().find(|entry| entry["path"] == "keep.log").expect("listed")["ignored"], false);
}

#[test]
fn timings_are_one_page() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[(
        "Dockerfile",
        "FROM busybox AS a\nRUN sleep 0.3 && echo '<&>' > /a\nFROM busybox AS b\nRUN echo b > /b\nFROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
    )]);
    let page = kiln.home().join("page.html");
    kiln.build(&context, "t", &[&format!("--timings={}", page.display())]);
    let html = std::fs::read_to_string(page).expect("the page");
    assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"));
    assert!(html.contains("&lt;&amp;&gt;") && !html.contains("'<&>'"), "text is escaped");
    for foreign in ["http://", "https://", "<script", "src="] {
        assert!(!html.contains(foreign), "{foreign} in the page");
    }
    let critical = html.lines().find(|line| line.contains("class=\"critical\"") && line.contains("sleep 0.3"));
    assert!(critical.is_some(), "{html}");
    assert_eq!(html.matches("<svg").count(), 2);
}

#[test]
fn two_builds_at_once_run_a_step_once() {
    let kiln = Kiln::with_busybox();
    let text = "FROM busybox AS one\nRUN --mount=type=cache,id=count,target=/c echo run >> /c/count; sleep 1; cat /proc/sys/kernel/random/uuid > /u\n";
    let build = |name: &str| {
        let context = kiln.context(&[("Dockerfile", text)]);
        let line = ["build", "--progress=plain", "-t", name, context.path().to_str().expect("text")];
        (kiln.command(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kiln starts"), context)
    };
    let mut builds: Vec<(std::process::Child, Context)> = ["a", "b", "c"].map(build).into();
    assert!(builds.iter_mut().all(|(build, _)| build.wait().expect("it ends").success()));
    let counted = kiln.root().join("cache");
    let home = std::fs::read_dir(counted).expect("mounts").next().expect("one").expect("readable").path();
    assert_eq!(std::fs::read_to_string(home.join("data/count")).expect("a count"), "run\n");
    assert_eq!(kiln.image_id("a"), kiln.image_id("b"));
    assert_eq!(std::fs::read_dir(kiln.root().join("steps")).expect("locks").count(), 0, "no lock is left");
}

#[test]
fn no_more_steps_at_once_than_asked() {
    let kiln = Kiln::with_busybox();
    let stage = |n: usize| {
        format!(
            "FROM busybox AS s{n}\nRUN --mount=type=cache,id=at,target=/c echo x > /c/{n}; sleep 0.2; ls /c | wc -l > /n; rm /c/{n}\n"
        )
    };
    let mut text: String = (0..6).map(stage).collect();
    text.push_str("FROM busybox\n");
    (0..6).for_each(|n| text.push_str(&format!("COPY --from=s{n} /n /n{n}\n")));
    let context = kiln.context(&[("Dockerfile", &text)]);
    kiln.build(&context, "t", &["--jobs=2"]);
    let most =
        kiln.output("t", &["sh", "-c", "cat /n?"]).lines().filter_map(|line| line.trim().parse::<u32>().ok()).max();
    assert!(most <= Some(2), "{most:?}");
}

#[test]
fn a_warm_build_needs_no_network() {
    let kiln = Kiln::with_busybox();
    let name = format!("127.0.0.1:{}/nobody/base:1", free_port());
    kiln.run(["tag", "busybox", &name]);
    let context =
        kiln.context(&[("Dockerfile", &format!("# syntax=127.0.0.1:1/no/frontend:1\nFROM {name}\nRUN echo x > /x\n"))]);
    let path = context.path().to_str().expect("text").to_owned();
    // In a network namespace of its own there is not even loopback.
    let offline = |kiln: &Kiln| {
        let line = kiln.command(["build", "--progress=plain", "-t", "t", &path]);
        let mut unshare = command("unshare", ["--net"]);
        unshare.arg(line.get_program()).args(line.get_args());
        for (key, value) in line.get_envs() {
            unshare.env(key, value.unwrap_or_default());
        }
        kiln_tests::run(unshare).success()
    };
    offline(&kiln);
    assert!(cached(&offline(&kiln)) >= 1);
}
