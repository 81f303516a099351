//! Sockets that wait for the host's side of published ports.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::publish::{Binding, Protocol, Publish};
use crate::{Error, Result};

/// How often a free port is looked for that is free at all addresses.
const ATTEMPTS: usize = 32;
const BACKLOG: i32 = 1024;

/// A bound socket, and what for.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) binding: Binding,
    pub(crate) socket: Socket,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// Binds the sockets of one published port, all with the same number.
pub(crate) fn bind(publish: &Publish) -> Result<Vec<Listener>> {
    let (first, last) = publish.host.unwrap_or_default();
    let candidates: Vec<u16> = match publish.host {
        Some(_) => (first..=last).collect(),
        None => vec![0; ATTEMPTS],
    };
    let mut failure = None;
    for port in candidates {
        match bind_at(publish, port) {
            Ok(listeners) => return Ok(listeners),
            Err((address, error)) => {
                let is_taken = error == Errno::ADDRINUSE;
                failure = Some(explain(publish, address, port, error));
                if !is_taken {
                    break;
                }
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::Invalid(format!("no port to publish {} at", publish.port))))
}

fn bind_at(publish: &Publish, mut port: u16) -> Result<Vec<Listener>, (IpAddr, Errno)> {
    let mut listeners = Vec::new();
    for address in publish.addresses() {
        let socket = match open(publish.port.protocol, address, port) {
            Ok(socket) => socket,
            // A host without IPv6, that nobody asked for by name.
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if publish.address.is_none() && address.is_ipv6() => continue,
            Err(error) => return Err((address, error)),
        };
        let bound = match &socket {
            Socket::Tcp(socket) => socket.local_addr(),
            Socket::Udp(socket) => socket.local_addr(),
        };
        port = bound.map_or(port, |bound| bound.port());
        listeners.push(Listener { binding: Binding { port: publish.port, address, host: port }, socket });
    }
    Ok(listeners)
}

fn open(protocol: Protocol, address: IpAddr, port: u16) -> rustix::io::Result<Socket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(family, kind, flags, None)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of an earlier container may linger.
        set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(address, port))?;
    Ok(match protocol {
        Protocol::Udp => Socket::Udp(socket.into()),
        Protocol::Tcp => {
            rustix::net::listen(&socket, BACKLOG)?;
            Socket::Tcp(socket.into())
        }
    })
}

fn explain(publish: &Publish, address: IpAddr, port: u16, error: Errno) -> Error {
    let advice = match error {
        Errno::ADDRINUSE => " (another program or container has it: see `kiln ps` and `ss -lntup`)",
        Errno::ACCESS => {
            " (an ordinary user may not: sysctl -w net.ipv4.ip_unprivileged_port_start=0, or a port from 1024)"
        }
        _ => "",
    };
    let place = SocketAddr::new(address, port);
    Error::Network { action: format!("publish {} at {place}{advice}", publish.port), source: io::Error::from(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gives_the_first_free_port_and_a_taken_one_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let publish = |last: u16| Publish {
            address: Some("127.0.0.1".parse().unwrap()),
            host: Some((port, last)),
            port: "80".parse().unwrap(),
        };
        let error = bind(&publish(port)).unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("another program"), "{error}");
        let found = bind(&publish(port.saturating_add(20))).unwrap();
        assert!(found[0].binding.host > port);
        let any = Publish { address: None, host: None, port: "53/udp".parse().unwrap() };
        let found = bind(&any).unwrap();
        assert!(
            found.iter().all(|listener| listener.binding.host == found[0].binding.host && listener.binding.host > 0)
        );
    }
}
