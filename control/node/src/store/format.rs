//! Files of records that cannot be altered unseen.
//!
//! ```text
//! header   "twinseal tables\n", version u32, generation u64, key id [8]
//! record   length u32, payload, mac [32]
//! ```
//!
//! Integers in network order. A record's mac is HMAC-SHA256, under a key that only this node has, of the mac before it
//! and its length and payload; the first one follows the mac of the header. So records cannot be changed, reordered,
//! left out or taken from another file; only the end of a file can be missing, and whoever reads knows what must be there.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::{constant_time, digest, hmac};
use prost::Message;
use twinseal_api::v1;
use twinseal_crypto::BurnMark;

use super::changed::Changed;

const MAGIC: &[u8; 16] = b"twinseal tables\n";
/// The version that is written, and the only one that is read.
const VERSION: u32 = 2;
const HEADER: usize = 16 + 4 + 8 + 8;
const MAC: usize = 32;
/// Octets of a payload; a transaction's is as large as a request may be, or a Replace.
const MAX_RECORD: u32 = 1 << 30;

/// What one record says.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    #[prost(enumeration = "Kind", tag = "1")]
    pub(super) kind: i32,
    /// Of the tables after it.
    #[prost(uint64, tag = "2")]
    pub(super) generation: u64,
    /// Of a snapshot: items that are set. Keys are known by fingerprint; a secret is never here.
    #[prost(message, repeated, tag = "3")]
    pub(super) changes: Vec<v1::Change>,
    /// How many secrets had been burned by then, and the hash over them: the file of burned secrets must go so far.
    #[prost(uint64, tag = "4")]
    pub(super) burned: u64,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) burned_head: Vec<u8>,
    /// Of a transaction: whose it is. As items have it, empty for the controller's, whose all is that earlier versions wrote.
    #[prost(string, tag = "6")]
    pub(super) owner: String,
    /// Of a transaction, and of the end of a snapshot: in which generation each owner changed something last.
    #[prost(message, repeated, tag = "7")]
    pub(super) owners: Vec<Changed>,
}

impl Record {
    pub(super) fn new(
        kind: Kind,
        generation: u64,
        burned: &BurnMark,
        changes: Vec<v1::Change>,
    ) -> Self {
        Self {
            kind: kind.into(),
            generation,
            changes,
            burned: burned.count,
            burned_head: burned.head.to_vec(),
            owner: String::new(),
            owners: Vec::new(),
        }
    }

    /// How far the burned secrets went; `None` if it does not say.
    pub(super) fn mark(&self) -> Option<BurnMark> {
        Some(BurnMark {
            count: self.burned,
            head: self.burned_head.as_slice().try_into().ok()?,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Kind {
    Unknown = 0,
    /// A part of a snapshot.
    Items = 1,
    /// The end of a snapshot; one without it was cut off.
    End = 2,
    /// A transaction.
    Commit = 3,
    /// A transaction that waits for its confirmation: its generation is used, its changes come when they stay.
    Waiting = 4,
}

/// Why a file cannot be used, or not beyond a place.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// It could not be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no such file.
    #[error("{} is no file of tables", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another version of this program wrote it.
    #[error("{} has version {version}, and this program reads {VERSION}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It was written under another key.
    #[error("{} was written under another key: it comes from another node, or mac.key was replaced", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// Octets differ from what was written.
    #[error("{} is damaged, or was tampered with, at octet {offset}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the record begins that does not verify.
        offset: u64,
    },
    /// It ends too early.
    #[error("{} is cut off at octet {offset}", .path.display())]
    Torn {
        /// The file.
        path: PathBuf,
        /// Where the record begins that is not whole.
        offset: u64,
    },
    /// A snapshot has other records than items.
    #[error("{} holds records of another kind", .path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// A snapshot has not its last record.
    #[error("{} is cut off: its end is missing", .path.display())]
    NoEnd {
        /// The file.
        path: PathBuf,
    },
    /// What another version took and this one does not.
    #[error(
        "{} holds what this version does not take: {detail}; nothing that was stored from there on is restored: apply the whole state anew with that mended",
        .path.display()
    )]
    Unsound {
        /// The file.
        path: PathBuf,
        /// Which items, and what to do about them.
        detail: String,
    },
    /// A record that makes no sense in its place.
    #[error("{} does not follow what came before it: {detail}", .path.display())]
    Gap {
        /// The file.
        path: PathBuf,
        /// What is missing.
        detail: String,
    },
}

/// The chain of macs of one file.
struct Chain {
    key: hmac::Key,
    last: [u8; MAC],
}

impl Chain {
    fn new(key: &hmac::Key, header: &[u8; HEADER]) -> Self {
        Self {
            key: key.clone(),
            last: array(hmac::sign(key, header).as_ref()),
        }
    }

    fn next(&mut self, payload: &[u8]) -> [u8; MAC] {
        let mut mac = hmac::Context::with_key(&self.key);
        mac.update(&self.last);
        mac.update(&(payload.len() as u32).to_be_bytes());
        mac.update(payload);
        self.last = array(mac.sign().as_ref());
        self.last
    }
}

fn array(tag: &[u8]) -> [u8; MAC] {
    let mut array = [0; MAC];
    array.copy_from_slice(tag);
    array
}

/// Names a key without telling it.
fn key_id(key: &hmac::Key) -> [u8; 8] {
    let name = digest::digest(
        &digest::SHA256,
        hmac::sign(key, b"twinseal key id").as_ref(),
    );
    let mut id = [0; 8];
    id.copy_from_slice(&name.as_ref()[..8]);
    id
}

fn header(key: &hmac::Key, generation: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..16].copy_from_slice(MAGIC);
    header[16..20].copy_from_slice(&VERSION.to_be_bytes());
    header[20..28].copy_from_slice(&generation.to_be_bytes());
    header[28..].copy_from_slice(&key_id(key));
    header
}

/// Writes a file.
pub(super) struct Writer<W> {
    out: W,
    chain: Chain,
    /// Octets so far.
    pub(super) written: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(mut out: W, key: &hmac::Key, generation: u64) -> io::Result<Self> {
        let header = header(key, generation);
        out.write_all(&header)?;
        Ok(Self {
            out,
            chain: Chain::new(key, &header),
            written: HEADER as u64,
        })
    }

    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        let payload = record.encode_to_vec();
        let length = u32::try_from(payload.len()).ok();
        let length = length.filter(|&length| length <= MAX_RECORD);
        let length = length.ok_or(io::ErrorKind::FileTooLarge)?;
        // One write, so that a crash of this process leaves a record whole or not there.
        let mut octets = Vec::with_capacity(payload.len() + 4 + MAC);
        octets.extend(length.to_be_bytes());
        octets.extend(&payload);
        octets.extend(self.chain.next(&payload));
        self.out.write_all(&octets)?;
        self.written += octets.len() as u64;
        Ok(())
    }

    pub(super) fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }
}

/// Reads a file.
pub(super) struct Reader {
    file: BufReader<File>,
    path: PathBuf,
    chain: Chain,
    offset: u64,
    /// The generation that the file's name and header agree on.
    pub(super) generation: u64,
}

impl Reader {
    pub(super) fn open(path: &Path, key: &hmac::Key) -> Result<Self, FileError> {
        let read = |source| FileError::Read {
            path: path.to_owned(),
            source,
        };
        // What is no file, as a pipe, would keep the start waiting.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .and_then(|file| match file.metadata()?.is_file() {
                true => Ok(file),
                false => Err(io::Error::other("it is no file, or a link to one")),
            });
        let mut file = BufReader::new(file.map_err(read)?);
        let mut found = [0; HEADER];
        let path = path.to_owned();
        if fill(&mut file, &mut found).map_err(read_error(&path))? < HEADER {
            return Err(FileError::Torn { path, offset: 0 });
        }
        if found[..16] != MAGIC[..] {
            return Err(FileError::Foreign { path });
        }
        let version = u32::from_be_bytes([found[16], found[17], found[18], found[19]]);
        if version != VERSION {
            return Err(FileError::Version { path, version });
        }
        let mut generation = [0; 8];
        generation.copy_from_slice(&found[20..28]);
        if found[28..] != key_id(key) {
            return Err(FileError::Key { path });
        }
        Ok(Self {
            file,
            chain: Chain::new(key, &found),
            offset: HEADER as u64,
            generation: u64::from_be_bytes(generation),
            path,
        })
    }

    /// The next record; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record>, FileError> {
        let (path, offset) = (&self.path, self.offset);
        let torn = || FileError::Torn {
            path: path.clone(),
            offset,
        };
        let damaged = || FileError::Damaged {
            path: path.clone(),
            offset,
        };
        let mut length = [0; 4];
        match fill(&mut self.file, &mut length).map_err(read_error(path))? {
            0 => return Ok(None),
            4 => {}
            _ => return Err(torn()),
        }
        let length = u32::from_be_bytes(length);
        if length > MAX_RECORD {
            return Err(damaged());
        }
        // What the length says is not believed before so much has been read.
        let mut octets = Vec::new();
        let whole = u64::from(length) + MAC as u64;
        let read = (&mut self.file).take(whole).read_to_end(&mut octets);
        if (read.map_err(read_error(path))? as u64) < whole {
            return Err(torn());
        }
        let (payload, mac) = octets.split_at(length as usize);
        constant_time::verify_slices_are_equal(&self.chain.next(payload), mac)
            .map_err(|_| damaged())?;
        self.offset += 4 + whole;
        Record::decode(payload).map(Some).map_err(|_| damaged())
    }
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> FileError + '_ {
    |source| FileError::Read {
        path: path.to_owned(),
        source,
    }
}

/// Reads until the buffer is full or the file ends; tells how much it was.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
