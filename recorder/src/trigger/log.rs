//! A line in a log file. The kernel tells when the file changes (inotify), so that a quiet log costs nothing; a
//! file that is rotated or cut short is followed to what takes its place.

mod tail;

use std::fs::File;
use std::future::pending;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use self::tail::{Look, Tail};
use super::rule::Line;
use super::{Bell, lines};

/// A log that is written without pause is read so often.
const PAUSE: Duration = Duration::from_millis(50);
/// How long until a file that cannot be read is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Watches a file without end.
pub async fn watch(path: &Path, matches: &Line, mut bell: Bell) {
    let from = path.display().to_string();
    let mut tail = Tail::new(path);
    let mut notices = Notices::default();
    loop {
        // Before the look: what changes after it is told.
        notices.renew(path, tail.identity());
        let looked = tail.look(&mut |line| {
            if let Some(seen) = lines::seen(line, matches, &from) {
                bell.ring(seen);
            }
        });
        let missing = looked.is_err();
        let more = matches!(looked, Ok(Look::More));
        bell.trouble(looked.err().map(|error| format!("read {from}: {error}")));
        if more {
            tokio::task::yield_now().await;
            continue;
        }
        if notices.of == tail.identity() {
            tokio::select! {
                () = notices.changed() => {}
                () = sleep(RETRY), if missing || notices.queue.is_none() => {}
            }
            sleep(PAUSE).await;
        }
    }
}

/// What the kernel tells of a file and of the folder where its successor will appear.
#[derive(Default)]
struct Notices {
    /// Nothing where the kernel has no more to give: the file is then looked at every [`RETRY`].
    queue: Option<AsyncFd<File>>,
    /// The file that is watched, as [`Tail::identity`] tells it.
    of: Option<(u64, u64)>,
}

impl Notices {
    /// Watches what now bears the name, unless it is watched already.
    fn renew(&mut self, path: &Path, file: Option<(u64, u64)>) {
        if self.queue.is_none() || self.of != file {
            self.queue = queue(path).ok();
            self.of = file;
        }
    }

    async fn changed(&self) {
        let Some(queue) = &self.queue else { return pending().await };
        let Ok(mut ready) = queue.readable().await else { return pending().await };
        let (mut file, mut told) = (queue.get_ref(), [0; 4096]);
        // Which change it was does not matter: the file is looked at.
        while file.read(&mut told).is_ok_and(|bytes| bytes > 0) {}
        ready.clear_ready();
    }
}

fn queue(path: &Path) -> io::Result<AsyncFd<File>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let appears = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    let changes = AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_DELETE_SELF;
    // Either may not be there; the other then tells when it comes.
    let _ = path.parent().map(|folder| inotify.add_watch(folder, appears));
    let _ = inotify.add_watch(path, changes);
    let file = File::from(OwnedFd::from(inotify));
    // SAFETY: a file has one descriptor for as long as it lives.
    Ok(unsafe { AsyncFd::register(file) }?)
}
