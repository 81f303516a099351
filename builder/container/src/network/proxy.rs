//! From published ports to the container, in user space: nothing needs to be installed, and no privilege is needed.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kiln_sandbox::network_namespace::NetworkNamespace;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::listener::{Listener, Socket};
use super::service::Service;

/// Bytes on the way in one direction of a connection.
const BUFFER: usize = 32 * 1024;
/// The container is a hop away.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long answers to a sender are waited for.
const UDP_IDLE: Duration = Duration::from_secs(90);
/// Senders that are remembered at once, for a port.
const UDP_SENDERS: usize = 1024;
const DATAGRAM: usize = 65_536;

/// Serves the listeners until the service is dropped. `inside` is the namespace to connect from, where the container
/// cannot be reached from this one.
pub(crate) fn start(
    listeners: Vec<Listener>,
    container: Ipv4Addr,
    inside: Option<NetworkNamespace>,
) -> io::Result<Service> {
    Service::start("kiln-ports", move || {
        if let Some(inside) = inside {
            inside.enter_thread()?;
        }
        Ok(async move {
            for Listener { binding, socket } in listeners {
                let target = SocketAddr::from((container, binding.port.number));
                match socket {
                    Socket::Tcp(socket) => drop(tokio::spawn(forward_tcp(TcpListener::from_std(socket)?, target))),
                    Socket::Udp(socket) => drop(tokio::spawn(forward_udp(UdpSocket::from_std(socket)?, target))),
                }
            }
            std::future::pending::<io::Result<()>>().await
        })
    })
}

async fn forward_tcp(listener: TcpListener, target: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(connect(client, target))),
            // Too many open files, or a client that gave up: the next may fare better.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn connect(mut client: TcpStream, target: SocketAddr) {
    // Nobody to be told but the client, who sees the connection close.
    let Ok(Ok(mut container)) = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(target)).await else { return };
    let _ = (client.set_nodelay(true), container.set_nodelay(true));
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut container, BUFFER, BUFFER).await;
}

async fn forward_udp(listener: UdpSocket, target: SocketAddr) {
    let listener = Arc::new(listener);
    let mut senders: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let Ok((length, sender)) = listener.recv_from(&mut buffer).await else { continue };
        // Only this and the task of a sender hold its socket: one that nobody else holds is at its end.
        senders.retain(|_, socket| Arc::strong_count(socket) > 1);
        let socket = match senders.get(&sender) {
            Some(socket) => Arc::clone(socket),
            None if senders.len() >= UDP_SENDERS => continue,
            None => {
                let Ok(socket) = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).await else { continue };
                let Ok(()) = socket.connect(target).await else { continue };
                let socket = Arc::new(socket);
                senders.insert(sender, Arc::clone(&socket));
                tokio::spawn(answer(Arc::clone(&listener), Arc::clone(&socket), sender));
                socket
            }
        };
        let _ = socket.send(buffer.get(..length).unwrap_or_default()).await;
    }
}

/// Sends what the container answers back, until it is silent for long.
async fn answer(listener: Arc<UdpSocket>, socket: Arc<UdpSocket>, sender: SocketAddr) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        match tokio::time::timeout(UDP_IDLE, socket.recv(&mut buffer)).await {
            Ok(Ok(length)) => drop(listener.send_to(buffer.get(..length).unwrap_or_default(), sender).await),
            // Nobody listens yet: what comes next may be heard.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::network::listener::bind;
    use crate::network::publish::Publish;

    fn published(port: u16, protocol: &str) -> (Vec<Listener>, u16) {
        let publish = &Publish::parse(&format!("127.0.0.1::{port}/{protocol}")).unwrap()[0];
        let listeners = bind(publish).unwrap();
        let host = listeners[0].binding.host;
        (listeners, host)
    }

    #[test]
    fn tcp_goes_both_ways_and_a_half_closed_connection_stays_open() {
        let container = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (listeners, host) = published(container.local_addr().unwrap().port(), "tcp");
        let _service = start(listeners, Ipv4Addr::LOCALHOST, None).unwrap();
        let mut client = std::net::TcpStream::connect(("127.0.0.1", host)).unwrap();
        client.write_all(b"question").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let (mut served, _) = container.accept().unwrap();
        let mut text = String::new();
        served.read_to_string(&mut text).unwrap();
        served.write_all(b"answer").unwrap();
        drop(served);
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        assert_eq!((text.as_str(), reply.as_str()), ("question", "answer"));
    }

    #[test]
    fn udp_answers_reach_their_senders() {
        let container = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (listeners, host) = published(container.local_addr().unwrap().port(), "udp");
        let _service = start(listeners, Ipv4Addr::LOCALHOST, None).unwrap();
        let clients: Vec<_> = (0..3).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for (number, client) in clients.iter().enumerate() {
            client.send_to(format!("{number}").as_bytes(), ("127.0.0.1", host)).unwrap();
        }
        for _ in &clients {
            let mut buffer = [0; 16];
            let (length, from) = container.recv_from(&mut buffer).unwrap();
            container.send_to(&buffer[..length], from).unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            let mut buffer = [0; 16];
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], format!("{number}").as_bytes());
        }
    }
}
