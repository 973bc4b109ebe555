//! Just enough rtnetlink: build a request, send it, read the answer. Blocking, as a lab has nothing else to do meanwhile.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::LabError;
use crate::sys;

const HEADER: usize = 16;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const TYPE_FLAGS: u16 = 0xc000;

/// A request under construction. Integers are in host order, addresses in network order, as the kernel wants.
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of an `RTM_*` kind that begins with the family's fixed `body`.
    pub(crate) fn new(kind: u16, flags: i32, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(body);
        Request { bytes }
    }

    /// Appends an attribute.
    pub(crate) fn put(mut self, kind: u16, value: &[u8]) -> Self {
        let len = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Appends an attribute when there is a value.
    pub(crate) fn put_some(self, kind: u16, value: Option<impl AsRef<[u8]>>) -> Self {
        match value {
            Some(value) => self.put(kind, value.as_ref()),
            None => self,
        }
    }

    /// Appends a NUL-terminated string.
    pub(crate) fn put_str(self, kind: u16, value: &str) -> Self {
        self.put(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Appends a 32-bit integer.
    pub(crate) fn put_u32(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends an attribute made of `body` and the attributes that `fill` appends.
    pub(crate) fn nest(mut self, kind: u16, body: &[u8], fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self = self.put(kind, body);
        self = fill(self);
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }
}

/// The body of one answer: the family's fixed part, then attributes.
pub(crate) struct Answer(Vec<u8>);

impl Answer {
    /// The fixed part and all that follows.
    pub(crate) fn body(&self) -> &[u8] {
        &self.0
    }

    /// The value of an attribute after a fixed part of `fixed` bytes.
    pub(crate) fn attribute(&self, fixed: usize, kind: u16) -> Option<&[u8]> {
        attributes(self.0.get(fixed..)?).find_map(|(k, value)| (k == kind).then_some(value))
    }
}

/// Walks attributes; ends at the first malformed one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & !TYPE_FLAGS;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// An rtnetlink socket; it stays in the namespace in which it was opened, whichever thread uses it.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens one in the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        sys::set_option(
            socket.as_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_EXT_ACK,
            1i32,
        )?;
        Ok(Netlink {
            socket,
            sequence: 0,
        })
    }

    /// Sends a request and collects its answers up to the acknowledgement.
    ///
    /// # Errors
    /// What the kernel answered, with its own words; `doing` names the operation.
    pub(crate) fn request(
        &mut self,
        mut request: Request,
        doing: impl FnOnce() -> String,
    ) -> Result<Vec<Answer>, LabError> {
        self.sequence = self.sequence.wrapping_add(1);
        let len = request.bytes.len() as u32;
        request.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        request.bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        self.exchange(&request.bytes)
            .map_err(|(source, detail)| LabError::System {
                doing: doing(),
                source,
                detail,
            })
    }

    fn exchange(&self, request: &[u8]) -> Result<Vec<Answer>, (io::Error, Option<String>)> {
        let plain = |e: io::Error| (e, None);
        sys::send(self.socket.as_fd(), request).map_err(plain)?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let len = sys::recv(self.socket.as_fd(), &mut buffer).map_err(plain)?;
            for (kind, sequence, body) in messages(&buffer[..len]) {
                if sequence != self.sequence {
                    continue;
                }
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(answers),
                    libc::NLMSG_ERROR => return acknowledged(body).map(|()| answers),
                    _ => answers.push(Answer(body.to_vec())),
                }
            }
        }
    }
}

/// Walks the messages of one datagram: kind, sequence, body.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let body = bytes.get(HEADER..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, body))
    })
}

/// Reads an `NLMSG_ERROR`: error code, the header of our request, then (capped) the extended acknowledgement.
fn acknowledged(body: &[u8]) -> Result<(), (io::Error, Option<String>)> {
    /// `NLMSGERR_ATTR_MSG`.
    const MESSAGE: u16 = 1;
    let Some(code) = body.first_chunk::<4>() else {
        return Err((io::ErrorKind::InvalidData.into(), None));
    };
    let code = i32::from_ne_bytes(*code);
    if code == 0 {
        return Ok(());
    }
    // Unless asked otherwise the kernel echoes the whole request before its attributes.
    let echoed = body.get(4..8).and_then(|b| b.first_chunk::<4>());
    let echoed = echoed.map_or(HEADER, |l| u32::from_ne_bytes(*l) as usize);
    let words = body.get(4 + echoed.next_multiple_of(4)..).and_then(|rest| {
        let (_, text) = attributes(rest).find(|(kind, _)| *kind == MESSAGE)?;
        Some(
            String::from_utf8_lossy(text)
                .trim_end_matches('\0')
                .to_owned(),
        )
    });
    Err((io::Error::from_raw_os_error(-code), words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_request_reads_back() {
        let request = Request::new(16, 0, &[9; 16])
            .put_str(3, "eth0")
            .nest(18, &[], |r| {
                r.put_str(1, "veth").nest(2, &[], |r| r.put_u32(4, 7))
            });
        let answer = Answer(request.bytes[HEADER..].to_vec());
        assert_eq!(answer.body()[..16], [9; 16]);
        assert_eq!(answer.attribute(16, 3), Some(&b"eth0\0"[..]));
        let info = answer.attribute(16, 18).expect("nested");
        let data = attributes(info).find(|a| a.0 == 2).expect("data").1;
        assert_eq!(attributes(data).next(), Some((4, &7u32.to_ne_bytes()[..])));
    }

    #[test]
    fn malformed_attributes_end_the_walk() {
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 1]).count(), 0);
        assert_eq!(attributes(&[5, 0, 1, 0, 1]).count(), 1);
    }

    #[test]
    fn errors_carry_the_kernels_words() {
        let mut body = (-22i32).to_ne_bytes().to_vec();
        body.extend(16u32.to_ne_bytes());
        body.extend([0; 12]);
        body.extend([7, 0, 1, 0, b'n', b'o', 0, 0]);
        let (error, words) = acknowledged(&body).expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(22));
        assert_eq!(words.as_deref(), Some("no"));
    }
}
