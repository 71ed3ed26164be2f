//! The certificates in a file.

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate};

use crate::output::clean;

/// What matters of one certificate.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Certificate {
    /// The common name, or the first DNS name, or the whole subject.
    pub(super) name: String,
    /// Unix times.
    pub(super) from: i64,
    pub(super) until: i64,
    pub(super) is_ca: bool,
    subject: Vec<u8>,
    issuer: Vec<u8>,
}

/// The certificates of a PEM file, which may also have keys, or the one of a DER file.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Certificate>, String> {
    let pem: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let pem = pem.map_err(|error| format!("is not valid PEM: {error}"))?;
    if pem.is_empty() {
        return one(bytes).map(|certificate| vec![certificate]).ok_or("contains no certificate".into());
    }
    let number = |(at, certificate): (usize, &CertificateDer<'_>)| {
        one(certificate).ok_or_else(|| format!("certificate {} cannot be parsed", at + 1))
    };
    pem.iter().enumerate().map(number).collect()
}

fn one(der: &[u8]) -> Option<Certificate> {
    let (_, parsed) = parse_x509_certificate(der).ok()?;
    Some(Certificate {
        name: name(&parsed),
        from: parsed.validity().not_before.timestamp(),
        until: parsed.validity().not_after.timestamp(),
        is_ca: parsed.is_ca(),
        subject: parsed.subject().as_raw().to_vec(),
        issuer: parsed.issuer().as_raw().to_vec(),
    })
}

fn name(certificate: &X509Certificate<'_>) -> String {
    let common = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let dns = alternative.iter().flat_map(|names| &names.value.general_names).find_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let name = common.or(dns).map_or_else(|| certificate.subject().to_string(), str::to_owned);
    clean(&name).chars().take(NAME_MAX).collect()
}

const NAME_MAX: usize = 200;

/// The first certificate of a chain that the next one did not issue. A bundle of CAs has no order.
pub(super) fn out_of_order(chain: &[Certificate]) -> Option<&Certificate> {
    if chain.first()?.is_ca {
        return None;
    }
    chain.windows(2).find(|pair| pair[0].issuer != pair[1].subject).map(|pair| &pair[0])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_an_error() {
        assert_eq!(parse(b"").unwrap_err(), "contains no certificate");
        assert_eq!(parse(b"hello").unwrap_err(), "contains no certificate");
        let text = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(parse(text).unwrap_err(), "certificate 1 cannot be parsed");
    }

    proptest! {
        #[test]
        fn any_file_can_be_read(bytes: Vec<u8>, text in "(-----BEGIN CERTIFICATE-----\n)?[A-Za-z0-9+/=\n]{0,80}(-----END CERTIFICATE-----\n)?") {
            let _ = (parse(&bytes), parse(text.as_bytes()));
        }
    }
}
