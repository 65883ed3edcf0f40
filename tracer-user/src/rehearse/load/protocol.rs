//! What clients speak: HTTP/1.1 or HTTP/2, over TCP or TLS.

use std::{fmt, io, net::IpAddr, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::outcome::Cause;

/// What clients speak; by default HTTP/1.1 over TCP.
#[derive(Clone, Default)]
pub struct Protocol {
    pub(super) http2: bool,
    tls: Option<Arc<ClientConfig>>,
}

impl Protocol {
    /// HTTP/2 instead of HTTP/1.1 (over TLS agreed on by ALPN, else by prior knowledge), and TLS.
    ///
    /// # Errors
    /// Never: the versions of TLS asked for are built in.
    pub fn new(http2: bool, tls: bool) -> Result<Self, Error> {
        let tls = if tls { Some(Arc::new(client_config(http2)?)) } else { None };
        Ok(Self { http2, tls })
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The TLS handshake, if there is TLS.
    pub(super) async fn secure(&self, stream: TcpStream, server: IpAddr) -> Result<Stream, Cause> {
        let Some(config) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let connector = TlsConnector::from(Arc::clone(config));
        let secured = connector.connect(ServerName::from(server), stream).await;
        let stream = secured.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Cause::Other(format!("TLS failed: {error}")),
            _ => Cause::of_io(&error),
        })?;
        if self.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(Cause::Other("the server did not choose HTTP/2 (ALPN)".to_owned()));
        }
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", if self.http2 { "HTTP/2" } else { "HTTP/1.1" }, self.scheme())
    }
}

/// A connection ready for HTTP.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

fn client_config(http2: bool) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    // Each connection makes a full handshake, as those of a balancer's fresh clients do.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Accepts every certificate, as a load balancer does for its backends; signatures must still fit.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
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
