use super::*;
use crate::expand::NoVariables;
use crate::span::Span;

struct Set;

impl Variables for Set {
    fn get(&self, name: &str) -> Option<String> {
        (name == "DIR").then(|| "/var/dir".to_owned())
    }
}

fn word(raw: &str) -> Word {
    Word { raw: raw.to_owned(), span: Span::new(0, raw.len()) }
}

fn parsed(raw: &str) -> Mount {
    parse(&word(raw), '\\', &Set).unwrap_or_else(|error| panic!("{raw}: {}", error.message))
}

fn bind(from: Option<&str>, source: &str, target: &str, writable: bool) -> Mount {
    Mount::Bind { from: from.map(str::to_owned), source: source.to_owned(), target: target.to_owned(), writable }
}

#[test]
fn binds() {
    assert_eq!(parsed("target=/x"), bind(None, "/", "/x", false));
    assert_eq!(parsed("type=bind,src=a,dst=b,rw"), bind(None, "a", "b", true));
    assert_eq!(parsed("TYPE=Bind,Source=a,destination=b,ro=false,from=base"), bind(Some("base"), "a", "b", true));
    assert_eq!(parsed("target=$DIR/y,readonly"), bind(None, "/", "/var/dir/y", false));
    assert_eq!(parsed("type=bind,\"source=a,b\",target=/c"), bind(None, "a,b", "/c", false));
    assert_eq!(parsed("\"source='a\"\"b'\",target=/c"), bind(None, "a\"b", "/c", false));
    assert_eq!(parsed("source=."), bind(None, ".", ".", false));
}

#[test]
fn caches() {
    let Mount::Cache { id, target, readonly, sharing, mode, uid, gid, source, from } =
        parsed("target=/c,type=cache,sharing=LOCKED,mode=0700,uid=1,gid=2,ro,from=base,source=/s")
    else {
        panic!("no cache")
    };
    assert_eq!((id.as_str(), target.as_str(), readonly, sharing), ("/c", "/c", true, Sharing::Locked));
    assert_eq!((mode, uid, gid, source.as_str(), from.as_deref()), (0o700, 1, 2, "/s", Some("base")));
    let Mount::Cache { id, mode, sharing, .. } = parsed("type=cache,id=x,target=/c") else { panic!("no cache") };
    assert_eq!((id.as_str(), mode, sharing), ("x", 0o755, Sharing::Shared));
}

#[test]
fn tmpfs_sizes() {
    for (size, expected) in [
        ("100", Some(100)),
        ("0", None),
        ("64k", Some(64 << 10)),
        ("64MB", Some(64 << 20)),
        ("1.5GiB", Some(3 << 29)),
        ("2 t", Some(2 << 40)),
    ] {
        let expected = Mount::Tmpfs { target: "/t".to_owned(), size: expected, copy_up: false };
        assert_eq!(parsed(&format!("type=tmpfs,target=/t,size={size}")), expected, "{size}");
    }
    for size in ["", "x", "1x", "-1", "1.5.5", "99999999999999999999", "9999999p", "1ibib"] {
        assert!(parse(&word(&format!("type=tmpfs,target=/t,size={size}")), '\\', &NoVariables).is_err(), "{size}");
    }
}

#[test]
fn secrets_and_ssh() {
    let secret = |raw: &str| match parsed(raw) {
        Mount::Secret { id, target, env, required, mode, .. } => (id, target, env, required, mode),
        other => panic!("{other:?}"),
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(secret("type=secret,id=a"), ("a".to_owned(), text("/run/secrets/a"), None, false, 0o400));
    assert_eq!(secret("type=secret,id=a,env=A,required"), ("a".to_owned(), None, text("A"), true, 0o400));
    assert_eq!(secret("type=secret,target=/x/npmrc,mode=0444").0, "npmrc");
    assert_eq!(secret("type=secret,id=a,target=/b,env=A").1, text("/b"));
    let Mount::Ssh { id, target, required, mode, .. } = parsed("required=true,type=ssh") else { panic!("no ssh") };
    assert_eq!((id.as_str(), target, required, mode), ("default", None, true, 0o600));
}

#[test]
fn mistakes_are_pointed_at() {
    for (raw, message, start, end, help) in [
        ("", "--mount needs a value", 0, 0, None),
        ("type=chache,target=/x", "unknown mount type `chache`", 5, 11, Some("did you mean `cache`?")),
        ("type=bind,tarket=/x", "unknown --mount option `tarket`", 10, 16, Some("did you mean `target`?")),
        ("type=bind,rediret", "unknown --mount option `rediret`", 10, 17, None),
        ("target", "`target` needs a value", 0, 6, None),
        ("target=/x,", "an empty --mount option", 10, 10, None),
        ("target=/x,mode=0755", "`mode` is no option of a bind mount", 10, 19, None),
        ("type=cache,target=/x,required", "`required` is no option of a cache mount", 21, 29, None),
        ("type=cache,target=/x,sharing=lock", "unknown sharing mode `lock`", 29, 33, Some("did you mean `locked`?")),
        ("type=cache,target=/x,mode=0899", "invalid value `0899` for `mode`", 26, 30, None),
        ("type=cache,target=/x,uid=-1", "invalid value `-1` for `uid`", 25, 27, None),
        ("target=/x,ro=maybe", "invalid value `maybe` for `ro`", 13, 18, None),
        ("type=secret", "a secret mount needs an `id` or a `target`", 0, 11, None),
        ("type=secret,id=a,from=b", "`from` is no option of a secret mount", 17, 23, None),
        ("from=$BASE,target=/x", "`from` does not expand variables", 5, 10, Some("")),
        ("target=/a\"b", "a quote inside of a --mount option", 9, 11, Some("")),
        ("\"target=/x", "unterminated quote in --mount", 0, 10, None),
        ("\"target=/x\"y", "text after a closing quote in --mount", 11, 12, None),
        ("target=${x", "missing `}` in `${…}`", 7, 10, None),
    ] {
        let error = parse(&word(raw), '\\', &NoVariables).expect_err(raw);
        assert_eq!((error.message.as_str(), error.span), (message, Span::new(start, end)), "{raw}");
        match help {
            Some("") => assert!(error.help.is_some(), "{raw}"),
            Some(help) => assert_eq!(error.help.as_deref(), Some(help), "{raw}"),
            None => {}
        }
    }
}

#[test]
fn labels_of_buildah_are_accepted() {
    let of = |raw: &str| {
        let word = Word { raw: raw.to_owned(), span: Span::new(0, raw.len()) };
        parse(&word, '\\', &crate::expand::NoVariables)
    };
    assert!(of("type=bind,target=/x,z").is_ok());
    assert!(of("type=cache,target=/x,Z").is_ok());
    assert!(of("type=tmpfs,target=/x,z").is_err());
}
