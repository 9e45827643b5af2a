//! The daemon as `deploy/` has it run: with the capabilities, folders and configuration that the files there name,
//! and no others. They are read from those files, so that these and what was tried are the same.

mod confined;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use confined::{Confined, Place};
use recorder::recording::read;
use serde_json::Value;

use super::KILLED;
use super::running::{Running, Setup, free_address};

fn deploy(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the unit for systemd leaves the daemon.
fn of_the_unit() -> BTreeSet<String> {
    let unit = deploy("wherefore.service");
    let bound = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let bound = bound.expect("the unit bounds them");
    let plain = |name: &str| name.strip_prefix("CAP_").expect("a capability").to_lowercase();
    bound.split_whitespace().map(plain).collect()
}

/// The documents of the manifest for Kubernetes, by kind.
fn manifest(kind: &str) -> Value {
    let all: Vec<Value> = serde_saphyr::from_multiple(&deploy("kubernetes.yaml")).expect("YAML");
    all.into_iter().find(|document| document["kind"] == kind).expect("the manifest has one")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// What the manifest gives the container.
fn of_the_pod() -> BTreeSet<String> {
    let pod = manifest("DaemonSet");
    let security = &pod["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
    list(&security["capabilities"]["add"]).iter().map(|name| text(name).to_lowercase()).collect()
}

/// The hooks that a daemon has, without what it says of those it lacks.
fn hooks(status: &Value) -> BTreeSet<String> {
    list(&status["hooks"]).iter().map(|hook| text(hook).to_owned()).collect()
}

fn with_capabilities(allowed: &BTreeSet<String>) -> Running {
    let place = |command: &mut Command| confined::bound(command, allowed);
    Running::with(Setup { place: &place, ..Setup::default() })
}

/// Whether a dump of the whole machine names the program of this test, which has more capabilities than the daemon.
fn names_programs(recording: &Path) -> bool {
    let history = read::open(&[recording.to_owned()]).expect("a recording").history;
    let own = history.hosts[0].tasks.iter().find(|task| task.tid == std::process::id());
    own.is_some_and(|task| !task.executable.is_empty())
}

/// What the deployed daemon lacks, on purpose: it needs CAP_NET_ADMIN.
const DATAGRAM_PEERS: &str = "datagram_peers";

#[test]
fn the_unit_leaves_what_is_needed_and_no_more() {
    let unit = of_the_unit();
    let (all, bounded) = (Running::on_the_whole_machine(), with_capabilities(&unit));
    let mut expected = hooks(&all.status());
    assert!(expected.remove(DATAGRAM_PEERS), "{expected:?}");
    assert_eq!(hooks(&bounded.status()), expected);
    bounded.play(KILLED);
    let folder = bounded.dump(&["comm=client op=recv"]);
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.lines().nth(1).is_some_and(|line| line.contains("murderer[")), "{why}");
    assert!(names_programs(&folder.join("recording.parquet")));
    let mut fewer = unit;
    assert!(fewer.remove("sys_ptrace"), "the unit has it");
    let bounded = with_capabilities(&fewer);
    let folder = bounded.dump(&[]);
    assert!(!names_programs(&folder.join("recording.parquet")));
}

#[test]
fn with_net_admin_the_unit_lacks_nothing() {
    let more: BTreeSet<String> =
        of_the_unit().into_iter().chain(["net_admin".to_owned()]).collect();
    let (all, bounded) = (Running::on_the_whole_machine(), with_capabilities(&more));
    assert_eq!(hooks(&all.status()), hooks(&bounded.status()));
}

#[test]
fn without_bpf_or_perfmon_it_says_what_it_lacks() {
    for capability in ["bpf", "perfmon"] {
        let mut fewer = of_the_unit();
        assert!(fewer.remove(capability), "the unit has {capability}");
        let home = tempfile::tempdir().expect("a folder");
        let config = home.path().join("config.toml");
        let text = format!(
            "ring = '16MiB'\n[api]\nsocket = '{0}/socket'\n[dumps]\ndirectory = '{0}/dumps'\n",
            home.path().display()
        );
        fs::write(&config, text).expect("it is written");
        let mut command = Command::new(tests::command::wherefore());
        command.arg("daemon").arg("--config").arg(&config);
        confined::bound(&mut command, &fewer);
        let said = tests::command::told(&command.output().expect("it starts"));
        assert!(said.starts_with("exit 2\n") && said.contains("hint: "), "{capability}: {said}");
        assert!(said.contains("CAP_BPF and CAP_PERFMON"), "{capability}: {said}");
    }
}

#[test]
fn the_manifest_and_the_unit_ask_for_the_same() {
    assert_eq!(of_the_pod(), of_the_unit());
}

/// The folders of the node that the manifest gives the container: where each lies in it.
fn folders() -> Vec<Place> {
    let pod = manifest("DaemonSet");
    let spec = &pod["spec"]["template"]["spec"];
    let volume = |name: &Value| {
        list(&spec["volumes"]).iter().find(|volume| volume["name"] == *name).expect("a volume")
    };
    let mounts = list(&spec["containers"][0]["volumeMounts"]).iter();
    let place = |mount: &Value| Place {
        from: volume(&mount["name"])["hostPath"]["path"].as_str().map(PathBuf::from),
        to: PathBuf::from(text(&mount["mountPath"])),
        writable: mount["readOnly"] != true,
    };
    mounts.map(place).collect()
}

/// What the container is told to run.
fn words() -> Vec<String> {
    let pod = manifest("DaemonSet");
    let words = &pod["spec"]["template"]["spec"]["containers"][0]["args"];
    list(words).iter().map(|word| text(word).to_owned()).collect()
}

#[test]
fn a_container_of_the_manifest_records_its_node() {
    let configuration = manifest("ConfigMap")["data"]["wherefore.toml"].clone();
    let address = free_address();
    let configuration = text(&configuration)
        .replace("0.0.0.0:9799", &address.to_string())
        .replace("wherefore.wherefore.svc:9799", &address.to_string());
    // What happens in a cgroup of the node that is there before: of a later one the kernel tells the path itself.
    let other = Running::start("");
    let pod = Confined::start(&words(), &folders(), &of_the_pod(), &configuration);
    let status: Value = serde_json::from_str(&pod.ask(&["status", "--json"])).expect("JSON");
    assert_eq!(status["scope"], "all");
    let outside = Running::on_the_whole_machine();
    let mut expected = hooks(&outside.status());
    expected.remove(DATAGRAM_PEERS);
    assert_eq!(hooks(&status), expected);
    other.play(KILLED);
    let folder = pod.dump(&["comm=client op=recv"]);
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    assert!(why.lines().nth(1).is_some_and(|line| line.contains("murderer[")), "{why}");
    let recording = folder.join("recording.parquet");
    let history = read::open(std::slice::from_ref(&recording)).expect("a recording").history;
    // Its cgroup has the node's path, not what the container makes of it.
    let cgroup = other.cgroup_name();
    let seen = history.hosts[0].tasks.iter().filter(|task| task.comm == "client");
    // Not those of other tests that run on the machine at the same time.
    let ours = format!("wf-daemon-{}-", std::process::id());
    let seen: BTreeSet<&str> =
        seen.map(|task| task.cgroup.as_str()).filter(|cgroup| cgroup.contains(&ours)).collect();
    assert_eq!(seen, BTreeSet::from([cgroup.as_str()]));
    assert!(history.hosts[0].tasks.iter().all(|task| !task.cgroup.starts_with("/..")));
    assert!(names_programs(&recording));
    assert!(
        !folder.join("peers.json").exists() && !why.contains("silent "),
        "it asks itself: {why}"
    );
}
