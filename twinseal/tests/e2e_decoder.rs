//! The independent decoder, docs/decoder/decode.py, opens what real daemons sent: another language, another library,
//! written from the protocol's page. The packets that it finds inside are those that the hosts sent, octet for octet.

mod common;

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use common::{FAMILIES, HOSTS, Path, options};
use serde_json::{Value, json};
use twinseal_api::v1;
use twinseal_crypto::Suite;
use twinseal_lab::PingConfig;
use twinseal_lab::capture::{Capture, CaptureLimits, Captured};
use twinseal_lab::frame::checksum;
use twinseal_lab::traffic::{Load, Marker, Receiver, Sender, SenderConfig, Until};
use twinseal_testbed::items::random;
use twinseal_testbed::plan::{EAST, Host, Plan, Underlay, WEST};

/// UDP packets of each direction and family, before and after the keys change.
const PACKETS: u64 = 100;
const MARKER: Marker = *b"decodeme";
const LOAD: Load = Load {
    marker: MARKER,
    first_flow: 0,
    flows: 4,
    payload_size: 200,
    pps: 1_000.0,
    until: Until::Count(PACKETS),
};
const LINK_PORT: u16 = 21_591;

#[test]
fn an_independent_decoder_opens_what_was_captured_over_ipv4() {
    decode(Underlay::V4);
}

#[test]
fn an_independent_decoder_opens_what_was_captured_over_ipv6() {
    decode(Underlay::V6);
}

fn decode(underlay: Underlay) {
    let Some(python) = python() else {
        return;
    };
    let mut options = options();
    options.underlay = underlay;
    let Some(mut path) = Path::start(options) else {
        return;
    };
    let ears = Ears::new(&path);
    let mut keys = keys(&path.plan);
    talk(&mut path);
    path.controller.rotate(&mut path.plan).expect("new keys");
    keys.extend(self::keys(&path.plan));
    talk(&mut path);
    let heard = ears.stop();

    // A packet for each ping and each answer, and for each of the UDP packets.
    let pings = 4 * 2 * PingConfig::default().count as usize;
    let want = 2 * (pings + 4 * PACKETS as usize);
    assert_eq!(heard.sent.len(), want, "packets that the hosts sent");
    let folder = path.network.lab().directory();
    for (link, captured) in [(WEST, &heard.west), (EAST, &heard.east)] {
        let pcap = folder.join(format!("{link}.pcap"));
        captured.write_pcap(&pcap).expect("a pcap");
        let (status, packets) = python.decode(&key_file(&folder, &keys), &pcap);
        let errors: Vec<_> = packets
            .iter()
            .filter(|said| !said["error"].is_null())
            .collect();
        assert!(errors.is_empty(), "{link}: {errors:?}");
        assert_eq!(status, Some(0), "{link}");
        let mut inner: Vec<_> = packets.iter().map(|said| text(&said["inner"])).collect();
        inner.sort();
        assert!(
            inner == heard.sent,
            "{link}: not the packets that the hosts sent"
        );
        assert_inside(&path, &packets);
        let marked = inner.iter().filter(|packet| packet.contains(&hex(&MARKER)));
        assert_eq!(marked.count() as u64, 2 * 4 * PACKETS, "{link}");

        // Without the right secret of any one kind of key, some packets are opened by nobody.
        for (kind, reason) in [
            ("links", "link_authentication"),
            ("circuits", "circuit_authentication"),
        ] {
            let wrong = with_wrong_secrets(&keys, kind);
            let (status, packets) = python.decode(&key_file(&folder, &wrong), &pcap);
            assert_eq!(status, Some(1), "{link}");
            assert_eq!(packets.len(), want);
            assert!(packets.iter().all(|said| said["error"] == reason), "{link}");
            assert!(packets.iter().all(|said| said["inner"].is_null()), "{link}");
        }
    }
    path.finish();
}

/// Traffic between the hosts, both ways in both families. By UDP sockets: a capture does not see raw frames leave.
fn talk(path: &mut Path) {
    path.assert_pings(&PingConfig::default());
    for from in HOSTS {
        for v6 in FAMILIES {
            let (from_ns, to_ns) = (path.network.host(from), path.network.host(from.other()));
            let bind = SocketAddr::new(from.other().address(v6), 0);
            let receiver = Receiver::start(to_ns, bind, MARKER).expect("a receiver");
            let config = SenderConfig::new(receiver.address(), LOAD.flows);
            let mut sender = Sender::open(from_ns, &config).expect("a sender");
            let sent = sender.send(&LOAD).expect("packets are sent");
            receiver.wait_for(sent.packets, Duration::from_secs(2));
            let summary = receiver.stop().expect("a tally").summary(&sent);
            path.assert_perfect(&summary);
        }
    }
}

/// What the decoder says of each packet agrees with the plan: addresses, id, epochs.
fn assert_inside(path: &Path, packets: &[Value]) {
    for said in packets {
        let v6 = said["payload_type"] == "ipv6";
        let from = HOSTS
            .into_iter()
            .find(|host| text(&said["inner_src"]) == host.address(v6).to_string());
        let from = from.expect("a host sent it");
        assert_eq!(
            text(&said["inner_dst"]),
            from.other().address(v6).to_string()
        );
        assert_eq!(said["circuit_id"], path.plan.circuit_id());
    }
    for epoch in 1..=path.plan.epoch() {
        for v6 in ["ipv4", "ipv6"] {
            let mut packets = packets.iter();
            let found =
                packets.any(|said| said["circuit_epoch"] == epoch && said["payload_type"] == v6);
            assert!(found, "{v6} in epoch {epoch}");
        }
    }
}

/// Captures of both underlays and of what the hosts send.
struct Ears {
    underlays: [Capture; 2],
    hosts: [Capture; 2],
}

struct Heard {
    west: Captured,
    east: Captured,
    /// The packets that the hosts sent, as the first edge seals them, in hex and sorted.
    sent: Vec<String>,
}

impl Ears {
    fn new(path: &Path) -> Self {
        let limits = CaptureLimits::default();
        let network = &path.network;
        Ears {
            underlays: [WEST, EAST].map(|link| {
                let filter = Box::new(is_sealed);
                let capture = Capture::start(network.switch(link), "p0", limits, Some(filter));
                capture.expect("a capture")
            }),
            hosts: HOSTS.map(|host| {
                let filter = Box::new(move |frame: &[u8]| is_from_to(frame, host));
                let capture = Capture::start(network.host(host), "eth0", limits, Some(filter));
                capture.expect("a capture")
            }),
        }
    }

    fn stop(self) -> Heard {
        let stop = |capture: Capture| {
            let captured = capture.stop().expect("a capture");
            assert_eq!((captured.dropped, captured.truncated), (0, false));
            captured
        };
        let [west, east] = self.underlays.map(stop);
        let frames = self
            .hosts
            .map(stop)
            .map(|captured| captured.packets)
            .concat();
        let mut sent: Vec<_> = frames
            .iter()
            .map(|frame| hex(&one_hop(&frame[14..])))
            .collect();
        sent.sort();
        Heard { west, east, sent }
    }
}

/// A frame between two nodes: UDP to the port of links.
fn is_sealed(frame: &[u8]) -> bool {
    let (protocol, port) = match frame[12..14] {
        [0x08, 0x00] => (frame[23], 36),
        [0x86, 0xdd] => (frame[20], 56),
        _ => return false,
    };
    protocol == 17 && frame[port..port + 2] == LINK_PORT.to_be_bytes()
}

/// A packet of a host's to the other host.
fn is_from_to(frame: &[u8], from: Host) -> bool {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let addresses = match frame[12..14] {
        [0x08, 0x00] => &frame[26..34],
        [0x86, 0xdd] => &frame[22..54],
        _ => return false,
    };
    let v6 = frame[12] == 0x86;
    addresses == [octets(from.address(v6)), octets(from.other().address(v6))].concat()
}

/// A packet as it is after one router.
fn one_hop(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[8] -= 1;
        packet[10..12].fill(0);
        let sum = checksum(0, &packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[7] -= 1;
    }
    packet
}

/// The plan's keys of the present epoch, each with the list of the decoder's key file that it belongs in.
fn keys(plan: &Plan) -> Vec<(&'static str, Value)> {
    let entry = |key: &v1::Key| {
        let suite = u8::try_from(key.suite).expect("a suite's number");
        let mut entry = json!({
            "suite": Suite::try_from(suite).expect("a suite").name(),
            "secret": hex(&key.secret),
            "direction": match key.direction() {
                v1::Direction::AToB => "a-to-b",
                _ => "b-to-a",
            },
            "epoch": key.epoch,
        });
        match key.owner {
            Some(v1::key::Owner::Link(_)) => {
                entry["receiver_index"] = key.receiver_index.into();
                ("links", entry)
            }
            _ => {
                entry["id"] = plan.circuit_id().into();
                ("circuits", entry)
            }
        }
    };
    plan.keys().iter().map(entry).collect()
}

fn with_wrong_secrets(keys: &[(&'static str, Value)], kind: &str) -> Vec<(&'static str, Value)> {
    let mut keys = keys.to_vec();
    for (_, key) in keys.iter_mut().filter(|(list, _)| *list == kind) {
        let mut secret = [0; 32];
        random(&mut secret).expect("random octets");
        key["secret"] = hex(&secret).into();
    }
    keys
}

fn key_file(folder: &std::path::Path, keys: &[(&'static str, Value)]) -> PathBuf {
    let list = |name| -> Value {
        let entries = keys.iter().filter(|(list, _)| *list == name);
        entries.map(|(_, entry)| entry.clone()).collect()
    };
    let file = folder.join("keys.json");
    let text = json!({"links": list("links"), "circuits": list("circuits")}).to_string();
    std::fs::write(&file, text).expect("a key file");
    file
}

/// A Python that has what the decoder needs.
struct Python(PathBuf);

/// Finds it, or says loudly that there is none.
fn python() -> Option<Python> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let from_setup = || root.join("target/python/bin/python3");
    let program = std::env::var_os("TWINSEAL_PYTHON").map_or_else(from_setup, PathBuf::from);
    let tried = Command::new(&program)
        .args(["-c", "import cryptography"])
        .output();
    match tried {
        Ok(output) if output.status.success() => Some(Python(program)),
        tried => {
            let why = tried.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
            // Straight to stderr: what a passing test prints is not shown.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: {} cannot run the decoder ({why:?}): run ci/setup, or name a Python with \
                 docs/decoder/requirements.txt in TWINSEAL_PYTHON",
                program.display()
            );
            None
        }
    }
}

impl Python {
    /// The decoder's exit status, and what it says of each packet.
    fn decode(&self, keys: &std::path::Path, pcap: &std::path::Path) -> (Option<i32>, Vec<Value>) {
        let decoder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/decoder/decode.py");
        // Without -B it would leave its compiled form in the source tree.
        let mut command = Command::new(&self.0);
        command.args(["-B", decoder]).args([keys, pcap]);
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().expect("python runs");
        let errors = String::from_utf8_lossy(&stderr);
        assert!(errors.is_empty(), "{errors}");
        let lines = String::from_utf8(stdout).expect("text");
        let said = |line| serde_json::from_str(line).expect("a line of JSON");
        (status.code(), lines.lines().map(said).collect())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
