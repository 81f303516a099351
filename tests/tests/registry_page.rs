//! The registry's web page in a real browser: what a reader sees, with and without scripts, and that nothing which
//! was pushed runs there.

use std::{fs, path::Path};

use kiln_tests::{Kiln, Registry, command, run};
use tempfile::TempDir;

/// Runs a headless browser with a profile of its own.
fn browse(profile: &Path, url: &str, options: &[&str]) -> String {
    let mut chromium = command("chromium", ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]);
    chromium.args(["--no-first-run", "--disable-background-networking", "--disable-component-update"]);
    chromium.args(["--disable-sync", "--enable-logging=stderr", "--window-size=1200,1000", "--timeout=30000"]);
    chromium.arg(format!("--user-data-dir={}", profile.display())).args(options).arg(url);
    chromium.env("HOME", profile).env("XDG_RUNTIME_DIR", profile);
    let outcome = run(chromium).success();
    for complaint in ["Content Security Policy", "CONSOLE"] {
        assert!(!outcome.stderr.contains(complaint), "the page complains:\n{outcome}");
    }
    outcome.stdout
}

#[test]
fn a_reader_finds_an_image_and_how_it_was_made() {
    let kiln = Kiln::with_busybox();
    let registry = Registry::kiln(&kiln);
    let name = registry.name("team/app:1.0");
    let text = "FROM busybox\nLABEL note=\"<script>document.title = 'broken'</script>\"\n\
                RUN echo '<b>bold</b>' > /note\nCOPY Dockerfile /copied\nCMD [\"cat\", \"/note\"]\n";
    kiln.build_text(text, &name);
    kiln.run(["push", &name]);
    for other in ["team/api:2.1", "team/api:latest", "tools/lint:5"] {
        kiln.run(["tag", &name, &registry.name(other)]);
        kiln.run(["push", &registry.name(other)]);
    }
    let address = name.split('/').next().expect("a host").to_owned();
    let profile = TempDir::new().expect("a directory");
    let shots = std::env::var_os("KILN_PAGE_SHOTS").map(std::path::PathBuf::from);
    for (file, path, shown) in [
        ("list", "/", "href=\"/r/team/api\""),
        ("tags", "/r/team/api", "href=\"/r/team/api:latest\""),
        ("image", "/r/team/app:1.0", "&lt;b&gt;bold&lt;/b&gt;"),
        ("search", "/?q=lint", "href=\"/r/tools/lint\""),
    ] {
        let url = format!("http://{address}{path}");
        let page = browse(profile.path(), &url, &["--dump-dom"]);
        assert!(page.contains(shown), "{shown} is not in\n{page}");
        assert!(!page.contains("<title>broken"), "a script of an image ran:\n{page}");
        // The script showed the buttons; without it there are none, and everything else is there.
        assert!(!page.contains("hidden=\"\">Copy"), "{page}");
        let picture = shots.clone().unwrap_or_else(|| profile.path().to_path_buf()).join(format!("{file}.png"));
        browse(profile.path(), &url, &[&format!("--screenshot={}", picture.display())]);
        assert!(fs::metadata(&picture).expect("a picture").len() > 5_000);
    }
    // What the server sends, before any script could run, has all of it.
    let plain = run(command("curl", ["--silent", &format!("http://{address}/r/team/app:1.0")])).success().stdout;
    assert!(plain.contains("docker pull") && plain.contains("COPY Dockerfile"), "{plain}");
}
