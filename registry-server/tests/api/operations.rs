//! What those who run a registry rely on: limits, health, metrics, the log, the end.

use std::fs;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use kiln_registry_server::Period;
use kiln_registry_server::config::Size;
use kiln_registry_server::{Config, Server};

use crate::client::{OCI_IMAGE, Registry, config, image, noise, read_reply};

fn registry(change: impl FnOnce(&mut Config)) -> (tempfile::TempDir, Registry) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::new(directory.path().join("data"));
    change(&mut config);
    (directory, Registry::serve_config(&config))
}

#[test]
fn blobs_manifests_and_heads_have_limits() {
    let (_directory, registry) = registry(|config| {
        config.limits.blob = Size(1000);
        config.limits.manifest = Size(500);
        config.limits.head = Size(8 << 10);
    });
    let client = registry.client();
    client.push_blob("a", &noise(1, 1000));
    let target = |content: &[u8]| format!("/v2/a/blobs/uploads/?digest={}", kiln_store::Digest::of(content));
    let large = noise(2, 1001);
    client.request("POST", &target(&large), &[], &large).fails(413, "SIZE_INVALID");
    // In chunks, with and without a length.
    let location = client.start_upload("a");
    client.request("PATCH", &location, &[], &noise(3, 600)).status(202);
    client.request("PATCH", &location, &[], &noise(3, 600)).fails(413, "SIZE_INVALID");
    let mut stream = client.head("PATCH", &location, &[], None);
    stream.write_all(format!("{:x}\r\n{}\r\n0\r\n\r\n", 600, "x".repeat(600)).as_bytes()).unwrap();
    read_reply(stream, "PATCH").fails(413, "SIZE_INVALID");
    client.get(&location).status(204);
    let headers = [("Content-Type", OCI_IMAGE)];
    let mut manifest = image(b"layer");
    manifest["annotations"] = serde_json::json!({"long": "x".repeat(500)});
    client.request("PUT", "/v2/a/manifests/1", &headers, manifest.to_string().as_bytes()).fails(413, "SIZE_INVALID");
    let reply = client.request("GET", "/v2/", &[("X-Long", &"x".repeat(16 << 10))], b"");
    assert_eq!(reply.status, 431);
}

#[test]
fn a_client_that_asks_too_often_is_told_to_wait() {
    let (_directory, registry) = registry(|config| config.limits.requests_per_second = 1);
    let client = registry.client();
    let replies: Vec<_> = (0..30).map(|_| client.get("/v2/")).collect();
    assert!(replies.iter().filter(|reply| reply.status == 200).count() >= 10);
    let refused = replies.into_iter().find(|reply| reply.status == 429).expect("a refusal");
    assert!(refused.must("retry-after").parse::<u64>().unwrap() >= 1);
    refused.fails(429, "TOOMANYREQUESTS");
}

/// Proves: registry-metrics, registry-health, registry-access-log-json-logs-log-level-otel-traces
#[test]
fn health_metrics_and_the_log_tell_what_happened() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("access.log");
    let mut config = Config::new(directory.path().join("data"));
    config.log.access = Some(log.clone());
    let registry = Registry::serve_config(&config);
    let client = registry.client();
    assert_eq!(client.get("/healthz").status(200).body, b"ok\n");
    client.push_image("team/app", "1", &noise(1, 10_000));
    client.get("/v2/team/app/manifests/none").status(404);
    let metrics = client.get("/metrics").status(200);
    assert!(metrics.must("content-type").starts_with("application/openmetrics-text"));
    let metrics = String::from_utf8(metrics.body).unwrap();
    for line in [
        "kiln_registry_requests_total{endpoint=\"upload\",method=\"POST\",status=\"201\"} 2",
        "kiln_registry_requests_total{endpoint=\"manifest\",method=\"GET\",status=\"404\"} 1",
        "kiln_registry_repositories 1",
        "kiln_registry_tags 1",
        "kiln_registry_blobs 2",
        "kiln_registry_blob_bytes 10002",
        "kiln_registry_uploads_in_flight 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains("team"), "a repository's name is nobody's business:\n{metrics}");
    drop(registry);
    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let layer = lines.iter().find(|line| line["received"] == 10_000).expect("the layer's upload");
    assert_eq!((layer["method"].as_str(), layer["status"].as_u64()), (Some("POST"), Some(201)));
    assert!(layer["client"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(lines.iter().any(|line| line["target"] == "/v2/team/app/manifests/none" && line["status"] == 404));
}

/// Proves: registry-http-2-h2c-unix-socket-prefix-host-relativeurls
#[test]
fn an_upload_under_way_finishes_before_the_end() {
    let (_directory, registry) = registry(|config| config.http.drain = Period::seconds(60));
    let client = registry.client();
    let content = noise(5, 1 << 20);
    let digest = kiln_store::Digest::of(&content);
    let mut stream = client.head("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[], Some(content.len()));
    stream.write_all(&content[..1000]).unwrap();
    let slow = thread::spawn(move || {
        thread::sleep(Duration::from_millis(500));
        stream.write_all(&content[1000..]).unwrap();
        read_reply(stream, "POST")
    });
    thread::sleep(Duration::from_millis(200));
    let registry = registry.restart();
    slow.join().unwrap().status(201);
    registry.client().head_of(&format!("/v2/a/blobs/{digest}")).status(200);
}

#[test]
fn uploads_wait_for_their_turn_where_only_so_many_may_run() {
    let registry = Registry::configured(|config| config.limits.uploads = 1);
    let client = registry.client();
    let content = noise(7, 100_000);
    let target = format!("/v2/a/blobs/uploads/?digest={}", kiln_store::Digest::of(&content));
    let mut first = client.head("POST", &target, &[], Some(content.len()));
    first.write_all(&content[..10]).unwrap();
    let running = || String::from_utf8(client.get("/metrics").status(200).body).unwrap();
    while !running().contains("kiln_registry_uploads_in_flight 1\n") {
        thread::sleep(Duration::from_millis(20));
    }
    let second = thread::spawn(move || client.push_blob("b", b"second"));
    thread::sleep(Duration::from_millis(300));
    assert!(!second.is_finished(), "the second upload did not wait");
    assert!(running().contains("kiln_registry_uploads_in_flight 1\n"));
    client.get("/v2/").status(200);
    first.write_all(&content[10..]).unwrap();
    read_reply(first, "POST").status(201);
    let digest = second.join().unwrap();
    client.head_of(&format!("/v2/b/blobs/{digest}")).status(200);
}

/// Proves: registry-delete-enabled-switch, registry-http-2-h2c-unix-socket-prefix-host-relativeurls
#[test]
fn deletion_can_be_switched_off_and_answers_have_headers_of_ones_own() {
    let registry = Registry::configured(|config| {
        config.deletion = false;
        config.http.headers = vec!["Strict-Transport-Security: max-age=60".to_owned()];
    });
    let client = registry.client();
    let digest = client.push_blob("a", b"kept");
    let target = format!("/v2/a/blobs/{digest}");
    client.request("DELETE", &target, &[], b"").fails(405, "UNSUPPORTED");
    client.request("DELETE", "/v2/a/manifests/1", &[], b"").fails(405, "UNSUPPORTED");
    assert_eq!(client.head_of(&target).status(200).must("strict-transport-security"), "max-age=60");
    // Giving up an upload is no deletion.
    let location = client.start_upload("a");
    client.request("DELETE", &location, &[], b"").status(204);
    for path in ["/livez", "/readyz", "/startupz", "/healthz"] {
        assert_eq!(client.get(path).status(200).body, b"ok\n");
    }
    let mut config = Config::new(registry.root().join("other"));
    config.http.headers = vec!["no colon".to_owned()];
    let refused = kiln_registry_server::Server::bind(&config).expect_err("no header").to_string();
    assert!(refused.contains("http.headers"), "{refused}");
}

/// Proves: registry-http-2-h2c-unix-socket-prefix-host-relativeurls
#[test]
fn a_socket_in_the_file_system_serves_a_proxy_and_believes_it() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, log) = (directory.path().join("socket"), directory.path().join("log"));
    // What a killed server left is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let mut config = Config::new(directory.path().join("data"));
    config.http.listen = vec![format!("unix:{}", socket.display()).parse().unwrap(), ([127, 0, 0, 1], 0).into()];
    config.http.proxies = vec!["127.0.0.1".parse().unwrap()];
    config.log.access = Some(log.clone());
    let server = kiln_registry_server::Server::bind(&config).unwrap();
    let address = server.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(server.serve(async { drop(stopped.await) })).unwrap();
    });
    let ask = |stream: &mut dyn ReadWrite, named: &str| {
        let request = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: {named}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    ask(&mut std::os::unix::net::UnixStream::connect(&socket).unwrap(), "6.6.6.6, 10.1.2.3");
    // What is before an address that is not believed may be invented.
    ask(&mut std::net::TcpStream::connect(address).unwrap(), "6.6.6.6, 10.1.2.4, 127.0.0.1");
    drop(stop);
    serving.join().unwrap();
    assert!(!socket.exists());
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("\"10.1.2.3:0\"") && log.contains("\"10.1.2.4:0\"") && !log.contains("6.6.6.6"), "{log}");
    let wrong = "unix:relative".parse::<kiln_registry_server::config::ListenPlace>().unwrap_err();
    assert!(wrong.contains("absolute"), "{wrong}");
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn a_certificate_that_cannot_be_read_is_told_as_such() {
    let root = tempfile::tempdir().unwrap();
    let mut config = config(root.path());
    config.tls.certificate = Some(root.path().join("registry.crt"));
    config.tls.key = Some(root.path().join("registry.key"));
    let refused = Server::bind(&config).unwrap_err().to_string();
    assert!(refused.starts_with("read the certificate or key ") && refused.contains("registry.crt"), "{refused}");
}
