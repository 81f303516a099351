//! Clients that do not keep to the protocol.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crate::client::{Client, Registry, noise};

/// Sends bytes as they are; the first line of the answer, which is empty when there is none.
fn send(client: Client, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(client.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The server may have closed it before everything was sent.
    drop(stream.write_all(bytes));
    drop(stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn bytes_that_are_no_request_end_a_connection_and_nothing_else() {
    let registry = Registry::start();
    let client = registry.client();
    let long = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: a\r\n".repeat(500));
    let target = format!("GET /v2/{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 17));
    let both = "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!";
    for bytes in [
        &noise(1, 5000)[..],
        b"\r\n\r\n\r\n",
        b"GET",
        long.as_bytes(),
        many.as_bytes(),
        target.as_bytes(),
        both.as_bytes(),
    ] {
        let status = send(client, bytes);
        assert!(status.is_empty() || status.starts_with("HTTP/1.1 4"), "{status}");
        client.get("/v2/").status(200);
    }
}

#[test]
fn idle_connections_and_half_sent_uploads_stop_nobody_and_no_shutdown() {
    let registry = Registry::start();
    let client = registry.client();
    let idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(client.address).unwrap()).collect();
    let location = client.start_upload("a");
    let mut half = client.head("PATCH", &location, &[], Some(1000));
    half.write_all(b"some").unwrap();
    thread::sleep(Duration::from_millis(50));
    client.push_image("b", "latest", b"layer");
    half.shutdown(Shutdown::Both).unwrap();
    let registry = registry.restart();
    assert_eq!(registry.client().get(&location).status(204).must("range"), "0-3");
    drop(idle);
}

#[test]
fn a_refused_body_is_read_so_that_the_answer_arrives() {
    let registry = Registry::start();
    let client = registry.client();
    let body = noise(2, 3 << 20);
    let unknown = "/v2/a/blobs/uploads/00000000000000000000000000000000";
    client.request("PATCH", unknown, &[], &body).fails(404, "BLOB_UPLOAD_UNKNOWN");
    client.request("PUT", "/v2/a/manifests/-", &[], &body).fails(400, "MANIFEST_INVALID");
    client.request("POST", "/v2/A/blobs/uploads/", &[], &body).fails(400, "NAME_INVALID");
}
