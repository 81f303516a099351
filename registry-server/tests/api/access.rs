//! Users, robots, tokens, and the answers to those who may not.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kiln_registry_server::Config;
use kiln_store::Digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Client, OCI_IMAGE, Registry, Reply, image, noise};

/// Of "alice's", with the lowest cost.
fn users(directory: &Path, more: &str) {
    let hash = bcrypt::hash("alice's", 4).unwrap();
    let text = format!(
        "[user.alice]\npassword = \"{hash}\"\nallow = {{ \"**\" = [\"pull\", \"push\", \"delete\"] }}\n\
         [user.bob]\npassword = \"{hash}\"\nallow = {{ \"team/**\" = [\"pull\"], \"bob/*\" = [\"pull\", \"push\"] }}\n\
         [robot.ci]\nsecret = \"{}\"\nallow = {{ \"team/*\" = [\"pull\", \"push\"] }}\n\
         [anonymous]\nallow = {{ \"public/*\" = [\"pull\"] }}\n{more}",
        Digest::of(b"the robot's")
    );
    fs::write(directory.join("users.toml"), text).unwrap();
}

/// A registry with alice (everything), bob (pulls from team, pushes to his own), a robot, and public repositories.
fn registry(change: impl FnOnce(&mut Config)) -> (TempDir, Registry) {
    let directory = tempfile::tempdir().unwrap();
    users(directory.path(), "");
    let mut config = Config::new(directory.path().join("data"));
    config.access.users = Some(directory.path().join("users.toml"));
    change(&mut config);
    (directory, Registry::serve_config(&config))
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn send(client: Client, authorization: &str, method: &str, target: &str) -> Reply {
    client.request(method, target, &[("Authorization", authorization)], b"")
}

/// Follows the challenge like docker: asks where it says for what it says.
fn token(client: Client, challenge: &str, authorization: Option<&str>) -> String {
    let field = |name: &str| {
        let rest = challenge.split_once(&format!("{name}=\"")).map(|(_, rest)| rest)?;
        rest.split('"').next().map(str::to_owned)
    };
    let path = field("realm").unwrap().splitn(4, '/').nth(3).unwrap().to_owned();
    let scope = field("scope").map(|scope| format!("&scope={scope}")).unwrap_or_default();
    let target = format!("/{path}?service={}{scope}", field("service").unwrap());
    let headers: Vec<(&str, &str)> = authorization.iter().map(|value| ("Authorization", *value)).collect();
    let reply = client.request("GET", &target, &headers, b"").status(200).json();
    assert_eq!(reply["token"], reply["access_token"]);
    format!("Bearer {}", reply["token"].as_str().unwrap())
}

fn push(client: Client, authorization: &str, repository: &str) -> Digest {
    let mut digest = None;
    for content in [&b"{}"[..], b"layer"] {
        let target = format!("/v2/{repository}/blobs/uploads/?digest={}", Digest::of(content));
        client.request("POST", &target, &[("Authorization", authorization)], content).status(201);
        digest = Some(Digest::of(content));
    }
    let manifest = crate::client::image(b"layer").to_string();
    let headers = [("Authorization", authorization), ("Content-Type", crate::client::OCI_IMAGE)];
    client.request("PUT", &format!("/v2/{repository}/manifests/1"), &headers, manifest.as_bytes()).status(201);
    digest.unwrap()
}

/// Whoever shows nothing, or what is wrong, is told where to sign in, wherever he knocks.
pub(crate) fn strangers_are_asked_who_they_are(repository: &str) {
    let (_directory, registry) = registry(|_| {});
    let client = registry.client();
    push(client, &basic("alice", "alice's"), repository);
    let manifest = format!("/v2/{repository}/manifests/1");
    for target in ["/v2/", &manifest, &format!("/v2/{repository}/tags/list"), "/v2/not/here/manifests/1"] {
        let reply = client.get(target).fails(401, "UNAUTHORIZED");
        assert!(reply.must("www-authenticate").starts_with("Bearer realm="), "{target}: {reply:?}");
        for wrong in [basic("alice", "bob's"), basic("nobody", ""), "Bearer made-up".to_owned(), "Basic ?".to_owned()] {
            send(client, &wrong, "GET", target).fails(401, "UNAUTHORIZED").must("www-authenticate");
        }
    }
    client.delete(&manifest).fails(401, "UNAUTHORIZED");
    send(client, &basic("alice", "alice's"), "GET", &manifest).status(200);
}

#[test]
fn a_password_opens_what_its_user_may_and_nothing_else() {
    let (_directory, registry) = registry(|_| {});
    let client = registry.client();
    let (alice, bob, ci) = (basic("alice", "alice's"), basic("bob", "alice's"), basic("ci", "the robot's"));
    for repository in ["team/app", "public/app", "secret/app", "bob/app"] {
        push(client, &alice, repository);
    }
    push(client, &ci, "team/other");
    for (who, method, target, status) in [
        (&bob, "GET", "/v2/", 200),
        (&bob, "GET", "/v2/team/app/manifests/1", 200),
        (&bob, "GET", "/v2/team/app/tags/list", 200),
        (&bob, "GET", "/v2/public/app/manifests/1", 200),
        (&bob, "POST", "/v2/team/app/blobs/uploads/", 403),
        (&bob, "POST", "/v2/bob/new/blobs/uploads/", 202),
        (&bob, "DELETE", "/v2/bob/app/manifests/1", 403),
        (&ci, "DELETE", "/v2/team/app/manifests/1", 403),
        (&alice, "DELETE", "/v2/bob/app/manifests/1", 202),
        (&basic("alice", "wrong"), "GET", "/v2/", 401),
        (&basic("nobody", "alice's"), "GET", "/v2/", 401),
        (&"Basic !!!".to_owned(), "GET", "/v2/", 401),
        (&"Digest x".to_owned(), "GET", "/v2/", 401),
    ] {
        assert_eq!(send(client, who, method, target).status, status, "{method} {target}");
    }
    // Clients show it to somebody who has just signed in.
    for target in ["/v2/", "/token"] {
        let refused = send(client, &basic("alice", "wrong"), "GET", target).status(401).json();
        assert_eq!(refused["errors"][0]["message"], "invalid user name or password", "{target}");
    }
    let names = |who: &str| send(client, who, "GET", "/v2/_catalog").status(200).json()["repositories"].clone();
    assert_eq!(names(&alice), json!(["bob/app", "public/app", "secret/app", "team/app", "team/other"]));
    assert_eq!(names(&bob), json!(["bob/app", "public/app", "team/app", "team/other"]));
    let page = send(client, &bob, "GET", "/v2/_catalog?n=1&last=public/app").status(200);
    assert_eq!(page.json()["repositories"], json!(["team/app"]));
    assert!(page.header("link").is_some());
}

/// Proves: registry-anonymous-per-repo-authorization
#[test]
fn who_may_not_learns_nothing() {
    let (_directory, registry) = registry(|_| {});
    let client = registry.client();
    let (alice, bob) = (basic("alice", "alice's"), basic("bob", "alice's"));
    let digest = push(client, &alice, "secret/app");
    // What exists and what does not are refused alike, to strangers and to users.
    for path in ["manifests/1", "tags/list", &format!("blobs/{digest}"), &format!("referrers/{digest}")] {
        let (there, not) = (format!("/v2/secret/app/{path}"), format!("/v2/secret/no/{path}"));
        let (one, other) = (send(client, &bob, "GET", &there), send(client, &bob, "GET", &not));
        assert_eq!((one.status, &one.body), (403, &other.body));
        one.fails(403, "DENIED");
        let (one, other) = (client.get(&there), client.get(&not));
        assert_eq!((one.status, &one.body), (401, &other.body));
        let challenge = one.must("www-authenticate");
        assert_eq!(challenge, other.must("www-authenticate").replace("secret/no", "secret/app"));
        assert!(challenge.contains("scope=\"repository:secret/app:pull\""), "{challenge}");
        one.fails(401, "UNAUTHORIZED");
    }
    // A blob is not mounted from where it could not be pulled, nor from anywhere unnamed.
    for from in ["&from=secret/app", ""] {
        let target = format!("/v2/bob/x/blobs/uploads/?mount={digest}{from}");
        send(client, &bob, "POST", &target).status(202);
        send(client, &alice, "POST", &format!("/v2/bob/y/blobs/uploads/?mount={digest}&from=secret/app")).status(201);
    }
    // A body that is refused is read to its end, or the answer would be lost.
    let target = "/v2/secret/app/blobs/uploads/?digest=sha256:00";
    client.request("POST", target, &[("Authorization", &bob)], &noise(1, 1 << 20)).status(403);
}

/// Proves: registry-anonymous-per-repo-authorization
#[test]
fn strangers_pull_what_is_public() {
    let (_directory, registry) = registry(|_| {});
    let client = registry.client();
    push(client, &basic("alice", "alice's"), "public/app");
    client.get("/v2/public/app/manifests/1").status(200);
    client.request("POST", "/v2/public/app/blobs/uploads/", &[], b"").fails(401, "UNAUTHORIZED");
    client.get("/v2/_catalog").fails(401, "UNAUTHORIZED");
    // Clients that ask for a token first get one without a name.
    let challenge = client.get("/v2/").status(401).must("www-authenticate").to_owned();
    let anonymous = token(client, &format!("{challenge},scope=\"repository:public/app:pull,push\""), None);
    send(client, &anonymous, "GET", "/v2/").status(200);
    send(client, &anonymous, "GET", "/v2/public/app/manifests/1").status(200);
    send(client, &anonymous, "POST", "/v2/public/app/blobs/uploads/").status(401);
}

/// Proves: registry-token-auth
#[test]
fn tokens_carry_what_was_asked_for_as_far_as_it_is_allowed() {
    let (_directory, registry) = registry(|_| {});
    let client = registry.client();
    let (alice, bob) = (basic("alice", "alice's"), basic("bob", "alice's"));
    push(client, &alice, "team/app");
    let challenge = |target: &str, method: &str| {
        let reply = client.request(method, target, &[("Host", "registry.example:5000")], b"").status(401);
        let challenge = reply.must("www-authenticate").to_owned();
        assert!(challenge.starts_with("Bearer realm=\"http://"), "{challenge}");
        challenge
    };
    let pull = token(client, &challenge("/v2/team/app/manifests/1", "GET"), Some(&bob));
    send(client, &pull, "GET", "/v2/team/app/manifests/1").status(200);
    // It is for this repository and action only; what its user may besides is another token's.
    let more = send(client, &pull, "POST", "/v2/bob/app/blobs/uploads/").fails(401, "UNAUTHORIZED");
    let more = more.must("www-authenticate").to_owned();
    assert!(more.contains("insufficient_scope") && more.contains("repository:bob/app:pull,push"), "{more}");
    let push_token = token(client, &more, Some(&bob));
    send(client, &push_token, "POST", "/v2/bob/app/blobs/uploads/").status(202);
    // What he may not do is refused for good.
    let refused = token(client, &challenge("/v2/team/app/blobs/uploads/", "POST"), Some(&bob));
    send(client, &refused, "POST", "/v2/team/app/blobs/uploads/").fails(403, "DENIED");
    let catalog = token(client, &challenge("/v2/_catalog", "GET"), Some(&bob));
    assert_eq!(send(client, &catalog, "GET", "/v2/_catalog").status(200).json()["repositories"], json!(["team/app"]));
    send(client, &pull, "GET", "/v2/_catalog").status(401);
    // Wrong passwords, tokens of nobody, and the form.
    let scope = "/token?service=x&scope=repository:team/app:pull";
    client.request("GET", scope, &[("Authorization", &basic("bob", "wrong"))], b"").status(401);
    let invalid = send(client, "Bearer a.b.c", "GET", "/v2/").status(401);
    assert!(invalid.must("www-authenticate").contains("invalid_token"));
    let form = b"grant_type=password&service=x&scope=repository%3Ateam%2Fapp%3Apull&username=bob&password=alice%27s";
    let reply = client.request("POST", "/token", &[], form).status(200).json();
    assert_eq!(reply["scope"], "repository:team/app:pull");
    let posted = format!("Bearer {}", reply["access_token"].as_str().unwrap());
    send(client, &posted, "GET", "/v2/team/app/manifests/1").status(200);
    client.request("POST", "/token", &[], b"grant_type=refresh_token&refresh_token=x").status(400);
    client.request("POST", "/token", &[], &noise(1, 100_000)).status(413);
}

/// Proves: registry-config-reload-verify
#[test]
fn changes_of_the_users_file_hold_at_once_also_for_tokens() {
    let (directory, registry) = registry(|_| {});
    let client = registry.client();
    let (alice, bob) = (basic("alice", "alice's"), basic("bob", "alice's"));
    push(client, &alice, "team/app");
    let challenge = client.get("/v2/team/app/manifests/1").status(401).must("www-authenticate").to_owned();
    let bobs = token(client, &challenge, Some(&bob));
    let until = |what: &str, changed: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !changed() {
            assert!(started.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    send(client, &bobs, "GET", "/v2/team/app/manifests/1").status(200);
    users(directory.path(), "[robot.new]\nsecret = \"sha256:0\"\n");
    std::thread::sleep(Duration::from_millis(1500));
    send(client, &bobs, "GET", "/v2/team/app/manifests/1").status(200); // what cannot be read changes nothing
    let text = fs::read_to_string(directory.path().join("users.toml")).unwrap();
    let start = text.find("[user.bob]").unwrap();
    let without = format!("{}{}", &text[..start], &text[text.find("[robot.ci]").unwrap()..]);
    fs::write(directory.path().join("users.toml"), without.split("[robot.new]").next().unwrap()).unwrap();
    until("bob is gone", &|| send(client, &bob, "GET", "/v2/").status == 401);
    send(client, &bobs, "GET", "/v2/team/app/manifests/1").status(401);
    send(client, &alice, "GET", "/v2/team/app/manifests/1").status(200);
}

/// Proves: registry-htpasswd-basic-auth
#[test]
fn htpasswd_alone_lets_its_users_do_everything_without_tokens_by_choice() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("htpasswd");
    fs::write(&file, format!("carol:{}\n", bcrypt::hash("carol's", 4).unwrap().replace("$2b$", "$2y$"))).unwrap();
    let mut config = Config::new(directory.path().join("data"));
    config.access.htpasswd = Some(file);
    config.access.tokens = false;
    let registry = Registry::serve_config(&config);
    let client = registry.client();
    let challenge = client.get("/v2/").status(401);
    assert!(challenge.must("www-authenticate").starts_with("Basic realm="));
    client.get("/token?service=x").status(404);
    push(client, &basic("carol", "carol's"), "any/thing");
    client.get("/v2/any/thing/manifests/1").status(401);
}

/// Proves: registry-token-auth
#[test]
fn a_service_elsewhere_is_believed_by_its_key() {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
    let point = key.public_key().as_ref();
    let coordinate = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({"keys": [{
        "kty": "EC", "crv": "P-256", "kid": "one", "x": coordinate(&point[1..33]), "y": coordinate(&point[33..])
    }]});
    // The same key as PEM: the fixed head of a P-256 SubjectPublicKeyInfo, and the point.
    let head = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
    let head = (0..head.len()).step_by(2).map(|at| u8::from_str_radix(&head[at..at + 2], 16).unwrap());
    let der: Vec<u8> = head.chain(point.iter().copied()).collect();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let sign = |claims: &Value| {
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": "one"});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&header), encode(claims));
        let signature = key.sign(&random, message.as_bytes()).unwrap();
        format!("Bearer {message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    };
    let claims = json!({
        "iss": "issuer", "aud": "registry.example", "sub": "dora", "exp": now + 300, "nbf": now - 10,
        "access": [{"type": "repository", "name": "a/b", "actions": ["pull", "push"]}],
    });
    for keys in [jwk.to_string(), pem] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys");
        fs::write(&file, keys).unwrap();
        let mut config = Config::new(directory.path().join("data"));
        config.token_service.keys = Some(file);
        config.token_service.realm = Some("https://auth.example/token".to_owned());
        config.token_service.service = Some("registry.example".to_owned());
        config.token_service.issuer = Some("issuer".to_owned());
        let registry = Registry::serve_config(&config);
        let client = registry.client();
        let challenge = client.get("/v2/a/b/manifests/1").status(401);
        assert_eq!(
            challenge.must("www-authenticate"),
            "Bearer realm=\"https://auth.example/token\",service=\"registry.example\",scope=\"repository:a/b:pull\""
        );
        push(client, &sign(&claims), "a/b");
        send(client, &sign(&claims), "GET", "/v2/a/c/manifests/1").status(401);
        send(client, &sign(&claims), "DELETE", "/v2/a/b/manifests/1").status(401);
        for (name, value) in [
            ("iss", json!("another")),
            ("aud", json!("another")),
            ("exp", json!(now - 300)),
            ("exp", json!("never")),
            ("nbf", json!(now + 300)),
            ("nbf", json!("never")),
        ] {
            let mut wrong = claims.clone();
            wrong[name] = value;
            send(client, &sign(&wrong), "GET", "/v2/").status(401);
        }
        // The public key used as an HMAC secret, and no signature at all.
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let body = encode(&claims.to_string());
        for alg in ["HS256", "none"] {
            let forged = format!("Bearer {}.{body}.", encode(&json!({"alg": alg, "typ": "JWT"}).to_string()));
            send(client, &forged, "GET", "/v2/").status(401);
        }
    }
}

/// Proves: registry-token-auth
#[test]
fn a_service_that_signs_by_rsa_is_believed_by_its_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).into_os_string().into_string().unwrap();
    let openssl = |arguments: &[&str]| {
        let made = std::process::Command::new("openssl").args(arguments).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        made.stdout
    };
    let make = |key: &str, certificate: &str| {
        let names = ["-keyout", &path(key), "-out", &path(certificate), "-subj", "/CN=issuer", "-days", "30"];
        openssl(&[&["req", "-x509", "-newkey", "rsa:2048", "-nodes"], &names[..]].concat());
        fs::read_to_string(path(certificate)).unwrap()
    };
    // As when a key is replaced: both are there for a while.
    let bundle = [make("former.key", "former.crt"), make("key", "crt")].concat();
    make("stranger.key", "stranger.crt");
    fs::write(path("bundle"), bundle).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": "issuer", "aud": ["registry.example"], "sub": "dora", "exp": now + 300, "nbf": now - 10, "iat": now,
        "jti": "x", "access": [{"type": "repository", "name": "a/b", "actions": ["pull", "push"]}],
    });
    let sign = |key: &str, algorithm: &str, digest: &str| {
        // Services name their keys in many ways.
        let header = json!({"alg": algorithm, "typ": "JWT", "kid": "PYYO:TEWU:V7JH:26JV"});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&header), encode(&claims));
        fs::write(path("message"), &message).unwrap();
        let signature = openssl(&["dgst", digest, "-sign", &path(key), &path("message")]);
        format!("Bearer {message}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let mut config = Config::new(directory.path().join("data"));
    config.token_service.keys = Some(path("bundle").into());
    config.token_service.realm = Some("https://auth.example/token".to_owned());
    config.token_service.service = Some("registry.example".to_owned());
    config.token_service.issuer = Some("issuer".to_owned());
    let registry = Registry::serve_config(&config);
    let client = registry.client();
    for (key, algorithm, digest) in
        [("key", "RS256", "-sha256"), ("former.key", "RS256", "-sha256"), ("key", "RS512", "-sha512")]
    {
        push(client, &sign(key, algorithm, digest), "a/b");
    }
    send(client, &sign("stranger.key", "RS256", "-sha256"), "GET", "/v2/").status(401);
    send(client, &sign("key", "RS256", "-sha512"), "GET", "/v2/").status(401);
}

#[test]
fn below_a_prefix_the_challenge_leads_below_it() {
    let (_directory, registry) = registry(|config| config.http.prefix = "/x/y".parse().unwrap());
    let client = registry.client();
    let refused = client.get("/x/y/v2/team/app/tags/list").status(401);
    let challenge = refused.must("www-authenticate").to_owned();
    assert!(challenge.contains("realm=\"http://registry/x/y/token\",service=\"registry\""), "{challenge}");
    let token = token(client, &challenge, Some(&basic("alice", "alice's")));
    send(client, &token, "GET", "/x/y/v2/team/app/tags/list").fails(404, "NAME_UNKNOWN");
}

/// Proves: registry-http-2-h2c-unix-socket-prefix-host-relativeurls
#[test]
fn behind_a_proxy_its_own_address_is_the_one_that_it_was_told() {
    let (_directory, registry) = registry(|config| {
        config.http.external_url = Some("https://registry.example.com/".to_owned());
        config.http.prefix = "/x".parse().unwrap();
    });
    let client = registry.client();
    let challenge = client.get("/x/v2/").status(401).must("www-authenticate").to_owned();
    let expected = "realm=\"https://registry.example.com/x/token\",service=\"registry.example.com\"";
    assert!(challenge.contains(expected), "{challenge}");
    let alice = basic("alice", "alice's");
    for content in [&b"{}"[..], b"layer"] {
        let target = format!("/x/v2/team/app/blobs/uploads/?digest={}", Digest::of(content));
        client.request("POST", &target, &[("Authorization", &alice)], content).status(201);
    }
    let manifest = image(b"layer").to_string();
    let headers = [("Authorization", alice.as_str()), ("Content-Type", OCI_IMAGE)];
    let pushed = client.request("PUT", "/x/v2/team/app/manifests/1", &headers, manifest.as_bytes()).status(201);
    // A path serves whatever the host is called.
    assert!(pushed.must("location").starts_with("/x/v2/team/app/manifests/"));
    let page = String::from_utf8(send(client, &alice, "GET", "/x/r/team/app:1").status(200).body).unwrap();
    assert!(page.contains("docker pull registry.example.com/team/app:1"), "{page}");
}
