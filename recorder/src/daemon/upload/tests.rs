use super::*;

const TARGET: &str = "file:///srv/store";

fn uploads(directory: &Path) -> Uploads {
    let upload = Some(Target::try_from(TARGET.to_owned()).expect("it is right"));
    let dumps = Dumps { directory: directory.to_owned(), upload, ..Dumps::default() };
    let store = Store::open(&dumps).expect("it opens");
    Uploads::of(&dumps, &store).expect("they are read").expect("there is a store")
}

/// A dump that was made in that minute, and its note.
fn dump(uploads: &Uploads, directory: &Path, minute: usize) -> (PathBuf, Note) {
    let name = format!("2027-01-15T08-{minute:02}-00Z-x");
    let folder = directory.join(&name);
    fs::create_dir(&folder).expect("a folder");
    let note = uploads.note(&folder, &name, &[]);
    (folder, note)
}

fn state(folder: &Path) -> State {
    Note::read(folder).expect("it was noted").state
}

#[test]
fn what_waits_is_bounded_and_the_oldest_is_given_up() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut uploads = uploads(directory.path());
    let mut folders = Vec::new();
    for minute in 0..=MOST_WAITING {
        let (folder, note) = dump(&uploads, directory.path(), minute);
        let to = uploads.add(folder.clone(), note);
        let host = &uploads.host;
        assert_eq!(to, format!("{TARGET}/2027-01-15T08-{minute:02}-00Z-x/{host}.parquet"));
        // Those that were tried stand behind the others.
        let first = uploads.waiting.remove(0);
        uploads.fail(first, &anyhow::anyhow!("it is away"));
        folders.push(folder);
    }
    let status = uploads.status();
    assert_eq!((status.waiting, status.counts.given_up), (MOST_WAITING, 1));
    assert!(matches!(state(&folders[0]), State::GivenUp { .. }));
    assert_eq!(state(&folders[1]), State::Waiting);
}

#[test]
fn a_store_that_is_away_is_asked_less_and_less_until_it_is_back() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut uploads = uploads(directory.path());
    let (folder, note) = dump(&uploads, directory.path(), 0);
    let mut pauses = Vec::new();
    for _ in 0..11 {
        let waiting = Waiting { folder: folder.clone(), note: note.clone() };
        uploads.fail(waiting, &anyhow::anyhow!("it is away"));
        pauses.push(uploads.pause.as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(uploads.status().failure.as_deref(), Some("it is away"));
    uploads.keep(Waiting { folder: folder.clone(), note }, Uploaded { files: 1, bytes: 7 });
    assert_eq!((uploads.pause, uploads.status().failure), (Duration::ZERO, None));
    assert!(matches!(state(&folder), State::Uploaded { .. }));
}

#[test]
fn what_waits_is_found_again_and_what_is_gone_is_counted() {
    let directory = tempfile::tempdir().expect("a folder");
    let mut before = uploads(directory.path());
    let dumps: Vec<_> = (0..3).map(|n| dump(&before, directory.path(), n)).collect();
    let (folder, note) = dumps[1].clone();
    before.keep(Waiting { folder, note }, Uploaded { files: 1, bytes: 7 });
    let mut after = uploads(directory.path());
    let waiting: Vec<_> = after.waiting.iter().map(|waiting| &waiting.folder).collect();
    assert_eq!(waiting, [&dumps[0].0, &dumps[2].0]);
    fs::remove_dir_all(&dumps[0].0).expect("the quota takes it");
    after.forget_gone();
    assert_eq!((after.status().waiting, after.status().counts.given_up), (1, 1));
    assert!(!dumps[0].0.exists(), "nothing is written where it was");
}

#[test]
fn what_another_host_puts_into_the_same_bucket_is_left_to_it() {
    let directory = tempfile::tempdir().expect("a folder");
    let part = |file: &str, to: Option<&str>| Part {
        peer: String::new(),
        file: Some(file.to_owned()),
        missing: None,
        uploads_to: to.map(str::to_owned),
    };
    // A folder of that name may be another one there.
    for (target, elsewhere) in [("s3://dumps", &["a"][..]), (TARGET, &[])] {
        let mut uploads = uploads(directory.path());
        uploads.target = Target::try_from(target.to_owned()).expect("it is right");
        let parts = [
            part("a", Some(&format!("{target}/x/a.parquet"))),
            part("b", None),
            part("c", Some("s3://elsewhere/x/c.parquet")),
            part("d", Some(&format!("{target}/x2/d.parquet"))),
        ];
        assert_eq!(uploads.note(directory.path(), "x", &parts).elsewhere, elsewhere, "{target}");
    }
}
