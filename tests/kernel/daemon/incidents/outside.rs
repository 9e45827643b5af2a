//! Causes that lie outside of the programs that fail: memory, the network, a client that has gone.

use super::{PROXY, check, check_on};
use crate::daemon::running::Running;
use crate::memory::SmallMemory;
use crate::netns::{NAMESPACES, Namespace};

#[test]
fn a_worker_that_is_killed_for_memory() {
    let Some(memory) = SmallMemory::make() else { return };
    // Version 2 of cgroups would take it out of a scope of its own.
    let daemon = Running::on_the_whole_machine();
    let script = format!(
        "
def answer(connection):
    connection.recv(4096)
    connection.send(b'HTTP/1.1 200 OK\\r\\ncontent-length: 1000\\r\\n\\r\\n' + b'x' * 100)
    with open('{}/cgroup.procs', 'w') as procs:
        procs.write(str(os.getpid()))
    with open('/proc/self/oom_score_adj', 'w') as adjust:
        adjust.write('1000')
    eaten = b'x' * (1 << 30)

port = free()
worker = accepting('worker', port, answer)
curl = subprocess.run(['curl', '-s', '-o', '/dev/null', f'http://127.0.0.1:{{port}}/'])
assert curl.returncode == 18
os.waitpid(worker, 0)
",
        memory.path().display()
    );
    check_on(&daemon, &script, &["comm=curl op=recv"], &["out of memory", "worker[", "certain"]);
}

#[test]
fn a_client_that_does_not_wait_for_the_answer() {
    check(
        &format!(
            "{PROXY}
def slow(connection):
    connection.recv(4096)
    time.sleep(1)
    # The first tells the other end's kernel, which answers with a reset.
    connection.send(b'HTTP/1.1 200 OK\\r\\n\\r\\n')
    until(lambda: state(connection) == CLOSE, 'the reset')
    assert seen(connection.send, b'x') in ('EPIPE', 'ECONNRESET')

worker = accepting('worker', backend, slow)
nginx = start_nginx()
curl = subprocess.run(['curl', '-s', '-m', '0.4', f'http://127.0.0.1:{{port}}/'])
assert curl.returncode == 28
finish(worker)
end_nginx(nginx)
"
        ),
        &["comm=worker op=send error=*"],
        &["possibly", "curl[", "closed too early"],
    );
}

/// A redis in another network namespace, and a client that asks it; the way to it can be cut.
fn apart(spaces: &[Namespace; 2], then: &str) -> String {
    let [here, there] = spaces.each_ref().map(Namespace::name);
    format!(
        "{NAMESPACES}
here, there = '{here}', '{there}'

def run(*words):
    subprocess.run(words, check=True)

def cut():
    run('ip', 'netns', 'exec', there, 'nft',
        'add table inet cut; add chain inet cut in {{ type filter hook input priority 0; policy drop; }}')

def heal():
    run('ip', 'netns', 'exec', there, 'nft', 'delete table inet cut')

run('ip', 'link', 'add', 'cut0', 'netns', here, 'type', 'veth', 'peer', 'name', 'cut0', 'netns', there)
for space, address in ((here, '10.97.4.1/24'), (there, '10.97.4.2/24')):
    run('ip', '-n', space, 'address', 'add', address, 'dev', 'cut0')
    run('ip', '-n', space, 'link', 'set', 'cut0', 'up')
redis = subprocess.Popen(['ip', 'netns', 'exec', there, 'redis-server', '--bind', '10.97.4.2', '--save', '',
                          '--protected-mode', 'no'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
of_client, of_nature = turns()

def ask():
    go(here)
    await_port(6379, '10.97.4.2')
    connection = socket.create_connection(('10.97.4.2', 6379))
    connection.send(b'PING\\r\\n')
    assert connection.recv(9) == b'+PONG\\r\\n'
    of_client.give()
    of_client.take()
    connection.send(b'PING\\r\\n')
    give_up(connection, 0.7)
    of_client.give()
    {then}

client = child('client', ask)
of_nature.take()
cut()
of_nature.give()
of_nature.take()
"
    )
}

#[test]
fn a_partition_between_namespaces_that_has_healed() {
    let spaces = ["here", "there"].map(Namespace::make);
    let script = apart(&spaces, "assert connection.recv(9) == b'+PONG\\r\\n'");
    check(
        &format!("{script}\nheal()\nfinish(client)\nredis.kill()\nredis.wait()"),
        &["comm=client op=recv result>0"],
        &["possibly", "kernel, client", "retransmit", "packets were lost"],
    );
}

#[test]
fn a_partition_between_namespaces_that_lasts() {
    let spaces = ["here", "there"].map(Namespace::make);
    let script = apart(&spaces, "detach()\n    time.sleep(20)");
    check(
        &script,
        &["--missing", "comm=client op=recv result>0"],
        &["client[", "6 bytes", "not taken", "sent again"],
    );
}
