//! What is told of armed faults, which of them are the same, and who is gone.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use expect_test::expect;

use super::folder::{Noted, Refused, all};
use super::{Armed, Within};
use crate::capture::Scope;
use crate::fault::parse;
use crate::fault::plan::{Ability, Capabilities, Victims, plan};
use crate::fault::spec::Mechanism;

/// The faults of a file, armed by a process of this number within something.
fn armed(pid: u32, within: Within, file: &str) -> Armed {
    let faults = parse::file("file", file).expect("a fault file");
    let can = Capabilities {
        mechanisms: Mechanism::ALL.map(|m| (m, Ability::Yes)).into_iter().collect(),
    };
    let choices = plan(&faults, Victims::Scope, &can).expect("all can be done");
    Armed { pid, within, ..Armed::here(&Scope::All, &choices) }
}

const CONNECT: &str = "
    [[fault]]
    name = \"down\"
    match = \"comm=app op=connect peer=:5432\"
    when = { nth = 3 }
    do = { error = \"ECONNREFUSED\" }";

fn connect(pid: u32, within: Within) -> Armed {
    armed(pid, within, CONNECT)
}

#[test]
fn a_fault_is_told_in_one_line_and_compared_without_when() {
    let faults = "
        [[fault]]
        name = \"down\"
        match = \"op=connect peer=:5432 comm=app\"
        when = { nth = 3 }
        do = { error = \"EIO\" }
        [[partition]]
        name = \"split brain\"
        between = [\"peer=10.0.0.0/24\", \"cgroup=/a\"]
        until = \"10s\"
        [[partition]]
        name = \"mute\"
        between = [\"peer=10.0.0.0/24\", \"cgroup=/a\"]
        one-way = true
        limit = { count = 3 }";
    let told = armed(1, Within::Machine, faults).faults;
    let told = told.iter().map(|fault| format!("{}\n    {}\n", fault.line, fault.strikes));
    expect![[r#"
        op=connect remote=:5432 comm=app => error=EIO, nth=3, name=down
            comm=app op=connect remote=:5432 => error=EIO
        packets between `remote=10.0.0.0/24` and `cgroup=/a` are lost, until=10s, name="split brain"
            packets between `cgroup=/a` and `remote=10.0.0.0/24` are lost
        packets from `remote=10.0.0.0/24` to `cgroup=/a` are lost, count=3, name=mute
            packets from `remote=10.0.0.0/24` to `cgroup=/a` are lost
    "#]]
    .assert_eq(&told.collect::<String>());
}

#[test]
fn the_same_is_what_has_the_same_pattern_call_and_deed() {
    let shared = |file: &str| {
        let other = armed(2, Within::Machine, file);
        connect(1, Within::Machine).shared_with(&other).is_some()
    };
    assert!(shared(CONNECT));
    assert!(shared(&CONNECT.replace("nth = 3", "nth = 7").replace("down", "other")));
    assert!(shared(&CONNECT.replace("comm=app op=connect", "op=connect comm=app")));
    assert!(!shared(&CONNECT.replace("REFUSED", "RESET")));
    assert!(!shared(&CONNECT.replace("5432", "5433")));
    assert!(!shared(&CONNECT.replace("when =", "syscall = \"connect\"\n when =")));
}

/// A process of ours, ended with the value.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        let mut sleep = Command::new("sleep");
        Self(sleep.arg("60").stdout(Stdio::null()).spawn().expect("sleep is there"))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn scopes_meet_where_a_process_is_in_both() {
    let (one, other) = (Sleeper::new(), Sleeper::new());
    let [one, other] = [&one, &other].map(|child| Within::Process(child.0.id()));
    let parent = Within::Process(std::process::id());
    let cgroup = |path: &str| Within::Cgroup(path.to_owned());
    let own = crate::capture::procfs::cgroup(std::process::id()).expect("of this process");
    for (a, b, meet) in [
        (&Within::Machine, &one, true),
        (&Within::Machine, &cgroup("/a"), true),
        (&one, &one, true),
        (&one, &other, false),
        (&one, &parent, true),
        (&cgroup("/a"), &cgroup("/a/b"), true),
        (&cgroup("/a"), &cgroup("/ab"), false),
        (&cgroup("/no-such"), &one, false),
        (&cgroup(&own), &one, true),
    ] {
        assert_eq!((a.meets(b), b.meets(a)), (meet, meet), "{a:?} {b:?}");
    }
}

#[test]
fn what_another_has_armed_is_refused_unless_it_is_meant() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = &folder.path().join("run/faults");
    fs::create_dir(folder.parent().expect("it has one")).expect("it is ours");
    let sleeper = Sleeper::new();
    let process = || Within::Process(sleeper.0.id());
    let first = Noted::note(folder, connect(71, process()), false).expect("nobody else is there");
    let refused = Noted::note(folder, connect(72, Within::Machine), false).err();
    let told = refused.map(|why| why.to_string()).unwrap_or_default();
    expect![[r#"
        the fault `down` is armed already, by process 71 (scope: all): `comm=app op=connect remote=:5432 => error=ECONNREFUSED`
        hint: wait for its end, or end it by `kill 71`; `inject --beside` arms the fault beside it"#]]
    .assert_eq(&told);
    let pids = || all(folder).expect("ours").iter().map(|armed| armed.pid).collect::<Vec<_>>();
    assert_eq!(pids(), [71], "what is refused is not armed");
    let elsewhere = Within::Process(std::process::id() + 1);
    drop(Noted::note(folder, connect(73, elsewhere), false).expect("others are struck"));
    let beside = Noted::note(folder, connect(74, Within::Machine), true).expect("it is meant");
    assert_eq!(pids(), [71, 74]);
    drop((first, beside));
    assert_eq!(pids(), [0; 0]);
}

#[test]
fn counts_are_kept_current_also_where_the_folder_was_cleared() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = &folder.path().join("faults");
    let mut noted = Noted::note(folder, connect(71, Within::Machine), false).expect("alone");
    let counts = || {
        let armed = all(folder).expect("ours");
        armed.iter().map(|by| (by.faults[0].matched, by.faults[0].fired)).collect::<Vec<_>>()
    };
    assert_eq!(counts(), [(0, 0)]);
    noted.tell([(12, 3)].into_iter());
    assert_eq!(counts(), [(12, 3)]);
    fs::remove_dir_all(folder).expect("ours");
    assert_eq!(counts(), []);
    noted.tell([(12, 3)].into_iter());
    assert_eq!(counts(), [(12, 3)]);
}

#[test]
fn a_file_whose_recorder_is_gone_is_no_armed_fault_and_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = serde_json::to_vec(&connect(71, Within::Machine)).expect("JSON");
    let path = folder.path().join("71.json");
    fs::write(&path, &text).expect("ours");
    let held = File::open(&path).expect("ours");
    held.lock().expect("nobody holds it");
    assert_eq!(all(folder.path()).expect("ours").len(), 1);
    drop(held);
    assert_eq!(all(folder.path()).expect("ours"), []);
    assert!(!path.exists());
    fs::write(&path, &text).expect("ours");
    drop(Noted::note(folder.path(), connect(72, Within::Machine), false).expect("it is gone"));
    assert!(!path.exists());
}

#[test]
fn where_it_cannot_be_noted_it_is_not_armed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("ours");
    let refused = Noted::note(&file.join("faults"), connect(71, Within::Machine), false).err();
    let told = refused.as_ref().map(ToString::to_string).unwrap_or_default();
    assert!(matches!(refused, Some(Refused::Unwritable { .. })), "{told}");
    assert!(told.contains("/file/faults what is armed: Not a directory"), "{told}");
    assert!(told.contains("\nhint: "), "{told}");
    assert_eq!(all(&folder.path().join("none")).expect("nothing is armed"), []);
}
