//! OpenVPN between two points, by TLS with certificates that were made for it.

use std::process::Command;
use std::time::Duration;

use super::{Peer, Running, find, output, version_of};
use crate::compare::Setup;
use crate::compare::network::{Network, Side, TUNNEL_MTU};

pub(super) struct Openvpn;

const HOW: &str = "apt install openvpn openssl; 2.6 or later";
/// How long the first handshake may take.
const PATIENCE: Duration = Duration::from_secs(20);

impl Peer for Openvpn {
    fn name(&self) -> &'static str {
        "openvpn"
    }

    fn about(&self) -> &'static str {
        "OpenVPN, AES-256-GCM once"
    }

    fn seals(&self) -> u8 {
        1
    }

    fn version(&self, _: &Setup) -> Result<String, String> {
        find("openssl").ok_or(HOW)?;
        version_of("openvpn", "--version", HOW)
    }

    fn start(&self, _: &Setup, network: &Network, running: &mut Running) -> anyhow::Result<()> {
        network.forward()?;
        let folder = network.lab().directory().join("openvpn");
        std::fs::create_dir(&folder)?;
        let file = |side: Side, kind: &str| {
            let name = format!("{}.{kind}", side.name());
            folder.join(name).display().to_string()
        };
        let mut fingerprints = Vec::new();
        for side in Side::ALL {
            let (crt, key) = (file(side, "crt"), file(side, "key"));
            let subject = format!("/CN={}", side.name());
            let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj";
            let mut arguments: Vec<&str> = make.split(' ').collect();
            arguments.extend([&subject, "-keyout", &key, "-out", &crt]);
            output("openssl", &arguments)?;
            let show = ["x509", "-noout", "-fingerprint", "-sha256", "-in", &crt];
            let text = output("openssl", &show)?;
            let (_, fingerprint) = text.trim().split_once('=').unwrap_or_default();
            fingerprints.push(fingerprint.to_owned());
        }
        for side in Side::ALL {
            let far = side.other();
            let own = side.wan().to_string();
            let (crt, key) = (file(side, "crt"), file(side, "key"));
            let mut command = Command::new(find("openvpn").unwrap_or_else(|| "openvpn".into()));
            command.args(["--dev", "ovpn0", "--dev-type", "tun", "--proto", "udp"]);
            command.args(["--local", &own, "--remote", &far.wan().to_string()]);
            let (from, to) = (side.tunnel().to_string(), far.tunnel().to_string());
            command.args(["--ifconfig", &from, &to, "--cert", &crt, "--key", &key]);
            command.args(["--peer-fingerprint", &fingerprints[far as usize]]);
            command.args(["--data-ciphers", "AES-256-GCM", "--cipher", "AES-256-GCM"]);
            command.args(["--tun-mtu", &TUNNEL_MTU.to_string(), "--mssfix", "0"]);
            let site = far.site();
            let netmask = site.netmask().to_string();
            command.args(["--route", &site.network().to_string(), &netmask]);
            match side {
                Side::A => command.args(["--tls-server", "--dh", "none"]),
                Side::B => command.arg("--tls-client"),
            };
            running.keep(network.gateway(side).spawn(command)?);
        }
        for process in &mut running.processes {
            process.wait_for_log("Initialization Sequence Completed", PATIENCE)?;
        }
        Ok(())
    }
}
