//! Dumps that go to a store: what is there is what is in the folder, whoever makes trouble on the way; and the daemon
//! goes on as if there were no store.

mod s3;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::gethostname;
use s3::{S3, files};
use serde_json::{Value, json};

use super::running::{
    self, Running, Setup, as_a_host_of_its_own, children, free_address, new_cgroup,
};
use super::tls::{NEW_KEY, openssl};
use super::triggers::until;
use super::{KILLED, alert};

impl Running {
    fn upload(&self) -> Value {
        self.status()["dumps"]["upload"].clone()
    }

    fn wait_for_uploads(&self, count: u64) {
        until("dumps are uploaded", || self.upload()["uploaded"] == count);
    }

    fn wait_for_failure(&self) -> String {
        until("a try fails", || self.upload()["failure"].is_string());
        self.upload()["failure"].as_str().expect("a text").to_owned()
    }
}

/// One that uploads to a store of a test, at `s3://dumps/kept`.
fn with_store(more: &str, store: &S3) -> Running {
    let more = format!("upload = 's3://dumps/kept'\n{more}");
    let (cgroup, environment) = (Some(new_cgroup()), store.environment());
    Running::with(Setup { more: &more, cgroup, environment, ..Setup::default() })
}

fn name(folder: &Path) -> String {
    folder.file_name().expect("a name").to_string_lossy().into_owned()
}

/// What a host's dump is called where others' are.
fn incident(folder: &Path, host: &str) -> String {
    format!("{}-{host}", name(folder))
}

/// Where in a store the files of a dump have to be.
fn expected(below: &str, folder: &Path, host: &str) -> BTreeMap<String, Vec<u8>> {
    let incident = incident(folder, host);
    let mut expected = files(folder);
    assert!(expected.remove("upload.json").is_some(), "how it stands is noted");
    let place = |(file, bytes): (String, Vec<u8>)| match file.as_str() {
        "recording.parquet" => (format!("{below}{incident}/{host}.parquet"), bytes),
        file => (format!("{below}{incident}/{host}/{file}"), bytes),
    };
    expected.into_iter().map(place).collect()
}

fn own_name() -> String {
    gethostname().expect("it has one").to_string_lossy().into_owned()
}

/// Without their bytes, which nobody wants to read.
fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (name, bytes) in found {
        assert!(expected[name] == *bytes, "{name} differs");
    }
}

fn noted(folder: &Path) -> Value {
    running::json(&folder.join("upload.json"))["state"].clone()
}

#[test]
fn a_dump_is_copied_to_a_folder_once_the_configuration_says_so() {
    let store = tempfile::tempdir().expect("a folder");
    let daemon = Running::start("");
    daemon.play(KILLED);
    let before = daemon.dump(&["comm=client op=recv"]);
    assert!(daemon.upload().is_null() && !before.join("upload.json").exists());
    daemon.edit(|text| format!("{text}upload = 'file://{}'\n", store.path().display()));
    daemon.ask(&["reload"]);
    let said = daemon.ask(&["dump", "comm=client op=recv"]);
    let folder = PathBuf::from(said.lines().next().expect("a folder"));
    let (below, host) = (incident(&folder, &own_name()), own_name());
    let url = format!("file://{}/{below}/{host}.parquet", store.path().display());
    assert!(said.ends_with(&format!("\nupload   to {url}\n")), "{said}");
    daemon.wait_for_uploads(1);
    assert_same(&files(store.path()), &expected("", &folder, &own_name()));
    assert_eq!(noted(&folder)["uploaded"]["to"], url);
    let text = daemon.ask(&["status"]);
    let told = format!("\nupload   1 to file://{}, ", store.path().display());
    assert!(
        text.contains(&told) && text.contains("; 0 waiting, 0 given up, 0 tries failed\n"),
        "{text}"
    );
    let metrics = daemon.http("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(metrics.contains("\nwherefore_uploads_total 1\n"), "{metrics}");
}

#[test]
fn a_store_that_was_away_gets_what_it_missed_signed_and_in_parts() {
    let mut store = S3::away(None);
    let daemon = with_store("", &store);
    daemon.play(KILLED);
    let folder = daemon.dump(&["comm=client op=recv"]);
    let why = daemon.wait_for_failure();
    assert!(why.contains("127.0.0.1") && why.contains("onnect"), "{why}");
    assert_eq!(noted(&folder), "waiting");
    // Larger than what is sent at once, and no multiple of it.
    let large: Vec<u8> = (0..20_000_001_u32).map(|n| (n >> 3) as u8).collect();
    fs::write(folder.join("large.bin"), large).expect("it is written");
    store.come_back();
    daemon.wait_for_uploads(1);
    assert_same(&store.objects(), &expected("dumps/kept/", &folder, &own_name()));
    let upload = daemon.upload();
    assert!(upload["failure"].is_null() && upload["failed"].as_u64() > Some(0), "{upload}");
    let requests = store.requests();
    assert!(requests.iter().all(|request| request.ends_with(" signed")), "{requests:?}");
    let parts = requests.iter().filter(|request| request.contains("partNumber=")).count();
    assert_eq!(parts, 3, "{requests:?}");
}

#[test]
fn a_store_that_refuses_holds_up_nobody_and_what_waits_outlives_the_daemon() {
    let store = S3::start();
    store.mood("503");
    let mut daemon = with_store("", &store);
    daemon.play(KILLED);
    let first = daemon.dump(&["--name", "first"]);
    let why = daemon.wait_for_failure();
    assert!(why.contains("503"), "{why}");
    let second = daemon.dump(&["--name", "second"]);
    assert_eq!(daemon.upload()["waiting"], 2);
    daemon.kill_and_start_again();
    assert_eq!(daemon.upload()["waiting"], 2);
    assert!(store.objects().is_empty());
    store.mood("well");
    daemon.wait_for_uploads(2);
    let mut both = expected("dumps/kept/", &first, &own_name());
    both.extend(expected("dumps/kept/", &second, &own_name()));
    assert_same(&store.objects(), &both);
}

#[test]
fn a_store_that_hangs_holds_up_neither_dumps_nor_the_end() {
    let store = S3::start();
    store.mood("hang");
    let daemon = with_store("", &store);
    daemon.play(KILLED);
    let first = daemon.dump(&["--name", "first"]);
    until("it is asked", || !store.requests().is_empty());
    let begun = Instant::now();
    daemon.dump(&["--name", "second"]);
    assert_eq!(daemon.upload()["waiting"], 2);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let uploaders = children(daemon.pid(), "upload-worker");
    assert_eq!(uploaders.len(), 1, "one at a time");
    let begun = Instant::now();
    // What ends here was somewhere else before: its folder goes with the daemon's home.
    assert_eq!(noted(&first), "waiting");
    drop(daemon);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let gone = || running::words(uploaders[0]).iter().all(|word| word != "upload-worker");
    until("the uploader ends with the daemon", gone);
}

#[test]
fn a_dump_that_makes_room_is_not_uploaded_and_counted() {
    let store = S3::start();
    store.mood("503");
    let daemon = with_store("quota = '1KiB'\n", &store);
    daemon.dump(&["--name", "first"]);
    daemon.wait_for_failure();
    let second = daemon.dump(&["--name", "second"]);
    until("the first is given up", || daemon.upload()["given_up"] == 1);
    store.mood("well");
    daemon.wait_for_uploads(1);
    assert_same(&store.objects(), &expected("dumps/kept/", &second, &own_name()));
}

#[test]
fn hosts_of_one_incident_upload_to_one_place_each_its_own() {
    let (scratch, store) = (tempfile::tempdir().expect("a folder"), S3::start());
    let upload = "upload = 's3://dumps/kept'\n";
    let start = |host: &str, more: &str, listen: Option<SocketAddr>| {
        let place = |command: &mut Command| as_a_host_of_its_own(command, scratch.path(), host);
        let (cgroup, environment) = (Some(new_cgroup()), store.environment());
        Running::with(Setup {
            more,
            listen,
            cgroup,
            environment,
            place: &place,
            ..Setup::default()
        })
    };
    let (app_at, db_at) = (free_address(), free_address());
    // One that uploads, and one that does not.
    let (app, db) = (start("app", upload, Some(app_at)), start("db", "", Some(db_at)));
    let peers = format!("[peers]\nhosts = ['{app_at}', '{db_at}']\ntoken_file = 'TOKEN'\n");
    let web = start("web", &format!("{upload}{peers}"), None);
    for daemon in [&web, &app, &db] {
        daemon.play(KILLED);
    }
    let folder = web.dump(&["--name", "Broken", "comm=client op=recv"]);
    web.wait_for_uploads(1);
    app.wait_for_uploads(1);
    let incident = format!("dumps/kept/{}", incident(&folder, "web"));
    let found = store.objects();
    let peer = |at: SocketAddr| format!("peer-{}.parquet", at.to_string().replace(':', "_"));
    let mut wanted = expected("dumps/kept/", &folder, "web");
    let of_db = wanted.remove(&format!("{incident}/web/{}", peer(db_at))).expect("db's part");
    wanted.insert(format!("{incident}/{}", peer(db_at)), of_db);
    let of_app = wanted.remove(&format!("{incident}/web/{}", peer(app_at))).expect("app's part");
    let own = app.wait_for("-Broken");
    for (file, bytes) in files(&own).into_iter().filter(|(file, _)| file != "upload.json") {
        match file.as_str() {
            "recording.parquet" => wanted.insert(format!("{incident}/app.parquet"), bytes),
            file => wanted.insert(format!("{incident}/app/{file}"), bytes),
        };
    }
    assert_same(&found, &wanted);
    assert!(found[&format!("{incident}/app.parquet")] == of_app, "app sent what it uploaded");
    let all = store.folder().join(&incident).to_string_lossy().into_owned();
    let checked = running::wherefore(&["check", &all]);
    assert!(checked.contains("every edge holds"), "{checked}");
    for host in ["web: ", "app: ", "db: "] {
        assert!(checked.contains(host), "{checked}");
    }
}

/// Names that would lead elsewhere as a path.
const NAMES: [&str; 4] = ["../../escaped", "/tmp/escaped", "..", "a/../../escaped"];

#[test]
fn no_name_leads_out_of_the_prefix() {
    let home = tempfile::tempdir().expect("a folder");
    let store = home.path().join("above/store");
    fs::create_dir_all(&store).expect("a folder");
    let place = |command: &mut Command| {
        let mut outer = Command::new("unshare");
        let script = "echo \"$0\" > /proc/sys/kernel/hostname && exec \"$@\"";
        outer.args(["--uts", "sh", "-c", script, "../../escaped"]);
        outer.arg(command.get_program()).args(command.get_args());
        *command = outer;
    };
    let more = format!("upload = 'file://{}'\n", store.display());
    let (cgroup, per_hour) = (Some(new_cgroup()), 100);
    let daemon =
        Running::with(Setup { more: &more, cgroup, per_hour, place: &place, ..Setup::default() });
    for (number, hostile) in NAMES.iter().enumerate() {
        daemon.post("/api/v1/alerts", &alert(hostile, "firing", &running::now()));
        daemon.post("/v1/dump", &json!({ "name": hostile, "asked_by": hostile }).to_string());
        let timed = format!("2026-01-01T00-00-00Z-{hostile}");
        for incident in [hostile, timed.as_str()].iter().filter(|name| name.contains('/')) {
            let asked = json!({ "asked_by": "x", "incident": incident }).to_string();
            let answer = daemon.post("/v1/dump", &asked);
            assert!(answer.contains("`incident` is no dump's name"), "{answer}");
        }
        let answer = daemon.post("/v1/dump", r#"{"incident": "2026-01-01T00-00-00Z-x"}"#);
        assert!(answer.contains("it wants `asked_by`"), "{answer}");
        daemon.wait_for_uploads(2 * (number as u64 + 1));
    }
    let found = files(home.path());
    assert!(found.len() >= 4 * NAMES.len(), "{:?}", found.keys());
    for file in found.keys() {
        let below = file.strip_prefix("above/store/").unwrap_or_else(|| panic!("{file}"));
        assert!(is_of_this_host(below), "{file}");
    }
    assert!(!fs::exists("/tmp/escaped").expect("a path"));
}

/// Whether a path begins with a dump's name, and goes on with this host's.
fn is_of_this_host(below: &str) -> bool {
    let (incident, rest) = below.split_once('/').unwrap_or_default();
    incident.starts_with("20")
        && (rest == "_.._escaped.parquet" || rest.starts_with("_.._escaped/"))
}

/// A certificate for this machine that nobody has vouched for, and its key.
fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    openssl(
        folder,
        &format!(
            "req -x509 {NEW_KEY} -days 2 -subj /CN=store -addext subjectAltName=IP:127.0.0.1 \
             -addext basicConstraints=critical,CA:FALSE -out certificate.pem -keyout key.pem"
        ),
    );
    (certificate, key)
}

#[test]
fn a_store_has_to_be_the_one_that_is_meant() {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = certificate(folder.path());
    let tls = S3::with_tls(certificate.clone(), key);
    let start = |environment| {
        let (more, cgroup) = ("upload = 's3://dumps'\n", Some(new_cgroup()));
        Running::with(Setup { more, cgroup, environment, ..Setup::default() })
    };
    let trusting = [("SSL_CERT_FILE", certificate.display().to_string())];
    let daemon = start(tls.environment().into_iter().chain(trusting).collect());
    let kept = daemon.dump(&[]);
    daemon.wait_for_uploads(1);
    assert_same(&tls.objects(), &expected("dumps/", &kept, &own_name()));
    // Its certificate is not known.
    let daemon = start(tls.environment());
    daemon.dump(&[]);
    let why = daemon.wait_for_failure();
    assert!(why.contains("certificate"), "{why}");
    // Without TLS only if that is said.
    let plain = S3::start();
    let environment = plain.environment().into_iter().filter(|(name, _)| *name != "AWS_ALLOW_HTTP");
    let daemon = start(environment.collect());
    daemon.dump(&[]);
    let why = daemon.wait_for_failure();
    assert!(plain.requests().is_empty() && why.contains("http"), "{why}");
    assert_eq!(tls.objects().len(), expected("dumps/", &kept, &own_name()).len());
}
