//! TLS, where it is set.

use std::path::Path;
use std::sync::Arc;

use gpuev::{Error, ErrorKind, Result};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::HttpSettings;

/// How connections are protected.
#[derive(Clone)]
pub(super) enum Tls {
    /// Not at all: loopback.
    Plain,
    /// With a certificate.
    With(TlsAcceptor),
}

impl Tls {
    pub(super) fn load(settings: &HttpSettings) -> Result<Self> {
        let (cert, key) = (&settings.tls_cert, &settings.tls_key);
        if cert.as_os_str().is_empty() {
            return Ok(Self::Plain);
        }
        let chain: std::result::Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
        let chain = chain.map_err(|error| wrong("http.tls_cert", cert, &error))?;
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| wrong("http.tls_key", key, &error))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|error| wrong("http.tls_cert", cert, &error))?;
        Ok(Self::With(TlsAcceptor::from(Arc::new(config))))
    }
}

fn wrong(key: &str, file: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{key}: {}: {why}", file.display()))
        .with_hint("it is a PEM file; the certificate and its key belong together")
}
