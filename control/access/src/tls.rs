//! TLS 1.3 with certificates at both ends.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use webpki::EndEntityCert;

use super::names::San;
use super::{TlsConfig, why};
use twinseal_base::private;
use twinseal_base::private::PrivateError;

/// How long it is believed that a certificate has not run out.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Why the node's side of TLS could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("{field}: cannot read {}: {source}", .path.display())]
    Read {
        /// As the configuration calls it.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The private key could not be read, or is not its owner's alone.
    #[error("{field}: {error}")]
    Private {
        /// As the configuration calls it.
        field: &'static str,
        /// Why not.
        error: PrivateError,
    },
    /// A file is not what it should be.
    #[error("{field}: {} {reason}", .path.display())]
    File {
        /// As the configuration calls it.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not fit each other, or are of a kind that is not supported.
    #[error("control.tls: certificate and key: {0}")]
    Identity(rustls::Error),
}

/// The node's side: its certificate and key, and whom it trusts.
pub struct Identity {
    pub(crate) server: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Identity {
    /// Reads the files of a configuration.
    pub fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = verifier(&config.client_ca, &provider)?;
        let chain = certificates("control.tls.certificate", &config.certificate)?;
        let key = private_key(&config.key)?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Identity)?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(chain, key)
            .map_err(TlsError::Identity)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would not show its certificate again, and what is sent early can be replayed.
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        Ok(Self {
            server: Arc::new(server),
            verifier,
        })
    }
}

/// A peer's certificate, looked at again while its connection lasts: its issuer may go from the bundle, and its time may
/// run out.
#[derive(Debug)]
pub struct Trust {
    /// The certificate, and those between it and its issuer.
    chain: Vec<CertificateDer<'static>>,
    looked: Mutex<Option<Looked>>,
}

/// What a certificate was found to be.
#[derive(Debug)]
struct Looked {
    /// Under which rules.
    rules: u64,
    at: Instant,
    /// Or why it does not hold.
    holds: Result<(), String>,
}

impl Trust {
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        Self {
            chain,
            looked: Mutex::new(None),
        }
    }

    /// Whether the certificate holds, or why not.
    pub fn verdict(&self, identity: &Identity, rules: u64) -> Result<(), String> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(it) = &*looked
            && it.rules == rules
            && it.at.elapsed() < LOOK_AGAIN
        {
            return it.holds.clone();
        }
        let holds = match self.chain.split_first() {
            None => Err("it showed no certificate".to_owned()),
            Some((own, between)) => {
                let verifier = &identity.verifier;
                let verified = verifier.verify_client_cert(own, between, UnixTime::now());
                verified.map(drop).map_err(|error| match error {
                    rustls::Error::InvalidCertificate(error) => why::certificate(&error),
                    error => format!("its certificate does not hold: {error}"),
                })
            }
        };
        *looked = Some(Looked {
            rules,
            at: Instant::now(),
            holds: holds.clone(),
        });
        holds
    }
}

fn verifier(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    const FIELD: &str = "control.tls.client_ca";
    let wrong = |reason: String| TlsError::File {
        field: FIELD,
        path: path.to_owned(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(FIELD, path)? {
        roots
            .add(certificate)
            .map_err(|error| wrong(format!("has a certificate that cannot issue: {error}")))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| wrong(error.to_string()))
}

fn certificates(
    field: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: &str| TlsError::File {
        field,
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let text = read(field, path)?;
    let all: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(wrong("has no certificate: give PEM")),
        Ok(all) => Ok(all),
        Err(_) => Err(wrong("is no sound PEM")),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const FIELD: &str = "control.tls.key";
    let text = private::read(path).map_err(|error| TlsError::Private {
        field: FIELD,
        error,
    })?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError::File {
        field: FIELD,
        path: path.to_owned(),
        reason: "has no private key: give PEM".to_owned(),
    })
}

fn read(field: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        field,
        path: path.to_owned(),
        source,
    })
}

/// What a certificate is for. What cannot be read is nobody's name.
pub fn names(certificate: &CertificateDer<'_>) -> Vec<San> {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let uris = certificate.valid_uri_names();
    let dns = certificate.valid_dns_names();
    uris.map(|name| San::Uri(name.to_owned()))
        .chain(dns.map(|name| San::Dns(name.to_ascii_lowercase())))
        .collect()
}
