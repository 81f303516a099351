//! Packet filter rules: one nftables table for each network, so that it comes and goes as a whole. Written to the
//! kernel directly: no `nft` and no `iptables` is needed.

use std::io;

use rustix::io::Errno;

use super::netlink::{ACKNOWLEDGE, APPEND, CREATE, Message, Socket};
use super::six::Subnet6;
use super::subnet::Subnet;

/// `NFNL_SUBSYS_NFTABLES`
const NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = NFTABLES << 8;
const DELETE_TABLE: u16 = NFTABLES << 8 | 2;
const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
const GET_CHAIN: u16 = NFTABLES << 8 | 4;
const NEW_RULE: u16 = NFTABLES << 8 | 6;
const GET_RULE: u16 = NFTABLES << 8 | 7;

/// Of addresses: a table is for one.
#[derive(Debug, Clone, Copy)]
enum Family {
    Four = 2,
    Six = 10,
}

const REGISTER: u32 = 1;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// Of `struct nfgenmsg`.
const FIXED: usize = 4;

/// Which packets a rule is for.
#[derive(Debug, Clone, Copy)]
enum Match<'a> {
    /// That came in by this interface, or by another one.
    From(&'a str, bool),
    /// That go out by this interface, or by another one.
    To(&'a str, bool),
    /// That go out by an interface whose name begins so.
    ToPrefix(&'a str),
    /// Whose sender is in a subnet.
    Sender(Subnet),
    /// The same of IPv6.
    SenderSix(Subnet6),
}

/// What a rule does.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    Drop,
    Accept,
    Masquerade,
}

/// Interfaces of all networks begin so: what is between two of them is dropped.
pub(crate) const PREFIX: &str = "kiln-";

/// Sets a network's rules, whatever was there: its packets leave with the host's address, and do not reach other
/// networks of kiln's; an internal one's do not leave at all.
pub(crate) fn set(bridge: &str, (subnet, six): (Subnet, Option<Subnet6>), internal: bool) -> io::Result<()> {
    finish(rules(Family::Four, bridge, Match::Sender(subnet), internal))?;
    six.map_or(Ok(()), |six| finish(rules(Family::Six, bridge, Match::SenderSix(six), internal)))
}

fn rules(family: Family, bridge: &str, sender: Match<'_>, internal: bool) -> Vec<Message> {
    use Match::{From, To, ToPrefix};
    let table = |kind| table(family, bridge, kind);
    let mut messages = vec![begin(), table(NEW_TABLE), table(DELETE_TABLE), table(NEW_TABLE)];
    let mut add = |chain: &str, packets: &[Match<'_>], verdict| {
        messages.push(rule_in((family, bridge), chain, packets, verdict, APPEND));
    };
    let first = chain((family, bridge), "forward", "filter", 2, 0);
    if internal {
        add("forward", &[From(bridge, true), To(bridge, false)], Verdict::Drop);
        add("forward", &[From(bridge, false), To(bridge, true)], Verdict::Drop);
        messages.insert(4, first);
    } else {
        add("forward", &[From(bridge, true), To(bridge, false), ToPrefix(PREFIX)], Verdict::Drop);
        messages.insert(4, first);
        messages.push(chain((family, bridge), "postrouting", "nat", 4, 100));
        let leaving = [sender, To(bridge, false)];
        messages.push(rule_in((family, bridge), "postrouting", &leaving, Verdict::Masquerade, APPEND));
    }
    messages
}

/// Takes a network's rules away; none are fine.
pub(crate) fn remove(bridge: &str, six: bool) -> io::Result<()> {
    // Made first, so that there is one to delete.
    let gone = |family| finish(vec![begin(), table(family, bridge, NEW_TABLE), table(family, bridge, DELETE_TABLE)]);
    gone(Family::Four)?;
    if six { gone(Family::Six) } else { Ok(()) }
}

/// Lets a network's packets through where docker or a firewall set the policy of iptables' FORWARD chain to drop.
pub(crate) fn pass_through_iptables(bridge: &str) -> io::Result<()> {
    let mut socket = Socket::netfilter()?;
    let mut question = Message::new(GET_CHAIN, ACKNOWLEDGE, &generic(Family::Four, 0));
    question.text(1, "filter").text(3, "FORWARD");
    let answers = match socket.ask(question) {
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => return Ok(()),
        answers => answers?,
    };
    let policy = answers.iter().flat_map(|answer| answer.attributes(FIXED)).find(|(kind, _)| *kind == 5);
    if policy.map(|(_, value)| value) != Some(DROP.to_be_bytes().as_slice()) {
        return Ok(());
    }
    let mut question = Message::new(GET_RULE, super::netlink::DUMP, &generic(Family::Four, 0));
    question.text(1, "filter").text(2, "FORWARD");
    let name = interface(bridge);
    let known = socket.ask(question)?;
    if known.iter().any(|rule| rule.body.windows(name.len()).any(|window| window == name)) {
        return Ok(());
    }
    let rules = [Match::From(bridge, true), Match::To(bridge, true)].map(|packets| {
        // Before what is there.
        rule_in((Family::Four, "filter"), "FORWARD", &[packets], Verdict::Accept, 0)
    });
    finish([begin()].into_iter().chain(rules).collect())
}

/// Takes what [`pass_through_iptables`] added away again.
pub(crate) fn forget_iptables(bridge: &str) -> io::Result<()> {
    const DELETE_RULE: u16 = NFTABLES << 8 | 8;
    let mut socket = Socket::netfilter()?;
    let mut question = Message::new(GET_RULE, super::netlink::DUMP, &generic(Family::Four, 0));
    question.text(1, "filter").text(2, "FORWARD");
    let Ok(rules) = socket.ask(question) else { return Ok(()) };
    let name = interface(bridge);
    let ours = rules.iter().filter(|rule| rule.body.windows(name.len()).any(|window| window == name));
    let handles = ours.filter_map(|rule| rule.attributes(FIXED).find(|(kind, _)| *kind == 3));
    let deletions: Vec<_> = handles
        .map(|(_, handle)| {
            let mut message = Message::new(DELETE_RULE, 0, &generic(Family::Four, 0));
            message.text(1, "filter").text(2, "FORWARD").attribute(3, handle);
            message
        })
        .collect();
    if deletions.is_empty() { Ok(()) } else { finish([begin()].into_iter().chain(deletions).collect()) }
}

/// `struct nfgenmsg`: family, version, and a number.
fn generic(family: Family, number: u16) -> [u8; FIXED] {
    let [high, low] = number.to_be_bytes();
    [family as u8, 0, high, low]
}

fn begin() -> Message {
    Message::new(BATCH_BEGIN, 0, &generic(Family::Four, NFTABLES))
}

/// Ends the transaction; the last message before its end is the one that is acknowledged.
fn finish(mut messages: Vec<Message>) -> io::Result<()> {
    let last = messages.len() - 1;
    if let Some(message) = messages.get_mut(last) {
        message.acknowledge();
    }
    messages.push(Message::new(BATCH_END, 0, &generic(Family::Four, NFTABLES)));
    Socket::netfilter()?.transact(messages, last)
}

fn table(family: Family, name: &str, kind: u16) -> Message {
    let mut message = Message::new(kind, if kind == NEW_TABLE { CREATE } else { 0 }, &generic(family, 0));
    message.text(1, name);
    message
}

fn chain((family, table): (Family, &str), name: &str, kind: &str, hook: u32, priority: u32) -> Message {
    let mut message = Message::new(NEW_CHAIN, CREATE, &generic(family, 0));
    message.text(1, table).text(3, name);
    message.nested(4, &[], |place| {
        place.big(1, hook).big(2, priority);
    });
    message.text(7, kind);
    message
}

fn rule_in(
    (family, table): (Family, &str),
    chain: &str,
    packets: &[Match<'_>],
    verdict: Verdict,
    place: u16,
) -> Message {
    let mut message = Message::new(NEW_RULE, CREATE | place, &generic(family, 0));
    message.text(1, table).text(2, chain);
    message.nested(4, &[], |rule| {
        for packet in packets {
            matching(rule, *packet);
        }
        match verdict {
            Verdict::Drop => immediate(rule, DROP),
            Verdict::Accept => immediate(rule, ACCEPT),
            Verdict::Masquerade => expression(rule, "masq", |_| {}),
        }
    });
    message
}

/// Adds `NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA }`.
fn expression(rule: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    rule.nested(1, &[], |element| {
        element.text(1, name).nested(2, &[], fill);
    });
}

fn immediate(rule: &mut Message, code: u32) {
    expression(rule, "immediate", |data| {
        // To the verdict register.
        data.big(1, 0).nested(2, &[], |value| {
            value.nested(2, &[], |verdict| {
                verdict.big(1, code);
            });
        });
    });
}

fn matching(rule: &mut Message, packets: Match<'_>) {
    const INTERFACE_IN: u32 = 6;
    const INTERFACE_OUT: u32 = 7;
    let meta = |rule: &mut Message, key: u32| {
        expression(rule, "meta", |data| {
            data.big(1, REGISTER).big(2, key);
        });
    };
    match packets {
        Match::From(name, equal) => {
            meta(rule, INTERFACE_IN);
            compare(rule, &interface(name), equal);
        }
        Match::To(name, equal) => {
            meta(rule, INTERFACE_OUT);
            compare(rule, &interface(name), equal);
        }
        Match::ToPrefix(prefix) => {
            meta(rule, INTERFACE_OUT);
            compare(rule, prefix.as_bytes(), true);
        }
        Match::Sender(subnet) => sender(rule, 12, &subnet.mask().octets(), &subnet.base().octets()),
        Match::SenderSix(subnet) => sender(rule, 8, &subnet.mask().octets(), &subnet.base().octets()),
    }
}

/// The sender's address lies at this offset of the network header.
fn sender(rule: &mut Message, at: u32, mask: &[u8], base: &[u8]) {
    let length = u32::try_from(base.len()).unwrap_or_default();
    expression(rule, "payload", |data| {
        data.big(1, REGISTER).big(2, 1).big(3, at).big(4, length);
    });
    expression(rule, "bitwise", |data| {
        data.big(1, REGISTER).big(2, REGISTER).big(3, length);
        data.nested(4, &[], |value| {
            value.attribute(1, mask);
        });
        data.nested(5, &[], |xor| {
            xor.attribute(1, &vec![0; base.len()]);
        });
    });
    compare(rule, base, true);
}

fn compare(rule: &mut Message, value: &[u8], equal: bool) {
    expression(rule, "cmp", |data| {
        data.big(1, REGISTER).big(2, u32::from(!equal)).nested(3, &[], |wanted| {
            wanted.attribute(1, value);
        });
    });
}

/// An interface's name as registers hold it.
fn interface(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().zip(name.bytes().take(15)) {
        *place = byte;
    }
    bytes
}
