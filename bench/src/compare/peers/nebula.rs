//! Nebula: an overlay in Go, of hosts with certificates.

use std::process::Command;

use super::{Peer, Running, find, output, version_of};
use crate::compare::Setup;
use crate::compare::network::{Network, Side, TUNNEL_MTU};

pub(super) struct Nebula;

const HOW: &str = "apt install nebula";

impl Peer for Nebula {
    fn name(&self) -> &'static str {
        "nebula"
    }

    fn about(&self) -> &'static str {
        "an overlay in Go, AES-256-GCM once"
    }

    fn seals(&self) -> u8 {
        1
    }

    fn version(&self, _: &Setup) -> Result<String, String> {
        find("nebula-cert").ok_or(HOW)?;
        version_of("nebula", "-version", HOW)
    }

    fn start(&self, _: &Setup, network: &Network, running: &mut Running) -> anyhow::Result<()> {
        network.forward()?;
        let folder = network.lab().directory().join("nebula");
        std::fs::create_dir(&folder)?;
        let file = |name: &str| folder.join(name).display().to_string();
        let (ca, ca_key) = (file("ca.crt"), file("ca.key"));
        let ca_arguments = [
            "ca", "-name", "compare", "-out-crt", &ca, "-out-key", &ca_key,
        ];
        output("nebula-cert", &ca_arguments)?;
        for side in Side::ALL {
            let name = side.name();
            let (crt, key) = (file(&format!("{name}.crt")), file(&format!("{name}.key")));
            output(
                "nebula-cert",
                &[
                    "sign",
                    "-name",
                    name,
                    "-ip",
                    &format!("{}/24", side.tunnel()),
                    "-subnets",
                    &side.site().to_string(),
                    "-ca-crt",
                    &ca,
                    "-ca-key",
                    &ca_key,
                    "-out-crt",
                    &crt,
                    "-out-key",
                    &key,
                ],
            )?;
            let far = side.other();
            let config = format!(
                r#"pki: {{ ca: {ca}, cert: {crt}, key: {key} }}
static_host_map: {{ "{far_tunnel}": ["{far_wan}:4242"] }}
lighthouse: {{ am_lighthouse: false }}
listen: {{ host: {wan}, port: 4242 }}
cipher: aes
tun:
  dev: nebula0
  mtu: {TUNNEL_MTU}
  unsafe_routes: [{{ route: {site}, via: {far_tunnel} }}]
firewall:
  outbound: [{{ port: any, proto: any, host: any }}]
  inbound: [{{ port: any, proto: any, host: any }}]
"#,
                far_tunnel = far.tunnel(),
                far_wan = far.wan(),
                wan = side.wan(),
                site = far.site(),
            );
            let path = file(&format!("{name}.yaml"));
            std::fs::write(&path, config)?;
            let mut command = Command::new(find("nebula").unwrap_or_else(|| "nebula".into()));
            command.args(["-config", &path]);
            running.keep(network.gateway(side).spawn(command)?);
        }
        Ok(())
    }
}
