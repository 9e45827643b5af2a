//! Connections that fall silent at an event: both ways, until the network heals, and no others.

use recorder::event::{Event, Flags};

use super::partition::TURNS;
use super::{Injected, counts, inject};

const HEALS: &str = "until=\"op=listen local=127.0.0.99\"";

fn play(fault: &str, script: &str) -> Injected {
    inject(fault, &format!("{TURNS}{script}"))
}

/// Packets that were lost, as the recording tells them.
fn losses(run: &Injected) -> Vec<&Event> {
    let lost = |event: &&Event| event.flags.has(Flags::LOST) && event.in_kernel_lane();
    run.history.events.iter().filter(lost).collect()
}

#[test]
fn from_the_event_on_a_connection_is_silent_until_it_heals() {
    let script = "
one = serve('127.0.0.5')
def play():
    a, b = dial('127.0.0.1', one), dial('127.0.0.1', one)
    a.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 0)
    print(ask(a), ask(b), ask(a))
    a.send(b'lost')
    print(heard(a), ask(b))
    if os.environ.get('HEALS'):
        heal()
        a.settimeout(30)
        print(a.recv(9).decode(), ask(a))
client('bystander', play)
os.environ['HEALS'] = '1'
client('victim', play)
";
    let fault = format!("comm=victim op=recv => drop=blackhole, nth=3, {HEALS}, name=silence");
    let run = play(&fault, script);
    assert_eq!(run.said, "x x x\nlost x\nx x x\nnothing x\nlost x\n");
    assert_eq!((counts(&run.fault)[1..].to_vec(), run.status), (vec![1, 1], Some(0)));
    assert_eq!(
        (run.fault["healed"].as_bool(), &run.fault["contradicted"]),
        (Some(true), &0.into())
    );
    let holes: Vec<&Event> = run.history.events.iter().filter(|e| e.is_hole()).collect();
    let [hole] = holes[..] else { panic!("it fires once") };
    for lost in losses(&run) {
        let mut ends = [lost.local, lost.remote];
        if lost.flags.has(Flags::INCOMING) {
            ends.reverse();
        }
        assert!(ends == [hole.local, hole.remote] || ends == [hole.remote, hole.local], "{lost:?}");
    }
    assert!(losses(&run).iter().any(|lost| (lost.stream_start, lost.stream_end) == (2, 6)));
}

#[test]
fn why_leads_from_what_gave_up_to_the_event() {
    let script = "
one = serve('127.0.0.5')
across = dial('127.0.0.1', one)
print(ask(across), ask(across))
";
    let run = play("op=recv peer=127.0.0.5 => drop=blackhole, nth=1, name=silence", script);
    assert_eq!(run.said, "x ETIMEDOUT\n");
    assert_eq!(run.fault["healed"].as_bool(), Some(false));
    let said = run.why(&["op=recv error=ETIMEDOUT"]);
    let told: Vec<&str> = said.lines().take(5).collect();
    for (line, text) in told.iter().zip([
        "recv ETIMEDOUT",
        "error ETIMEDOUT",
        "fault `silence`: packet lost",
        "fault `silence`: all packets are lost towards 127.0.0.5",
        "it was injected",
    ]) {
        assert!(line.contains(text), "{text}: {said}");
    }
    let said = run.why(&["--missing", "op=recv local=127.0.0.1"]);
    assert!(
        said.lines().any(|line| line.starts_with("lost") && line.contains("silence")),
        "{said}"
    );
}

/// A connection that is not made, and an end that is not noticed.
#[test]
fn the_first_packet_and_the_last_are_lost_as_well() {
    let script = "
one = serve('127.0.0.5')
print(tried(dial, '127.0.0.1', one), tried(dial, '127.0.0.1', one))
";
    let run = play("op=connect peer=127.0.0.5 => drop=blackhole, nth=1, name=silence", script);
    assert_eq!((run.said.as_str(), counts(&run.fault)), ("ETIMEDOUT ok\n", [2, 1, 1]));
    let script = "
listener = socket.socket()
listener.bind(('127.0.0.5', 0))
listener.listen()
for _ in range(2):
    near = dial('127.0.0.1', listener.getsockname())
    far = listener.accept()[0]
    near.send(b'bye')
    near.close()
    print(far.recv(9).decode(), heard(far))
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\\1\\0\\0\\0\\0\\0\\0\\0')
    far.close()
";
    let run = play("op=close peer=127.0.0.5 => drop=blackhole, nth=1, name=silence", script);
    assert_eq!((run.said.as_str(), counts(&run.fault)), ("bye nothing\nbye end\n", [2, 1, 1]));
}

/// Of a socket of datagrams all are lost, to whomever and from whomever.
#[test]
fn a_socket_of_datagrams_falls_silent() {
    let script = "
a, b, c = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
for s, at in ((a, '127.0.0.1'), (b, '127.0.0.2'), (c, '127.0.0.3')):
    s.bind((at, 0))
for word in (b'one', b'two'):
    a.sendto(word, b.getsockname())
    a.sendto(word, c.getsockname())
    b.sendto(word, a.getsockname())
    b.sendto(word, c.getsockname())
    print(heard(b), heard(c), heard(c), heard(a))
";
    let run = play("op=send protocol=udp local=127.0.0.1 => drop=blackhole, nth=2", script);
    assert_eq!(run.said, "one one one nothing\nnothing two nothing nothing\n");
    assert_eq!(counts(&run.fault), [4, 1, 1]);
}
