//! Whose certificate is believed, and who we are to others: the machine's authorities, and those that are given.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, InconsistentKeys};
use rustls::{RootCertStore, SignatureScheme};

/// Certificates with the key of the first, which those behind it vouch for.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// TLS as a client: what is trusted besides the machine's authorities, and who we say we are.
#[derive(Debug, Default)]
pub struct Peers {
    /// Authorities, or certificates of servers themselves.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What is shown to whoever asks.
    pub identity: Option<Identity>,
    /// Every certificate is taken.
    pub unverified: bool,
}

impl Peers {
    /// For HTTP, of either version.
    ///
    /// # Errors
    /// The identity's key is none, or of another certificate.
    pub fn configuration(self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let identity = self.identity.map(|(chain, key)| {
            let shown = CertifiedKey::new(chain, provider.key_provider.load_private_key(key)?);
            match shown.keys_match() {
                Err(error @ TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(error),
                // Whether the certificate is any good is the registry's to say: those of X.509's first version are
                // still made, and taken by other clients.
                _ => Ok(SingleCertAndKey::from(shown)),
            }
        });
        let identity = identity.transpose()?;
        let (authorities, unverified) = (self.authorities, self.unverified);
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
}

/// The certificates of a PEM file; `None` when there is none in it, or one that cannot be read.
pub fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()?;
    (!found.is_empty()).then_some(found)
}

/// Why a server's certificate was not believed, in words, when it was that which failed.
pub fn refused(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    Some(match refusal(error)? {
        CertificateError::UnknownIssuer => "nobody who is trusted here vouches for it".to_owned(),
        CertificateError::BadSignature => {
            "the authority of that name which is trusted here has not signed it; was it renewed?".to_owned()
        }
        why if is_authority(why) => "it vouches for itself, and is not among those that are trusted here".to_owned(),
        why => why.to_string(),
    })
}

fn refusal<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a CertificateError> {
    if let Some(TlsError::InvalidCertificate(why)) = error.downcast_ref() {
        return Some(why);
    }
    // An I/O error's source is that of the error which it holds, and not that error.
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let held = held.and_then(|held| refusal(held));
    held.or_else(|| refusal(error.source()?))
}

/// Verifies servers as webpki does; a server that shows a certificate which is itself trusted is believed, too.
#[derive(Debug)]
struct Trust {
    provider: Arc<CryptoProvider>,
    /// Besides the machine's.
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
            Err(TlsError::InvalidCertificate(why))
                if is_authority(&why) && self.trusted().any(|trusted| trusted == shown) =>
            {
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

/// Whether it was refused for being an authority's.
fn is_authority(why: &CertificateError) -> bool {
    let CertificateError::Other(other) = why else { return false };
    matches!(other.0.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::{ClientConnection, ServerConfig, ServerConnection};

    use super::*;

    /// A certificate that vouches for itself, and its key.
    fn make(authority: bool) -> Identity {
        let mut parameters = CertificateParams::new(vec!["registry.test".to_owned()]).expect("a name");
        if authority {
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate").der().clone();
        (vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
    }

    /// What becomes of a client that calls a server by a name.
    fn shake_hands(peers: Peers, name: &str, (chain, key): &Identity) -> Result<(), TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let server = server.with_no_client_auth().with_single_cert(chain.clone(), key.clone_key())?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut client = ClientConnection::new(Arc::new(peers.configuration()?), name)?;
        while client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).expect("memory");
            server.read_tls(&mut wire.as_slice()).expect("memory");
            server.process_new_packets()?;
            wire.clear();
            server.write_tls(&mut wire).expect("memory");
            client.read_tls(&mut wire.as_slice()).expect("memory");
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn servers_are_believed_when_their_certificate_is_trusted_itself() {
        for authority in [true, false] {
            let (mine, other) = (make(authority), make(authority));
            let trusting = |authorities: &Identity| Peers { authorities: authorities.0.clone(), ..Peers::default() };
            shake_hands(trusting(&mine), "registry.test", &mine).expect("it is trusted");
            let refusal = |peers, name| {
                let error = shake_hands(peers, name, &mine).expect_err("it must not be believed");
                refused(&error).expect("it is the certificate")
            };
            assert!(refusal(trusting(&mine), "other.test").contains("other.test"));
            let stranger = refusal(trusting(&other), "registry.test");
            // Both have the same name.
            let words = if authority { "it vouches for itself" } else { "the authority of that name" };
            assert!(stranger.starts_with(words), "{stranger}");
            if !authority {
                assert!(refusal(Peers::default(), "registry.test").starts_with("nobody who is trusted here"));
            }
            let unverified = Peers { unverified: true, ..Peers::default() };
            shake_hands(unverified, "other.test", &mine).expect("nothing is verified");
        }
    }
}
