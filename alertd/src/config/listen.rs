//! `[alertd.listen]`: the API over TCP, for agents on other hosts, Prometheus, `amtool` and `alertctl`.
//!
//! ```toml
//! [alertd.listen]
//! address = "0.0.0.0:9093"
//! certificate = "/etc/dogwatch/alertd.pem"      # the whole chain
//! key = "/etc/dogwatch/alertd.key"
//! ```
//!
//! Off without the section. In the clear only to this host, unless the config says so: tokens travel in every request.

use std::{net::SocketAddr, path::PathBuf};

use dogwatch_daemon::config::{Problems, Source, Spanned};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenFile {
    #[serde(default = "address_default")]
    address: Spanned<String>,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<Spanned<PathBuf>>,
    /// Yes, in the clear, to other hosts: the network between is trusted, or encrypts by itself.
    plaintext: Option<Spanned<bool>>,
}

/// Alertmanager's port, where Prometheus and `amtool` look first.
fn address_default() -> Spanned<String> {
    Spanned::new(0..0, "127.0.0.1:9093".into())
}

/// `[alertd.listen]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    /// Certificate chain and key; `None`: in the clear.
    pub tls: Option<Pair>,
}

/// Files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl ListenFile {
    pub(super) fn resolve(self, source: &Source, problems: &mut Problems) -> Option<Listen> {
        let text = self.address.get_ref();
        let address: Option<SocketAddr> = text.parse().ok();
        if address.is_none() {
            let words = format!("{text:?} is not an address; write \"127.0.0.1:9093\" or \"0.0.0.0:9093\"");
            problems.add(source, self.address.span(), words);
        }
        let plaintext = self.plaintext.as_ref().filter(|plaintext| *plaintext.get_ref());
        let mut lone = |file: &Spanned<PathBuf>, other| {
            let words = format!("TLS needs a certificate and a key; give the {other} too");
            problems.add(source, file.span(), words);
        };
        let tls = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => {
                if let Some(plaintext) = plaintext {
                    let words = "with a certificate nothing is in the clear; take one of both out";
                    problems.add(source, plaintext.span(), words);
                }
                let pair = Pair { certificate: certificate.into_inner(), key: key.into_inner() };
                Some(pair)
            }
            (Some(certificate), None) => {
                lone(&certificate, "key");
                return None;
            }
            (None, Some(key)) => {
                lone(&key, "certificate");
                return None;
            }
            (None, None) => None,
        };
        let address = address?;
        if tls.is_none() && plaintext.is_none() && !address.ip().is_loopback() {
            let words = format!(
                "tokens would travel in the clear to {address}; give certificate and key, listen on 127.0.0.1, or say \
                 plaintext = true"
            );
            problems.add(source, self.address.span(), words);
        }
        Some(Listen { address, tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(section: &str) -> Result<Option<Listen>, String> {
        let config = Config::from_text(&format!("[alertd.listen]\n{section}"));
        config.map(|config| config.listen).map_err(|problems| problems.to_string())
    }

    #[test]
    fn without_the_section_nobody_listens_and_with_nothing_in_it_this_host_only() {
        assert_eq!(Config::from_text("").unwrap().listen, None);
        let listen = read("").unwrap().unwrap();
        assert_eq!((listen.address.to_string().as_str(), listen.tls), ("127.0.0.1:9093", None));
    }

    #[test]
    fn in_the_clear_to_other_hosts_only_by_word() {
        for fine in [
            "address = \"[::1]:9093\"",
            "address = \"0.0.0.0:9093\"\nplaintext = true",
            "address = \"0.0.0.0:9093\"\ncertificate = \"/c\"\nkey = \"/k\"",
        ] {
            assert!(read(fine).is_ok(), "{fine}");
        }
        for (section, words) in [
            (
                "address = \"0.0.0.0:9093\"",
                "alertd.toml:2:11: tokens would travel in the clear to 0.0.0.0:9093",
            ),
            ("address = \"192.0.2.1:9093\"\nplaintext = false", "alertd.toml:2:11: tokens would travel"),
            ("address = \"mon1\"", "alertd.toml:2:11: \"mon1\" is not an address"),
            ("certificate = \"/c\"", "alertd.toml:2:15: TLS needs a certificate and a key; give the key too"),
            ("key = \"/k\"", "alertd.toml:2:7: TLS needs a certificate and a key; give the certificate too"),
            (
                "certificate = \"/c\"\nkey = \"/k\"\nplaintext = true",
                "alertd.toml:4:13: with a certificate nothing is in the clear",
            ),
            ("adress = \"127.0.0.1:1\"", "did you mean `address`?"),
        ] {
            let said = read(section).unwrap_err();
            assert!(said.contains(words), "{section}: {said}");
        }
    }
}
