//! EXPOSE's words.

use kiln_grammar::diagnostic::nearest;

/// `80`, `80/udp`, `7000-7002/tcp`, `[ip:]host:container` (the container's side counts) to `port/protocol` each.
pub(super) fn parse(text: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, protocol.to_lowercase()),
        None => (text, "tcp".to_owned()),
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        let meant = nearest(&protocol, &["tcp", "udp", "sctp"]);
        let help =
            meant.map_or_else(|| "expected tcp, udp or sctp".to_owned(), |near| format!("did you mean `{near}`?"));
        return Err(format!("unknown protocol {protocol:?}; {help}"));
    }
    let ports = ports.rsplit(':').next().unwrap_or(ports);
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(format!("port range {ports:?} ends before it starts; did you mean `{last}-{first}`?"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{text:?} is not a port; expected a number from 0 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn ports_and_ranges() {
        assert_eq!(parse("80").unwrap(), ["80/tcp"]);
        assert_eq!(parse("53/UDP").unwrap(), ["53/udp"]);
        assert_eq!(parse("7000-7002").unwrap(), ["7000/tcp", "7001/tcp", "7002/tcp"]);
        assert_eq!(parse("127.0.0.1:8080:80").unwrap(), ["80/tcp"]);
        for wrong in ["", "x", "80/icmp", "9-8", "70000"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
