//! `RUN --mount`: what a step sees, and what stays.

use std::{fs, path::Path};

use kiln_tests::Kiln;

const SECRET: &str = "correct-horse-battery-staple-7713";

fn files_with(directory: &Path, needle: &[u8], found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            files_with(&path, needle, found);
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap_or_default();
            if content.windows(needle.len()).any(|window| window == needle) {
                found.push(path.display().to_string());
            }
        }
    }
}

/// Proves: D1.8-5, D1.8-13, D1.8-14, --secret
#[test]
fn a_secret_is_seen_by_its_step_and_stays_nowhere() {
    let kiln = Kiln::with_busybox().with_env("TOKEN", SECRET);
    let context = kiln.context(&[(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=secret,id=file wc -c < /run/secrets/file > /length\n\
         RUN --mount=type=secret,id=variable,target=/etc/deep/secret,mode=0440 stat -c %a /etc/deep/secret > /mode\n\
         RUN --mount=type=secret,id=variable,env=SEEN sh -c 'echo ${#SEEN}' > /env\n",
    )]);
    let elsewhere = kiln.directory();
    let file = elsewhere.write("secret", SECRET);
    let source = format!("id=file,src={}", file.display());
    let build = kiln.build(&context, "t", &["--secret", &source, "--secret", "id=variable,env=TOKEN"]);
    assert!(!build.output().contains(SECRET), "{build}");

    assert_eq!(kiln.output("t", &["cat", "/length", "/mode", "/env"]), format!("{0}\n440\n{0}\n", SECRET.len()));
    assert_eq!(kiln.added("t", "busybox"), ["env", "length", "mode"], "the places of the mounts are gone");
    let saved = kiln.saved("t");
    assert!(!String::from_utf8_lossy(&saved.config_bytes).contains(SECRET));
    for layer in &saved.layers {
        assert!(!layer.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
    }
    let mut found = Vec::new();
    files_with(&kiln.root(), SECRET.as_bytes(), &mut found);
    assert!(found.is_empty(), "the secret lies in {found:?}");
}

/// Proves: D1.8-13, D1.8-14
#[test]
fn another_secret_is_no_reason_to_run_again_and_a_missing_one_is_an_error() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=secret,id=s,required=true cat /proc/sys/kernel/random/uuid > /time\n",
    )]);
    let elsewhere = kiln.directory();
    let build = |text: &str| {
        let file = elsewhere.write("s", text);
        kiln.build(&context, "t", &["--secret", &format!("id=s,src={}", file.display())]);
        kiln.output("t", &["cat", "/time"])
    };
    assert_eq!(build("one"), build("two"));
    kiln.try_build(&context, "t", &["--no-cache"]).failure().says("secret");
}

#[test]
fn an_optional_secret_may_be_absent() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nRUN --mount=type=secret,id=none test ! -e /run/secrets/none\n", "t");
}

/// Proves: D1.8-10
#[test]
fn a_cache_mount_lives_from_build_to_build() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[(
        "Dockerfile",
        "FROM busybox\nARG ROUND\nRUN --mount=type=cache,target=/cache \
         echo $ROUND >> /cache/rounds && cp /cache/rounds /rounds\n",
    )]);
    for round in ["1", "2", "3"] {
        kiln.build(&context, "t", &["--build-arg", &format!("ROUND={round}")]);
    }
    assert_eq!(kiln.output("t", &["cat", "/rounds"]), "1\n2\n3\n");
    let root = kiln.filesystem("t");
    assert!(root.get("cache/rounds").is_none());
}

/// Proves: D1.8-6, D1.8-7, D1.8-8
#[test]
fn bind_mounts_read_the_context_and_other_stages_and_forget_writes() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[
        (
            "Dockerfile",
            "FROM busybox AS other\nRUN echo stage > /file\nFROM busybox\n\
             RUN --mount=source=dir,target=/mnt/context cat /mnt/context/a > /one\n\
             RUN --mount=type=bind,from=other,source=/file,target=/mnt/file cat /mnt/file > /two\n\
             RUN --mount=target=/mnt/all,rw echo changed > /mnt/all/dir/a\n\
             RUN --mount=target=/mnt/all cat /mnt/all/dir/a > /three\n\
             RUN --mount=target=/mnt/all ! touch /mnt/all/x 2> /dev/null\n",
        ),
        ("dir/a", "context\n"),
    ]);
    kiln.build(&context, "t", &[]);
    assert_eq!(kiln.output("t", &["cat", "/one", "/two", "/three"]), "context\nstage\ncontext\n");
    assert_eq!(fs::read_to_string(context.path().join("dir/a")).unwrap(), "context\n");
}

#[test]
fn a_bind_mounted_file_that_changed_runs_the_step_again() {
    let kiln = Kiln::with_busybox();
    let context = kiln
        .context(&[("Dockerfile", "FROM busybox\nRUN --mount=source=dir,target=/c cat /c/a > /a\n"), ("dir/a", "1\n")]);
    kiln.build(&context, "t", &[]);
    context.write("dir/a", "2\n");
    kiln.build(&context, "t", &[]);
    assert_eq!(kiln.output("t", &["cat", "/a"]), "2\n");
}

/// Proves: D1.8-12
#[test]
fn a_tmpfs_is_empty_and_leaves_nothing() {
    let kiln = Kiln::with_busybox();
    kiln.build_text(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/home test -z \"$(ls -A /home)\" && echo x > /home/x\n",
        "t",
    );
    assert!(kiln.filesystem("t").get("home/x").is_none());
}

/// Proves: D1.8-17
#[test]
fn an_unknown_mount_type_is_refused_with_a_suggestion() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN --mount=type=secrets,id=x true\n")]);
    kiln.try_build(&context, "t", &[]).failure().says("secret");
}

#[test]
fn the_hosts_environment_does_not_reach_a_step() {
    let kiln = Kiln::with_busybox().with_env("HOST_VALUE", SECRET);
    kiln.build_text("FROM busybox\nRUN env > /env\n", "t");
    assert!(!kiln.output("t", &["cat", "/env"]).contains(SECRET));
}

/// Proves: D1.5-6
#[test]
fn a_proxy_is_for_the_step_only() {
    let kiln = Kiln::with_busybox();
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN echo ${#http_proxy} > /length\n")]);
    let proxy = format!("http_proxy=http://{SECRET}@proxy.invalid:1");
    kiln.build(&context, "t", &["--build-arg", &proxy]);
    assert_ne!(kiln.output("t", &["cat", "/length"]), "0\n");
    assert!(!String::from_utf8_lossy(&kiln.saved("t").config_bytes).contains(SECRET));
}

/// Proves: D1.8-16
#[test]
fn variables_stand_in_the_values_of_mount_options() {
    let kiln = Kiln::with_busybox();
    let text = "FROM busybox AS s\nRUN mkdir /d && echo bound > /d/f\nFROM busybox\nARG KIND=bind SUB=/d PLACE=/mnt ID=c\n\
                ENV ROOM=/cache\nRUN --mount=type=$KIND,from=s,source=${SUB},target=$PLACE cp /mnt/f /f\n\
                RUN --mount=type=cache,id=$ID,target=${ROOM}/x,mode=0${MODE:-750} stat -c %a /cache/x > /mode; \
                echo cached > /cache/x/f\nRUN --mount=type=${NONE:-cache},id=c,target=/y cp /y/f /g\n";
    kiln.build_text(text, "t");
    assert_eq!(kiln.output("t", &["cat", "/f", "/g", "/mode"]), "bound\ncached\n750\n");
    let context = kiln.context(&[("Dockerfile", "FROM busybox\nRUN --mount=type=$NONE,target=/x true\n")]);
    kiln.try_build(&context, "t", &[]).failure().says("mount type").says("Dockerfile:2");
}

#[test]
fn a_tmpfs_may_start_with_what_the_image_has_there() {
    let kiln = Kiln::with_busybox();
    kiln.build_text("FROM busybox\nRUN mkdir -p /d/sub && echo image > /d/sub/f && ln -s /d /link\n", "base");
    let text = "FROM base\nRUN --mount=type=tmpfs,target=/d,tmpcopyup cat /d/sub/f > /seen && rm -r /d/sub && touch /d/new\n\
                RUN --mount=type=tmpfs,target=/link/sub,tmpcopyup=true cat /d/sub/f >> /seen\n\
                RUN --mount=type=tmpfs,target=/d,notmpcopyup test ! -e /d/sub\n\
                RUN --mount=type=tmpfs,target=/none,tmpcopyup touch /none/x\n";
    kiln.build_text(text, "t");
    assert_eq!(kiln.output("t", &["cat", "/seen"]), "image\nimage\n");
    assert_eq!(kiln.added("t", "base"), ["seen"]);
    assert!(kiln.filesystem("t").get("d/sub/f").is_some(), "what was removed was the copy");
}
