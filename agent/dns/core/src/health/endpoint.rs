//! The address and protocol of an upstream. Always an IP address, never a name, because finding an
//! upstream must not need DNS.
//!
//! | as written | protocol | port |
//! | --- | --- | --- |
//! | `192.0.2.1`, `192.0.2.1:53`, `[2001:db8::1]:53` | UDP, and TCP for what does not fit | 53 |
//! | `tcp://192.0.2.1` | TCP only (RFC 7766) | 53 |
//! | `tls://192.0.2.1#dns.example` | DNS over TLS (RFC 7858) | 853 |
//! | `https://192.0.2.1/dns-query#dns.example` | DNS over HTTPS (RFC 8484) | 443 |
//! | `quic://192.0.2.1#dns.example` | DNS over QUIC (RFC 9250) | 853 |
//!
//! The certificate must be valid for the name after `#`; without one, for the address.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// One upstream as configured. Equal endpoints are the same upstream to a zone, and keep their
/// state across a reload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Protocol {
    Udp,
    Tcp,
    Tls(Tls),
    Https { tls: Tls, path: Arc<str> },
    Quic(Tls),
}

/// How to verify an upstream's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// The name the certificate must be valid for; `None` means the address.
    pub name: Option<Arc<str>>,
    /// PEM certificates of the only authorities to trust; `None` means the system's.
    pub authorities: Option<Arc<str>>,
}

impl Endpoint {
    /// Whether its queries use persistent connections.
    pub fn is_stream(&self) -> bool {
        self.protocol != Protocol::Udp
    }

    /// `None` for protocols without TLS.
    pub fn tls(&self) -> Option<&Tls> {
        match &self.protocol {
            Protocol::Udp | Protocol::Tcp => None,
            Protocol::Tls(tls) | Protocol::Quic(tls) | Protocol::Https { tls, .. } => Some(tls),
        }
    }

    /// Parses an upstream as written in the config; the error says what to write instead.
    pub fn parse(text: &str, authorities: Option<&Arc<str>>) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("udp", text));
        let default_port = match scheme {
            "udp" | "tcp" => 53,
            "tls" | "quic" => 853,
            "https" => 443,
            _ => return Err(unknown_scheme(text, scheme)),
        };
        let (rest, name) = match rest.split_once('#') {
            Some((rest, name)) => (rest, Some(name)),
            None => (rest, None),
        };
        let (rest, path) = match rest.split_once('/') {
            Some((address, path)) if scheme == "https" => (address, format!("/{path}")),
            _ => (rest, "/dns-query".to_owned()),
        };
        let address = parse_address(rest, default_port).ok_or_else(|| no_address(text, scheme, rest))?;
        let name = match name {
            Some(_) if matches!(scheme, "udp" | "tcp") => {
                return Err(format!(
                    "{text:?} has a certificate name after #, but plain {scheme} uses no certificate; write \"tls://{address}#…\" or leave out the #",
                    address = address.ip()
                ));
            }
            Some(name) if !is_host_name(name) => {
                return Err(format!(
                    "{name:?} is not a valid certificate name; write one like \"tls://192.0.2.1#dns.example\""
                ));
            }
            name => name.map(Arc::from),
        };
        let tls = Tls { name, authorities: authorities.cloned() };
        let protocol = match scheme {
            "tcp" => Protocol::Tcp,
            "tls" => Protocol::Tls(tls),
            "https" => Protocol::Https { tls, path: path.into() },
            "quic" => Protocol::Quic(tls),
            _ => Protocol::Udp,
        };
        Ok(Self { address, protocol })
    }
}

fn parse_address(text: &str, default_port: u16) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, default_port))
}

fn unknown_scheme(text: &str, scheme: &str) -> String {
    let meant = match scheme {
        "dot" => "tls",
        "doh" | "http" | "h2" | "h3" => "https",
        "doq" => "quic",
        _ => {
            return format!(
                "{text:?} has an unsupported protocol; write \"192.0.2.1\" or one of tcp://, tls://, https://, quic://"
            );
        }
    };
    format!("{text:?} has an unsupported protocol; did you mean {meant}://?")
}

fn no_address(text: &str, scheme: &str, rest: &str) -> String {
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    if scheme == "udp" || !is_host_name(host) {
        return format!("{text:?} is not an address; write one like \"192.0.2.1\" or \"192.0.2.1:53\"");
    }
    format!(
        "{text:?} has a name where an address is required (finding an upstream must not need DNS); write one like \"{scheme}://192.0.2.1#{host}\""
    )
}

/// Letters, digits, hyphens and dots, a letter in the last label (RFC 1123 §2.1): what rustls takes
/// as a DNS name.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.len() < 254
        && text.split('.').all(label)
        && text.rsplit('.').next().is_some_and(|last| last.bytes().any(|byte| byte.is_ascii_alphabetic()))
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address, protocol: Protocol::Udp }
    }
}

/// As it would be written in the config, with its port.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.protocol {
            Protocol::Udp => return self.address.fmt(f),
            Protocol::Tcp => write!(f, "tcp://{}", self.address)?,
            Protocol::Tls(_) => write!(f, "tls://{}", self.address)?,
            Protocol::Https { path, .. } => write!(f, "https://{}{path}", self.address)?,
            Protocol::Quic(_) => write!(f, "quic://{}", self.address)?,
        }
        match self.tls().and_then(|tls| tls.name.as_deref()) {
            Some(name) => write!(f, "#{name}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_parsed_and_shown_with_their_port() {
        for (written, shown) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("tcp://192.0.2.1", "tcp://192.0.2.1:53"),
            ("tls://192.0.2.1#dns.example", "tls://192.0.2.1:853#dns.example"),
            ("tls://[2001:db8::1]", "tls://[2001:db8::1]:853"),
            ("https://192.0.2.1#dns.example", "https://192.0.2.1:443/dns-query#dns.example"),
            ("https://192.0.2.1:8443/a/b", "https://192.0.2.1:8443/a/b"),
            ("quic://192.0.2.1:8853#dns.example", "quic://192.0.2.1:8853#dns.example"),
        ] {
            let endpoint = Endpoint::parse(written, None).unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(Endpoint::parse(shown, None), Ok(endpoint));
        }
    }

    #[test]
    fn invalid_endpoints_are_refused_with_a_hint() {
        for (written, said) in [
            ("dns.example", "is not an address"),
            ("tls://dns.example", "tls://192.0.2.1#dns.example"),
            ("https://dns.example:443/dns-query", "https://192.0.2.1#dns.example"),
            ("doh://192.0.2.1", "did you mean https://?"),
            ("sdns://AQ", "one of tcp://"),
            ("192.0.2.1#dns.example", "tls://192.0.2.1#"),
            ("tls://192.0.2.1#", "not a valid certificate name"),
            ("tls://192.0.2.1#no such name", "not a valid certificate name"),
            ("tls://192.0.2.1/path", "not an address"),
            ("", "is not an address"),
        ] {
            let problem = Endpoint::parse(written, None).unwrap_err();
            assert!(problem.contains(said), "{written}: {problem}");
        }
    }
}
