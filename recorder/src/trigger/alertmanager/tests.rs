use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

fn rules() -> Vec<AlertRule> {
    let rule = |labels: &[(&str, &str)], symptom: &str| AlertRule {
        labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        symptom: Some(Symptom::try_from(symptom.to_owned()).expect("a pattern")),
        missing: None,
        scope: None,
        lookback: Time(Duration::from_secs(60)),
        raise: None,
    };
    vec![
        rule(&[("alertname", "High*"), ("job", "web")], "comm=nginx local={instance}"),
        rule(&[("alertname", "High*")], "comm={job} op=recv"),
    ]
}

fn alert(status: &str, labels: serde_json::Value, starts_at: &str) -> serde_json::Value {
    json!({ "status": status, "labels": labels, "startsAt": starts_at, "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://p", "fingerprint": "", "annotations": {} })
}

fn check(alerts: &[serde_json::Value], expected: Expect) {
    let said =
        json!({ "version": "4", "status": "firing", "receiver": "wherefore", "alerts": alerts });
    let notification = Notification::deserialize(&said).expect("a notification");
    let told = match firing(&notification, &rules(), said) {
        None => "nothing fires".to_owned(),
        Some(f) => format!(
            "{} since {} began {}\nkey {}\nsymptoms {:?}\noccurrences {:?}",
            f.name,
            f.since.map_or(String::new(), |t| t.to_string()),
            f.began.map_or(String::new(), |t| t.to_string()),
            f.key,
            f.symptoms,
            f.occurrences
        ),
    };
    expected.assert_eq(&told);
}

#[test]
fn labels_choose_the_symptom_and_the_start_the_interval() {
    let labels = json!({ "alertname": "HighErrorRate", "job": "web", "instance": "10.0.0.7:8080" });
    check(
        &[alert("firing", labels, "2026-11-20T12:00:01.5Z")],
        expect![[r#"
        HighErrorRate since 2026-11-20T11:59:01.5Z began 2026-11-20T12:00:01.5Z
        key alertname=HighErrorRate,instance=10.0.0.7:8080,job=web
        symptoms ["comm=nginx local=10.0.0.7:8080"]
        occurrences ["alertname=HighErrorRate,instance=10.0.0.7:8080,job=web 2026-11-20T12:00:01.5Z"]"#]],
    );
}

#[test]
fn a_group_is_one_firing_and_begins_with_its_first() {
    let labels = |n: u8| json!({ "alertname": "HighLatency", "job": format!("job{n}") });
    check(
        &[
            alert("firing", labels(1), "2026-11-20T12:00:05Z"),
            alert("resolved", labels(2), "2026-11-20T11:00:00Z"),
            alert("firing", labels(3), "2026-11-20T12:00:01Z"),
        ],
        expect![[r#"
            HighLatency since 2026-11-20T11:59:01Z began 2026-11-20T12:00:01Z
            key alertname=HighLatency,job=job1 alertname=HighLatency,job=job3
            symptoms ["comm=job3 op=recv", "comm=job1 op=recv"]
            occurrences ["alertname=HighLatency,job=job3 2026-11-20T12:00:01Z", "alertname=HighLatency,job=job1 2026-11-20T12:00:05Z"]"#]],
    );
}

#[test]
fn what_is_resolved_fires_nothing() {
    check(
        &[alert("resolved", json!({ "alertname": "High" }), "2026-11-20T12:00:05Z")],
        expect!["nothing fires"],
    );
    check(&[], expect!["nothing fires"]);
}

#[test]
fn a_label_cannot_say_more_than_one_value() {
    let labels = json!({ "alertname": "High", "job": "x op=send comm=y" });
    check(
        &[alert("firing", labels, "2026-11-20T12:00:05Z")],
        expect![[r#"
        High since 2026-11-20T11:59:05Z began 2026-11-20T12:00:05Z
        key alertname=High,job=x op=send comm=y
        symptoms []
        occurrences ["alertname=High,job=x op=send comm=y 2026-11-20T12:00:05Z"]"#]],
    );
    let labels = json!({ "alertname": "High", "job": "web" });
    check(
        &[alert("firing", labels, "2026-11-20T12:00:05Z")],
        expect![[r#"
        High since 2026-11-20T11:59:05Z began 2026-11-20T12:00:05Z
        key alertname=High,job=web
        symptoms []
        occurrences ["alertname=High,job=web 2026-11-20T12:00:05Z"]"#]],
    );
}

#[test]
fn a_symptom_that_is_no_pattern_is_refused_beforehand() {
    let refused = |text: &str| Symptom::try_from(text.to_owned()).expect_err("it is wrong");
    assert!(refused("colour=red").contains("colour"), "{}", refused("colour=red"));
    assert!(refused("comm={job").contains("without a `}`"));
}

#[test]
fn a_scope_is_part_of_what_is_asked_and_stands_for_itself_where_nothing_is() {
    let pattern = |text: &str| Some(Symptom::try_from(text.to_owned()).expect("a pattern"));
    let rule = |symptom, missing| AlertRule {
        labels: BTreeMap::new(),
        symptom,
        missing,
        scope: pattern("cgroup=/system.slice/{service}.service"),
        lookback: lookback(),
        raise: None,
    };
    let said =
        json!({ "alerts": [alert("firing", json!({ "service": "web" }), "2026-11-20T12:00:05Z")] });
    let notification = Notification::deserialize(&said).expect("a notification");
    let scope = "cgroup=/system.slice/web.service";
    let both = rule(pattern("op=recv"), pattern("op=send"));
    let fired = firing(&notification, std::slice::from_ref(&both), said.clone()).expect("it fires");
    assert_eq!(fired.symptoms, [format!("{scope} op=recv")]);
    assert_eq!(
        (fired.missing, fired.scope),
        (Some(format!("{scope} op=send")), Some(scope.to_owned()))
    );
    let fired = firing(&notification, &[rule(None, None)], said).expect("it fires");
    assert_eq!((fired.symptoms, fired.missing), (vec![], None));
    assert_eq!(fired.scope.as_deref(), Some(scope));
    // An alert without that label: what is asked is asked of all.
    let said =
        json!({ "alerts": [alert("firing", json!({ "job": "web" }), "2026-11-20T12:00:05Z")] });
    let notification = Notification::deserialize(&said).expect("a notification");
    let fired = firing(&notification, &[both], said).expect("it fires");
    assert_eq!((fired.symptoms, fired.scope), (vec!["op=recv".to_owned()], None));
}
