//! Recordings of every version there has been stay readable. Their files are never edited.

use std::path::{Path, PathBuf};

use super::{all_written_out, open, recorded, traffic};

fn golden(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("data/recording-v{version}.parquet"))
}

#[test]
fn version_1() {
    let history = traffic::requests(60);
    let read = open(&golden(1)).expect("the golden recording");
    assert_eq!(read.notes, []);
    assert_eq!(read.history.hosts, history.hosts);
    assert_eq!(all_written_out(&read.history), all_written_out(&history));
}

/// Writes the golden file of a new version: `cargo test -p tests -- --ignored make_golden_file`, once.
#[test]
#[ignore = "makes a file that must not change once it is committed"]
fn make_golden_file() {
    let path = golden(recorder::recording::SCHEMA_VERSION);
    assert!(!path.exists(), "{} exists and stays", path.display());
    std::fs::write(path, recorded(&traffic::requests(60), 25)).expect("write the golden file");
}
