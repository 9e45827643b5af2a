//! Processes that were started anew, by whose place they took. They are our children until we end, and live on after that.

use std::collections::HashMap;
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by the thread that makes them and the recording.
#[derive(Clone, Default)]
pub struct Successors(Arc<Mutex<HashMap<u32, Successor>>>);

enum Successor {
    /// It is being made.
    Pending,
    Made(Child),
}

/// A process is being replaced; what has not come about when this is dropped is forgotten.
pub struct Pending<'a>(&'a Successors, u32);

impl Successors {
    /// Before a process is killed.
    pub fn begin(&self, process: u32) -> Pending<'_> {
        self.all().insert(process, Successor::Pending);
        Pending(self, process)
    }

    pub fn add(&self, process: u32, child: Child) {
        self.all().insert(process, Successor::Made(child));
    }

    /// Whether the one who took a process's place, or that one's successor, is still there.
    pub fn live(&self, mut process: u32) -> bool {
        let mut all = self.all();
        loop {
            match all.get_mut(&process) {
                None => return false,
                Some(Successor::Pending) => return true,
                Some(Successor::Made(child)) => match child.try_wait() {
                    Ok(Some(_)) => process = child.id(),
                    _ => return true,
                },
            }
        }
    }

    /// Takes note of those that have ended, so that they are gone; whether any are left.
    pub fn reap(&self) -> bool {
        self.all().values_mut().fold(false, |left, successor| match successor {
            Successor::Pending => true,
            Successor::Made(child) => left | matches!(child.try_wait(), Ok(None)),
        })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u32, Successor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let mut all = self.0.all();
        if matches!(all.get(&self.1), Some(Successor::Pending)) {
            all.remove(&self.1);
        }
    }
}
