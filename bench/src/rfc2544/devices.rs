//! Real devices: what leads from one to the other is the device under test.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::TryStreamExt;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};
use twinseal_wire::ethernet::Mac;

use crate::generator::{self, End};

/// How long a neighbour may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Two devices of this machine, in the calling thread's network namespace.
#[derive(Debug, Clone)]
pub struct Devices {
    /// Sends.
    pub tx: String,
    /// Receives.
    pub rx: String,
    /// Source of the test packets.
    pub src: IpAddr,
    /// Their destination, best an address of `rx`: the device under test asks who has it.
    pub dst: IpAddr,
    /// The next hop, whose hardware address is asked for; the destination itself when none.
    pub gateway: Option<IpAddr>,
    /// The next hop's hardware address, if it is not to be asked for.
    pub dst_mac: Option<Mac>,
    /// Source of the frames, if it is not to be the device's own.
    pub src_mac: Option<Mac>,
}

impl Devices {
    pub(super) fn route(&self) -> anyhow::Result<generator::Route> {
        let src_mac = match self.src_mac {
            Some(Mac(mac)) => mac,
            None => own_mac(&self.tx)?,
        };
        let next_hop = self.gateway.unwrap_or(self.dst);
        let dst_mac = match self.dst_mac {
            Some(Mac(mac)) => mac,
            None => resolve(&self.tx, next_hop)?,
        };
        Ok(generator::Route {
            from: End::here(&self.tx),
            to: End::here(&self.rx),
            src: self.src,
            dst: self.dst,
            src_mac,
            dst_mac,
        })
    }
}

fn own_mac(netdev: &str) -> anyhow::Result<[u8; 6]> {
    let path = format!("/sys/class/net/{netdev}/address");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{path}: check the name with `ip link`, or give --src-mac"))?;
    let mac: Mac = text.trim().parse().with_context(|| path)?;
    Ok(mac.0)
}

/// Has the kernel ask for a neighbour, and waits for the answer.
fn resolve(netdev: &str, next_hop: IpAddr) -> anyhow::Result<[u8; 6]> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let begin = Instant::now();
    loop {
        if let Some(mac) = runtime.block_on(neighbour(netdev, next_hop))? {
            return Ok(mac);
        }
        anyhow::ensure!(
            begin.elapsed() < PATIENCE,
            "{next_hop} does not answer on {netdev}: check cable and addresses, or give --dst-mac"
        );
        // Any packet makes the kernel ask.
        let any: IpAddr = match next_hop {
            IpAddr::V4(_) => [0, 0, 0, 0].into(),
            IpAddr::V6(_) => [0u16; 8].into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket
            .send_to(&[0], (next_hop, generator::PORT))
            .with_context(|| {
                format!(
                    "no way to {next_hop}: give {netdev} an address of its network, or --dst-mac"
                )
            })?;
        std::thread::sleep(Duration::from_millis(50));
    }
}

async fn neighbour(netdev: &str, address: IpAddr) -> anyhow::Result<Option<[u8; 6]>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let driver = tokio::spawn(connection);
    let mut links = handle.link().get().match_name(netdev.to_owned()).execute();
    let link = links
        .try_next()
        .await
        .with_context(|| format!("{netdev}: check the name with `ip link`"))?;
    let index = link
        .with_context(|| format!("there is no {netdev}"))?
        .header
        .index;
    let mut found = None;
    let mut neighbours = handle.neighbours().get().execute();
    while let Some(entry) = neighbours.try_next().await? {
        let is_it = entry.attributes.iter().any(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address == IpAddr::V4(*found)
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address == IpAddr::V6(*found)
            }
            _ => false,
        });
        if is_it && entry.header.ifindex == index {
            found = entry
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
                    _ => None,
                });
        }
    }
    driver.abort();
    Ok(found)
}
