//! Notifications, as a receiver sees them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kiln_registry_server::config::Webhook;
use kiln_registry_server::{Config, Patterns};
use serde_json::Value;

use crate::client::Registry;

/// Answers each POST with the next of these statuses (then with 200); gives on its headers and body.
fn receiver(statuses: &'static [u16]) -> (String, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        let mut statuses = statuses.iter();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
            let head = head.to_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("0");
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            let status = statuses.next().copied().unwrap_or(200);
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            drop(stream.write_all(answer.as_bytes()));
            if status == 200 && sender.send((head, String::from_utf8(body).unwrap())).is_err() {
                return;
            }
        }
    });
    (url, received)
}

/// Proves: registry-notifications-webhooks
#[test]
fn pushes_and_deletions_are_told_signed_and_again_until_they_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "key\n").unwrap();
    let (url, received) = receiver(&[500, 200]);
    let mut config = Config::new(directory.path().join("data"));
    let repositories = Patterns::new(["team/**"]).unwrap();
    config.webhooks = vec![Webhook { url, repositories, secret_file: Some(secret), ..Webhook::default() }];
    let registry = Registry::serve_config(&config);
    let client = registry.client();
    client.push_image("elsewhere", "1", b"layer");
    let digest = client.push_image("team/app", "1", b"layer");
    client.delete("/v2/team/app/manifests/1").status(202);
    client.delete(&format!("/v2/team/app/manifests/{digest}")).status(202);
    let next = || received.recv_timeout(Duration::from_secs(60)).expect("a notification");

    let (head, body) = next();
    let event = serde_json::from_str::<Value>(&body).unwrap()["events"][0].clone();
    assert_eq!((event["action"].as_str(), event["target"]["tag"].as_str()), (Some("push"), Some("1")));
    assert_eq!(event["target"]["repository"], "team/app");
    assert_eq!(event["target"]["digest"], digest.to_string());
    assert!(event["target"]["size"].as_u64().unwrap() > 100);
    assert!(event["target"]["url"].as_str().unwrap().ends_with(&format!("/v2/team/app/manifests/{digest}")));
    assert_eq!(event["request"]["method"], "PUT");
    assert!(head.contains("content-type: application/vnd.docker.distribution.events.v2+json"), "{head}");
    let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"key"), body.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(head.contains(&format!("x-kiln-signature: sha256={hex}")), "{head}");

    for key in ["tag", "digest"] {
        let (_, body) = next();
        let event = serde_json::from_str::<Value>(&body).unwrap()["events"][0].clone();
        assert_eq!(event["action"], "delete");
        assert!(event["target"][key].is_string(), "{event}");
    }
    drop(registry);
    assert!(received.try_recv().is_err());
}

#[test]
fn what_was_not_delivered_is_after_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}/hook", nobody.local_addr().unwrap());
    drop(nobody);
    let (url, received) = receiver(&[]);
    let told = |url: &str| Webhook { url: url.to_owned(), attempts: 1_000, ..Webhook::default() };
    let mut config = Config::new(&data);
    // One receiver answers nothing yet; the other is asked for no more after the restart.
    config.webhooks = vec![told(&gone), told(&format!("{gone}/other"))];
    let registry = Registry::serve_config(&config);
    let digest = registry.client().push_image("team/app", "1", b"layer");
    registry.client().push_image("team/app", "2", b"layer");
    drop(registry);
    let database = rusqlite::Connection::open(data.join("registry.db")).unwrap();
    let count = || database.query_row("SELECT count(*) FROM notifications", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(), 4);
    // The same receiver, at the address that it has now.
    database.execute("UPDATE notifications SET receiver = ?1 WHERE receiver = ?2", [&url, &gone]).unwrap();
    config.webhooks = vec![told(&url)];
    let registry = Registry::serve_config(&config);
    for tag in ["1", "2"] {
        let (_, body) = received.recv_timeout(Duration::from_secs(60)).expect("a notification");
        let event = serde_json::from_str::<Value>(&body).unwrap()["events"][0].clone();
        assert_eq!((event["action"].as_str(), event["target"]["tag"].as_str()), (Some("push"), Some(tag)));
        assert_eq!(event["target"]["digest"], digest.to_string());
    }
    drop(registry);
    assert_eq!(count(), 0);
    assert!(received.try_recv().is_err());
}
