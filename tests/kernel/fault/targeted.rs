//! Real programs whose calls are overridden: each is told what its fault says, before and after it is not, and of many calls
//! that are alike only the one that was meant fails.
//!
//! Where the kernel cannot override, each test shows that.

use std::fmt::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use recorder::event::{Event, Op};

use super::overridden::{assert_refused_as_missing, inject, missing, need_override};
use crate::load::{folder, free_port};
use crate::recorded::{of, python_path};

/// Errors that programs report and do not try again at.
const ERRNOS: [(&str, &str); 10] = [
    ("ECONNRESET", "Connection reset by peer"),
    ("ENOLINK", "Link has been severed"),
    ("EPIPE", "Broken pipe"),
    ("EIO", "Input/output error"),
    ("ENOMEM", "Cannot allocate memory"),
    ("ENOTCONN", "Transport endpoint is not connected"),
    ("ENETUNREACH", "Network is unreachable"),
    ("EHOSTUNREACH", "No route to host"),
    ("EBADMSG", "Bad message"),
    ("ENOBUFS", "No buffer space available"),
];

const SERVER: &str = "
import socket, sys
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
print('ready', flush=True)
while True:
    client = listener.accept()[0]
    client.recv(1000)
    client.send(b'HTTP/1.0 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok')
    client.close()
";

const CLIENT: &str = "
import ctypes, os, socket, sys
client = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
client.send(b'GET')
ctypes.CDLL(None).prctl(15, sys.argv[2].encode(), 0, 0, 0)
try:
    said = 'ok' if client.recv(1000) else 'nothing'
except OSError as error:
    said = os.strerror(error.errno)
ctypes.CDLL(None).prctl(15, b'done', 0, 0, 0)
print(said)
";

/// Before, during and after: curl, redis-cli and Python receive; then each of them with each errno; and a namesake of none of
/// the victims in between.
#[test]
fn real_programs_are_told_what_the_fault_says() {
    need_override!("real_programs_are_told_what_the_fault_says");
    let folder = folder();
    let at = folder.path();
    std::fs::write(at.join("server.py"), SERVER).expect("it is ours");
    std::fs::write(at.join("client.py"), CLIENT).expect("it is ours");
    let (web, redis, python) = (free_port(), free_port(), python_path());
    let mut script = format!(
        "cd {}
        {python} server.py {web} >ready & web=$!
        redis-server --port {redis} --save '' --daemonize no >/dev/null & redis=$!
        until grep -q ready ready && redis-cli -p {redis} ping >/dev/null 2>&1; do sleep 0.1; done
        curl() {{ said=$(./$1 -sS --max-time 60 http://127.0.0.1:{web}/ 2>&1); echo \"${{said#curl: (*) }}\"; }}
        redis() {{ ./$1 -p {redis} get x 2>&1 | sed 's/^$/ok/'; }}
        python() {{ {python} client.py {web} $1; }}\n",
        at.display()
    );
    let (mut faults, mut wanted) = (Vec::new(), String::new());
    let mut step = |script: &mut String, suffix: &str, said: [&str; 3]| {
        for (program, said) in ["curl", "redis", "python"].into_iter().zip(said) {
            let name = format!("{program}{suffix}");
            writeln!(script, "{program} {name}").expect("strings grow");
            writeln!(wanted, "{said}").expect("strings grow");
            if program != "python" {
                link(at, if program == "redis" { "redis-cli" } else { program }, &name);
            }
        }
    };
    step(&mut script, "-x", ["ok", "ok", "ok"]);
    for (number, (errno, text)) in ERRNOS.into_iter().enumerate() {
        let failed = format!("Recv failure: {text}");
        let error = format!("Error: {text}");
        let suffix = format!("-{number}");
        step(&mut script, &suffix, [&failed, &error, text]);
        for (program, port) in [("curl", web), ("redis", redis), ("python", web)] {
            faults.push(format!(
                "comm={program}{suffix} op=recv peer=127.0.0.1:{port} => error={errno}, nth=1, name={program}{suffix}"
            ));
        }
    }
    step(&mut script, "-y", ["ok", "ok", "ok"]);
    script += "kill $web $redis; wait";
    let run = inject(&faults, &["/bin/sh", "-c", &script]);
    assert_eq!(run.said, wanted);
    for (fault, counts) in faults.iter().zip(&run.counts) {
        assert_eq!(counts[1..], [1, 1], "{fault}: {counts:?}");
    }
    assert_eq!(run.status, Some(0));
}

/// Runs a program under another name.
fn link(folder: &Path, program: &str, name: &str) {
    let found = std::env::split_paths(&std::env::var_os("PATH").expect("PATH"))
        .map(|folder| folder.join(program))
        .find(|path| path.exists());
    symlink(found.expect(program), folder.join(name)).expect("it is new");
}

/// So many clients at a time, each with a fault of its own.
const CLIENTS: usize = 25;

/// The third read from redis' port by redis-cli, once it has connected to one of the server's two addresses: there and only
/// there, 100 times of 100.
#[test]
fn the_one_call_that_was_meant_fails_in_100_of_100_runs() {
    need_override!("the_one_call_that_was_meant_fails_in_100_of_100_runs");
    let folder = folder();
    let at = folder.path();
    let port = free_port();
    let name = |number: usize| format!("redis-cli-{number:02}");
    (0..CLIENTS).for_each(|number| link(at, "redis-cli", &name(number)));
    let faults: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let name = name(number);
            format!(
                "comm={name} op=recv peer=:{port} => error=ECONNRESET, nth=3, \
                 after=\"op=connect peer=127.0.0.1:{port}\", name={name}"
            )
        })
        .collect();
    let script = format!(
        "cd {}
        redis-server --port {port} --bind 127.0.0.1 127.0.0.2 --save '' >/dev/null & redis=$!
        until redis-cli -p {port} ping >/dev/null 2>&1; do sleep 0.1; done
        for client in redis-cli-*; do
            for host in 127.0.0.2 127.0.0.1; do
                ./$client -h $host -p {port} -r 5 ping 2>&1
            done
        done
        kill $redis; wait",
        at.display()
    );
    let wanted = ["PONG"; 7].join("\n") + "\nError: Connection reset by peer\n";
    for _ in 0..100 / CLIENTS {
        let run = inject(&faults, &["/bin/sh", "-c", &script]);
        assert_eq!(run.said, wanted.repeat(CLIENTS));
        assert_eq!(run.counts, [[3, 1, 1]; CLIENTS]);
        for number in 0..CLIENTS {
            let received = of(&run.history, &name(number), Op::Recv);
            let failed = |e: &&Event| e.error != 0;
            let port_of = |e: &Event| {
                run.history.names.socket_address(e.remote).map(|address| address.to_string())
            };
            let third: Vec<_> = received.iter().enumerate().filter(|(_, e)| failed(e)).collect();
            assert_eq!(third.len(), 1, "{received:?}");
            let (place, event) = third[0];
            assert_eq!(place, received.len() - 1);
            assert_eq!(port_of(event), Some(format!("127.0.0.1:{port}")));
            assert_eq!(received.iter().filter(|e| e.pid == event.pid).count(), 3);
        }
    }
}
