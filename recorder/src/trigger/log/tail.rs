//! Reads what is new in a file: from its end at first, from the beginning of each that takes its place.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::trigger::lines::Lines;

/// How far a file has been read.
pub struct Tail {
    path: PathBuf,
    open: Option<Open>,
    /// The first look only finds the end.
    begun: bool,
    lines: Lines,
    buffer: Vec<u8>,
}

struct Open {
    file: File,
    identity: (u64, u64),
    offset: u64,
}

/// Whether there is more to read at once.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    Done,
    More,
}

const PIECE: usize = 64 << 10;
/// Pieces that are read in one look, so that others get their turn.
const MOST_PIECES: usize = 16;

impl Tail {
    pub fn new(path: &Path) -> Self {
        let lines = Lines::default();
        Self { path: path.to_owned(), open: None, begun: false, lines, buffer: vec![0; PIECE] }
    }

    /// Which file is open.
    pub fn identity(&self) -> Option<(u64, u64)> {
        self.open.as_ref().map(|open| open.identity)
    }

    /// Hands out lines that have come since the last look.
    ///
    /// # Errors
    /// When the file is not there or cannot be read. What was open is read all the same.
    pub fn look(&mut self, line: &mut dyn FnMut(&[u8])) -> io::Result<Look> {
        let first = !std::mem::replace(&mut self.begun, true);
        let now = std::fs::metadata(&self.path);
        if let Some(open) = &mut self.open {
            let same = now.as_ref().is_ok_and(|now| identity(now) == open.identity);
            if same && now.as_ref().is_ok_and(|now| now.len() < open.offset) {
                // Cut short: what is there now was written after.
                open.offset = 0;
                self.lines.forget();
            }
            if self.read(line)? == Look::More {
                return Ok(Look::More);
            }
            if same {
                return Ok(Look::Done);
            }
        }
        // The old one is read to its end, and stays open until there is another.
        now?;
        let mut open = open(&self.path)?;
        if first {
            open.offset = open.file.metadata()?.len();
        }
        self.lines.forget();
        self.open = Some(open);
        self.read(line)
    }

    fn read(&mut self, line: &mut dyn FnMut(&[u8])) -> io::Result<Look> {
        let Some(open) = &mut self.open else { return Ok(Look::Done) };
        for _ in 0..MOST_PIECES {
            let bytes = match open.file.read_at(&mut self.buffer, open.offset) {
                Ok(0) => return Ok(Look::Done),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            open.offset += bytes as u64;
            self.lines.push(&self.buffer[..bytes], line);
        }
        Ok(Look::More)
    }
}

/// Opens a file that can be read to its end: a pipe would be emptied, and others' reading with it.
fn open(path: &Path) -> io::Result<Open> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(Open { file, identity: identity(&metadata), offset: 0 })
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    struct Log {
        folder: tempfile::TempDir,
        tail: Tail,
    }

    impl Log {
        fn new(before: &str) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("log");
            if !before.is_empty() {
                fs::write(&path, before).expect("it is written");
            }
            let mut log = Self { folder, tail: Tail::new(&path) };
            let _ = log.new_lines();
            log
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("log")
        }

        fn append(&self, text: &str) {
            let mut options = OpenOptions::new();
            let mut file = options.append(true).create(true).open(self.path()).expect("a file");
            file.write_all(text.as_bytes()).expect("it is written");
        }

        fn new_lines(&mut self) -> Vec<String> {
            let mut lines = Vec::new();
            let mut take = |line: &[u8]| lines.push(String::from_utf8_lossy(line).into_owned());
            while self.tail.look(&mut take).is_ok_and(|look| look == Look::More) {}
            lines
        }
    }

    #[test]
    fn only_what_is_new_counts() {
        let mut log = Log::new("old\n");
        log.append("new\nhal");
        assert_eq!(log.new_lines(), ["new"]);
        log.append("f\n");
        assert_eq!(log.new_lines(), ["half"]);
        assert!(log.new_lines().is_empty());
    }

    #[test]
    fn a_file_that_comes_later_is_read_from_its_beginning() {
        let mut log = Log::new("");
        log.append("first\n");
        assert_eq!(log.new_lines(), ["first"]);
    }

    #[test]
    fn a_rotated_file_is_read_to_its_end_and_then_the_next() {
        let mut log = Log::new("old\n");
        log.append("before\n");
        fs::rename(log.path(), log.folder.path().join("log.1")).expect("it is renamed");
        assert_eq!(log.new_lines(), ["before"]);
        log.append("after\n");
        assert_eq!(log.new_lines(), ["after"]);
    }

    #[test]
    fn a_file_cut_short_is_read_from_its_beginning() {
        let mut log = Log::new("a long line that was there before\n");
        log.append("more\nhalf of");
        assert_eq!(log.new_lines(), ["more"]);
        fs::write(log.path(), "anew\n").expect("it is written");
        assert_eq!(log.new_lines(), ["anew"]);
    }

    #[test]
    fn what_is_no_file_is_refused_and_does_not_block() {
        let mut log = Log::new("");
        nix::unistd::mkfifo(&log.path(), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let error = log.tail.look(&mut |_| {}).expect_err("no file");
        assert!(error.to_string().contains("no regular file"), "{error}");
    }

    #[test]
    fn more_than_fits_into_one_look_is_read_in_several() {
        let mut log = Log::new("old\n");
        log.append(&"x\n".repeat(PIECE * MOST_PIECES));
        assert_eq!(log.new_lines().len(), PIECE * MOST_PIECES);
    }
}
