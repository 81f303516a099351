//! Pulling and pushing: against Debian's registry, and against one that misbehaves.

#![allow(clippy::expect_used, reason = "a test that fails says so")]

mod support;

use std::io::Read;
use std::process::Command;

use kiln_image::credentials::{self, Credential, Kept};
use kiln_image::registry::{NoProgress, Options, check_credential, pull, pull_with_digest, push};
use kiln_image::{Error, Image, Platform};
use kiln_store::Store;
use kiln_store::layer::Compression;

use support::broken_registry::{BrokenRegistry, Fault};
use support::debian_registry::{DebianRegistry, PASSWORD, USER, free_port};
use support::{Told, chain, image, reference, store};

fn platform() -> Platform {
    Platform::parse("linux/amd64").expect("platform")
}

async fn pull_from(store: &Store, name: &str) -> kiln_image::Result<Image> {
    pull(store, &reference(name), &platform(), &Options::default(), &NoProgress).await
}

async fn push_to(store: &Store, image: &Image, name: &str, told: &Told) -> kiln_image::Result<kiln_store::Digest> {
    push(store, image, &reference(name), Compression::Gzip, &Options::default(), told).await
}

#[tokio::test]
async fn there_and_back_again() {
    let registry = DebianRegistry::open();
    let name = registry.name("team/app:1");
    let ours = store();
    let original = image(&ours.store, &name);
    let told = Told::default();
    let digest = push_to(&ours.store, &original, &name, &told).await.expect("push");
    assert!(told.bytes() > 3 << 20, "the layers moved: {}", told.bytes());
    assert_eq!(told.finished.lock().expect("lock").len(), 2);

    let again = Told::default();
    assert_eq!(push_to(&ours.store, &original, &name, &again).await.expect("again"), digest);
    assert_eq!((again.bytes(), again.there.lock().expect("lock").len()), (0, 2), "nothing is sent twice");

    let mounted = Told::default();
    let elsewhere = registry.name("other/copy:2");
    assert_eq!(push_to(&ours.store, &original, &elsewhere, &mounted).await.expect("mount"), digest);
    assert_eq!(mounted.bytes(), 0, "layers are mounted from the repository that has them");

    let theirs = store();
    let told = Told::default();
    let options = Options::default();
    let pulled = pull_with_digest(&theirs.store, &reference(&name), &platform(), &options, &told).await.expect("pull");
    assert_eq!((pulled.image.id, pulled.digest), (original.id, digest));
    assert_eq!(pulled.image.layers, original.layers);
    assert!(Image::find(&theirs.store, &name).is_ok());
    let by_digest = format!("{}@{digest}", registry.name("team/app"));
    assert_eq!(Image::find(&theirs.store, &by_digest).expect("by digest").id, original.id);
    assert_eq!(pull_from(&theirs.store, &by_digest).await.expect("pull by digest").id, original.id);

    let missing = pull_from(&theirs.store, &registry.name("team/app:2")).await.expect_err("no such tag");
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");
}

/// Proves: registry-auth-flow
#[tokio::test]
async fn passwords_are_asked_for_and_checked() {
    let registry = DebianRegistry::with_password();
    let credential = |password: &str| Credential::Password { username: USER.to_owned(), password: password.to_owned() };
    let options = Options::default();
    check_credential(&registry.host(), &credential(PASSWORD), &options).await.expect("the right one");
    let refused = check_credential(&registry.host(), &credential("wrong"), &options).await.expect_err("a wrong one");
    assert!(matches!(refused, Error::Denied { .. }), "{refused}");
    assert!(!chain(&refused).contains("wrong"), "{}", chain(&refused));
    let ours = store();
    let anonymous = pull_from(&ours.store, &registry.name("a:1")).await.expect_err("without");
    assert!(matches!(anonymous, Error::Denied { .. }), "{anonymous}");
}

/// Where this program, started again as a child, is told the registry and the helper's directory.
const CHILD: &str = "KILN_TEST_REGISTRY";

/// Proves: docker-login, credential-helpers
#[test]
fn credentials_are_kept_found_and_forgotten_as_docker_does() {
    if let Ok(name) = std::env::var(CHILD) {
        return log_in_push_and_log_out(&name);
    }
    let registry = DebianRegistry::with_password();
    let home = tempfile::tempdir().expect("directory");
    // A helper that keeps each secret in a file beside it.
    let helper = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\ncase $1 in store) cat >secret;; get) cat secret 2>/dev/null || { echo \
                  credentials not found; exit 1; };; erase) rm -f secret;; esac\n";
    let program = home.path().join("docker-credential-test");
    std::fs::write(&program, helper).expect("helper");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    for (config, helped) in [(r#"{"HttpHeaders":{"A":"b"}}"#, "no"), (r#"{"credsStore":"test","x":1}"#, "yes")] {
        std::fs::write(home.path().join("config.json"), config).expect("config");
        let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap_or_default());
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "credentials_are_kept_found_and_forgotten_as_docker_does", "--nocapture"])
            .env(CHILD, registry.name("secret/app:1"))
            .env("KILN_TEST_HELPED", helped)
            .env("DOCKER_CONFIG", home.path())
            .env("PATH", path)
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("XDG_RUNTIME_DIR")
            .output()
            .expect("child");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let after = std::fs::read_to_string(home.path().join("config.json")).expect("config");
        let after: serde_json::Value = serde_json::from_str(&after).expect("json");
        let before: serde_json::Value = serde_json::from_str(config).expect("json");
        for (key, value) in before.as_object().expect("object") {
            assert_eq!(after[key], *value, "what else is in the file stays");
        }
    }
}

fn log_in_push_and_log_out(name: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let reference = reference(name);
    let helped = std::env::var("KILN_TEST_HELPED").is_ok_and(|helped| helped == "yes");
    let config = std::path::PathBuf::from(std::env::var_os("DOCKER_CONFIG").expect("config")).join("config.json");
    assert_eq!(credentials::find(reference.registry()).expect("find"), None);
    let credential = Credential::Password { username: USER.to_owned(), password: PASSWORD.to_owned() };
    let kept = credentials::save(None, reference.registry(), &credential).expect("save");
    let text = std::fs::read_to_string(&config).expect("config");
    if helped {
        assert_eq!(kept, Kept::Helper("test".to_owned()));
        assert!(text.contains(reference.registry()) && !text.contains("\"auth\":"), "{text}");
        // What the helper was given has the address with it; docker's `get` answers name and secret.
        let secret = config.with_file_name("secret");
        assert!(std::fs::read_to_string(secret).expect("secret").contains(PASSWORD));
    } else {
        use std::os::unix::fs::PermissionsExt;
        assert!(matches!(kept, Kept::File(_)));
        assert_eq!(config.metadata().expect("metadata").permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(credentials::find(reference.registry()).expect("find"), Some(credential));
    let ours = store();
    let image = image(&ours.store, name);
    let told = Told::default();
    runtime.block_on(push_to(&ours.store, &image, name, &told)).expect("push");
    let theirs = store();
    assert_eq!(runtime.block_on(pull_from(&theirs.store, name)).expect("pull").id, image.id);
    assert!(credentials::remove(None, reference.registry()).expect("remove"));
    assert!(!credentials::remove(None, reference.registry()).expect("remove again"));
    assert_eq!(credentials::find(reference.registry()).expect("find"), None);
}

async fn pull_broken(fault: Fault) -> (BrokenRegistry, kiln_image::Result<()>) {
    let ours = store();
    let original = image(&ours.store, "x:1");
    let registry = BrokenRegistry::start(&ours.store, &original, fault);
    let theirs = store();
    let pulled = pull_from(&theirs.store, &format!("127.0.0.1:{}/app:1", registry.port)).await;
    let images = theirs.store.images().expect("images").len();
    assert_eq!(images, usize::from(pulled.is_ok()), "an image that did not come whole is not there");
    (registry, pulled.map(|pulled| assert_eq!(pulled.id, original.id)))
}

#[tokio::test]
async fn downloads_that_break_off_go_on_where_they_were() {
    let (registry, pulled) = pull_broken(Fault::BreaksOff).await;
    pulled.expect("pull");
    let resumed = registry.requests("bytes=");
    assert!(!resumed.is_empty() && resumed.iter().all(|request| !request.ends_with("bytes=0-")), "{resumed:?}");
    let (_, pulled) = pull_broken(Fault::BreaksOffWithoutRanges).await;
    pulled.expect("pull from a registry that has no ranges");
}

#[tokio::test]
async fn busy_registries_are_asked_again() {
    pull_broken(Fault::Busy).await.1.expect("pull");
}

/// Proves: registry-auth-flow
#[tokio::test]
async fn tokens_are_renewed_when_they_expire() {
    let (registry, pulled) = pull_broken(Fault::Tokens).await;
    pulled.expect("pull");
    let tokens = registry.requests("/token?");
    assert!(tokens.len() >= 2, "{tokens:?}");
    assert!(tokens[0].contains("scope=repository%3Aapp%3Apull") && tokens[0].contains("service=s"), "{tokens:?}");
}

#[tokio::test]
async fn lies_are_found_out() {
    let (_, pulled) = pull_broken(Fault::Corrupt).await;
    let message = chain(&pulled.expect_err("corrupt"));
    assert!(message.contains("has digest"), "{message}");
    let (_, pulled) = pull_broken(Fault::EndlessManifest).await;
    let message = chain(&pulled.expect_err("endless"));
    assert!(message.contains("longer than"), "{message}");
    pull_broken(Fault::None).await.1.expect("and the same without");
}

#[tokio::test]
async fn an_upload_that_breaks_while_compressing_is_made_again_whole() {
    let ours = store();
    let original = image(&ours.store, "x:1");
    // What it serves is another image: nothing of this one is there.
    let other = store();
    let served = image(&other.store, "y:1");
    let registry = BrokenRegistry::start(&other.store, &served, Fault::BreaksStreams);
    let name = format!("127.0.0.1:{}/app:2", registry.port);
    let fresh = store();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5 << 20);
    header.set_mode(0o644);
    tar.append_data(&mut header, "large", std::io::repeat(7).take(5 << 20)).expect("entry");
    let tar = tar.into_inner().expect("tar");
    let layer = fresh.store.import_tar(&mut tar.as_slice()).expect("layer");
    let mut config = original.config.clone();
    config.rootfs.diff_ids = vec![layer.diff_id];
    let large = Image::commit(&fresh.store, &config, &[reference(&name)]).expect("image");
    let told = Told::default();
    push_to(&fresh.store, &large, &name, &told).await.expect("push");
    assert_eq!(registry.requests("PATCH").len(), 1, "it was tried");
    let theirs = store();
    assert_eq!(pull_from(&theirs.store, &name).await.expect("pull").id, large.id);
}

#[tokio::test]
async fn nobody_is_an_error_that_names_the_address() {
    let ours = store();
    let name = format!("127.0.0.1:{}/x:1", free_port());
    let message = chain(&pull_from(&ours.store, &name).await.expect_err("nobody"));
    assert!(message.contains(&name[..name.len() - 4]) && message.contains("refused"), "{message}");
}
