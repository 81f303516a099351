//! Standing in for another registry: fetched once, kept, served while the other is down.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use kiln_registry_server::config::Upstream;
use kiln_registry_server::{Config, Period};
use kiln_store::Digest;
use serde_json::json;
use tempfile::TempDir;

use crate::client::{Client, Registry, noise};

/// A registry that stands in for `url` below `hub/`.
fn mirror(url: String, change: impl FnOnce(&mut Upstream, &TempDir)) -> (TempDir, Registry) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::new(directory.path().join("data"));
    let mut upstream = Upstream { url, prefix: "hub".to_owned(), fresh: Period::seconds(0), ..Upstream::default() };
    change(&mut upstream, &directory);
    config.upstreams = vec![upstream];
    (directory, Registry::serve_config(&config))
}

fn url(registry: &Registry) -> String {
    format!("http://{}", registry.address)
}

/// Proves: registry-pull-through-cache
#[test]
fn what_the_upstream_has_is_fetched_kept_and_followed() {
    let upstream = Registry::start();
    let there = upstream.client();
    let first = there.push_image("library/app", "1", &noise(1, 300_000));
    let (_directory, registry) = mirror(url(&upstream), |_, _| {});
    let client = registry.client();
    for _ in 0..2 {
        let reply = client.get("/v2/hub/library/app/manifests/1").status(200);
        assert_eq!(reply.must("docker-content-digest"), first.to_string());
        let layer = Digest::of(&noise(1, 300_000));
        let target = format!("/v2/hub/library/app/blobs/{layer}");
        assert_eq!(client.get(&target).status(200).body, noise(1, 300_000));
        let part = client.request("GET", &target, &[("Range", "bytes=5-9")], b"").status(206);
        assert_eq!(part.body, noise(1, 300_000)[5..10]);
        assert_eq!(client.head_of(&target).status(200).must("content-length"), "300000");
    }
    let second = there.push_image("library/app", "1", b"changed");
    let reply = client.get("/v2/hub/library/app/manifests/1").status(200);
    assert_eq!(reply.must("docker-content-digest"), second.to_string());
    client.get(&format!("/v2/hub/library/app/manifests/{first}")).status(200);
    there.push_image("library/app", "2", b"changed");
    assert_eq!(
        client.get("/v2/hub/library/app/tags/list").status(200).json(),
        json!({"name": "hub/library/app", "tags": ["1", "2"]})
    );

    client.get("/v2/hub/library/none/manifests/1").fails(404, "MANIFEST_UNKNOWN");
    client.get(&format!("/v2/hub/library/app/blobs/{}", Digest::of(b"none"))).fails(404, "BLOB_UNKNOWN");
    client.request("POST", "/v2/hub/library/app/blobs/uploads/", &[], b"").fails(405, "UNSUPPORTED");
    client.put_manifest("hub/library/app", "1", &crate::client::image(b"changed")).fails(405, "UNSUPPORTED");
    client.push_image("own/app", "1", b"layer");

    drop(upstream);
    client.get("/v2/hub/library/app/manifests/1").status(200);
    client.get(&format!("/v2/hub/library/app/blobs/{}", Digest::of(&noise(1, 300_000)))).status(200);
    assert_eq!(client.get("/v2/hub/library/app/tags/list").status(200).json()["tags"], json!(["1"]));
    client.get("/v2/hub/library/app/manifests/other").status(502);
    let restarted = registry;
    let metrics = String::from_utf8(restarted.client().get("/metrics").body).unwrap();
    assert!(metrics.contains("kiln_registry_upstream_requests_total{outcome=\"stale\"}"), "{metrics}");
}

#[test]
fn clients_may_name_the_upstream_by_its_host() {
    let upstream = Registry::start();
    upstream.client().push_image("library/app", "1", b"layer");
    let (_directory, registry) = mirror(url(&upstream), |upstream, _| {
        upstream.hosts = vec!["docker.example".to_owned(), "registry".to_owned()];
    });
    let client = registry.client();
    client.get("/v2/library/app/manifests/1?ns=docker.example").status(200);
    client.get("/v2/library/app/manifests/1").status(200); // the test's client says `Host: registry`
    client.get("/v2/hub/library/app/manifests/1?ns=elsewhere").status(404);
}

#[test]
fn credentials_are_shown_to_upstreams_that_ask() {
    let directory = tempfile::tempdir().unwrap();
    for (tokens, password, status) in [(true, "alice's", 200), (false, "alice's", 200), (true, "wrong", 404)] {
        let users = directory.path().join("users.toml");
        let hash = bcrypt::hash("alice's", 4).unwrap();
        std::fs::write(&users, format!("[user.alice]\npassword = \"{hash}\"\nallow = {{ \"**\" = [\"pull\"] }}\n"))
            .unwrap();
        let data = directory.path().join(format!("{tokens}-{status}"));
        let open = Registry::serve(&data);
        open.client().push_image("a", "1", b"layer");
        drop(open);
        let mut config = Config::new(data);
        config.access.users = Some(users);
        config.access.tokens = tokens;
        let upstream = Registry::serve_config(&config);
        let (_directory, registry) = mirror(url(&upstream), |upstream, directory| {
            let file = directory.path().join("password");
            std::fs::write(&file, format!("{password}\n")).unwrap();
            upstream.username = Some("alice".to_owned());
            upstream.password_file = Some(file);
        });
        registry.client().get("/v2/hub/a/manifests/1").status(status);
        if status == 200 {
            registry.client().get(&format!("/v2/hub/a/blobs/{}", Digest::of(b"layer"))).status(200);
        }
    }
}

/// `openssl req -x509` makes an authority of every certificate that vouches for itself.
#[test]
fn an_upstream_whose_certificate_vouches_for_itself_is_believed_when_it_is_the_one_given() {
    let directory = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let (certificate, private) = (directory.path().join(name), directory.path().join(format!("{name}.key")));
        std::fs::write(&certificate, parameters.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&private, key.serialize_pem()).unwrap();
        (certificate, private)
    };
    let ((own, key), (other, _)) = (make("own"), make("other"));
    let data = directory.path().join("upstream");
    let open = Registry::serve(&data);
    open.client().push_image("a", "1", b"layer");
    drop(open);
    let mut config = Config::new(data);
    (config.tls.certificate, config.tls.key) = (Some(own.clone()), Some(key));
    let upstream = Registry::serve_config(&config);
    for (authority, status) in [(Some(own), 200), (Some(other), 502), (None, 502)] {
        let url = format!("https://localhost:{}", upstream.address.port());
        let (_directory, registry) = mirror(url, |upstream, _| upstream.authority = authority);
        registry.client().get("/v2/hub/a/manifests/1").status(status);
    }
}

/// Passes connections on to `target`, counts the GETs of blobs, and cuts the first answers that are long after so
/// many bytes.
fn passage(target: SocketAddr, cut: usize, cuts: usize) -> (String, Arc<AtomicUsize>, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (gets, passed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let (counted, counted_bytes, left) = (Arc::clone(&gets), Arc::clone(&passed), Arc::new(AtomicUsize::new(cuts)));
    thread::spawn(move || {
        while let Ok((mut near, _)) = listener.accept() {
            let mut far = TcpStream::connect(target).unwrap();
            let (mut back, mut from) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (counted, counted_bytes, left) = (Arc::clone(&counted), Arc::clone(&counted_bytes), Arc::clone(&left));
            thread::spawn(move || {
                let mut buffer = [0; 16 << 10];
                while let Ok(count @ 1..) = near.read(&mut buffer) {
                    if buffer[..count].starts_with(b"GET") && buffer[..count].windows(7).any(|part| part == b"/blobs/")
                    {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                    if far.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
            thread::spawn(move || {
                let mut buffer = [0; 16 << 10];
                let mut sent = 0;
                while let Ok(count @ 1..) = from.read(&mut buffer) {
                    sent += count;
                    counted_bytes.fetch_add(count as u64, Ordering::SeqCst);
                    let cuts = sent > cut
                        && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                    if cuts || back.write_all(&buffer[..count]).is_err() {
                        drop(back.shutdown(std::net::Shutdown::Both));
                        return;
                    }
                }
            });
        }
    });
    (address, gets, passed)
}

/// Proves: registry-pull-through-cache
#[test]
fn many_clients_cause_one_download_which_continues_where_it_broke_off() {
    let upstream = Registry::start();
    let content = noise(7, 6 << 20);
    let digest = upstream.client().push_blob("a", &content);
    upstream.client().push_image("a", "1", b"layer");
    let (address, gets, passed) = passage(upstream.address, 1 << 20, 2);
    let (_directory, registry) = mirror(address, |_, _| {});
    let client: Client = registry.client();
    let readers: Vec<_> = (0..12)
        .map(|_| {
            let target = format!("/v2/hub/a/blobs/{digest}");
            thread::spawn(move || client.get(&target).status(200).body)
        })
        .collect();
    for reader in readers {
        assert!(reader.join().unwrap() == content);
    }
    // One download in three parts, and not the whole of it three times.
    assert_eq!(gets.load(Ordering::SeqCst), 3);
    assert!(passed.load(Ordering::SeqCst) < (content.len() as u64) * 3 / 2);
    client.get(&format!("/v2/hub/a/blobs/{digest}")).status(200);
    assert_eq!(gets.load(Ordering::SeqCst), 3);
}

#[test]
fn wrong_bytes_of_an_upstream_are_neither_kept_nor_given_out_whole() {
    // An upstream that answers every blob with bytes of another digest.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut buffer = [0; 4096];
            drop(stream.read(&mut buffer));
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwrong";
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    let (_directory, registry) = mirror(address, |_, _| {});
    let digest = Digest::of(b"right");
    let client = registry.client();
    let mut stream = client.head("GET", &format!("/v2/hub/a/blobs/{digest}"), &[], Some(0));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    assert!(!answer.ends_with(b"wrong"), "{}", String::from_utf8_lossy(&answer));
    client.get(&format!("/v2/hub/a/manifests/{digest}")).status(502);
    drop(registry);
}
