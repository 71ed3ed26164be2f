//! Which certificate authorities to trust for TLS upstreams: the system's, or only those in
//! `ca_file`.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::BuilderVerifierExt;

/// Checks the text of a `ca_file`; the error says what is wrong.
pub(crate) fn check_authorities(pem: &str) -> Result<(), String> {
    authorities(pem).map(drop)
}

fn authorities(pem: &str) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("not PEM: {error}"))?;
        store.add(certificate).map_err(|error| format!("not a CA certificate: {error}"))?;
    }
    if store.is_empty() {
        return Err("no PEM certificate in it (-----BEGIN CERTIFICATE-----)".into());
    }
    Ok(store)
}

/// Loading the system's store takes milliseconds and a megabyte, so call it only for TLS upstreams.
pub(super) fn client_config(pem: Option<&str>) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match pem {
        Some(pem) => builder.with_root_certificates(authorities(pem)?),
        None => builder.with_platform_verifier().map_err(|error| error.to_string())?,
    };
    Ok(Arc::new(builder.with_no_client_auth()))
}
