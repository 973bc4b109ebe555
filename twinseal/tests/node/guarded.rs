//! Nodes that know their clients, over real sockets and with real certificates.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use twinseal_access::names::NameRule;
use twinseal_access::{Access, AccessConfig, Limits, Role, TlsConfig};
use twinseal_api::v1::control_client::ControlClient;
use twinseal_api::v1::{self, item::Item};
use twinseal_node::jsonl::Output;
use twinseal_server::{NodeConfig, SocketConfig};

use super::{Node, apply, config, connect};

/// Only a guard against hanging for ever.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const ADMIN: &str = "spiffe://example.org/controller";
pub const VIEWER: &str = "monitor.ops.example.org";

pub type Client = ControlClient<Channel>;

/// A node that keeps an audit log, and its folder.
pub struct Guarded {
    pub node: Node,
    pub config: NodeConfig,
    pub dir: TempDir,
}

impl Guarded {
    pub fn start(dir: TempDir, access: AccessConfig) -> Self {
        let plain = config(dir.path(), "n");
        let config = NodeConfig {
            socket: SocketConfig {
                mode: 0o666,
                access: Access::new(access).expect("sound rules"),
                ..plain.socket
            },
            audit: Some(Output::File {
                path: dir.path().join("audit.json"),
                max_bytes: 0,
                keep: 0,
            }),
            ..plain
        };
        let node = Node::start(config.clone()).expect("it starts");
        Self { node, config, dir }
    }

    pub fn socket(&self) -> &Path {
        &self.config.socket.path
    }

    pub async fn client(&self) -> Client {
        connect(&self.config).await
    }

    /// The lines of its audit log, once it has stopped.
    pub fn stop(self) -> Vec<serde_json::Value> {
        self.node.stop();
        let text = std::fs::read_to_string(self.dir.path().join("audit.json"));
        let text = text.expect("it is there");
        let lines = text.lines().map(serde_json::from_str);
        lines.map(|line| line.expect("JSON")).collect()
    }
}

pub async fn look(client: &mut Client) -> Result<v1::GetResponse, Status> {
    client
        .get(v1::GetRequest {})
        .await
        .map(|got| got.into_inner())
}

pub async fn set_vrf(client: &mut Client, name: &str) -> Result<u64, Status> {
    apply(client, [Item::Vrf(v1::Vrf { name: name.into() })]).await
}

pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

pub async fn wait_for(mut done: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !done().await {
        assert!(begin.elapsed() < PATIENCE, "it did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Writes a file of its owner's alone, as one with a private key must be.
pub fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file");
    set_mode(path, 0o600);
}

pub fn set_mode(path: &Path, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("ours");
}

/// An issuer of certificates, and their files.
pub struct Issuer {
    pub issuer: CertifiedIssuer<'static, KeyPair>,
    pub dir: PathBuf,
    pub name: String,
}

pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Issuer {
    pub fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let it = Self {
            issuer,
            dir: dir.to_owned(),
            name: name.to_owned(),
        };
        std::fs::write(it.file(), it.pem()).expect("a file");
        it
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn file(&self) -> PathBuf {
        self.dir.join(format!("{}.pem", self.name))
    }

    pub fn issue(&self, san: SanType, expired: bool) -> Issued {
        self.issue_with(san, |params| {
            if expired {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2021, 1, 1);
            }
        })
    }

    pub fn issue_with(&self, san: SanType, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![san];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

pub fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().expect("ASCII"))
}

/// A port that was free a moment ago.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("it has one")
}

pub fn tls_config(dir: &Path, ca: &Issuer) -> AccessConfig {
    let rule = |name: &str, role| (NameRule::new(name).expect("a rule"), role);
    AccessConfig {
        users: vec![(own_uid(), Role::Admin)],
        tls: Some(TlsConfig {
            listen: free_port(),
            certificate: dir.join("node.pem"),
            key: dir.join("node.key"),
            client_ca: ca.file(),
            names: vec![
                rule(ADMIN, Role::Admin),
                rule("*.ops.example.org", Role::Viewer),
            ],
        }),
        limits: Limits {
            handshake: Duration::from_secs(1),
            ..Default::default()
        },
        ..Default::default()
    }
}

pub async fn try_tls(
    address: SocketAddr,
    ca: &Issuer,
    issued: Option<&Issued>,
) -> Result<v1::GetResponse, String> {
    let mut client = tls_client(address, ca, issued).await?;
    look(&mut client).await.map_err(|status| status.to_string())
}

pub async fn tls_client(
    address: SocketAddr,
    ca: &Issuer,
    issued: Option<&Issued>,
) -> Result<Client, String> {
    let mut config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca.pem()))
        .domain_name("node.example.org");
    if let Some(issued) = issued {
        config = config.identity(Identity::from_pem(&issued.certificate, &issued.key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .and_then(|endpoint| endpoint.tls_config(config))
        .map_err(|error| error.to_string())?;
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|error| format!("{error:?}"))?;
    Ok(ControlClient::new(channel))
}
