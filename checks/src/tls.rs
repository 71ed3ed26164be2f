//! TLS for the `http` check: verifies the server with the system's CAs by default, and makes its
//! certificate available.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use rustls_platform_verifier::Verifier;
use x509_parser::{certificate::X509Certificate, parse_x509_certificate};

/// Which certificates to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The system's store and these CAs. A server's own certificate among them is trusted too.
    System(Vec<CertificateDer<'static>>),
    /// Any certificate. Its remaining days are still checked.
    Anybody,
}

/// Reads the system's store each time, so keep the result.
pub(crate) fn client_config(trust: Trust) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::System(extra) => {
            let chains = Verifier::new_with_extra_roots(extra.iter().cloned(), provider)?;
            Arc::new(ChainOrItself { chains, trusted: extra })
        }
        Trust::Anybody => Arc::new(BelieveAnybody(provider)),
    };
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The certificates in a PEM file.
pub(crate) fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("{} contains no certificate", path.display())),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// The error of a handshake for people.
pub(crate) fn explained(error: &std::io::Error) -> String {
    let text = error.to_string();
    // webpki says this before it has looked for the issuer.
    if text.contains("CaUsedAsEndEntity") {
        return "the server's certificate is that of a CA, for example a self-signed one; \
                to trust it, set ca_file to this certificate"
            .to_owned();
    }
    text
}

/// When a certificate expires (Unix time).
pub(crate) fn valid_until(certificate: &[u8]) -> Option<i64> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// Verifies a chain up to a CA. As in curl with OpenSSL, a server's own certificate can be trusted
/// as well. webpki refuses what `openssl req -x509` makes, because it is marked as a CA.
#[derive(Debug)]
struct ChainOrItself {
    chains: Verifier,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for ChainOrItself {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.trusted.iter().any(|trusted| trusted == end_entity) {
            verify_trusted(end_entity, name, now)
        } else {
            self.chains.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Verifies dates and name of a certificate that is trusted itself.
fn verify_trusted(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    time: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let unix_time = |seconds: i64| {
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
    };
    let not_before = unix_time(parsed.validity().not_before.timestamp());
    let not_after = unix_time(parsed.validity().not_after.timestamp());
    if time < not_before {
        return Err(CertificateError::NotValidYetContext { time, not_before }.into());
    }
    if time > not_after {
        return Err(CertificateError::ExpiredContext { time, not_after }.into());
    }
    match verify_server_name(&ParsedCertificate::try_from(certificate)?, name) {
        Err(_) if has_common_name(&parsed, &name.to_str()) => Ok(ServerCertVerified::assertion()),
        verified => verified.map(|()| ServerCertVerified::assertion()),
    }
}

/// A certificate without alternative names has its name in the subject (RFC 2818 §3.1).
fn has_common_name(certificate: &X509Certificate<'_>, name: &str) -> bool {
    let names = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    matches!(certificate.subject_alternative_name(), Ok(None))
        && names.last().is_some_and(|common| common.eq_ignore_ascii_case(name))
}

/// Verifies only that the server has the private key of its certificate.
#[derive(Debug)]
struct BelieveAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
