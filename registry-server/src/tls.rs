//! TLS: the certificate, and the authorities of clients, read again when they were renewed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    version,
};
use tokio_rustls::TlsAcceptor;

use crate::config;
use crate::error::Error;
use crate::reloaded::Reloaded;

/// What client and server agree on HTTP/2 with.
pub(crate) const HTTP_2: &[u8] = b"h2";

/// The server's side of TLS 1.2 and 1.3.
#[derive(Clone)]
pub(crate) struct Tls {
    certificate: Arc<Certificate>,
    clients: Option<Arc<Clients>>,
    pub(crate) acceptor: TlsAcceptor,
}

/// What is shown to every client.
#[derive(Debug)]
struct Certificate(Reloaded<CertifiedKey>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

/// What every client has to show.
#[derive(Debug)]
struct Clients(Reloaded<Verifier>);

#[derive(Debug)]
struct Verifier(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // They may change, and are only a hint for clients with many certificates.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.current().0.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.current().0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.current().0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.current().0.supported_verify_schemes()
    }
}

impl Tls {
    /// Reads certificate, key and authorities; `None` where no certificate is configured.
    pub(crate) fn open(config: &config::Tls) -> Result<Option<Self>, Error> {
        let (Some(certificate), Some(key)) = (config.certificate.clone(), config.key.clone()) else { return Ok(None) };
        let http2 = config.http2;
        let provider = Arc::new(provider(&config.ciphers)?);
        let files = vec![certificate.clone(), key.clone()];
        let certificate = Arc::new(Certificate(Reloaded::open(files, move || read(&certificate, &key))?));
        let clients = match config.client_authorities.clone() {
            Some(path) => {
                let provider = Arc::clone(&provider);
                let files = vec![path.clone()];
                Some(Arc::new(Clients(Reloaded::open(files, move || authorities(&path, &provider))?)))
            }
            None => None,
        };
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(versions(&config.minimum_version)?);
        let builder = builder.map_err(|error| Error::Tls(error.to_string()))?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&certificate) as _;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients) as _),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(resolver);
        if http2 {
            config.alpn_protocols.push(HTTP_2.to_vec());
        }
        config.alpn_protocols.push(b"http/1.1".to_vec());
        Ok(Some(Self { certificate, clients, acceptor: TlsAcceptor::from(Arc::new(config)) }))
    }

    /// Reads the files again if they changed. Blocks.
    pub(crate) fn refresh(&self) {
        self.certificate.0.refresh();
        if let Some(clients) = &self.clients {
            clients.0.refresh();
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// The cipher suites of these names; all, when there are none.
fn provider(names: &[String]) -> Result<CryptoProvider, Error> {
    let mut provider = ring::default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    let known: Vec<String> = provider.cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(Error::Tls(format!("`tls.ciphers`: {unknown:?} is none of {}", known.join(", "))));
    }
    provider.cipher_suites.retain(|suite| names.contains(&format!("{:?}", suite.suite())));
    Ok(provider)
}

static SINCE_1_2: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
static SINCE_1_3: &[&SupportedProtocolVersion] = &[&version::TLS13];

fn versions(minimum: &str) -> Result<&'static [&'static SupportedProtocolVersion], Error> {
    match minimum {
        "1.2" => Ok(SINCE_1_2),
        "1.3" => Ok(SINCE_1_3),
        other => Err(Error::Tls(format!("`tls.minimum_version` may be \"1.2\" or \"1.3\", not {other:?}"))),
    }
}

fn invalid(path: &Path, reason: impl fmt::Display) -> Error {
    let path: PathBuf = path.to_path_buf();
    Error::Certificate { path, reason: reason.to_string() }
}

fn authorities(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Verifier, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| invalid(path, error))? {
        roots.add(certificate.map_err(|error| invalid(path, error))?).map_err(|error| invalid(path, error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    verifier.map(Verifier).map_err(|error| invalid(path, error))
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| invalid(certificate, error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| invalid(key, error))?;
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| invalid(certificate, error))
}
