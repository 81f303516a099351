//! Whose certificate is believed, and who we are to others: the machine's authorities and those of `certs.d`.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, InconsistentKeys};
use rustls::{RootCertStore, SignatureScheme};

use super::certificates::Certificates;

/// TLS with one registry; `unverified` takes every certificate.
pub(super) fn configuration(certificates: Certificates, unverified: bool) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let Certificates { authorities, identity } = certificates;
    let identity = identity.map(|(chain, key)| {
        let shown = CertifiedKey::new(chain, provider.key_provider.load_private_key(key)?);
        match shown.keys_match() {
            Err(error @ TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(error),
            // Whether the certificate is any good is the registry's to say: those of X.509's first version are still
            // made, and taken by other clients.
            _ => Ok(SingleCertAndKey::from(shown)),
        }
    });
    let identity = identity.transpose()?;
    let trust = Trust { provider: Arc::clone(&provider), authorities, unverified, authority: OnceLock::new() };
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(trust));
    let mut config = match identity {
        Some(identity) => config.with_client_cert_resolver(Arc::new(identity)),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Why a server's certificate was not believed, when it was that which failed.
pub(super) fn refused<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a CertificateError> {
    if let Some(TlsError::InvalidCertificate(why)) = error.downcast_ref() {
        return Some(why);
    }
    // An I/O error's source is that of the error which it holds, and not that error.
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let held = held.and_then(|held| refused(held));
    held.or_else(|| refused(error.source()?))
}

/// Verifies servers as webpki does; a server that shows a certificate which is itself trusted is believed, too.
#[derive(Debug)]
struct Trust {
    provider: Arc<CryptoProvider>,
    /// Those of `certs.d`.
    authorities: Vec<CertificateDer<'static>>,
    unverified: bool,
    /// Made when the first server is met: many registries speak HTTP, and the machine's authorities are many.
    authority: OnceLock<Result<Arc<WebPkiServerVerifier>, String>>,
}

impl Trust {
    fn authority(&self) -> Result<&Arc<WebPkiServerVerifier>, TlsError> {
        let made = self.authority.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(self.trusted().cloned());
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
            verifier.build().map_err(|error| error.to_string())
        });
        made.as_ref().map_err(|error| TlsError::General(format!("no authority is trusted here: {error}")))
    }

    fn trusted(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        static MACHINE: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
        let machine = MACHINE.get_or_init(|| rustls_native_certs::load_native_certs().certs);
        self.authorities.iter().chain(machine)
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if self.unverified {
            return Ok(ServerCertVerified::assertion());
        }
        let verdict = self.authority()?.verify_server_cert(shown, intermediates, name, ocsp, now);
        match verdict {
            // `openssl req -x509` makes authorities of all self-signed certificates, and webpki takes none for a
            // server's. The dates it has compared before it says so.
            Err(error) if is_authority(&error) && self.trusted().any(|trusted| trusted == shown) => {
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        if self.unverified {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, shown, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        if self.unverified {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, shown, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn is_authority(error: &TlsError) -> bool {
    let TlsError::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    matches!(other.0.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
}
