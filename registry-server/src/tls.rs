//! TLS: the certificate, read again when it was renewed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::config;
use crate::error::Error;
use crate::reloaded::Reloaded;

/// The server's side of TLS 1.2 and 1.3.
#[derive(Clone)]
pub(crate) struct Tls {
    certificate: Arc<Certificate>,
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

impl Tls {
    /// Reads certificate and key; `None` where none is configured.
    pub(crate) fn open(config: &config::Tls) -> Result<Option<Self>, Error> {
        let (Some(certificate), Some(key)) = (config.certificate.clone(), config.key.clone()) else { return Ok(None) };
        let provider = Arc::new(ring::default_provider());
        let files = vec![certificate.clone(), key.clone()];
        let certificate = Arc::new(Certificate(Reloaded::open(files, move || read(&certificate, &key))?));
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| Error::Tls(error.to_string()))?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&certificate) as _;
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Self { certificate, acceptor: TlsAcceptor::from(Arc::new(config)) }))
    }

    /// Reads the files again if they changed. Blocks.
    pub(crate) fn refresh(&self) {
        self.certificate.0.refresh();
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    let invalid = |path: &Path| {
        let path: PathBuf = path.to_path_buf();
        move |reason: String| Error::Certificate { path, reason }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| invalid(certificate)(error.to_string()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| invalid(key)(error.to_string()))?;
    let certified = CertifiedKey::from_der(chain, private, &ring::default_provider());
    certified.map_err(|error| invalid(certificate)(error.to_string()))
}
