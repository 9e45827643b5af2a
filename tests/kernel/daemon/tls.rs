//! TLS on TCP: whoever has a certificate of the right authority is let in, nobody else but with the token where there is
//! one, and hosts ask each other so.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use recorder::recording::read;
use tempfile::TempDir;

use super::KILLED;
use super::peers::parts;
use super::running::{Running, TOKEN};

/// Has it done in a folder, in which its files are.
pub fn openssl(folder: &Path, words: &str) {
    let mut command = Command::new("openssl");
    let output = command.args(words.split_whitespace()).current_dir(folder).output();
    let output = output.expect("setup installs openssl");
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A new key, and what is asked of it.
pub const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// Two authorities, and two hosts and a client that are certified by one of them; and one by the other.
struct Papers(TempDir);

impl Papers {
    fn make() -> Self {
        let papers = Self(tempfile::tempdir().expect("a folder"));
        for authority in ["ours", "theirs"] {
            openssl(
                papers.0.path(),
                &format!(
                    "req -x509 {NEW_KEY} -days 2 -subj /CN={authority} \
                 -keyout {authority}.key -out {authority}.pem"
                ),
            );
        }
        for (name, authority) in [
            ("host", "ours"),
            ("renewed", "ours"),
            ("client", "ours"),
            ("stranger", "theirs"),
            ("neighbour", "ours"),
        ] {
            let address = if name == "neighbour" { "127.0.0.9" } else { "127.0.0.1" };
            openssl(
                papers.0.path(),
                &format!(
                    "req {NEW_KEY} -subj /CN={name} \
                 -addext subjectAltName=IP:{address} -keyout {name}.key -out {name}.csr"
                ),
            );
            openssl(
                papers.0.path(),
                &format!(
                    "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial \
                 -copy_extensions copy -days 2 -out {name}.pem"
                ),
            );
        }
        papers
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The daemon's own part of a configuration, whatever else is in it.
    fn of(&self, host: &str, more: &str) -> String {
        let path = |name: String| self.path(&name).display().to_string();
        let (certificate, key) = (path(format!("{host}.pem")), path(format!("{host}.key")));
        format!("tls = {{ certificate = '{certificate}', key = '{key}'{more} }}")
    }

    /// It takes clients of our authority.
    fn serving(&self, host: &str) -> String {
        self.of(host, &format!(", clients = '{}'", self.path("ours.pem").display()))
    }

    /// It asks servers of our authority.
    fn asking(&self, host: &str) -> String {
        self.of(host, &format!(", servers = '{}'", self.path("ours.pem").display()))
    }

    /// What curl is answered, or why it is not.
    fn curl(&self, port: u16, words: &[&str]) -> String {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"]);
        command.args(["--cacert", "ours.pem"]).args(words).current_dir(self.0.path());
        let output = command.arg(format!("https://127.0.0.1:{port}/v1/status")).output();
        let output = output.expect("curl starts");
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).into_owned()
    }
}

const CLIENT: [&str; 4] = ["--cert", "client.pem", "--key", "client.key"];
const STRANGER: [&str; 4] = ["--cert", "stranger.pem", "--key", "stranger.key"];

/// Puts a daemon that listens with a token onto TLS, without the token where that is said.
fn speak_tls(daemon: &Running, tls: &str, token: bool) {
    let token_file = format!("token_file = '{}'", daemon.path("token").display());
    assert!(fs::read_to_string(daemon.path("config.toml")).is_ok_and(|t| t.contains(&token_file)));
    let with = if token { format!("{token_file}, {tls}") } else { tls.to_owned() };
    daemon.edit(|text| text.replacen(&token_file, &with, 1));
    assert_eq!(daemon.ask(&["reload"]), "the configuration is in effect\n");
}

/// Whether it was the handshake that ended in failure.
fn is_cut_off(said: &str) -> bool {
    said.starts_with("000") && said.contains("curl: (")
}

#[test]
fn without_a_token_only_the_certified_are_let_in() {
    let (papers, daemon) = (Papers::make(), Running::with_tcp_and_scope(""));
    speak_tls(&daemon, &papers.serving("host"), false);
    assert_eq!(papers.curl(daemon.port, &CLIENT), "200");
    let bearer = format!("Authorization: Bearer {TOKEN}");
    for words in [&[][..], &STRANGER, &["-H", &bearer]] {
        let said = papers.curl(daemon.port, words);
        assert!(is_cut_off(&said), "{words:?}: {said}");
    }
    assert!(!super::asked_by_tcp(daemon.port, TOKEN).contains("200"), "it is not plain any more");
}

#[test]
fn a_token_does_as_well_where_there_is_one() {
    let (papers, daemon) = (Papers::make(), Running::with_tcp_and_scope(""));
    speak_tls(&daemon, &papers.serving("host"), true);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(papers.curl(daemon.port, &CLIENT), "200");
    assert_eq!(papers.curl(daemon.port, &["-H", &bearer]), "200");
    assert_eq!(papers.curl(daemon.port, &[]), "401");
    assert_eq!(papers.curl(daemon.port, &["-H", "Authorization: Bearer wrong"]), "401");
    let said = papers.curl(daemon.port, &STRANGER);
    assert!(is_cut_off(&said), "{said}");
}

#[test]
fn a_certificate_is_renewed_by_a_reload_and_a_broken_one_changes_nothing() {
    let (papers, daemon) = (Papers::make(), Running::with_tcp_and_scope(""));
    speak_tls(&daemon, &papers.serving("host"), true);
    let subject = || {
        let script =
            "openssl s_client -connect $0 </dev/null 2>/dev/null | openssl x509 -noout -subject";
        let address = format!("127.0.0.1:{}", daemon.port);
        let output = Command::new("sh").args(["-c", script, &address]).output();
        String::from_utf8_lossy(&output.expect("a shell starts").stdout).into_owned()
    };
    assert!(subject().contains("host"), "{}", subject());
    for file in ["pem", "key"] {
        fs::copy(papers.path(&format!("renewed.{file}")), papers.path(&format!("host.{file}")))
            .expect("it is ours");
    }
    assert!(subject().contains("host"), "it was read when it was told to");
    daemon.ask(&["reload"]);
    assert!(subject().contains("renewed"), "{}", subject());
    // Another's key; then nothing that could be a certificate.
    fs::copy(papers.path("client.key"), papers.path("host.key")).expect("it is ours");
    let refused = daemon.refused(&["reload"]);
    assert!(refused.contains("host.pem with the key"), "{refused}");
    fs::write(papers.path("host.pem"), "no certificate").expect("it is ours");
    let refused = daemon.refused(&["reload"]);
    assert!(refused.contains("there is no certificate in"), "{refused}");
    assert_eq!(papers.curl(daemon.port, &CLIENT), "200");
}

/// Whoever was let in by an authority that is not trusted any more asks nothing more on a connection that is still there.
#[test]
fn a_connection_does_not_outlive_what_let_it_in() {
    let (papers, daemon) = (Papers::make(), Running::with_tcp_and_scope(""));
    let plain = TcpStream::connect(("127.0.0.1", daemon.port)).expect("it listens");
    let is_open = |mut stream: &TcpStream| {
        let asked =
            format!("GET /healthz HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time");
        stream.write_all(asked.as_bytes()).is_ok()
            && stream.read(&mut [0; 1000]).is_ok_and(|length| length > 0)
    };
    assert!(is_open(&plain));
    speak_tls(&daemon, &papers.serving("host"), true);
    assert!(!is_open(&plain), "it would go on in the clear");
    let script = "(while sleep 0.2; do printf 'GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n'; done) | \
        openssl s_client -quiet -connect $0 -cert client.pem -key client.key -CAfile ours.pem 2>&1";
    let mut client = Command::new("sh");
    client.args(["-c", script, &format!("127.0.0.1:{}", daemon.port)]);
    client.current_dir(papers.0.path()).stdout(Stdio::piped());
    let mut client = client.spawn().expect("a shell starts");
    let said = BufReader::new(client.stdout.take().expect("it is piped"));
    let mut answers = said.lines().map_while(Result::ok).filter(|line| line.contains("200 OK"));
    assert!(answers.next().is_some(), "it is let in");
    let (ours, theirs) = (papers.path("ours.pem"), papers.path("theirs.pem"));
    fs::copy(theirs, ours).expect("it is ours");
    daemon.ask(&["reload"]);
    // What was asked before is answered; then it ends.
    assert!(answers.count() < 10, "it goes on");
    client.wait().expect("it is our child");
}

#[test]
fn who_says_nothing_or_nonsense_holds_up_nobody() {
    let (papers, daemon) = (Papers::make(), Running::with_tcp_and_scope(""));
    speak_tls(&daemon, &papers.serving("host"), false);
    let address = SocketAddr::from(([127, 0, 0, 1], daemon.port));
    let connect = || {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time");
        stream
    };
    let mut silent: Vec<TcpStream> = (0..40).map(|_| connect()).collect();
    let mut rude = connect();
    rude.write_all(&[0x16; 5000]).expect("it is sent");
    assert_eq!(papers.curl(daemon.port, &CLIENT), "200");
    // All are cut off in time.
    silent.push(rude);
    for mut stream in silent {
        match stream.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

/// Gives it another's papers.
fn daemon_speaks(daemon: &Running, papers: &Papers, before: &str, now: &str) {
    daemon.edit(|text| text.replace(&papers.serving(before), &papers.serving(now)));
    daemon.ask(&["reload"]);
}

fn with_peers(peers: &[u16], tls: &str) -> Running {
    let hosts: Vec<String> = peers.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
    Running::start(&format!("[peers]\nhosts = [{}]\n{tls}\nwait = '10s'\n", hosts.join(", ")))
}

/// How the first peer's part stands.
fn part(folder: &Path) -> Result<PathBuf, String> {
    let (_, file, missing) = parts(folder).swap_remove(0);
    file.as_str()
        .map(|file| folder.join(file))
        .ok_or_else(|| missing.as_str().expect("a reason").to_owned())
}

#[test]
fn hosts_ask_each_other_by_certificate() {
    let (papers, other) = (Papers::make(), Running::with_tcp_and_scope(""));
    speak_tls(&other, &papers.serving("host"), false);
    other.play(KILLED);
    let daemon = with_peers(&[other.port], &papers.asking("client"));
    daemon.play(KILLED);
    let file = part(&daemon.dump(&[])).expect("it sent its part");
    assert!(!read::open(&[file]).expect("a recording").history.events.is_empty());
}

#[test]
fn a_peer_that_is_not_who_it_should_be_gets_and_gives_nothing() {
    let (papers, other) = (Papers::make(), Running::with_tcp_and_scope(""));
    // It shows a certificate of an authority that is not ours.
    speak_tls(&other, &papers.serving("stranger"), false);
    let daemon = with_peers(&[other.port], &papers.asking("client"));
    let why = part(&daemon.dump(&[])).expect_err("it is a stranger");
    assert!(why.contains("speak TLS") && why.contains("UnknownIssuer"), "{why}");
    // One of ours, and of another name.
    daemon_speaks(&other, &papers, "stranger", "neighbour");
    let why = part(&daemon.dump(&[])).expect_err("it is another");
    assert!(why.contains("certificate not valid for name"), "{why}");
    assert!(other.dumps().is_empty(), "it was asked for nothing");
    // And asks as a stranger.
    let (host, stranger) = (Running::with_tcp_and_scope(""), papers.asking("stranger"));
    speak_tls(&host, &papers.serving("host"), false);
    let why = part(&with_peers(&[host.port], &stranger).dump(&[])).expect_err("it is refused");
    assert!(host.dumps().is_empty(), "{why}");
}
