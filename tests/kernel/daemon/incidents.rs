//! Staged incidents with real programs: the culprit stands in the first five lines of the answer.

mod outside;
mod waiting;

use std::fs;
use std::path::PathBuf;

use super::running::Running;

/// Free ports, and programs that answer before the play goes on.
const PROGRAMS: &str = "
import shutil, subprocess, tempfile

def free():
    with socket.create_server(('127.0.0.1', 0)) as s:
        return s.getsockname()[1]

def await_port(port, address='127.0.0.1'):
    for _ in range(500):
        try:
            return socket.create_connection((address, port)).close()
        except OSError:
            time.sleep(0.01)
    raise TimeoutError(f'nobody listens on {port}')

def detach():
    # Who waits for the end of what the play says need not wait for this one.
    for said in 1, 2:
        os.dup2(os.open(os.devnull, os.O_WRONLY), said)

def give_up(connection, seconds):
    connection.settimeout(seconds)
    try:
        connection.recv(9)
    except TimeoutError:
        return connection.settimeout(None)
    raise AssertionError('it answered')

def serve(port, answer, accepted=1):
    listener = socket.create_server(('127.0.0.1', port))
    for _ in range(accepted):
        connection, _ = listener.accept()
        answer(connection)

def accepting(comm, port, answer):
    # The first connection only asks whether somebody listens.
    def act():
        detach()
        seen = []
        serve(port, lambda c: answer(c) if seen else seen.append(c), 2)
    pid = child(comm, act)
    await_port(port)
    return pid

def kill(comm, pid, signal):
    def act():
        os.kill(pid, signal)
    os.waitpid(child(comm, act), 0)
";

/// nginx before a backend.
const PROXY: &str = "
backend, port = free(), free()
folder = tempfile.mkdtemp()
open(folder + '/conf', 'w').write(f'''
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{backend}; proxy_buffering off; }}
    }}
}}''')

def start_nginx():
    nginx = subprocess.Popen(['nginx', '-c', folder + '/conf', '-e', folder + '/log'])
    await_port(port)
    return nginx

def end_nginx(nginx):
    nginx.terminate()
    nginx.wait()
    shutil.rmtree(folder)
";

/// Stages it, asks, and checks the first five lines.
fn check(script: &str, question: &[&str], expected: &[&str]) {
    check_on(&Running::start(""), script, question, expected);
}

/// The folder of the dump.
fn check_on(daemon: &Running, script: &str, question: &[&str], expected: &[&str]) -> PathBuf {
    daemon.play(&format!("{PROGRAMS}\n{script}"));
    let folder = daemon.dump(question);
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    let first = why.lines().take(5).collect::<Vec<_>>().join("\n");
    for word in expected {
        assert!(first.contains(word), "`{word}` is not in the first lines of\n{why}");
    }
    folder
}

#[test]
fn a_killed_worker_behind_nginx() {
    check(
        &format!(
            "{PROXY}
def answer(connection):
    connection.recv(4096)
    connection.send(b'HTTP/1.1 200 OK\\r\\ncontent-length: 1000\\r\\n\\r\\n' + b'x' * 100)
    time.sleep(10)

worker = accepting('worker', backend, answer)
nginx = start_nginx()
curl = subprocess.Popen(['curl', '-s', '-o', '/dev/null', f'http://127.0.0.1:{{port}}/'])
time.sleep(0.3)
kill('somebody', worker, signal.SIGKILL)
assert curl.wait() == 18
end_nginx(nginx)
"
        ),
        &["comm=curl op=recv"],
        &["somebody[", "SIGKILL", "certain"],
    );
}

#[test]
fn a_redis_that_was_ended_refuses_connections() {
    check(
        "
port = free()
redis = subprocess.Popen(['redis-server', '--port', str(port), '--save', '', '--bind', '127.0.0.1'],
                         stdout=subprocess.DEVNULL)
await_port(port)
kill('operator', redis.pid, signal.SIGTERM)
redis.wait()
refused = subprocess.run(['redis-cli', '-p', str(port), 'get', 'x'], stderr=subprocess.DEVNULL)
assert refused.returncode == 1
",
        &["comm=redis-cli error=ECONNREFUSED"],
        &["operator[", "SIGTERM", "certain"],
    );
}

#[test]
fn a_reset_in_the_middle_of_an_answer() {
    check(
        "
def answer(connection):
    connection.recv(9)
    connection.send(b'half of')
    time.sleep(0.1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    connection.close()

port = free()
accepting('rude', port, answer)
rename('client')
connection = socket.create_connection(('127.0.0.1', port))
connection.send(b'a request')
connection.recv(100)
assert seen(connection.recv, 100) == 'ECONNRESET'
",
        &[],
        &["rude[", "a connection was reset", "certain"],
    );
}
