//! The command line of `twinseal agent etcd`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use twinseal_etcd::{Config, Source, Tls, User};

use twinseal_base::private;
use twinseal_ctl::client::Target;

/// Options of `twinseal agent etcd`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct EtcdArgs {
    /// Members of the cluster, as https://HOST:PORT; some of them will do. http:// is for members on this machine.
    #[arg(long, value_name = "URL", value_delimiter = ',', required = true)]
    pub(super) endpoints: Vec<String>,
    /// What all keys of etcd begin with.
    #[arg(long, default_value = "/twinseal")]
    pub(super) prefix: String,
    /// The node's name in etcd.
    #[arg(long)]
    pub(super) node: String,
    /// Where the node is.
    #[command(flatten)]
    pub(super) target: Target,
    /// The user to be in etcd.
    #[arg(long, requires = "password_file")]
    pub(super) user: Option<String>,
    /// A file with the user's password, its owner's alone (mode 0600). It is read at each authentication.
    #[arg(long, value_name = "FILE", requires = "user")]
    pub(super) password_file: Option<PathBuf>,
    /// Who issued the members' certificates, PEM; needed for https://. Files of certificates are read again when a member is
    /// lost.
    #[arg(long, value_name = "FILE")]
    etcd_ca: Option<PathBuf>,
    /// Our certificate for etcd, with those between it and its issuer, PEM.
    #[arg(long, value_name = "FILE", requires_all = ["etcd_key", "etcd_ca"])]
    etcd_cert: Option<PathBuf>,
    /// Its private key, PEM, its owner's alone (mode 0600).
    #[arg(long, value_name = "FILE", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
    /// The DNS name or address in the members' certificates, if it is not HOST.
    #[arg(long, value_name = "NAME", requires = "etcd_ca")]
    etcd_name: Option<String>,
    /// Speak http:// with members elsewhere too: the password and the node's secrets pass the network in the clear.
    #[arg(long)]
    plain_http: bool,
    /// Whose the items are at the node. What another owner has there is refused.
    #[arg(long, value_name = "NAME", default_value = "etcd")]
    pub(super) owner: String,
    /// Take over what another owner has, as after an agent of an earlier version, whose items are the controller's.
    #[arg(long)]
    pub(super) take_over: bool,
    /// How long the status stays in etcd after the agent was last there.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub(super) lease: u64,
    /// How long a member of etcd may take to answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(super) timeout: u64,
}

impl EtcdArgs {
    /// How to reach the cluster. Files that are needed must be there now; they are read again later.
    ///
    /// # Errors
    /// Which file cannot be read.
    pub(super) fn config(&self) -> anyhow::Result<Config> {
        let user = match (self.user.clone(), self.password_file.clone()) {
            (Some(name), Some(file)) => {
                let password = Source::new(move || password(&file));
                password.read()?;
                Some(User { name, password })
            }
            _ => None,
        };
        Ok(Config {
            endpoints: self.endpoints.clone(),
            user,
            tls: self.tls(),
            plain_http: self.plain_http,
            timeout: Duration::from_secs(self.timeout),
        })
    }

    fn tls(&self) -> Option<Source<Tls>> {
        let ca = self.etcd_ca.clone()?;
        let identity = self.etcd_cert.clone().zip(self.etcd_key.clone());
        let name = self.etcd_name.clone();
        Some(Source::new(move || {
            Ok(Tls {
                ca: read("--etcd-ca", &ca)?,
                identity: match &identity {
                    Some((certificate, key)) => Some((
                        read("--etcd-cert", certificate)?,
                        read_secret("--etcd-key", key)?,
                    )),
                    None => None,
                },
                name: name.clone(),
            })
        }))
    }
}

fn password(file: &Path) -> Result<String, String> {
    let bytes = read_secret("--password-file", file)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| format!("--password-file {}: it is not UTF-8", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A file that is its owner's alone.
fn read_secret(option: &str, file: &Path) -> Result<Vec<u8>, String> {
    let read = private::read(file).map_err(|error| format!("{option}: {error}"));
    read.map(|bytes| bytes.to_vec())
}

fn read(option: &str, file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{option} {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: EtcdArgs,
    }

    fn args(more: &[&str]) -> EtcdArgs {
        let line = ["agent", "--node", "a", "--endpoints", "https://etcd:2379"];
        let parsed = Line::try_parse_from(line.iter().chain(more));
        parsed.unwrap_or_else(|error| panic!("{error}")).args
    }

    #[test]
    fn a_password_is_read_anew_each_time_and_from_a_private_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let write = |text: &str, mode| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let name = file.display().to_string();
        let args = args(&["--user", "u", "--password-file", &name]);
        assert!(
            args.config()
                .err()
                .unwrap()
                .to_string()
                .contains("--password-file")
        );
        write("one\n", 0o600);
        let user = args.config().unwrap().user.unwrap();
        assert_eq!((&*user.name, user.password.read()), ("u", Ok("one".into())));
        write("two", 0o600);
        assert_eq!(user.password.read(), Ok("two".into()));
        for mode in [0o640, 0o604] {
            write("two", mode);
            let refused = user.password.read().unwrap_err().to_string();
            assert!(refused.starts_with("--password-file: "), "{refused}");
            assert!(refused.contains("chmod 600"), "{refused}");
        }
    }

    #[test]
    fn certificates_come_whole() {
        for more in [
            &["--etcd-cert", "c"][..],
            &["--etcd-ca", "ca", "--etcd-key", "k"],
            &["--etcd-name", "n"],
        ] {
            let line = ["agent", "--node", "a", "--endpoints", "https://etcd:2379"];
            assert!(
                Line::try_parse_from(line.iter().chain(more)).is_err(),
                "{more:?}"
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pem");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let name = &*file.display().to_string();
        let open = args(&["--etcd-ca", name, "--etcd-cert", name, "--etcd-key", name]);
        let error = open.config().unwrap().tls.unwrap().read().err().unwrap();
        let error = error.to_string();
        assert!(
            error.starts_with("--etcd-key: ") && error.contains("chmod 600"),
            "{error}"
        );
        let args = args(&["--etcd-ca", "/nowhere/ca"]);
        let tls = args.config().unwrap().tls.unwrap();
        let error = tls.read().err().unwrap().to_string();
        assert!(error.contains("--etcd-ca /nowhere/ca"), "{error}");
    }
}
