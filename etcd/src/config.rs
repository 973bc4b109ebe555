//! How to reach a cluster, and the channels to its members.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};

use crate::error::EtcdError;

/// How long a member may be silent before it is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How to reach a cluster.
#[derive(Clone)]
pub struct Config {
    /// `https://host:port` of members, or `http://`; some of them will do.
    pub endpoints: Vec<String>,
    /// User and password, if the cluster wants them.
    pub user: Option<User>,
    /// Certificates, for members with `https`.
    pub tls: Option<Source<Tls>>,
    /// Whether `http` may be spoken with members that are not on this machine: passwords and secrets pass the network in
    /// the clear.
    pub plain_http: bool,
    /// How long a member may take to answer.
    pub timeout: Duration,
}

/// Who to be.
#[derive(Clone)]
pub struct User {
    /// The name.
    pub name: String,
    /// Its password, asked for at each authentication.
    pub password: Source<String>,
}

/// What may change meanwhile, as a file does: it is read whenever it is needed. The error says what is wrong.
#[derive(Clone)]
pub struct Source<T>(Arc<Reader<T>>);

type Reader<T> = dyn Fn() -> Result<T, String> + Send + Sync;

impl<T> Source<T> {
    /// What `read` reads.
    pub fn new(read: impl Fn() -> Result<T, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`EtcdError::Unreadable`].
    pub fn read(&self) -> Result<T, EtcdError> {
        (self.0)().map_err(EtcdError::Unreadable)
    }
}

impl<T> fmt::Debug for Source<T> {
    /// Shows nothing: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

/// Certificates and keys, PEM.
#[derive(Clone)]
pub struct Tls {
    /// Who issued the members' certificates.
    pub ca: Vec<u8>,
    /// Our certificate, with those between it and its issuer, and its private key; none if the cluster wants none.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name in the members' certificates, if it is not the endpoint's host.
    pub name: Option<String>,
}

impl Config {
    /// A channel to a member, which connects with the first call.
    pub(crate) fn channel(&self, endpoint: &str) -> Result<Channel, EtcdError> {
        let wrong = |reason: String| EtcdError::Endpoint {
            endpoint: endpoint.to_owned(),
            reason,
        };
        let member =
            Endpoint::from_shared(endpoint.to_owned()).map_err(|error| wrong(error.to_string()))?;
        let uri = member.uri();
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong("the scheme is neither https nor http".to_owned()));
        }
        if uri.port().is_none() {
            return Err(wrong("a port is needed".to_owned()));
        }
        let member = match (uri.scheme_str(), &self.tls) {
            (Some("http"), _) if self.plain_http || is_loopback(uri) => member,
            (Some("http"), _) => return Err(EtcdError::Plain(endpoint.to_owned())),
            (_, Some(tls)) => {
                let Tls { ca, identity, name } = tls.read()?;
                let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
                if let Some((certificate, key)) = identity {
                    config = config.identity(Identity::from_pem(certificate, key));
                }
                if let Some(name) = name {
                    config = config.domain_name(name);
                }
                let refused = |error: tonic::transport::Error| EtcdError::Tls(causes(&error));
                member.tls_config(config).map_err(refused)?
            }
            (_, None) => return Err(EtcdError::NoIssuer(endpoint.to_owned())),
        };
        Ok(member
            .connect_timeout(self.timeout)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect_lazy())
    }
}

/// Whether a member is on this machine.
fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

/// An error with what caused it.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wrong_with_an_endpoint_is_told() {
        let config = Config {
            endpoints: Vec::new(),
            user: None,
            tls: None,
            plain_http: false,
            timeout: Duration::from_secs(1),
        };
        for (endpoint, words) in [
            ("ftp://x", "neither https nor http"),
            ("x", "neither https nor http"),
            ("https://x", "a port is needed"),
            ("https://x:1", "give the issuer's certificate"),
            ("http://x:1", "in the clear"),
        ] {
            let error = config.channel(endpoint).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        let loopback = |text: &str| is_loopback(&text.parse().unwrap());
        for here in [
            "http://127.0.0.1:1",
            "http://localhost:1",
            "http://[::1]:1",
            "http://127.9.9.9:1",
        ] {
            assert!(loopback(here), "{here}");
        }
        for there in [
            "http://10.0.0.1:1",
            "http://etcd:1",
            "http://localhost.example:1",
            "http://[2001:db8::1]:1",
        ] {
            assert!(!loopback(there), "{there}");
        }
    }
}
