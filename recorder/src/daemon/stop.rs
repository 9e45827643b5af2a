//! How the daemon ends: the dump that is being made is finished if that takes no longer than a bound, else no
//! trace of it is left; what still waited is named in the log; connections are closed.

use std::time::Duration;

use anyhow::Result;
use sd_notify::NotifyState;
use tokio::task::JoinHandle;

use super::job::Done;
use super::seldom::clipped;
use super::server::Serving;
use super::{Daemon, Making};

/// How long the dump that is being made may take to the end.
const PATIENCE: Duration = Duration::from_secs(10);
/// A process that was just killed may be about to finish a write.
const LAST_WRITE: Duration = Duration::from_millis(50);

impl Daemon {
    /// Ends what is under way. Probes and rings go with the daemon itself.
    pub(super) async fn stop(
        mut self,
        making: Option<(Making, JoinHandle<Result<Done>>)>,
        serving: Serving,
    ) {
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        for wanted in self.waiting.drain(..) {
            log::warn!("no dump for {}: the daemon ends", clipped(&wanted.firing.name));
        }
        if let Some((making, worker)) = making {
            self.finish(making, worker).await;
        }
        if let Some(uploads) = self.uploads.take() {
            uploads.stop().await;
        }
        if let Some(history) = self.history.take() {
            history.stop().await;
        }
        serving.close().await;
    }

    async fn finish(&mut self, making: Making, mut worker: JoinHandle<Result<Done>>) {
        if let Ok(done) = tokio::time::timeout(PATIENCE, &mut worker).await {
            return self.conclude(making, done.unwrap_or_else(|error| Err(error.into())));
        }
        log::warn!(
            "no dump for {}: it was not done {} s after the daemon was told to end",
            clipped(&making.wanted.firing.name),
            PATIENCE.as_secs()
        );
        // The worker is killed as soon as nobody waits for it.
        worker.abort();
        let _ = worker.await;
        tokio::time::sleep(LAST_WRITE).await;
        making.draft.discard();
    }
}
