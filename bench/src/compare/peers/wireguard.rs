//! WireGuard in the kernel and in programs, all told what to do by `wg` of wireguard-tools.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Peer, Running, find, output, version_of, write_secret};
use crate::compare::Setup;
use crate::compare::network::{Network, Side, wait};

const PORT: u16 = 51820;
const TOOLS: &str = "apt install wireguard-tools, for wg";

/// One implementation.
pub(super) struct Wireguard {
    name: &'static str,
    about: &'static str,
    /// The program and its arguments before the device's name; none for the kernel's.
    program: Option<(&'static str, &'static [&'static str])>,
    how: &'static str,
}

pub(super) const KERNEL: Wireguard = Wireguard {
    name: "wireguard",
    about: "WireGuard in the kernel, ChaCha20-Poly1305 once",
    program: None,
    how: "a kernel with the module wireguard",
};

pub(super) const WIREGUARD_GO: Wireguard = Wireguard {
    name: "wireguard-go",
    about: "WireGuard in Go, ChaCha20-Poly1305 once",
    program: Some(("wireguard-go", &["-f"])),
    how: "apt install wireguard-go",
};

pub(super) const BORINGTUN: Wireguard = Wireguard {
    name: "boringtun",
    about: "Cloudflare's WireGuard in Rust, ChaCha20-Poly1305 once",
    program: Some(("boringtun-cli", &["-f", "--disable-drop-privileges"])),
    how: "cargo install boringtun-cli",
};

pub(super) const GOTATUN: Wireguard = Wireguard {
    name: "gotatun",
    about: "Mullvad's WireGuard in Rust, ChaCha20-Poly1305 once",
    program: Some(("gotatun", &["-f", "--disable-drop-privileges"])),
    how: "cargo install gotatun-cli",
};

impl Peer for Wireguard {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn seals(&self) -> u8 {
        1
    }

    fn version(&self, _: &Setup) -> Result<String, String> {
        let version = match self.program {
            Some((program, _)) => version_of(program, "--version", self.how)?,
            None => kernel_has_it()
                .then(|| "of the kernel".to_owned())
                .ok_or(self.how)?,
        };
        find("wg").ok_or(TOOLS)?;
        Ok(version)
    }

    fn start(&self, _: &Setup, network: &Network, running: &mut Running) -> anyhow::Result<()> {
        network.forward()?;
        let [a, b] = [keys()?, keys()?];
        // The programs' control sockets are in one folder for all namespaces, named by the device.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        for (side, own, far) in [(Side::A, &a, &b), (Side::B, &b, &a)] {
            let device = format!("wg{:x}{}{count}", std::process::id(), side.name());
            let gateway = network.gateway(side);
            if let Some((program, arguments)) = self.program {
                let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
                command.args(arguments).arg(&device);
                // What Debian's wireguard-go wants to hear where the kernel could do it.
                command.env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
                running.keep(gateway.spawn(command)?);
                let socket = PathBuf::from(format!("/var/run/wireguard/{device}.sock"));
                wait("the control socket", || socket.exists())?;
            } else {
                network.lab().device(gateway, &device, "wireguard")?;
            }
            let secret = network.lab().directory().join(format!("{device}.key"));
            write_secret(&secret, &own.private)?;
            let mut wg = Command::new("wg");
            wg.args(["set", &device, "listen-port", &PORT.to_string()]);
            wg.arg("private-key").arg(&secret);
            wg.args(["peer", &far.public]);
            wg.args(["endpoint", &format!("{}:{PORT}", side.other().wan())]);
            wg.args(["allowed-ips", "0.0.0.0/0"]);
            network.run(side, wg)?;
            network.route_into(side, &device)?;
        }
        Ok(())
    }
}

struct Keys {
    private: String,
    public: String,
}

fn keys() -> anyhow::Result<Keys> {
    use std::io::Write;
    use std::process::Stdio;
    let private = output("wg", &["genkey"])?.trim().to_owned();
    let mut child = Command::new("wg")
        .arg("pubkey")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(private.as_bytes())?;
    }
    let public = String::from_utf8(child.wait_with_output()?.stdout)?;
    Ok(Keys {
        private,
        public: public.trim().into(),
    })
}

/// Tried, not guessed: whether a device of the kind can be made.
fn kernel_has_it() -> bool {
    let Ok(lab) = twinseal_lab::Lab::new("wgprobe") else {
        return false;
    };
    let probe = lab.namespace("x");
    probe.is_ok_and(|namespace| lab.device(&namespace, "wg0", "wireguard").is_ok())
}
