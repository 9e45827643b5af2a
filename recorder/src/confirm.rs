//! A but-for proof in the making: which fault would be the suspected cause once more, by which pattern the symptom
//! is known again in another run, and what the runs with it and without it prove.
//!
//! Pure: whoever runs them tells what came of it.

pub mod suspect;
pub mod symptom;
#[cfg(test)]
mod tests;
pub mod verdict;

use crate::event::{Event, History};
use crate::fault::spec::Faults;
use crate::pattern::{AddressTest, Glob, Key, Relation, Test, Value};

/// What is run with the cause, and what without it.
#[derive(Clone, Debug, PartialEq)]
pub struct Arms {
    pub with: Faults,
    pub without: Faults,
}

/// Ports from here on are handed out to whoever asks for any: the next run has others.
const EPHEMERAL: u16 = 32768;

fn is(key: Key, value: Value) -> Test {
    Test { key, relation: Relation::Is, values: vec![value] }
}

fn comm(history: &History, event: &Event) -> Option<Test> {
    let name = history.comm(event);
    let plain = !name.is_empty() && !name.contains('*');
    plain.then(|| is(Key::Comm, Value::Text(Glob { pieces: vec![name.to_owned()] })))
}

/// The port by which another run has the same connection: the service's, if it is no passing one.
fn port(history: &History, event: &Event) -> Option<Test> {
    let place = |key, address| {
        let port = history.names.address(address)?.port();
        let lasting = port != 0 && port < EPHEMERAL;
        lasting.then(|| is(key, Value::Address(AddressTest { block: None, port: Some(port) })))
    };
    place(Key::Remote, event.remote).or_else(|| place(Key::Local, event.local))
}
