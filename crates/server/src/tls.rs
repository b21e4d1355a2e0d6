//! Certificate and key out of PEM files, for TLS 1.2 and 1.3.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or holds no such thing.
    #[error("{path} holds no {what} in PEM: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why it was not found.
        source: pem::Error,
    },
    /// Certificate and key cannot be used, or not together.
    #[error("{path} cannot be used: {source}")]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
}

/// What the server shows to those who connect: the chain of certificates in `cert`, its own first, with the key in `key`.
///
/// # Errors
/// When the files do not hold that.
pub fn tls_config(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |path: &Path, what| {
        let path = path.to_owned();
        move |source| TlsError::File { path, what, source }
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).map_err(failed(cert, "certificate"));
    let chain = chain.and_then(|chain: Vec<CertificateDer<'static>>| {
        if chain.is_empty() { Err(failed(cert, "certificate")(pem::Error::NoItemsFound)) } else { Ok(chain) }
    })?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(failed(key, "private key"))?;
    let unusable = |source| TlsError::Unusable { path: cert.to_owned(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        builder.map_err(unusable)?.with_no_client_auth().with_single_cert(chain, secret).map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
