//! The text of the file: lines that hang together, so that a line which is missing is missed.

use std::collections::HashMap;
use std::fmt;

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs::digest;
#[cfg(not(feature = "aws-lc-rs"))]
use ring::digest;

use crate::Fingerprint;

const TITLE: &str = "# twinseal burned secrets v2 ";
/// What a file without a chain began with.
const UNCHAINED: &[u8] = b"# twinseal burned secrets v1\n";
/// Hex digits of a fingerprint.
const DIGITS: usize = 64;
/// How a line ends whose secret has opened.
const OPENED: &str = " opened";

/// What a secret may have done since its line was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BurnUse {
    /// Sealed: its counters are lost with a restart.
    Sealed,
    /// Opened: its replay windows are.
    Opened,
}

impl BurnUse {
    const ALL: [Self; 2] = [Self::Sealed, Self::Opened];
}

/// How far a file of burned secrets went at some moment. A file that was cut since, or is another
/// one, has it no more.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct BurnMark {
    /// Lines that the file had, each of a secret.
    pub count: u64,
    /// The hash over all of them; zeros where nothing is known.
    pub head: [u8; 32],
}

impl BurnMark {
    /// The mark after one more secret.
    fn next(&self, fingerprint: &Fingerprint, used: BurnUse) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        // So a line of the one kind does not become one of the other.
        hash.update(match used {
            BurnUse::Sealed => b"twinseal burned",
            BurnUse::Opened => b"twinseal opened",
        });
        hash.update(&self.head);
        hash.update(&fingerprint.0);
        let mut head = [0; 32];
        head.copy_from_slice(hash.finish().as_ref());
        Self {
            count: self.count + 1,
            head,
        }
    }

    /// Whether nothing is known.
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for BurnMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, Fingerprint(self.head))
    }
}

impl fmt::Debug for BurnMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BurnMark({self})")
    }
}

/// The first line of a file whose chain begins with this mark.
pub(super) fn header(start: &BurnMark) -> String {
    format!("{TITLE}{start}\n")
}

/// A secret's line; the mark moves behind it.
pub(super) fn line(mark: &mut BurnMark, fingerprint: &Fingerprint, used: BurnUse) -> String {
    *mark = mark.next(fingerprint, used);
    let check = u64::from_be_bytes(*mark.head.first_chunk().expect("32 bytes"));
    let end = match used {
        BurnUse::Sealed => "",
        BurnUse::Opened => OPENED,
    };
    format!("{fingerprint} {check:016x}{end}\n")
}

/// What a file holds.
pub(super) struct Loaded {
    pub(super) burned: HashMap<Fingerprint, BurnUse>,
    /// Where its chain ends.
    pub(super) mark: BurnMark,
    /// Bytes from the start that stay.
    pub(super) sound: usize,
    /// What to write after them.
    pub(super) missing: String,
}

/// Why a text cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is of the version before, which had no chain.
    Unchained,
    /// This line, from 1, is damaged or does not follow from the one before.
    Corrupt(usize),
    /// It does not have the mark that it must have; its own last one is this.
    Lost(BurnMark),
}

/// Reads the file's text, in which this mark must be found.
pub(super) fn load(text: &[u8], at_least: &BurnMark) -> Result<Loaded, Fault> {
    if text.starts_with(UNCHAINED) {
        return Err(Fault::Unchained);
    }
    let mut lines = text.split_inclusive(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let mut mark = start(first).ok_or(Fault::Corrupt(1))?;
    let mut found = at_least.is_nothing() || at_least.count < mark.count || *at_least == mark;
    let mut loaded = Loaded {
        burned: HashMap::new(),
        mark,
        sound: first.len(),
        missing: String::new(),
    };
    for (number, text) in (2..).zip(lines) {
        let digits = text.get(..DIGITS).unwrap_or_default();
        let fingerprint = str::from_utf8(digits).ok().and_then(|it| it.parse().ok());
        let Some(fingerprint) = fingerprint else {
            // A crash has cut it short: what it was to name never sealed.
            let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            if text.len() < DIGITS && text.iter().all(hex) {
                break;
            }
            return Err(Fault::Corrupt(number));
        };
        let fits = BurnUse::ALL.into_iter().find_map(|used| {
            let mut next = mark;
            let whole = line(&mut next, &fingerprint, used);
            let end = whole.as_bytes().strip_prefix(text)?;
            Some((used, next, String::from_utf8_lossy(end).into_owned()))
        });
        // A line that lacks its end was being written when the program or the machine stopped: nobody was told that it
        // was refused, so on the safe side its secret is burned.
        let (used, next, end) = fits.ok_or(Fault::Corrupt(number))?;
        (mark, loaded.missing) = (next, end);
        remember(&mut loaded.burned, fingerprint, used);
        loaded.sound += text.len();
        found |= *at_least == mark;
    }
    loaded.mark = mark;
    match found {
        true => Ok(loaded),
        false => Err(Fault::Lost(mark)),
    }
}

/// Takes down what a secret did; that it sealed says more than that it opened.
pub(super) fn remember(
    burned: &mut HashMap<Fingerprint, BurnUse>,
    fingerprint: Fingerprint,
    used: BurnUse,
) {
    let known = burned.entry(fingerprint).or_insert(used);
    if used == BurnUse::Sealed {
        *known = used;
    }
}

/// Where the chain of a file with this first line begins.
fn start(first: &[u8]) -> Option<BurnMark> {
    let text = str::from_utf8(first).ok()?.strip_suffix('\n')?;
    let (count, head) = text.strip_prefix(TITLE)?.split_once(' ')?;
    let head: Fingerprint = head.parse().ok()?;
    Some(BurnMark {
        count: count.parse().ok()?,
        head: head.0,
    })
}

/// Every secret that a text names, however damaged it is.
pub(super) fn salvage(text: &[u8]) -> impl Iterator<Item = (Fingerprint, BurnUse)> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let fingerprint = str::from_utf8(line.get(..DIGITS)?).ok()?.parse().ok()?;
        let used = match line.ends_with(OPENED.as_bytes()) {
            true => BurnUse::Opened,
            false => BurnUse::Sealed,
        };
        Some((fingerprint, used))
    })
}
