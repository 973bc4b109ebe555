//! Section `control`: the socket, who may do what, and how much of the node they may take.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::config::file::{Check, NameOrNumber};
use crate::config::users;
use crate::config::users::Kind;
use twinseal_access::names::NameRule;
use twinseal_access::{AccessConfig, Limits, Role, TlsConfig};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Control {
    pub(super) socket: Option<Spanned<PathBuf>>,
    pub(super) mode: Option<Spanned<String>>,
    #[serde(default)]
    allow_users: Vec<Spanned<NameOrNumber>>,
    #[serde(default)]
    allow_groups: Vec<Spanned<NameOrNumber>>,
    #[serde(default)]
    operator_users: Vec<Spanned<NameOrNumber>>,
    #[serde(default)]
    operator_groups: Vec<Spanned<NameOrNumber>>,
    #[serde(default)]
    viewer_users: Vec<Spanned<NameOrNumber>>,
    #[serde(default)]
    viewer_groups: Vec<Spanned<NameOrNumber>>,
    tls: Option<Spanned<Tls>>,
    #[serde(default)]
    limits: Limit,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    listen: Option<Spanned<String>>,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<Spanned<PathBuf>>,
    client_ca: Option<Spanned<PathBuf>>,
    #[serde(default)]
    admins: Vec<Spanned<String>>,
    #[serde(default)]
    operators: Vec<Spanned<String>>,
    #[serde(default)]
    viewers: Vec<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    message_bytes: Option<Spanned<u64>>,
    requests_per_second: Option<Spanned<u64>>,
    streams: Option<Spanned<u64>>,
    connections: Option<Spanned<u64>>,
    client_connections: Option<Spanned<u64>>,
    handshake_seconds: Option<Spanned<u64>>,
    idle_seconds: Option<Spanned<u64>>,
    request_seconds: Option<Spanned<u64>>,
}

impl Check<'_> {
    pub(super) fn access(&mut self, control: Control) -> AccessConfig {
        let mut config = AccessConfig {
            users: [0, users::own_uid()].map(|uid| (uid, Role::Admin)).into(),
            ..AccessConfig::default()
        };
        let users = [
            (control.allow_users, "control.allow_users", Role::Admin),
            (
                control.operator_users,
                "control.operator_users",
                Role::Operator,
            ),
            (control.viewer_users, "control.viewer_users", Role::Viewer),
        ];
        for (given, field, role) in users {
            let ids = self.ids(given, field, Kind::User);
            config.users.extend(ids.into_iter().map(|id| (id, role)));
        }
        let groups = [
            (control.allow_groups, "control.allow_groups", Role::Admin),
            (
                control.operator_groups,
                "control.operator_groups",
                Role::Operator,
            ),
            (control.viewer_groups, "control.viewer_groups", Role::Viewer),
        ];
        for (given, field, role) in groups {
            let ids = self.ids(given, field, Kind::Group);
            config.groups.extend(ids.into_iter().map(|id| (id, role)));
        }
        config.tls = control.tls.and_then(|tls| self.tls(tls));
        config.limits = self.limits(control.limits);
        config
    }

    fn tls(&mut self, tls: Spanned<Tls>) -> Option<TlsConfig> {
        let at = tls.span();
        let tls = tls.into_inner();
        let listen = match tls.listen {
            Some(listen) => self.listen(&listen),
            None => {
                self.missing(at.clone(), "control.tls.listen");
                None
            }
        };
        let mut path = |path, field| match path {
            Some(path) => self.absolute(path, field),
            None => {
                self.missing(at.clone(), field);
                PathBuf::new()
            }
        };
        let certificate = path(tls.certificate, "control.tls.certificate");
        let key = path(tls.key, "control.tls.key");
        let client_ca = path(tls.client_ca, "control.tls.client_ca");
        let mut names = Vec::new();
        for (given, field, role) in [
            (tls.admins, "control.tls.admins", Role::Admin),
            (tls.operators, "control.tls.operators", Role::Operator),
            (tls.viewers, "control.tls.viewers", Role::Viewer),
        ] {
            for text in given {
                match NameRule::new(text.get_ref()) {
                    Some(rule) => names.push((rule, role)),
                    None => self.wrong(
                        text.span(),
                        field,
                        format!("{:?} is no name in a certificate", text.get_ref()),
                        "write a URI such as \"spiffe://example.org/controller\" or \"spiffe://example.org/ops/*\", or a DNS name such as \"*.ops.example.org\"",
                    ),
                }
            }
        }
        Some(TlsConfig {
            listen: listen?,
            certificate,
            key,
            client_ca,
            names,
        })
    }

    fn listen(&mut self, listen: &Spanned<String>) -> Option<SocketAddr> {
        let address = listen.get_ref().parse().ok();
        if address.is_none() {
            self.wrong(
                listen.span(),
                "control.tls.listen",
                format!("{:?} is no address and port", listen.get_ref()),
                "write an address and port such as \"0.0.0.0:7443\" or \"[::]:7443\"",
            );
        }
        address
    }

    fn absolute(&mut self, path: Spanned<PathBuf>, field: &str) -> PathBuf {
        if !path.get_ref().is_absolute() {
            let reason = format!("{} is not absolute", path.get_ref().display());
            self.wrong(path.span(), field, reason, "write a path from `/`");
        }
        path.into_inner()
    }

    fn limits(&mut self, given: Limit) -> Limits {
        let default = Limits::default();
        let seconds = Duration::from_secs;
        Limits {
            message_bytes: self.number(
                given.message_bytes,
                "control.limits.message_bytes",
                default.message_bytes as u64,
                4096..=1 << 30,
            ) as usize,
            requests_per_second: self.number(
                given.requests_per_second,
                "control.limits.requests_per_second",
                default.requests_per_second.into(),
                1..=1_000_000,
            ) as u32,
            streams: self.number(
                given.streams,
                "control.limits.streams",
                default.streams.into(),
                1..=10_000,
            ) as u32,
            connections: self.number(
                given.connections,
                "control.limits.connections",
                default.connections.into(),
                1..=10_000,
            ) as u32,
            client_connections: self.number(
                given.client_connections,
                "control.limits.client_connections",
                default.client_connections.into(),
                1..=10_000,
            ) as u32,
            handshake: seconds(self.number(
                given.handshake_seconds,
                "control.limits.handshake_seconds",
                default.handshake.as_secs(),
                1..=300,
            )),
            idle: seconds(self.number(
                given.idle_seconds,
                "control.limits.idle_seconds",
                default.idle.as_secs(),
                3..=86400,
            )),
            request: seconds(self.number(
                given.request_seconds,
                "control.limits.request_seconds",
                default.request.as_secs(),
                1..=86400,
            )),
        }
    }
}
