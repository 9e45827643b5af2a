//! How the follower is asked: one word over a socket in the history's folder, one line of JSON back.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the follower stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    /// Since when everything is on disk, and up to when it has been read, monotonic ns.
    pub since_ns: u64,
    pub until_ns: u64,
    /// Events it has followed (to whom the daemon tells it: it and those before it), how many of these it could not write, and how many it did not see.
    pub events: u64,
    pub missed: u64,
    pub lost: u64,
    /// Events that the probes could not write, up to now.
    pub unwritten: u64,
    /// Why nothing is written at the moment.
    pub paused: Option<String>,
    pub cpu_ns: u64,
    pub resident_bytes: u64,
}

impl State {
    /// The same, with what followers before this one counted.
    pub(super) fn after(&self, before: &Self) -> Self {
        Self {
            events: self.events + before.events,
            missed: self.missed + before.missed,
            lost: self.lost + before.lost,
            cpu_ns: self.cpu_ns + before.cpu_ns,
            ..self.clone()
        }
    }
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// How it stands.
    Status,
    /// To write down everything up to now first.
    Flush,
}

/// Nobody is waited for longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Writing down what is buffered takes tenths of a second.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);

fn path(directory: &Path) -> PathBuf {
    directory.join("control")
}

/// Asks the follower of a folder.
///
/// # Errors
/// When there is none, or it does not answer in time.
pub fn ask(directory: &Path, word: Word) -> Result<State> {
    let ask = || -> Result<State> {
        let mut stream = UnixStream::connect(path(directory))?;
        let (word, patience) = match word {
            Word::Status => ("status\n", PATIENCE),
            Word::Flush => ("flush\n", FLUSH_PATIENCE),
        };
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(word.as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    };
    ask().with_context(|| format!("ask the follower in {}", directory.display()))
}

/// Where the follower listens.
pub struct Listener(UnixListener);

impl Listener {
    pub fn open(directory: &Path) -> Result<Self> {
        let path = path(directory);
        // Its last owner may have been killed; the folder is ours alone.
        let _ = std::fs::remove_file(&path);
        let listener =
            UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    pub const fn socket(&self) -> &UnixListener {
        &self.0
    }

    /// Answers everybody who waits. Whoever breaks off is no concern of ours.
    pub fn answer(&self, mut answer: impl FnMut(Word) -> State) {
        while let Ok((stream, _)) = self.0.accept() {
            let _ = serve(stream, &mut answer);
        }
    }
}

fn serve(mut stream: UnixStream, answer: &mut impl FnMut(Word) -> State) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new((&stream).take(16)).read_line(&mut line)?;
    let word = if line == "flush\n" { Word::Flush } else { Word::Status };
    let mut said = serde_json::to_vec(&answer(word))?;
    said.push(b'\n');
    Ok(stream.write_all(&said)?)
}
