//! TLS: rustls with ring, installed in our own configuration and never for the whole process; the system's roots, read
//! from disk at the first handshake, so that who talks to loopback only never waits for them (T-40).

use std::sync::{Arc, OnceLock};

use pilotlight_core::Error;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

/// The TLS set-up that all clients of one stack share.
pub(super) struct Tls {
    config: ClientConfig,
    roots: Arc<LazyRoots>,
}

impl Tls {
    /// Reads the extra certificates; the system's stay on disk.
    pub(super) fn new(extra_ca: &[Vec<u8>]) -> Result<Self, Error> {
        let bad = |why: String| Error::ConfigValue {
            what: "extra CA certificate".into(),
            why,
        };
        let mut extra = Vec::new();
        for pem in extra_ca {
            let before = extra.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                extra.push(certificate.map_err(|error| bad(error.to_string()))?);
            }
            if extra.len() == before {
                return Err(bad("it holds no certificate in PEM form".into()));
            }
        }
        let mut trial = rustls::RootCertStore::empty();
        for certificate in &extra {
            trial
                .add(certificate.clone())
                .map_err(|error| bad(error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(LazyRoots {
            provider: provider.clone(),
            extra,
            verifier: OnceLock::new(),
        });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::ConfigValue {
                what: "TLS".into(),
                why: error.to_string(),
            })?
            .dangerous()
            .with_custom_certificate_verifier(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config, roots })
    }

    pub(super) fn config(&self) -> ClientConfig {
        self.config.clone()
    }

    /// Loads the roots off the async threads, where that has not been done yet.
    pub(super) async fn load(&self) {
        if self.roots.verifier.get().is_none() {
            let roots = self.roots.clone();
            // Where the task cannot run, the handshake itself loads them.
            let _ = tokio::task::spawn_blocking(move || roots.verifier().map(drop)).await;
        }
    }
}

/// The platform's verifier, made when it is first asked.
#[derive(Debug)]
struct LazyRoots {
    provider: Arc<CryptoProvider>,
    extra: Vec<CertificateDer<'static>>,
    verifier: OnceLock<Result<Verifier, rustls::Error>>,
}

impl LazyRoots {
    fn verifier(&self) -> Result<&Verifier, rustls::Error> {
        self.verifier
            .get_or_init(|| {
                Verifier::new_with_extra_roots(self.extra.iter().cloned(), self.provider.clone())
            })
            .as_ref()
            .map_err(Clone::clone)
    }
}

impl ServerCertVerifier for LazyRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier()?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier()?.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier()?.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
