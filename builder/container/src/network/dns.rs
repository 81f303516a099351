//! Names on user networks: a responder at 127.0.0.11 inside each container, which knows the containers of its
//! networks and asks the host's servers for the rest, from where they can be reached. RFC 1035.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kiln_sandbox::network_namespace::NetworkNamespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::record::{Endpoint, Networks};
use super::service::Service;

/// Where containers ask.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;
const HEADER: usize = 12;
/// Seconds that an answer may be kept: a container that is started again has another address.
const LIFETIME: u32 = 5;
const UPSTREAM_LIMIT: Duration = Duration::from_secs(4);
const TCP_IDLE: Duration = Duration::from_secs(10);
const MESSAGE: usize = 65_535;
/// Addresses in one answer, at most: it must fit a datagram.
const ANSWERS: usize = 20;

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_AAAA: u16 = 28;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// Whom a responder answers for.
#[derive(Debug)]
pub(crate) struct Responder {
    pub(crate) networks: Networks,
    pub(crate) container: String,
    /// Where other names are asked for; nowhere on an internal network.
    pub(crate) upstream: Vec<IpAddr>,
}

/// A question, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    name: String,
    kind: u16,
    /// Where it ends in the message.
    end: usize,
}

/// Serves the container's namespace until the service is dropped.
pub(crate) fn start(responder: Responder, inside: &NetworkNamespace) -> io::Result<Service> {
    let place = SocketAddr::from((ADDRESS, PORT));
    let (udp, tcp) = inside.within(|| {
        let (udp, tcp) = (std::net::UdpSocket::bind(place)?, std::net::TcpListener::bind(place)?);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        io::Result::Ok((udp, tcp))
    })??;
    let responder = Arc::new(responder);
    Service::start("kiln-names", move || {
        Ok(async move {
            let (udp, tcp) = (Arc::new(UdpSocket::from_std(udp)?), TcpListener::from_std(tcp)?);
            tokio::spawn(serve_tcp(tcp, Arc::clone(&responder)));
            let mut buffer = vec![0; MESSAGE];
            loop {
                let Ok((length, client)) = udp.recv_from(&mut buffer).await else { continue };
                let query = buffer.get(..length).unwrap_or_default().to_vec();
                let (udp, responder) = (Arc::clone(&udp), Arc::clone(&responder));
                tokio::spawn(async move {
                    if let Some(answer) = responder.answer(&query, false).await {
                        let _ = udp.send_to(&answer, client).await;
                    }
                });
            }
        })
    })
}

async fn serve_tcp(listener: TcpListener, responder: Arc<Responder>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let responder = Arc::clone(&responder);
        tokio::spawn(async move {
            let mut client = client;
            while let Ok(Ok(query)) = tokio::time::timeout(TCP_IDLE, read_framed(&mut client)).await {
                let Some(answer) = responder.answer(&query, true).await else { return };
                if write_framed(&mut client, &answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

impl Responder {
    /// `None` for what is no query.
    async fn answer(&self, query: &[u8], by_tcp: bool) -> Option<Vec<u8>> {
        let question = parse(query)?;
        let answers = match question.kind {
            TYPE_PTR => {
                self.names_of(&question.name).map(|names| names.iter().map(|name| (TYPE_PTR, encode(name))).collect())
            }
            kind => self.addresses_of(&question.name).map(|addresses| {
                let wanted = addresses.iter().filter_map(|address| match (address, kind) {
                    (IpAddr::V4(four), TYPE_A) => Some((TYPE_A, four.octets().to_vec())),
                    (IpAddr::V6(six), TYPE_AAAA) => Some((TYPE_AAAA, six.octets().to_vec())),
                    _ => None,
                });
                wanted.collect::<Vec<_>>()
            }),
        };
        if let Some(answers) = answers {
            return Some(reply(query, &question, &answers, 0));
        }
        if self.upstream.is_empty() {
            return Some(reply(query, &question, &[], NO_SUCH_NAME));
        }
        for server in &self.upstream {
            let asked = tokio::time::timeout(UPSTREAM_LIMIT, ask(SocketAddr::new(*server, PORT), query, by_tcp)).await;
            if let Ok(Ok(answer)) = asked {
                return Some(answer);
            }
        }
        Some(reply(query, &question, &[], SERVER_FAILURE))
    }

    /// Everybody on the networks that this container is on.
    fn neighbours(&self) -> Vec<Endpoint> {
        let all = self.networks.all().unwrap_or_default();
        let named = all.iter().filter(|network| network.has_names());
        let own = named.filter(|network| self.networks.endpoint(&network.id, &self.container).is_some());
        own.flat_map(|network| self.networks.endpoints(network)).collect()
    }

    /// By name, alias, short id, or one of them with the network's name behind; `None` when it is nobody's.
    fn addresses_of(&self, name: &str) -> Option<Vec<IpAddr>> {
        let mut found: Vec<IpAddr> = self
            .neighbours()
            .iter()
            .filter(|endpoint| {
                let short = name.len().checked_sub(endpoint.network_name.len() + 1).and_then(|length| {
                    let (short, network) = (name.get(..length)?, name.get(length..)?.strip_prefix('.')?);
                    network.eq_ignore_ascii_case(&endpoint.network_name).then_some(short)
                });
                endpoint.is_called(name) || short.is_some_and(|short| endpoint.is_called(short))
            })
            .flat_map(|endpoint| {
                let six = endpoint.six.as_ref().map(|place| place.address.into());
                [Some(endpoint.address.into()), six].into_iter().flatten()
            })
            .collect();
        found.truncate(ANSWERS);
        (!found.is_empty()).then_some(found)
    }

    fn names_of(&self, reverse: &str) -> Option<Vec<String>> {
        let mut octets: Vec<u8> =
            reverse.strip_suffix(".in-addr.arpa")?.split('.').map(|octet| octet.parse().ok()).collect::<Option<_>>()?;
        octets.reverse();
        let address = Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?);
        let neighbours = self.neighbours();
        let found = neighbours.iter().filter(|endpoint| endpoint.address == address);
        let names: Vec<String> = found.map(|endpoint| format!("{}.{}", endpoint.name, endpoint.network_name)).collect();
        (!names.is_empty()).then_some(names)
    }
}

/// Passes a query on as it is.
async fn ask(server: SocketAddr, query: &[u8], by_tcp: bool) -> io::Result<Vec<u8>> {
    if by_tcp {
        let mut stream = TcpStream::connect(server).await?;
        write_framed(&mut stream, query).await?;
        return read_framed(&mut stream).await;
    }
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; MESSAGE];
    loop {
        let length = socket.recv(&mut answer).await?;
        // An answer to something else is somebody's guess.
        if length >= HEADER && answer.get(..2) == query.get(..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

/// The only question of a query.
fn parse(message: &[u8]) -> Option<Question> {
    let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    // Not an answer, a standard query, one question.
    if message.get(2)? & 0xf8 != 0 || word(4)? != 1 {
        return None;
    }
    let (mut at, mut labels) = (HEADER, Vec::new());
    loop {
        let length = usize::from(*message.get(at)?);
        if length == 0 {
            break;
        }
        // Compression has nothing to point at in a first name.
        if length > 63 || at > HEADER + 255 {
            return None;
        }
        labels.push(String::from_utf8_lossy(message.get(at + 1..at + 1 + length)?).to_ascii_lowercase());
        at += length + 1;
    }
    Some(Question { name: labels.join("."), kind: word(at + 1)?, end: at + 5 }).filter(|one| one.end <= message.len())
}

fn encode(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = label.as_bytes().get(..label.len().min(63)).unwrap_or_default();
        bytes.push(u8::try_from(label.len()).unwrap_or_default());
        bytes.extend(label);
    }
    bytes.push(0);
    bytes
}

fn reply(query: &[u8], question: &Question, answers: &[(u16, Vec<u8>)], code: u8) -> Vec<u8> {
    let mut message = query.get(..2).unwrap_or_default().to_vec();
    // An answer; recursion as desired, and available.
    message.push(0x80 | query.get(2).copied().unwrap_or_default() & 0x01);
    message.push(0x80 | code);
    let count = u16::try_from(answers.len()).unwrap_or_default().to_be_bytes();
    message.extend([0, 1, count[0], count[1], 0, 0, 0, 0]);
    message.extend(query.get(HEADER..question.end).unwrap_or_default());
    for (kind, data) in answers {
        // The question's name, class IN.
        message.extend([0xc0, 0x0c]);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message.extend(LIFETIME.to_be_bytes());
        message.extend(u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
        message.extend(data);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(encode(name));
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    #[test]
    fn questions_are_read_and_torn_ones_refused() {
        let whole = query("Web.Net", TYPE_A);
        let question = parse(&whole).unwrap();
        assert_eq!((question.name.as_str(), question.kind, question.end), ("web.net", 1, whole.len()));
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_none(), "{length}");
        }
        let mut answer = whole.clone();
        answer[2] |= 0x80;
        assert!(parse(&answer).is_none());
        let mut pointer = whole;
        pointer[12] = 0xc0;
        assert!(parse(&pointer).is_none());
    }

    #[test]
    fn answers_point_at_the_question() {
        let asked = query("web", TYPE_A);
        let question = parse(&asked).unwrap();
        let answer = reply(&asked, &question, &[(TYPE_A, vec![10, 1, 2, 3])], 0);
        assert_eq!(&answer[..12], &[7, 9, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(&answer[asked.len()..], &[0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 1, 2, 3]);
        assert_eq!(reply(&asked, &question, &[], NO_SUCH_NAME)[3], 0x83);
    }
}
