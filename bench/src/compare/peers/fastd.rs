//! fastd: a small tunnel in C.

use std::process::Command;

use anyhow::Context;

use super::{Peer, Running, find, output, version_of, write_secret};
use crate::compare::Setup;
use crate::compare::network::{Network, Side, TUNNEL_MTU};

pub(super) struct Fastd;

const HOW: &str = "apt install fastd";

impl Peer for Fastd {
    fn name(&self) -> &'static str {
        "fastd"
    }

    fn about(&self) -> &'static str {
        "a tunnel in C, Salsa20/12 with UMAC once"
    }

    fn seals(&self) -> u8 {
        1
    }

    fn version(&self, _: &Setup) -> Result<String, String> {
        version_of("fastd", "--version", HOW)
    }

    fn start(&self, _: &Setup, network: &Network, running: &mut Running) -> anyhow::Result<()> {
        network.forward()?;
        let keys = [keys()?, keys()?];
        for side in Side::ALL {
            let far = side.other();
            let config = format!(
                r#"mode tun;
interface "fastd0";
method "salsa2012+umac";
mtu {TUNNEL_MTU};
bind {wan}:10000;
secret "{secret}";
peer "far" {{ remote {far_wan}:10000; key "{public}"; }}
"#,
                wan = side.wan(),
                secret = keys[side as usize].0,
                far_wan = far.wan(),
                public = keys[far as usize].1,
            );
            let folder = network.lab().directory();
            let path = folder.join(format!("fastd-{}.conf", side.name()));
            write_secret(&path, &config)?;
            let mut command = Command::new(find("fastd").unwrap_or_else(|| "fastd".into()));
            command.arg("--config").arg(&path);
            running.keep(network.gateway(side).spawn(command)?);
            network.route_into(side, "fastd0")?;
        }
        Ok(())
    }
}

/// A secret, and what is public of it.
fn keys() -> anyhow::Result<(String, String)> {
    let text = output("fastd", &["--generate-key"])?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches([':', ' ']).trim().to_owned())
    };
    let pair = field("Secret").zip(field("Public"));
    pair.with_context(|| format!("fastd made no keys: {text}"))
}
