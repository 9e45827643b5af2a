//! A pattern bound to one history: its names and addresses are sets of numbers, so that testing an event
//! compares no text.

use super::value::{Glob, Lane, TimeOfDay, Value};
use super::{Key, Kind, Pattern, Relation, Test};
use crate::container::Container;
use crate::event::{Address, Event, Flags, History, Name, Proof, SocketAddress};

const DAY_NS: i128 = 86_400_000_000_000;

/// What [`Pattern::bind`] makes. Good for the history it was bound to, and no other.
#[derive(Clone, Debug)]
pub struct Bound {
    tests: Vec<BoundTest>,
    /// Per host: wall clock minus monotonic clock.
    wall_offsets_ns: Vec<i64>,
}

#[derive(Clone, Debug)]
struct BoundTest {
    key: Key,
    /// `!=`: the opposite of the check.
    negated: bool,
    check: Check,
}

#[derive(Clone, Debug)]
enum Check {
    /// The column's number is in the set, or there is none and that is asked for.
    Set {
        set: Set,
        none: bool,
        any: bool,
    },
    Flags {
        any_of: u16,
        none: bool,
    },
    Numbers {
        numbers: Vec<i128>,
        none: bool,
        any: bool,
    },
    /// The host and the number of the network namespace are among these.
    Namespaces {
        numbers: Vec<(u16, u32)>,
        none: bool,
        any: bool,
    },
    Times(Vec<TimeOfDay>),
    /// The number lies here, both ends included.
    Range {
        from: i128,
        to: i128,
    },
}

/// Numbers from 0, a bit each.
#[derive(Clone, Debug, Default)]
struct Set {
    words: Vec<u64>,
}

impl Set {
    fn insert(&mut self, number: u32) {
        let word = number as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (number % 64);
    }

    fn contains(&self, number: u32) -> bool {
        self.words.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

impl Bound {
    pub(super) fn new(pattern: &Pattern, history: &History) -> Self {
        let bind = |test: &Test| BoundTest {
            key: test.key,
            negated: test.relation == Relation::IsNot,
            check: check(test, history),
        };
        Self {
            tests: pattern.tests.iter().map(bind).collect(),
            wall_offsets_ns: history.hosts.iter().map(|host| host.wall_offset_ns).collect(),
        }
    }

    pub fn matches(&self, event: &Event) -> bool {
        self.tests.iter().all(|test| self.holds(test, event) != test.negated)
    }

    fn holds(&self, test: &BoundTest, event: &Event) -> bool {
        match &test.check {
            Check::Set { set, none, any } => {
                code(test.key, event).map_or(*none, |code| *any || set.contains(code))
            }
            Check::Flags { any_of, none } => {
                let named = event.flags.0 & !Flags::RANGE.0;
                named & any_of != 0 || (*none && named == 0)
            }
            Check::Numbers { numbers, none, any } => {
                number(test.key, event).map_or(*none, |n| *any || numbers.contains(&n))
            }
            Check::Namespaces { numbers, none, any } => match event.netns {
                0 => *none,
                netns => *any || numbers.contains(&(event.host, netns)),
            },
            Check::Times(times) => {
                let now = self.time_of_day_ns(event);
                times.iter().any(|t| (i128::from(t.start_ns)..end_ns(t)).contains(&now))
            }
            Check::Range { from, to } => {
                let number = match test.key {
                    Key::Time => Some(self.time_of_day_ns(event)),
                    key => number(key, event),
                };
                number.is_some_and(|n| (*from..=*to).contains(&n))
            }
        }
    }

    fn time_of_day_ns(&self, event: &Event) -> i128 {
        let offset_ns = self.wall_offsets_ns.get(usize::from(event.host)).copied().unwrap_or(0);
        (i128::from(event.time_ns) + i128::from(offset_ns)).rem_euclid(DAY_NS)
    }
}

/// The first nanosecond after a time as it was written.
fn end_ns(time: &TimeOfDay) -> i128 {
    i128::from(time.start_ns) + i128::from(time.length_ns)
}

fn check(test: &Test, history: &History) -> Check {
    if test.relation.orders() {
        return range(test);
    }
    let none = test.values.contains(&Value::None);
    let any = test.values.contains(&Value::Any);
    match test.key.kind() {
        Kind::TimeOfDay => Check::Times(
            test.values
                .iter()
                .filter_map(|value| match value {
                    Value::TimeOfDay(time) => Some(*time),
                    _ => None,
                })
                .collect(),
        ),
        Kind::Number | Kind::Nanoseconds | Kind::Duration => Check::Numbers {
            numbers: test
                .values
                .iter()
                .filter_map(|value| match value {
                    Value::Number(number) => Some(*number),
                    _ => None,
                })
                .collect(),
            none,
            any,
        },
        Kind::Word if test.key == Key::Flag => Check::Flags {
            any_of: test.values.iter().fold(0, |bits, value| bits | flag_bits(value)),
            none,
        },
        Kind::Text if test.key == Key::Netns => {
            let globs = test.values.iter().filter_map(glob);
            let numbers = globs.flat_map(|glob| namespaces(glob, history)).collect();
            Check::Namespaces { numbers, none, any }
        }
        Kind::Text if matches!(test.key, Key::Container | Key::Pod) => {
            Check::Set { set: residents(test, history), none, any: false }
        }
        Kind::Text | Kind::Address | Kind::Word => {
            let mut set = Set::default();
            for value in &test.values {
                insert(&mut set, test.key, value, history);
            }
            // A name that is missing is the empty text.
            let empty = test.key.kind() == Kind::Text
                && test.values.iter().any(|v| matches!(v, Value::Text(g) if g.matches("")));
            Check::Set { set, none: none || empty, any }
        }
    }
}

fn glob(value: &Value) -> Option<&Glob> {
    match value {
        Value::Text(glob) => Some(glob),
        _ => None,
    }
}

/// The namespaces that are meant by name, as the kernel writes them (`net:[4026531840]`), by inode, or by number.
fn namespaces(glob: &Glob, history: &History) -> Vec<(u16, u32)> {
    let mut found = Vec::new();
    let number = glob.literal().and_then(|text| text.parse::<u32>().ok());
    for (host, place) in history.hosts.iter().zip(0..) {
        let known = host.namespaces.iter().filter(|namespace| {
            glob.matches(&namespace.name)
                || glob.matches(&namespace.kernel_name())
                || Some(namespace.inode) == number
        });
        found.extend(known.map(|n| n.number).chain(number).map(|number| (place, number)));
    }
    found
}

/// The control groups of the containers or pods that are meant; with `none`, all that are of none.
fn residents(test: &Test, history: &History) -> Set {
    let mut set = Set::default();
    for number in 0..history.names.texts().len() as u32 {
        let hosts = 0..history.hosts.len().max(1) as u16;
        if hosts.map(|host| history.container_of(host, Name(number))).any(|c| is_meant(test, c)) {
            set.insert(number);
        }
    }
    set
}

/// Whether a container, or that there is none, is what a test asks for.
fn is_meant(test: &Test, container: Option<Container>) -> bool {
    let container = container.unwrap_or_default();
    let words = match test.key {
        Key::Pod => {
            let name = container.pod_name.split_once('/').map_or("", |(_, pod)| pod);
            [container.pod.as_str(), &container.pod_name, name]
        }
        _ => [container.id.as_str(), &container.name, container.short_id()],
    };
    test.values.iter().any(|value| match value {
        Value::None => words[0].is_empty(),
        Value::Any => !words[0].is_empty(),
        Value::Text(glob) => words.iter().any(|word| !word.is_empty() && glob.matches(word)),
        _ => false,
    })
}

fn flag_bits(value: &Value) -> u16 {
    match value {
        Value::Flag(flag) => flag.bits().0,
        Value::Any => !0,
        _ => 0,
    }
}

/// `<=` and `>` take in or leave out the whole of what a time of day names.
fn range(test: &Test) -> Check {
    let (start, end) = match test.values.first() {
        Some(Value::Number(number)) => (*number, number + 1),
        Some(Value::TimeOfDay(time)) => (i128::from(time.start_ns), end_ns(time)),
        _ => (1, 0),
    };
    let (from, to) = match test.relation {
        Relation::Greater => (end, i128::MAX),
        Relation::GreaterOrEqual => (start, i128::MAX),
        Relation::Less => (i128::MIN, start - 1),
        _ => (i128::MIN, end - 1),
    };
    Check::Range { from, to }
}

/// Puts the codes (see [`code`]) of all that has this value into the set.
fn insert(set: &mut Set, key: Key, value: &Value, history: &History) {
    match value {
        Value::Text(glob) if key == Key::Host => {
            let hosts = history.hosts.iter().zip(0..);
            hosts.filter(|(host, _)| glob.matches(&host.name)).for_each(|(_, i)| set.insert(i));
        }
        Value::Text(glob) if key.kind() == Kind::Address => {
            let addresses = history.names.addresses().iter().zip(0..);
            let named = |address: &SocketAddress| matches!(address, SocketAddress::Unix(_));
            addresses
                .filter(|(a, _)| named(a) && glob.matches(&a.to_string()))
                .for_each(|(_, i)| set.insert(i));
        }
        Value::Text(glob) => {
            let texts = history.names.texts().iter().zip(0..);
            texts.filter(|(text, _)| glob.matches(text)).for_each(|(_, i)| set.insert(i));
        }
        Value::Address(test) => {
            let addresses = history.names.addresses().iter().zip(0..);
            let matches = |a: &SocketAddress| a.ip().is_some_and(|a| test.matches(a));
            addresses.filter(|(a, _)| matches(a)).for_each(|(_, i)| set.insert(i));
        }
        Value::Op(op) => set.insert(*op as u32),
        Value::Protocol(protocol) => set.insert(*protocol as u32),
        Value::Error(error) => set.insert(u32::from(*error)),
        Value::Signal(signal) => set.insert(u32::from(*signal)),
        Value::Ring(ring) => set.insert(*ring as u32),
        Value::Lane(lane) => set.insert(*lane as u32),
        _ => {}
    }
}

/// The small number that stands for a text, address or word; nothing if the event has none.
fn code(key: Key, event: &Event) -> Option<u32> {
    let present = |number: u32| (number != 0).then_some(number);
    match key {
        Key::Host => Some(u32::from(event.host)),
        Key::Comm => (event.comm != Name::NONE).then_some(event.comm.0),
        Key::Cgroup | Key::Container | Key::Pod => {
            (event.cgroup != Name::NONE).then_some(event.cgroup.0)
        }
        Key::Fault => (event.fault != Name::NONE).then_some(event.fault.0),
        Key::Syscall => (event.syscall != Name::NONE).then_some(event.syscall.0),
        Key::Local => (event.local != Address::NONE).then_some(event.local.0),
        Key::Remote => (event.remote != Address::NONE).then_some(event.remote.0),
        Key::Op => Some(event.op as u32),
        Key::Protocol => event.protocol.map(|protocol| protocol as u32),
        Key::Error => present(u32::from(event.error)),
        Key::Signal => present(u32::from(event.signal)),
        Key::Ring => Some(event.ring as u32),
        Key::Lane if event.in_kernel_lane() => Some(Lane::Kernel as u32),
        Key::Lane => Some(Lane::Thread as u32),
        _ => None,
    }
}

/// The number in a column; nothing if the event has none.
fn number(key: Key, event: &Event) -> Option<i128> {
    let present = |number: u64| (number != 0).then_some(i128::from(number));
    let known = event.proof != Proof::Unknown;
    match key {
        Key::Pid => present(event.pid.into()),
        Key::Tid => present(event.tid.into()),
        Key::Socket => present(event.socket),
        Key::Target => present(event.target.into()),
        Key::Iss => known.then_some(event.iss.into()),
        Key::Irs => known.then_some(event.irs.into()),
        Key::StreamStart => event.has_range().then_some(event.stream_start.into()),
        Key::StreamEnd => event.has_range().then_some(event.stream_end.into()),
        Key::Result => event.outcome().map(i128::from),
        Key::Fd => event.fd.number().map(i128::from),
        Key::Cpu => Some(event.cpu.into()),
        Key::Position => Some(event.position.into()),
        Key::BeginNs => Some(event.begin_ns.into()),
        Key::TimeNs => Some(event.time_ns.into()),
        Key::Duration => Some(event.time_ns.saturating_sub(event.begin_ns).into()),
        _ => None,
    }
}
