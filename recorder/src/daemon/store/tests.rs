use super::*;
use crate::quantity::{Size, Time};

fn limits(directory: &Path) -> Dumps {
    Dumps {
        directory: directory.to_owned(),
        quota: Size(250),
        per_hour: 3,
        cooldown: Time(Duration::from_secs(60)),
        after: Time(Duration::ZERO),
        upload: None,
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a folder");
    let store = Store::open(&limits(directory.path())).expect("it opens");
    (directory, store)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn make(store: &mut Store, name: &str, second: i64, bytes: usize) -> PathBuf {
    let firing = Firing::new(name, "api");
    let name = store.name(&firing, at(second));
    let draft = store.draft(&name).expect("a folder");
    fs::write(draft.folder.join("recording.parquet"), vec![0; bytes]).expect("it is written");
    store.keep(draft, &firing).expect("it is kept")
}

#[test]
fn one_symptom_gives_one_dump_until_it_has_cooled_down() {
    let (_directory, mut store) = store();
    let (firing, other) = (Firing::new("a", "api"), Firing::new("b", "api"));
    let now = Instant::now();
    assert_eq!(store.admit(&firing, now), Ok(()));
    store.count(&firing, now);
    let refused = store.admit(&firing, now + Duration::from_secs(20));
    assert_eq!(refused, Err(Refusal::CoolingDown { before_s: 20, wait_s: 41 }));
    assert_eq!(store.admit(&other, now), Ok(()));
    assert_eq!(store.admit(&firing, now + Duration::from_secs(60)), Ok(()));
}

#[test]
fn so_many_an_hour_and_no_more() {
    let (_directory, mut store) = store();
    let now = Instant::now();
    for name in ["a", "b", "c"] {
        store.count(&Firing::new(name, "api"), now);
    }
    let firing = Firing::new("d", "api");
    assert_eq!(store.admit(&firing, now), Err(Refusal::TooMany { per_hour: 3 }));
    assert_eq!(store.admit(&firing, now + HOUR), Ok(()));
}

#[test]
fn what_is_repeated_has_its_dump_already() {
    let (_directory, mut store) = store();
    let firing = |occurrences: &[&str]| {
        let occurrences = occurrences.iter().map(|&o| o.to_owned()).collect();
        Firing { occurrences, ..Firing::new("a", "alertmanager") }
    };
    let draft = store.draft("2027-01-15T08-00-00Z-a").expect("a folder");
    store.keep(draft, &firing(&["x"])).expect("it is kept");
    assert_eq!(store.admit(&firing(&["x"]), Instant::now()), Err(Refusal::Repeated));
    assert_eq!(store.admit(&firing(&["x", "y"]), Instant::now()), Ok(()));
}

#[test]
fn the_oldest_make_room_and_strangers_folders_stay() {
    let (directory, mut store) = store();
    fs::create_dir(directory.path().join("notes")).expect("a folder");
    fs::write(directory.path().join("notes/long"), vec![0; 1000]).expect("it is written");
    let first = make(&mut store, "a", 0, 100);
    let second = make(&mut store, "b", 1, 100);
    assert!(first.exists() && second.exists());
    let third = make(&mut store, "c", 2, 100);
    assert!(!first.exists() && second.exists() && third.exists());
    // One that is larger than all of the quota is kept, alone.
    let large = make(&mut store, "d", 3, 1000);
    assert!(large.exists() && !third.exists() && directory.path().join("notes/long").exists());
}

#[test]
fn names_are_plain_whatever_an_alert_is_called() {
    let (directory, mut store) = store();
    let path = make(&mut store, "../../etc/passwd\n", 0, 1);
    assert_eq!(path, directory.path().join("2027-01-15T08-00-00Z-_.._etc_passwd_"));
    assert_eq!(
        make(&mut store, "../../etc/passwd\n", 0, 1),
        directory.path().join("2027-01-15T08-00-00Z-_.._etc_passwd_-2")
    );
    let other = Firing::new("other", "api");
    let names = [store.name(&other, at(0)), store.name(&other, at(0))];
    assert_eq!(names, ["2027-01-15T08-00-00Z-other", "2027-01-15T08-00-00Z-other-2"]);
    assert!(names.iter().all(|name| is_name(name)) && !is_name("other") && !is_name("../x"));
    assert_eq!(plain("..."), "dump");
    assert_eq!(plain(&"x".repeat(1000)).len(), 64);
}

#[test]
fn what_a_killed_daemon_left_is_cleared_away() {
    let (directory, store) = store();
    let draft = store.draft("2027-01-15T08-00-00Z-mine").expect("a folder");
    let dead = directory.path().join(".making-4194305-2027-01-15T08-00-00Z-x");
    fs::create_dir(&dead).expect("a folder");
    Store::open(&limits(directory.path())).expect("it opens");
    assert!(!dead.exists(), "its process is gone");
    assert!(draft.folder.exists(), "its process lives");
}
