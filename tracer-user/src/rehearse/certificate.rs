//! The rehearsal's own certificate: made on the fly, handed to the server as two files.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use anyhow::{Context, Result};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tempfile::TempDir;

use super::sandbox::SERVER;

/// Names the certificate's file to the server.
pub const CERTIFICATE_VARIABLE: &str = "LASTPACKET_TLS_CERT";
/// Names the key's file to the server.
pub const KEY_VARIABLE: &str = "LASTPACKET_TLS_KEY";

/// Certificate and key in a folder that is removed when dropped.
pub struct Certificate {
    folder: TempDir,
}

impl Certificate {
    /// Makes a self-signed certificate for the server's addresses.
    ///
    /// # Errors
    /// If the temporary folder cannot be written.
    pub fn create() -> Result<Self> {
        let names = ["localhost".to_owned(), SERVER.v4.to_string(), SERVER.v6.to_string()];
        let made = rcgen::generate_simple_self_signed(names).context("cannot make a certificate")?;
        let folder = tempfile::Builder::new().prefix("lastpacket-").tempdir();
        let folder = folder.context("cannot create a temporary folder for the certificate; see TMPDIR")?;
        let certificate = Self { folder };
        fs::write(certificate.certificate(), made.cert.pem()).context("cannot write the certificate")?;
        fs::write(certificate.key(), made.signing_key.serialize_pem()).context("cannot write the key")?;
        // The server may run as another user (--user); the key is worth nothing after the rehearsal.
        fs::set_permissions(certificate.folder.path(), fs::Permissions::from_mode(0o755))?;
        Ok(certificate)
    }

    /// What the server finds in its environment.
    #[must_use]
    pub fn variables(&self) -> [(String, String); 2] {
        [(CERTIFICATE_VARIABLE.to_owned(), self.certificate()), (KEY_VARIABLE.to_owned(), self.key())]
    }

    /// `word` with `{cert}` and `{key}` replaced by the files' paths.
    #[must_use]
    pub fn fill_in(&self, word: &str) -> String {
        word.replace("{cert}", &self.certificate()).replace("{key}", &self.key())
    }

    fn certificate(&self) -> String {
        self.folder.path().join("cert.pem").to_string_lossy().into_owned()
    }

    fn key(&self) -> String {
        self.folder.path().join("key.pem").to_string_lossy().into_owned()
    }
}

/// A server's configuration from two PEM files, offering HTTP/2 and HTTP/1.1.
///
/// # Errors
/// If a file cannot be read, or is no certificate or key.
pub fn server_config(certificate: &Path, key: &Path) -> Result<ServerConfig> {
    let unreadable = |path: &Path| format!("cannot read a certificate or key from {}", path.display());
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).with_context(|| unreadable(certificate))?.collect();
    let chain = chain.with_context(|| unreadable(certificate))?;
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| unreadable(key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .context("certificate and key do not fit together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_can_be_served_and_vanish() {
        let certificate = Certificate::create().unwrap();
        let words = certificate.fill_in("cert={cert},key={key}");
        let [(_, cert), (_, key)] = certificate.variables();
        assert_eq!(words, format!("cert={cert},key={key}"));
        server_config(Path::new(&cert), Path::new(&key)).unwrap();
        drop(certificate);
        assert!(!Path::new(&cert).exists());
        assert!(server_config(Path::new(&cert), Path::new(&key)).is_err());
    }
}
