//! Which certificates to trust: those of this host's CAs, and those of a `ca_file`.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

/// Reads `ca_file` each time, so a renewed CA needs no reload. The error is a message for the
/// operator.
pub(super) async fn config(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut further = Vec::new();
    if let Some(path) = ca_file {
        let wrong =
            |error: &dyn std::fmt::Display| format!("cannot read ca_file {}: {error}", path.display());
        let pem = tokio::fs::read(path).await.map_err(|error| wrong(&error))?;
        further =
            CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
        if further.is_empty() {
            return Err(wrong(&"it contains no PEM certificate"));
        }
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new_with_extra_roots(further, Arc::clone(&provider)).map_err(|error| {
        format!("cannot load this host's certificate store; install ca-certificates: {error}")
    })?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot set up TLS: {error}"))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}
