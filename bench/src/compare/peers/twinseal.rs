//! Twinseal: two daemons, told what to do by `twinseal ctl` and state files, as an operator would.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::{Peer, Running, write_secret};
use crate::compare::Setup;
use crate::compare::network::{LAN, Network, Side, WAN, wait};
use crate::compare::result::{Counts, Passed};
use crate::testbed::with_workers;

/// How long a daemon may take to start.
const PATIENCE: Duration = Duration::from_secs(20);
/// The four secrets of the path; both gateways have them all.
const SECRETS: [&str; 4] = [
    "link-a-to-b",
    "link-b-to-a",
    "circuit-a-to-b",
    "circuit-b-to-a",
];

pub(super) struct Twinseal;

/// One gateway's daemon: its program, and the folder of its files.
struct Daemon {
    program: PathBuf,
    folder: PathBuf,
    side: Side,
}

impl Daemon {
    /// The configuration: the defaults, but for what two nodes on one machine need and what was asked for.
    fn config(&self, setup: &Setup) -> String {
        let mut lines = vec![
            format!("state_dir = {:?}", self.folder.join("state")),
            format!("node.name = \"gateway-{}\"", self.side.name()),
            format!("control.socket = {:?}", self.folder.join("control.sock")),
        ];
        lines.extend(with_workers(&setup.config, setup.workers));
        lines.join("\n")
    }

    /// Makes its files and runs it.
    fn start(
        &self,
        setup: &Setup,
        secrets: &[(&str, String)],
        network: &Network,
        running: &mut Running,
    ) -> anyhow::Result<()> {
        std::fs::create_dir(&self.folder)?;
        for (name, secret) in secrets {
            write_secret(&self.folder.join(format!("{name}.secret")), secret)?;
        }
        std::fs::write(self.folder.join("state.yaml"), state(self.side, &setup.xdp))?;
        let config = self.folder.join("twinseal.toml");
        std::fs::write(&config, self.config(setup))?;
        twinseal_node::state_dir::init(&self.folder.join("state"), false)?;
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--config").arg(&config);
        let process = running.keep(network.gateway(self.side).spawn(command)?);
        Ok(process.wait_for_log("is ready on", PATIENCE)?)
    }

    fn apply(&self) -> anyhow::Result<String> {
        let file = self.folder.join("state.yaml").display().to_string();
        self.ctl(&["apply", "-f", &file])
    }

    fn is_linked(&self) -> bool {
        let got = self.ctl(&["get", "--json"]).unwrap_or_default();
        let got: Value = serde_json::from_str(&got).unwrap_or_default();
        got["links"][0]["up"] == true
    }

    fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let done = Command::new(&self.program)
            .args(["ctl", "--socket"])
            .arg(self.folder.join("control.sock"))
            .args(arguments)
            .output()?;
        anyhow::ensure!(
            done.status.success(),
            "twinseal ctl: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(String::from_utf8(done.stdout)?)
    }

    /// Adds what it counted on the way from host A to host B.
    fn count(&self, counts: &mut Counts) -> anyhow::Result<()> {
        let stats: Value = serde_json::from_str(&self.ctl(&["stats", "--json"])?)?;
        let ports = stats["ports"].as_array().context("stats without ports")?;
        let (from, to) = match self.side {
            Side::A => (LAN, WAN),
            Side::B => (WAN, LAN),
        };
        for (what, port, field) in [
            ("in", from, "received_packets"),
            ("out", to, "sent_packets"),
        ] {
            let port = ports.iter().find(|it| it["port"] == port);
            let packets = port.and_then(|it| it[field].as_u64());
            counts.passed.push(Passed {
                point: format!("gateway {} {what}", self.side.name()),
                packets: packets.with_context(|| format!("stats without {field}"))?,
            });
        }
        let got: Value = serde_json::from_str(&self.ctl(&["get", "--json"])?)?;
        for port in got["ports"].as_array().into_iter().flatten() {
            if let Some(xdp) = port["xdp"].as_str().filter(|xdp| !xdp.is_empty()) {
                counts.xdp.insert(xdp.to_owned());
            }
        }
        let drops = stats["drops"].as_object().context("stats without drops")?;
        for (reason, count) in drops {
            let sum = counts.drops.entry(reason.clone()).or_default();
            *sum += count.as_u64().unwrap_or(0);
        }
        Ok(())
    }
}

impl Peer for Twinseal {
    fn name(&self) -> &'static str {
        super::OURS
    }

    fn about(&self) -> &'static str {
        "this project, AES-256-GCM twice"
    }

    fn seals(&self) -> u8 {
        2
    }

    fn version(&self, setup: &Setup) -> Result<String, String> {
        let place = setup.program.display();
        let how = format!("cargo build --release -p twinseal; it was looked for at {place}");
        let said = Command::new(&setup.program).arg("--version").output();
        let text = said.map_err(|_| how)?.stdout;
        let text = String::from_utf8_lossy(&text);
        Ok(text.trim().trim_start_matches("twinseal ").into())
    }

    fn queues(&self, setup: &Setup) -> u32 {
        setup.workers
    }

    fn start(&self, setup: &Setup, network: &Network, running: &mut Running) -> anyhow::Result<()> {
        let secrets = SECRETS
            .into_iter()
            .map(|name| {
                let made = Command::new(&setup.program).arg("genkey").output()?;
                Ok((name, String::from_utf8(made.stdout)?))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let daemons = Side::ALL.map(|side| Daemon {
            program: setup.program.clone(),
            folder: network.lab().directory().join(side.name()),
            side,
        });
        for daemon in &daemons {
            daemon.start(setup, &secrets, network, running)?;
        }
        for daemon in &daemons {
            daemon.apply()?;
        }
        for daemon in &daemons {
            wait("the link to be up", || daemon.is_linked())?;
        }
        running.account = Some(Box::new(move || {
            let mut counts = Counts::default();
            for daemon in &daemons {
                daemon.count(&mut counts)?;
            }
            Ok(counts)
        }));
        Ok(())
    }
}

/// A gateway's state: one link, one circuit over it, a route into it.
fn state(side: Side, xdp: &str) -> String {
    let far = side.other();
    let label = |receiver: Side| match receiver {
        Side::A => 100,
        Side::B => 200,
    };
    format!(
        r#"ports:
  - {{ name: {WAN}, role: underlay, af_xdp: {{ netdev: {WAN}, xdp: {xdp} }} }}
  - {{ name: {LAN}, role: edge, vrf: red, af_xdp: {{ netdev: {LAN}, xdp: {xdp} }} }}
vrfs: [{{ name: red }}]
links: [{{ name: link, end: {end}, port: {WAN}, local: {local}, remote: {remote} }}]
circuits: [{{ name: circuit, id: 1, end: {end}, vrf: red, link: link, label: {out} }}]
labels: [{{ link: link, label: {into}, egress: {{ circuit: circuit }} }}]
routes:
  - {{ vrf: red, prefix: {own}, via: {{ port: {LAN} }} }}
  - {{ vrf: red, prefix: {other}, circuit: circuit }}
keys:
  - {{ link: link, direction: a-to-b, epoch: 1, receiver_index: 1001, secret_file: link-a-to-b.secret }}
  - {{ link: link, direction: b-to-a, epoch: 1, receiver_index: 1002, secret_file: link-b-to-a.secret }}
  - {{ circuit: circuit, direction: a-to-b, epoch: 1, secret_file: circuit-a-to-b.secret }}
  - {{ circuit: circuit, direction: b-to-a, epoch: 1, secret_file: circuit-b-to-a.secret }}
transmit: [{{ link: link, epoch: 1 }}, {{ circuit: circuit, epoch: 1 }}]
"#,
        end = side.name(),
        local = side.wan(),
        remote = far.wan(),
        out = label(far),
        into = label(side),
        own = side.site(),
        other = far.site(),
    )
}
