//! `[alertd.listen]`: the API over TCP, for agents on other hosts, Prometheus, `amtool` and
//! `alertctl`.
//!
//! ```toml
//! [alertd.listen]
//! address = "0.0.0.0:9093"
//! certificate = "/etc/dogwatch/alertd.pem"      # PEM, the full chain
//! key = "/etc/dogwatch/alertd.key"
//! ```
//!
//! Off without this section. Without TLS, alertd listens on loopback only unless `plaintext =
//! true`, because every request carries a token.

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
    /// Allows plaintext from other hosts, for a network that is trusted or encrypted.
    plaintext: Option<Spanned<bool>>,
}

/// Alertmanager's port, the default of Prometheus and `amtool`.
fn address_default() -> Spanned<String> {
    Spanned::new(0..0, "127.0.0.1:9093".into())
}

/// The validated `[alertd.listen]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub address: SocketAddr,
    /// Certificate chain and key, or `None` for plaintext.
    pub tls: Option<Pair>,
}

/// PEM files.
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
            let words = format!("{text:?} is not an address; write IP:PORT, for example \"0.0.0.0:9093\"");
            problems.add(source, self.address.span(), words);
        }
        let plaintext = self.plaintext.as_ref().filter(|plaintext| *plaintext.get_ref());
        let mut lone = |file: &Spanned<PathBuf>, other| {
            let words = format!("TLS needs both a certificate and a key; add the {other}");
            problems.add(source, file.span(), words);
        };
        let tls = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => {
                if let Some(plaintext) = plaintext {
                    let words = "plaintext = true does not go with a certificate; remove one of them";
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
                "without TLS, tokens would be sent to {address} in plaintext; add certificate and key, listen on \
                 127.0.0.1, or set plaintext = true"
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
                "alertd.toml:2:11: without TLS, tokens would be sent to 0.0.0.0:9093 in plaintext",
            ),
            (
                "address = \"192.0.2.1:9093\"\nplaintext = false",
                "alertd.toml:2:11: without TLS, tokens would",
            ),
            ("address = \"mon1\"", "alertd.toml:2:11: address: \"mon1\" is not an address"),
            ("certificate = \"/c\"", "alertd.toml:2:15: TLS needs both a certificate and a key; add the key"),
            ("key = \"/k\"", "alertd.toml:2:7: TLS needs both a certificate and a key; add the certificate"),
            (
                "certificate = \"/c\"\nkey = \"/k\"\nplaintext = true",
                "alertd.toml:4:13: plaintext = true does not go with a certificate",
            ),
            ("adress = \"127.0.0.1:1\"", "did you mean `address`?"),
        ] {
            let said = read(section).unwrap_err();
            assert!(said.contains(words), "{section}: {said}");
        }
    }
}
