//! Messages that a call does not send although it says so.

use expect_test::expect;
use recorder::event::{Flags, Op};

use super::{assert_refused_as_missing, missing};
use crate::fault::{changed, counts, inject};
use crate::recorded::of;

/// Of 24 calls each third is swallowed, so that each kind is: over TCP and between Unix sockets; what is no socket is not met.
const CALLS: &str = "
pipe = os.pipe()
def pairs():
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    listener.listen(1)
    near = socket.create_connection(listener.getsockname())
    yield near, listener.accept()[0]
    yield socket.socketpair()
    yield socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
def play():
    for near, far in pairs():
        fd, said, heard = near.fileno(), [], b''
        for word in (b'a', b'b'):
            said.append(near.send(word + b'send'))
            os.write(pipe[1], b'no socket')
            said.append(os.write(fd, word + b'write'))
        for word in (b'c', b'd'):
            said.append(near.sendmsg([word, b'', b'send' * 5, b'msg']))
            said.append(os.writev(fd, [word] * 700 + [b'.']))
        near.close()
        far.setblocking(far.type == socket.SOCK_STREAM)
        try:
            while word := far.recv(4096):
                heard += word
        except BlockingIOError:
            pass
        print(*said, heard.replace(b'c' * 700, b'c...').replace(b'd' * 700, b'd...').decode())
";

#[test]
fn what_is_swallowed_returns_as_if_it_had_been_sent() {
    need_override!("what_is_swallowed_returns_as_if_it_had_been_sent");
    let script = format!("{CALLS}\nclient('bystander', play)\nclient('victim', play)\n");
    let run = inject("comm=victim op=send => drop=message, every=3, count=8, name=gone", &script);
    expect![[r#"
        5 6 5 6 24 701 24 701 asendawritebsendbwritecsendsendsendsendsendmsgc....dsendsendsendsendsendmsgd....
        5 6 5 6 24 701 24 701 asendawritebsendbwritecsendsendsendsendsendmsgc....dsendsendsendsendsendmsgd....
        5 6 5 6 24 701 24 701 asendawritebsendbwritecsendsendsendsendsendmsgc....dsendsendsendsendsendmsgd....
        5 6 5 6 24 701 24 701 asendawritebwritecsendsendsendsendsendmsgdsendsendsendsendsendmsgd....
        5 6 5 6 24 701 24 701 awritebsendcsendsendsendsendsendmsgc....d....
        5 6 5 6 24 701 24 701 asendbsendbwritec....dsendsendsendsendsendmsg
    "#]]
    .assert_eq(&run.said);
    assert_eq!((counts(&run.fault), run.status), ([24, 8, 8], Some(0)));
    for call in changed(&run.history) {
        assert_eq!((call.op, run.history.comm(&call)), (Op::Send, "victim"));
        assert!(matches!(call.result, 5 | 6 | 24 | 701) && call.error == 0, "{call:?}");
    }
    let faults = of(&run.history, "victim", Op::Fault);
    assert!(faults.iter().all(|fault| fault.flags.has(Flags::LOST)) && faults.len() == 8);
}

/// An answer that does not come since its request was never sent.
#[test]
fn why_an_answer_is_missing() {
    need_override!("why_an_answer_is_missing");
    let script = "
address = serve()
def ask():
    s = socket.create_connection(address)
    s.settimeout(0.5)
    for word in (b'one', b'two'):
        s.send(word)
        try:
            print(s.recv(9).decode())
        except TimeoutError:
            print('nothing')
client('asker', ask)
";
    let run = inject("comm=asker op=send => drop=message, nth=2, name=gone", script);
    assert_eq!(run.said, "one\nnothing\n");
    let said = run.why(&["--missing", "comm=asker op=recv"]);
    let lost = said.lines().find(|line| line.starts_with("lost")).expect(&said);
    assert!(lost.contains("fault `gone`: message of 3 B lost to 127.0.0.1:"), "{said}");
}

/// What a call is to send has to be known for it to be swallowed.
#[test]
fn what_cannot_be_read_is_not_swallowed() {
    need_override!("what_cannot_be_read_is_not_swallowed");
    let script = "
near, far = socket.socketpair()
def play():
    print(ctypes.CDLL(None, use_errno=True).writev(near.fileno(), ctypes.c_void_p(1), 1), errno.errorcode[ctypes.get_errno()])
    print(near.send(b'x'))
client('victim', play)
print(far.recv(1))
";
    let run = inject("comm=victim op=send => drop=message, nth=1", script);
    assert_eq!(run.said, "-1 EFAULT\n1\nb'x'\n");
    assert_eq!((counts(&run.fault), run.status), ([2, 0, 0], Some(1)));
    let remark = run.fault["remark"].as_str().unwrap_or_default();
    assert!(remark.contains("what the call was to send could not be read"), "{}", run.fault);
}
