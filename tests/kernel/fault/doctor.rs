//! What `doctor` says of each mechanism is what `inject` meets.

use std::process::Command;

use serde_json::Value;
use tests::command::wherefore;

use super::destroyed;
use crate::recorded::require_root;

/// Answer and note of each injector, by `doctor --json` run by this command.
fn injectors(command: &mut Command) -> Vec<(String, String, String)> {
    let output = command.args(["doctor", "--json"]).output().expect("it starts");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("a list").iter();
    let text = |check: &Value, key| check[key].as_str().unwrap_or_default().to_owned();
    let checks = checks.filter(|check| check["section"] == "injectors");
    checks.map(|c| (text(c, "name"), text(c, "answer"), text(c, "note"))).collect()
}

#[test]
fn each_injector_is_tried_and_told() {
    require_root();
    let told = injectors(&mut Command::new(wherefore()));
    let names: Vec<&str> = told.iter().map(|(name, ..)| &**name).collect();
    assert_eq!(names, ["cgroup", "destroy", "signal", "override"]);
    for (name, answer, note) in &told {
        assert!(answer == "yes" || answer == "no" && !note.is_empty(), "{name} {answer} {note}");
    }
    let works: Vec<bool> = told[..3].iter().map(|(_, answer, _)| answer == "yes").collect();
    assert_eq!(works, [true, destroyed::missing().is_none(), true], "{told:?}");
    let (_, answer, note) = &told[3];
    let fault = "op=accept => error=EMFILE, nth=1, syscall=accept4";
    let mut inject = Command::new(wherefore());
    inject.args(["inject", "--explain", "--fault", fault, "--", "true"]);
    let output = inject.output().expect("it starts");
    let said = String::from_utf8_lossy(if output.status.success() {
        &output.stdout
    } else {
        &output.stderr
    });
    let meets = if answer == "yes" { "accept4: bpf_override_return(-EMFILE)" } else { note };
    assert!(said.contains(meets), "{meets}: {said}");
    let text = Command::new(wherefore()).arg("doctor").output().expect("it starts");
    assert!(String::from_utf8_lossy(&text.stdout).contains("\ninjectors\n"), "{text:?}");
}

#[test]
fn who_may_not_try_cannot_tell() {
    require_root();
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--clear-groups", "--inh-caps=-all"]).arg(wherefore());
    for (name, answer, note) in injectors(&mut nobody) {
        assert_eq!(answer, "unknown", "{name}: {note}");
        assert!(!note.is_empty(), "{name} says why");
    }
}
