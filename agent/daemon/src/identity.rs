//! The certificate chain and key of a TLS server, from two PEM files that can be reloaded.
//!
//! TLS 1.2 and 1.3, with rustls and ring. If a reload fails, the identity in use stays: a renewal
//! writes two files one after the other, and a reload between the two must not stop the server.

use std::{
    fmt::Display,
    fs,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    ServerConfig,
    crypto::{ring, ring::Ticketer},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::ProducesTickets,
};

/// Shared with the listener. A reload takes effect with the next handshake.
#[derive(Debug)]
pub struct Identity {
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// The content of the certificate's file.
    pem: Vec<u8>,
    /// Clients keep the state of their sessions, encrypted, so any number of them can resume. Kept
    /// across reloads, but not longer than the certificate: who resumes does not verify it again.
    tickets: Arc<dyn ProducesTickets>,
}

impl Identity {
    /// Reads both files. The error is a message for the operator.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, String> {
        Ok(Self { current: RwLock::new(Current::read(certificate, key, None)?) })
    }

    /// Reads both files again, possibly from other paths. On an error the old identity stays.
    pub fn replace(&self, certificate: &Path, key: &Path) -> Result<(), String> {
        let before = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            (current.pem.clone(), Arc::clone(&current.tickets))
        };
        let new = Current::read(certificate, key, Some(before))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }
}

impl Current {
    fn read(
        certificate: &Path,
        key: &Path,
        before: Option<(Vec<u8>, Arc<dyn ProducesTickets>)>,
    ) -> Result<Self, String> {
        let pem = fs::read(certificate).unwrap_or_default();
        let tickets = match before {
            Some((known, tickets)) if known == pem => tickets,
            _ => Ticketer::new().map_err(|error| format!("cannot set up TLS: {error}"))?,
        };
        let config = Arc::new(config(certificate, key, &tickets)?);
        Ok(Self { config, pem, tickets })
    }
}

fn config(
    certificate: &Path,
    key: &Path,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, String> {
    let wrong = |what: &str, path: &Path, error: &dyn Display| {
        format!("cannot read the {what} {}: {error}", path.display())
    };
    let bad_chain = |error: &dyn Display| wrong("certificate", certificate, error);
    let pem = fs::read(certificate).map_err(|error| bad_chain(&error))?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| bad_chain(&error))?;
    if chain.is_empty() {
        return Err(bad_chain(&"it contains no PEM certificate"));
    }
    let bad_key = |error: &dyn Display| wrong("key", key, error);
    let pem = fs::read(key).map_err(|error| bad_key(&error))?;
    let secret =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| bad_key(&"it contains no PEM private key"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| {
            let (certificate, key) = (certificate.display(), key.display());
            format!("the certificate {certificate} and the key {key} do not match: {error}")
        })?;
    config.ticketer = Arc::clone(tickets);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
