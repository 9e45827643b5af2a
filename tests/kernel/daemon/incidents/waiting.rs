//! Nobody fails, and somebody waits: what a request waits for is told by the state of sockets and threads.

use serde_json::Value;

use super::{check, check_on};
use crate::daemon::running::{Running, json, wherefore};

#[test]
fn a_slow_backend_that_makes_its_client_give_up() {
    let daemon = Running::start("");
    let folder = check_on(
        &daemon,
        "
def slow(connection):
    connection.recv(9)
    time.sleep(8)

def forward(connection):
    upstream.send(connection.recv(9))
    upstream.recv(9)

backend, port = free(), free()
accepting('slow', backend, slow)
upstream = socket.create_connection(('127.0.0.1', backend))
accepting('proxy', port, forward)
upstream.close()
rename('client')
connection = socket.create_connection(('127.0.0.1', port))
connection.send(b'a request')
give_up(connection, 0.6)
",
        &["--missing", "comm=client op=recv result>0"],
        &["slow[", "then nothing for", "the request got there", "asleep in clock_nanosleep"],
    );
    // The same in JSON, and for whoever asks the recording later.
    let recording = folder.join("recording.parquet").display().to_string();
    let words = ["why", &recording, "--missing", "comm=client op=recv result>0", "--json"];
    let later = serde_json::from_str::<Value>(&wherefore(&words)).expect("JSON");
    for missing in [&json(&folder.join("why.json"))["missing"], &later] {
        let stops = missing["frontier"].as_array().expect("a list");
        let slow =
            stops.iter().find(|stop| stop["last"]["comm"] == "slow").expect("it was reached");
        assert_eq!(
            (&slow["state"]["state"], &slow["state"]["call"]),
            (&"S".into(), &"clock_nanosleep".into())
        );
    }
}

#[test]
fn a_server_that_does_not_read() {
    check(
        "
def busy(connection):
    time.sleep(8)

port = free()
accepting('busy', port, busy)
rename('client')
connection = socket.create_connection(('127.0.0.1', port))
connection.send(b'a request')
give_up(connection, 0.6)
",
        &["--missing", "comm=client op=recv result>0"],
        &["culprit", "9 lie unread in the socket of busy["],
    );
}

#[test]
fn a_full_backlog() {
    let daemon = Running::start("");
    let folder = check_on(
        &daemon,
        "
port = free()

def lazy():
    detach()
    listener = socket.socket()
    listener.bind(('127.0.0.1', port))
    listener.listen(1)
    time.sleep(20)

child('lazy', lazy)
await_port(port)
# The one that asked whether somebody listens waits to be accepted, too.
crowd = socket.create_connection(('127.0.0.1', port))
curl = subprocess.run(['curl', '-s', '-m', '1.3', f'http://127.0.0.1:{port}/'])
assert curl.returncode == 28
",
        &["--missing", "comm=curl op=recv result>0"],
        &["possibly", "lazy[", "has a full backlog: 2 wait to be accepted, 1 may", "asked again"],
    );
    let listener = &json(&folder.join("why.json"))["missing"]["unanswered"]["listener"];
    assert_eq!((&listener["receive_queue"], &listener["send_queue"]), (&2.into(), &1.into()));
}

#[test]
fn an_exhausted_pool_of_connections() {
    check(
        "
import redis, threading

backend, port = free(), free()
subprocess.Popen(['redis-server', '--port', str(backend), '--save', '', '--bind', '127.0.0.1'],
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
await_port(backend)

def app():
    detach()
    pool = redis.BlockingConnectionPool(port=backend, max_connections=1, timeout=None)
    store = redis.Redis(connection_pool=pool)

    def answer(connection):
        if connection.recv(9) == b'wait':
            store.blpop('nothing', 9)
        else:
            store.get('anything')
        connection.send(b'done')

    listener = socket.create_server(('127.0.0.1', port))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,)).start()

child('app', app)
await_port(port)
hog = socket.create_connection(('127.0.0.1', port))
hog.send(b'wait')
time.sleep(0.3)
rename('client')
connection = socket.create_connection(('127.0.0.1', port))
connection.send(b'a request')
give_up(connection, 0.6)
",
        &["--missing", "comm=client op=recv result>0"],
        &["app[", "the request got there", "asleep in futex", "may hold what it waits for"],
    );
}
