//! Single packets that are lost: those that were meant, of the victims, and nobody else's.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::thread;

use expect_test::expect;
use recorder::event::{Event, Flags, Op};
use tests::patience;

use super::{Injected, counts, inject};

/// Two servers, and what a client and another say to one each, word by word.
const WORDS: &str = "
def talk(to):
    with socket.create_connection(to) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        heard = ''
        for word in 'abcde':
            s.send(word.encode())
            heard += s.recv(9).decode()
        print(heard)
one, other = serve('127.0.0.5'), serve('127.0.0.6')
client('victim', lambda: talk(one))
client('bystander', lambda: talk(other))
";

/// Where each event of a kind stands in its stream: the address that the bytes go to, and which they are.
fn bytes(run: &Injected, wanted: impl Fn(&Event) -> bool) -> Vec<(String, [u64; 2])> {
    let wanted = run.history.events.iter().filter(|event| wanted(event));
    let to = |event: &Event| {
        let to = if event.flags.has(Flags::INCOMING) { event.local } else { event.remote };
        run.history.names.address(to).map(|a| a.ip().to_string()).unwrap_or_default()
    };
    wanted.map(|event| (to(event), [event.stream_start, event.stream_end])).collect()
}

/// The bytes that were sent again that way. (The other way what the lost packet acknowledged may be.)
fn again(run: &Injected, way: &str) -> Vec<[u64; 2]> {
    let again = bytes(run, |e| e.op == Op::Retransmit && e.has_range());
    again.into_iter().filter(|(to, _)| to == way).map(|(_, bytes)| bytes).collect()
}

/// One packet is lost, and its bytes alone are sent again that way.
///
/// They are sent again by a timer. Kernels that keep programs away from some process (docs/limits.md) tell nothing of what a timer
/// does while that is current: so there are three runs, of which two may say nothing of it.
fn only_lost(packet: &(String, [u64; 2]), run: impl Fn() -> Injected) -> Injected {
    let runs = (0..3).map(|_| {
        let run = run();
        assert_eq!(counts(&run.fault)[1..], [1, 1], "{}", run.fault);
        assert_eq!(bytes(&run, |e| e.flags.has(Flags::LOST)), std::slice::from_ref(packet));
        let again = again(&run, &packet.0);
        assert!(again.iter().all(|bytes| *bytes == packet.1), "{again:?}");
        run
    });
    let mut told = runs.skip_while(|run| again(run, &packet.0).is_empty());
    told.next().expect("the bytes are sent again")
}

#[test]
fn the_third_packet_that_is_sent_is_lost_and_sent_again() {
    let third = ("127.0.0.5".to_owned(), [2, 3]);
    let run = only_lost(&third, || {
        let run = inject("op=send peer=127.0.0.5 => drop=packet, nth=3, name=third", WORDS);
        assert_eq!((run.said.as_str(), run.status), ("abcde\nabcde\n", Some(0)));
        assert!(run.fault["matched"].as_u64() >= Some(6), "five, and one again: {}", run.fault);
        run
    });
    let said = run.why(&["op=retransmit remote=127.0.0.5"]);
    for text in ["retransmit", "fault `third`: packet lost", "it was injected"] {
        assert!(said.contains(text), "{text}: {said}");
    }
}

/// Of what comes in those are counted that bear bytes, too.
#[test]
fn the_second_packet_that_comes_in_is_lost_and_sent_again() {
    only_lost(&("127.0.0.1".to_owned(), [1, 2]), || {
        let run = inject("op=recv peer=127.0.0.5 => drop=packet, nth=2, name=second", WORDS);
        assert_eq!((run.said.as_str(), run.status), ("abcde\nabcde\n", Some(0)));
        run
    });
}

/// A datagram is a message: whichever is asked for, it is gone, and its sender is not told.
#[test]
fn a_datagram_is_gone() {
    let script = "
def listen(at):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((at, 0))
    s.settimeout(0.3)
    return s
def heard(s):
    words = ''
    try:
        while True:
            words += s.recv(9).decode()
    except TimeoutError:
        return words
one, other = listen('127.0.0.5'), listen('127.0.0.6')
def play():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    print([s.sendto(word.encode(), to.getsockname()) for word in 'abcdef' for to in (one, other)])
client('victim', play)
print(heard(one), heard(other))
";
    for (deed, heard, fired) in [
        ("drop=message, nth=3", "abdef abcdef", 1),
        ("drop=packet, every=2, count=2", "acef abcdef", 2),
        ("drop=message, nth=1", "bcdef abcdef", 1),
    ] {
        let run = inject(&format!("op=send protocol=udp peer=127.0.0.5 => {deed}"), script);
        let said = format!("[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n{heard}\n");
        assert_eq!((&run.said, run.status), (&said, Some(0)), "{deed}");
        assert_eq!(counts(&run.fault), [6, fired, fired], "{deed}");
        assert_eq!(bytes(&run, |e| e.flags.has(Flags::LOST)).len() as u64, fired, "{deed}");
    }
}

/// Where nobody takes it in, it is lost on its way out: else its sender would be told that nobody is there.
#[test]
fn what_nobody_takes_is_lost_on_its_way_out() {
    let script = "
def ask():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(('127.0.0.5', 9))
        s.settimeout(0.3)
        try:
            s.send(b'x')
            s.recv(1)
        except TimeoutError:
            return 'nothing'
        except OSError as error:
            return name(error)
print(ask(), ask())
";
    let run = inject("op=send protocol=udp peer=127.0.0.5 => drop=message, nth=1", script);
    assert_eq!(run.said, "nothing ECONNREFUSED\n");
    assert_eq!(counts(&run.fault), [2, 1, 1]);
}

/// Somebody who is not in scope answers; what they send is struck as what comes to a victim, and not as what they send.
#[test]
fn a_victim_is_in_scope() {
    let echo = UdpSocket::bind("127.0.0.5:0").expect("a port");
    echo.set_read_timeout(Some(patience::seconds(60))).expect("it is not zero");
    let at = echo.local_addr().expect("it is bound");
    let script = format!(
        "
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.7', 0))
s.settimeout(0.3)
for word in 'abc':
    s.sendto(word.encode(), ('127.0.0.5', {}))
    try:
        print(s.recv(9).decode())
    except TimeoutError:
        print('nothing')
",
        at.port()
    );
    let answer = thread::spawn(move || {
        let mut word = [0; 9];
        for _ in 0..6 {
            let (size, from) = echo.recv_from(&mut word).expect("they ask");
            echo.send_to(&word[..size], from).expect("they are there");
        }
    });
    let run = inject("op=send peer=127.0.0.7 => drop=packet, nth=2", &script);
    assert_eq!((run.said.as_str(), counts(&run.fault)), ("a\nb\nc\n", [0, 0, 0]));
    let run = inject("op=recv peer=127.0.0.5 => drop=packet, nth=2", &script);
    assert_eq!((run.said.as_str(), counts(&run.fault)), ("a\nnothing\nc\n", [3, 1, 1]));
    answer.join().expect("it answers all");
}

/// It is the sender's loss where the receiver, on the same machine, is not in scope.
#[test]
fn what_a_stranger_does_not_get_is_its_sender_s_loss() {
    let listener = TcpListener::bind("127.0.0.5:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let script = format!(
        "
with socket.create_connection(('127.0.0.5', {port})) as s:
    for word in 'abc':
        s.send(word.encode())
        print(s.recv(9).decode(), end='')
"
    );
    let answer = || {
        let (mut client, _) = listener.accept().expect("they come");
        let mut word = [0; 1];
        while client.read_exact(&mut word).is_ok() {
            client.write_all(&word).expect("they listen");
        }
    };
    let run = only_lost(&("127.0.0.5".to_owned(), [1, 2]), || {
        thread::scope(|scope| {
            scope.spawn(answer);
            let fault = "op=send peer=127.0.0.5 => drop=packet, nth=2, name=lost";
            let run = inject(fault, &script);
            assert_eq!(run.said, "abc");
            run
        })
    });
    let said = run.why(&["op=retransmit"]);
    assert!(said.contains("fault `lost`: packet lost to 127.0.0.5"), "{said}");
    assert!(said.contains("it was injected"), "{said}");
}

/// Two clients of one server, in a control group each.
#[test]
fn a_victim_is_in_its_control_group() {
    let mount = recorder::capture::procfs::cgroup_mount().expect("cgroup2 is mounted");
    let names = ["a", "b"].map(|side| format!("wf-lost-{}-{side}", std::process::id()));
    let folders = names.clone().map(|name| mount.join(name));
    folders.iter().for_each(|folder| std::fs::create_dir(folder).expect("root makes cgroups"));
    let script = format!(
        "
one = serve('127.0.0.5')
def talk(folder):
    open(folder + '/cgroup.procs', 'w').write(str(os.getpid()))
    with socket.create_connection(one) as s:
        for word in 'abc':
            s.send(word.encode())
            print(s.recv(9).decode(), end='')
        print()
for folder in {:?}, {:?}:
    client('asker', lambda: talk(folder))
",
        folders[0].display().to_string(),
        folders[1].display().to_string()
    );
    let fault = format!("cgroup=/{} op=send => drop=packet, nth=4", names[1]);
    let run = inject(&fault, &script);
    let fault = format!("cgroup=/{} op=recv => drop=packet, nth=2", names[1]);
    let other = inject(&fault, &script);
    folders.iter().for_each(|folder| std::fs::remove_dir(folder).expect("nobody is in it"));
    // Three are sent from there: there is no fourth.
    assert_eq!((run.said.as_str(), counts(&run.fault)), ("abc\nabc\n", [3, 0, 0]));
    assert_eq!((other.said.as_str(), &counts(&other.fault)[1..]), ("abc\nabc\n", &[1, 1][..]));
}

/// What is asked for and packets do not tell is refused before anything runs.
#[test]
fn what_packets_do_not_tell_is_refused() {
    let output = super::inject_into(
        std::path::Path::new("/nonexistent/run.parquet"),
        "comm=victim op=send => drop=packet, nth=3",
        &["true"],
    );
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| line.contains("cgroup"));
    expect!["    cgroup    `comm=victim`: a packet does not tell; its victim is named by cgroup, local, peer and protocol"].assert_eq(line.expect(&said));
}
