//! Debian's registry over TLS, as `registry.test:5000`, which a proxy of its own leads to.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Child, Stdio},
    thread,
};

use crate::{
    command::{command, run},
    interposer::read_head,
    service::{free_port, wait_for_port},
};

/// What it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// A certificate of an authority, `ca.pem`, that nobody knows.
    Vouched,
    /// `ca.pem` itself, as `openssl req -x509` makes it: its own authority.
    SelfSigned,
    /// As `Vouched`, and only clients whose certificate is of the same authority are served. `client.pem` with
    /// `client.key` is one, of X.509's first version, as `openssl x509 -req` makes it.
    Mutual,
}

/// The registry; stopped when it is dropped.
pub struct SecureRegistry {
    server: Child,
    port: u16,
}

/// Makes all the certificates.
const CERTIFICATES: &str = "set -e; cd \"$0\"; new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
    openssl req -x509 $new -keyout ca.key -out ca.pem -days 30 -subj /CN=authority -addext subjectAltName=DNS:registry.test
    openssl req $new -keyout server.key -out server.csr -subj /CN=registry.test
    printf 'subjectAltName=DNS:registry.test\\nbasicConstraints=CA:FALSE\\n' >extensions
    sign() { openssl x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \"$@\"; }
    sign -in server.csr -out server.pem -extfile extensions
    openssl req $new -keyout client.key -out client.csr -subj /CN=client
    sign -in client.csr -out client.pem";

impl SecureRegistry {
    /// Starts it with its certificates in this directory.
    pub fn start(directory: &Path, shown: Shown) -> Self {
        run(command("sh", ["-c", CERTIFICATES, directory.to_str().expect("text")])).success();
        let port = free_port();
        let name = if shown == Shown::SelfSigned { "ca" } else { "server" };
        let clients = if shown == Shown::Mutual { "\n    clientcas: [ca.pem]" } else { "" };
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: data\nhttp:\n  addr: \
             127.0.0.1:{port}\n  tls:\n    certificate: {name}.pem\n    key: {name}.key{clients}\n"
        );
        fs::write(directory.join("config.yml"), config).expect("a config");
        let mut serve = command("docker-registry", ["serve", "config.yml"]);
        serve.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = serve.spawn().expect("docker-registry starts");
        assert!(wait_for_port(port, || matches!(server.try_wait(), Ok(None))), "docker-registry does not answer");
        Self { server, port }
    }

    /// The address of a proxy that connects everybody to it, if they ask for `registry.test`.
    pub fn proxy(&self) -> String {
        format!("http://{}", self.through(admitted_by_http))
    }

    /// The address, without its scheme, of a SOCKS proxy (RFC 1928) that does the same for `user` with `password`.
    pub fn socks_proxy(&self) -> String {
        format!("user:password@{}", self.through(admitted_by_socks))
    }

    fn through(&self, admitted: fn(&mut TcpStream) -> io::Result<bool>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (own, port) = (listener.local_addr().expect("an address"), self.port);
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                thread::spawn(move || {
                    if admitted(&mut client).is_ok_and(|admitted| admitted) {
                        relay(client, port);
                    }
                });
            }
        });
        own.to_string()
    }
}

impl Drop for SecureRegistry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What everybody asks for.
const HOST: &str = "registry.test";

fn admitted_by_http(client: &mut TcpStream) -> io::Result<bool> {
    let admitted = read_head(client)?.starts_with(&format!("CONNECT {HOST}:"));
    let answer = if admitted { "200 OK" } else { "502 Bad Gateway\r\nContent-Length: 0" };
    write!(client, "HTTP/1.1 {answer}\r\n\r\n")?;
    Ok(admitted)
}

/// RFC 1928, with the password of RFC 1929.
fn admitted_by_socks(client: &mut TcpStream) -> io::Result<bool> {
    fn read(client: &mut TcpStream, length: u8) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length.into()];
        client.read_exact(&mut bytes)?;
        Ok(bytes)
    }
    fn field(client: &mut TcpStream) -> io::Result<Vec<u8>> {
        let length = read(client, 1)?[0];
        read(client, length)
    }
    read(client, 1)?;
    if !field(client)?.contains(&2) {
        client.write_all(&[5, 0xff])?;
        return Ok(false);
    }
    client.write_all(&[5, 2])?;
    read(client, 1)?;
    let known = field(client)? == b"user" && field(client)? == b"password";
    client.write_all(&[1, u8::from(!known)])?;
    let request = read(client, 4)?;
    // A name, and not an address that the client has found itself.
    let admitted = known && request == [5, 1, 0, 3] && field(client)? == HOST.as_bytes();
    client.write_all(&[5, if admitted { 0 } else { 4 }, 0, 1, 0, 0, 0, 0, 0, 0])?;
    if admitted {
        read(client, 2)?;
    }
    Ok(admitted)
}

fn relay(mut client: TcpStream, port: u16) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let (mut from, mut to) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let forth = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Write);
    let _ = forth.join();
}
