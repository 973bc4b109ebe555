//! ICMP and ICMPv6 echo.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::Namespace;
use crate::error::{Doing, LabError};
use crate::frame::checksum;
use crate::sys::{self, RecvBatch};

const ECHO_HEADER: usize = 8;
/// Nonce and number: how a reply is known for ours.
const STAMP: usize = 12;
/// Largest IP packet.
const PACKET_MAX: usize = 65_535;

/// Round trips above this count as this, in nanoseconds: a minute.
const RTT_MAX: u64 = 60_000_000_000;

/// How to ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingConfig {
    /// Requests sent.
    pub count: u32,
    /// Time between two requests.
    pub interval: Duration,
    /// How long to wait for replies after the last request.
    pub timeout: Duration,
    /// Bytes after the 8 of the ICMP header, at least 12; the IP packet is 28 (v4) or 48 (v6) longer.
    pub size: usize,
    /// TTL or hop limit of the requests; the kernel's when none.
    pub ttl: Option<u8>,
    /// Forbids fragmentation on the way and here.
    pub dont_fragment: bool,
}

impl Default for PingConfig {
    /// Five requests of 56 bytes, 10 ms apart, two seconds of patience.
    fn default() -> Self {
        PingConfig {
            count: 5,
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(2),
            size: 56,
            ttl: None,
            dont_fragment: false,
        }
    }
}

/// What came of a ping.
#[derive(Debug, Clone)]
pub struct PingResult {
    /// Requests that the kernel took.
    pub sent: u32,
    /// Different requests answered.
    pub received: u32,
    /// Replies beyond the first to a request.
    pub duplicates: u32,
    /// Replies whose bytes were not those of the request.
    pub damaged: u32,
    /// Requests that the kernel refused, as it does without a route or above the MTU; with the last reason.
    pub refused: u32,
    /// The kernel's last reason to refuse a request.
    pub refusal: Option<String>,
    /// ICMP errors about our requests.
    pub errors: Vec<IcmpError>,
    /// Round trip times in nanoseconds.
    pub rtt: Histogram<u64>,
}

/// An ICMP error about one of our requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// Who sent it.
    pub from: IpAddr,
    /// ICMP or ICMPv6 type.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The MTU that a "fragmentation needed" or "packet too big" tells, in bytes; else 0.
    pub mtu: u32,
}

impl PingResult {
    /// Whether every request was sent and answered.
    pub fn all_answered(&self) -> bool {
        self.refused == 0 && self.received == self.sent
    }

    /// Requests without an answer.
    pub fn lost(&self) -> u32 {
        self.sent - self.received
    }

    /// Shortest round trip.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.rtt.min())
    }

    /// Mean round trip.
    pub fn avg(&self) -> Duration {
        Duration::from_nanos(self.rtt.mean() as u64)
    }

    /// Longest round trip.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.rtt.max())
    }
}

impl fmt::Display for PingResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sent, {} received", self.sent, self.received)?;
        if self.received > 0 {
            write!(
                f,
                ", rtt {:?} / {:?} / {:?}",
                self.min(),
                self.avg(),
                self.max()
            )?;
        }
        for (count, what) in [
            (self.duplicates, "duplicate"),
            (self.damaged, "damaged"),
            (self.refused, "refused"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if let Some(reason) = &self.refusal {
            write!(f, " ({reason})")?;
        }
        for e in &self.errors {
            write!(f, ", ICMP error {}/{} from {}", e.kind, e.code, e.from)?;
        }
        Ok(())
    }
}

/// Sends echo requests from a namespace and collects the replies.
///
/// # Errors
/// When no socket can be opened; a destination that cannot be reached is a result, not an error.
pub fn ping(ns: &Namespace, dst: IpAddr, config: &PingConfig) -> Result<PingResult, LabError> {
    let socket = ns.open(|| {
        open(dst, config).doing(|| format!("open a socket to ping {dst} in {}", ns.name()))
    })?;
    let mut pinger = Pinger::new(dst, config);
    let interval = config.interval.as_nanos() as u64;
    let start = sys::monotonic_ns();
    let mut end = start + config.timeout.as_nanos() as u64;
    let mut batch = RecvBatch::new(PACKET_MAX);
    loop {
        let now = sys::monotonic_ns();
        let next = start + u64::from(pinger.tried) * interval;
        let until = if pinger.tried == config.count {
            end
        } else if now >= next {
            pinger.send(socket.as_fd(), now);
            end = now + config.timeout.as_nanos() as u64;
            continue;
        } else {
            next
        };
        if pinger.is_done() || (pinger.tried == config.count && now >= end) {
            return Ok(pinger.result);
        }
        sys::wait_readable(&[socket.as_fd()], until - now)
            .doing(|| "wait for echo replies".into())?;
        loop {
            let count = batch.recv(socket.as_fd());
            let now = sys::monotonic_ns();
            match count {
                Ok(0) => break,
                Ok(_) => (batch.iter().zip(batch.sources()))
                    .for_each(|((packet, _), from)| pinger.take(packet, from, now)),
                // An ICMP error that the kernel tells of here; the packet itself comes too.
                Err(_) => continue,
            }
        }
    }
}

fn open(dst: IpAddr, config: &PingConfig) -> std::io::Result<OwnedFd> {
    let (domain, protocol, level) = match dst {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP, libc::IPPROTO_IP),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6, libc::IPPROTO_IPV6),
    };
    let socket = sys::socket(domain, libc::SOCK_RAW, protocol)?;
    let (ttl, discover) = match dst {
        IpAddr::V4(_) => (libc::IP_TTL, libc::IP_MTU_DISCOVER),
        IpAddr::V6(_) => (libc::IPV6_UNICAST_HOPS, libc::IPV6_MTU_DISCOVER),
    };
    if let Some(value) = config.ttl {
        sys::set_option(socket.as_fd(), level, ttl, i32::from(value))?;
    }
    // "Do" keeps the DF bit and refuses what is longer than the known path MTU; "dont" fragments.
    let value = match config.dont_fragment {
        true => libc::IP_PMTUDISC_DO,
        false => libc::IP_PMTUDISC_DONT,
    };
    sys::set_option(socket.as_fd(), level, discover, value)?;
    sys::set_option(
        socket.as_fd(),
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        4 << 20,
    )?;
    Ok(socket)
}

/// Builds requests and accounts for what comes back.
struct Pinger {
    dst: IpAddr,
    count: u32,
    size: usize,
    ident: u16,
    nonce: u64,
    tried: u32,
    /// When each request was sent; none once answered or refused.
    sent_at: Vec<Option<u64>>,
    result: PingResult,
}

impl Pinger {
    fn new(dst: IpAddr, config: &PingConfig) -> Self {
        Pinger {
            dst,
            count: config.count,
            size: config.size.clamp(STAMP, PACKET_MAX - 28),
            ident: fastrand::u16(..),
            nonce: fastrand::u64(..),
            tried: 0,
            sent_at: Vec::new(),
            result: PingResult {
                sent: 0,
                received: 0,
                duplicates: 0,
                damaged: 0,
                refused: 0,
                refusal: None,
                errors: Vec::new(),
                rtt: Histogram::new_with_max(RTT_MAX, 3)
                    .expect("a minute with three digits is in range"),
            },
        }
    }

    fn is_done(&self) -> bool {
        self.tried == self.count && self.sent_at.iter().all(Option::is_none)
    }

    /// The message with its ICMPv4 checksum; the kernel fills in that of ICMPv6.
    fn request(&self, number: u32) -> Vec<u8> {
        let mut message = vec![0; ECHO_HEADER];
        message[0] = if self.dst.is_ipv4() { 8 } else { 128 };
        message[4..6].copy_from_slice(&self.ident.to_be_bytes());
        message[6..8].copy_from_slice(&(number as u16).to_be_bytes());
        message.extend(self.nonce.to_be_bytes());
        message.extend(number.to_be_bytes());
        message.extend((STAMP..self.size).map(|i| i as u8));
        if self.dst.is_ipv4() {
            let sum = checksum(0, &message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }

    fn send(&mut self, socket: BorrowedFd<'_>, now: u64) {
        let message = self.request(self.tried);
        self.tried += 1;
        // The kernel may tell of an ICMP error to an earlier request instead of sending: so twice.
        let send = || sys::send_to(socket, &message, self.dst);
        match send().or_else(|_| send()) {
            Ok(()) => {
                self.result.sent += 1;
                self.sent_at.push(Some(now));
            }
            Err(e) => {
                self.result.refused += 1;
                self.result.refusal = Some(e.to_string());
                self.sent_at.push(None);
            }
        }
    }

    /// Takes a packet: IPv4 with its header, ICMPv6 without.
    fn take(&mut self, packet: &[u8], from: IpAddr, now: u64) {
        let Some(message) = without_ipv4_header(packet, self.dst) else {
            return;
        };
        let Some(&[kind, code, ..]) = message.first_chunk::<ECHO_HEADER>() else {
            return;
        };
        let (quoted, mtu) = match (self.dst, kind) {
            (IpAddr::V4(_), 0) | (IpAddr::V6(_), 129) => return self.take_reply(message, now),
            (IpAddr::V4(_), 3 | 11 | 12) => {
                let quoted = without_ipv4_header(&message[ECHO_HEADER..], self.dst);
                (
                    quoted,
                    u32::from(u16::from_be_bytes([message[6], message[7]])),
                )
            }
            (IpAddr::V6(_), 1..=4) => {
                let word = [message[4], message[5], message[6], message[7]];
                (message.get(ECHO_HEADER + 40..), u32::from_be_bytes(word))
            }
            _ => return,
        };
        if quoted.and_then(|q| q.get(4..6)) == Some(&self.ident.to_be_bytes()) {
            // The word carries an MTU in "fragmentation needed" and "packet too big" only.
            let mtu = match (self.dst, kind, code) {
                (IpAddr::V4(_), 3, 4) | (IpAddr::V6(_), 2, _) => mtu,
                _ => 0,
            };
            self.result.errors.push(IcmpError {
                from,
                kind,
                code,
                mtu,
            });
        }
    }

    fn take_reply(&mut self, message: &[u8], now: u64) {
        if message[4..6] != self.ident.to_be_bytes() {
            return;
        }
        let body = &message[ECHO_HEADER..];
        let Some(stamp) = body.first_chunk::<STAMP>() else {
            return;
        };
        if stamp[..8] != self.nonce.to_be_bytes() {
            return;
        }
        let number = u32::from_be_bytes([stamp[8], stamp[9], stamp[10], stamp[11]]);
        let Some(sent_at) = self.sent_at.get_mut(number as usize) else {
            return;
        };
        let Some(sent) = sent_at.take() else {
            self.result.duplicates += 1;
            return;
        };
        if body != &self.request(number)[ECHO_HEADER..] {
            self.result.damaged += 1;
        }
        self.result.received += 1;
        self.result.rtt.saturating_record(now.saturating_sub(sent));
    }
}

/// The ICMP message in what a raw socket of this family received.
fn without_ipv4_header(packet: &[u8], family: IpAddr) -> Option<&[u8]> {
    match family {
        IpAddr::V4(_) => packet.get(usize::from(packet.first()? & 0xf) * 4..),
        IpAddr::V6(_) => Some(packet),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

    fn pinger(dst: &str) -> Pinger {
        let mut pinger = Pinger::new(dst.parse().expect("address"), &PingConfig::default());
        pinger.sent_at = vec![Some(100), Some(200)];
        pinger
    }

    fn reply(pinger: &Pinger, number: u32) -> Vec<u8> {
        let mut message = pinger.request(number);
        message[0] = 129;
        message
    }

    #[test]
    fn replies_are_told_from_duplicates_and_strangers() {
        let mut p = pinger("::1");
        let good = reply(&p, 1);
        p.take(&good, SOURCE, 50_000_200);
        p.take(&good, SOURCE, 50_000_300);
        let mut stranger = reply(&p, 0);
        stranger[ECHO_HEADER] ^= 1;
        p.take(&stranger, SOURCE, 900);
        p.take(&reply(&p, 9), SOURCE, 900);
        assert_eq!((p.result.received, p.result.duplicates), (1, 1));
        assert_eq!(p.result.rtt.len(), 1);
        assert!(p.result.max().abs_diff(Duration::from_millis(50)) < Duration::from_micros(100));
    }

    #[test]
    fn a_changed_body_is_damage() {
        let mut p = pinger("::1");
        let mut bad = reply(&p, 0);
        *bad.last_mut().expect("a body") ^= 1;
        p.take(&bad, SOURCE, 700);
        assert_eq!((p.result.received, p.result.damaged), (1, 1));
    }

    #[test]
    fn too_big_tells_the_mtu() {
        let mut p = pinger("192.0.2.1");
        let mut packet = vec![0x45; 20];
        packet.extend([3, 4, 0, 0, 0, 0, 0x05, 0x78]);
        packet.extend(vec![0x45; 20]);
        packet.extend(&p.request(0)[..8]);
        p.take(&packet, SOURCE, 1);
        let error = IcmpError {
            from: SOURCE,
            kind: 3,
            code: 4,
            mtu: 1400,
        };
        assert_eq!(p.result.errors, [error]);
    }

    #[test]
    fn ipv4_requests_sum_to_nothing() {
        assert_eq!(checksum(0, &pinger("192.0.2.1").request(3)), 0);
    }
}
