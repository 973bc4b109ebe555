//! A file of JSON objects, one a line: appended to, opened anew when it was moved away, and rotated when it grows.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::Value;

/// How long the last lines may take once the node stops.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// A file, mode 0640.
    File {
        /// Where it is.
        path: PathBuf,
        /// Octets after which it is renamed to `path.1`, that to `path.2`, and so on; 0: never.
        max_bytes: u64,
        /// How many renamed ones are kept.
        keep: u32,
    },
}

/// Asks all files to be opened anew, as after SIGHUP.
#[derive(Clone, Default, Debug)]
pub struct Reopen(Arc<AtomicU64>);

impl Reopen {
    /// Before their next line.
    pub fn ask(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Opens a regular file and nothing else: to open a FIFO, and to write to one that nobody reads, may take for ever.
pub(crate) fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let refused = |kind: FileType| {
        let what = match () {
            () if kind.is_fifo() => "a FIFO",
            () if kind.is_socket() => "a socket",
            () if kind.is_dir() => "a folder",
            () => "a device",
        };
        io::Error::other(format!(
            "it is {what}, and only a regular file will do: remove it, or name another file"
        ))
    };
    // It makes no difference to a regular file.
    let file = match options.custom_flags(libc::O_NONBLOCK).open(path) {
        // A FIFO that nobody reads, or a socket.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            let kind = std::fs::metadata(path).map(|it| it.file_type());
            return Err(kind.map_or(error, refused));
        }
        opened => opened?,
    };
    // Of the file that is open: the name may become another's meanwhile.
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        Ok(file)
    } else {
        Err(refused(kind))
    }
}

/// The writing end.
pub struct Lines {
    output: Output,
    file: Option<File>,
    /// Octets of the file.
    size: u64,
    reopen: Reopen,
    /// The number of askings that were followed.
    opened: u64,
}

impl Lines {
    /// Opens the file, which is made if it is not there.
    pub fn open(output: Output, reopen: Reopen) -> io::Result<Self> {
        let mut lines = Self {
            output,
            file: None,
            size: 0,
            opened: reopen.0.load(Relaxed),
            reopen,
        };
        lines.open_file()?;
        Ok(lines)
    }

    fn open_file(&mut self) -> io::Result<()> {
        if let Output::File { path, .. } = &self.output {
            let file = open_regular(
                OpenOptions::new().create(true).append(true).mode(0o640),
                path,
            )?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        Ok(())
    }

    /// Writes the objects, each on a line of its own.
    pub fn write(&mut self, objects: &[Value]) -> io::Result<()> {
        let asked = self.reopen.0.load(Relaxed);
        if asked != self.opened {
            self.file = None;
            self.opened = asked;
        }
        let mut text = Vec::new();
        for object in objects {
            // Writing into memory cannot fail, and neither can what we make of numbers and text.
            let _ = serde_json::to_writer(&mut text, object);
            text.push(b'\n');
        }
        let Output::File {
            path,
            max_bytes,
            keep,
        } = &self.output
        else {
            let mut out = io::stdout().lock();
            out.write_all(&text)?;
            return out.flush();
        };
        let full = *max_bytes > 0 && self.size > 0 && self.size + text.len() as u64 > *max_bytes;
        if self.file.is_some() && full {
            turn_over(path, *keep)?;
            self.file = None;
        }
        if self.file.is_none() {
            self.open_file()?;
        }
        if let Some(file) = &mut self.file {
            let written = file.write_all(&text);
            if written.is_err() {
                // The next line tries again, with a new file if need be; half a line would spoil that one too.
                let _ = file.set_len(self.size);
                self.file = None;
            }
            written?;
            self.size += text.len() as u64;
        }
        Ok(())
    }
}

/// A thread that writes lines, so that a disk that hangs holds up nobody else.
pub struct Writer(Receiver<()>);

impl Writer {
    /// Writes what `next` gives until it gives nothing; `done` is told what came of it.
    pub fn start(
        name: &str,
        mut lines: Lines,
        mut next: impl FnMut() -> Option<Vec<Value>> + Send + 'static,
        mut done: impl FnMut(io::Result<()>, Vec<Value>) + Send + 'static,
    ) -> io::Result<Self> {
        let (end, ended) = sync_channel(0);
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            while let Some(objects) = next() {
                done(lines.write(&objects), objects);
            }
            drop(end);
        })?;
        Ok(Self(ended))
    }

    /// Waits until all is written, not for ever.
    pub fn finish(self) {
        // The thread sends nothing; its end of the channel goes when it ends.
        let _ = self.0.recv_timeout(LAST_WORDS);
    }
}

/// `path` becomes `path.1`, what was that becomes `path.2`; the last goes.
fn turn_over(path: &Path, keep: u32) -> io::Result<()> {
    let numbered = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    if keep == 0 {
        return std::fs::remove_file(path);
    }
    for n in (1..keep).rev() {
        match std::fs::rename(numbered(n), numbered(n + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, numbered(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn appends_turns_over_and_opens_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("log");
        let numbered = |n: u32| dir.path().join(format!("log.{n}"));
        let output = Output::File {
            path: path.clone(),
            max_bytes: 8,
            keep: 2,
        };
        let reopen = Reopen::default();
        std::fs::write(&path, "0\n").expect("a file");
        let mut lines = Lines::open(output, reopen.clone()).expect("it opens");
        let mut write = |numbers: &[u64]| {
            let objects: Vec<_> = numbers.iter().map(|n| Value::from(*n)).collect();
            lines.write(&objects).expect("it writes");
        };
        write(&[1, 2]);
        assert_eq!(read(&path), "0\n1\n2\n");
        write(&[3, 4]);
        assert_eq!(
            (read(&numbered(1)), read(&path)),
            ("0\n1\n2\n".into(), "3\n4\n".into())
        );
        write(&[5, 6, 7]);
        write(&[8, 9]);
        assert_eq!(read(&numbered(2)), "3\n4\n");
        assert_eq!(
            (read(&numbered(1)), read(&path)),
            ("5\n6\n7\n".into(), "8\n9\n".into())
        );
        assert!(!numbered(3).exists());
        // Somebody moves it away.
        std::fs::rename(&path, dir.path().join("moved")).expect("it moves");
        write(&[1]);
        assert!(!path.exists(), "nobody asked");
        reopen.ask();
        write(&[2]);
        assert_eq!(read(&path), "2\n");
        assert_eq!(read(&dir.path().join("moved")), "8\n9\n1\n");
    }
    #[test]
    fn only_a_regular_file_is_opened_and_no_other_is_waited_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("log");
        let reopen = Reopen::default();
        let open = || {
            let output = Output::File {
                path: path.clone(),
                max_bytes: 0,
                keep: 0,
            };
            Lines::open(output, reopen.clone())
        };
        let fifo = || rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).expect("a FIFO");
        fifo();
        let error = open().err().expect("refused").to_string();
        assert!(error.starts_with("it is a FIFO"), "{error}");
        assert_eq!(crate::audit::last_generation(&path), 0);
        // Nor one that somebody reads.
        let reader = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .expect("a reader");
        let error = open().err().expect("refused").to_string();
        assert!(error.starts_with("it is a FIFO"), "{error}");
        drop(reader);
        std::fs::remove_file(&path).expect("it goes");
        let socket = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let error = open().err().expect("refused").to_string();
        assert!(error.starts_with("it is a socket"), "{error}");
        drop(socket);
        std::fs::remove_file(&path).expect("it goes");
        // One that comes later, and goes again.
        let mut lines = open().expect("it opens");
        std::fs::remove_file(&path).expect("it goes");
        fifo();
        reopen.ask();
        let error = lines.write(&[1.into()]).expect_err("told").to_string();
        assert!(error.starts_with("it is a FIFO"), "{error}");
        std::fs::remove_file(&path).expect("it goes");
        reopen.ask();
        lines.write(&[2.into()]).expect("it writes");
        assert_eq!(read(&path), "2\n");
    }
}
