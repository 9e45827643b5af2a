//! The store in `s3.py`, as a test has it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::daemon::running::{Environment, PATIENCE, free_address};
use crate::recorded::python_path;

/// A server that takes objects into a folder.
pub struct S3 {
    folder: TempDir,
    child: Option<Child>,
    port: u16,
    certificate: Option<(PathBuf, PathBuf)>,
}

impl S3 {
    pub fn start() -> Self {
        let mut store = Self::away(None);
        store.come_back();
        store
    }

    /// One that talks TLS, with a certificate and its key.
    pub fn with_tls(certificate: PathBuf, key: PathBuf) -> Self {
        let mut store = Self::away(Some((certificate, key)));
        store.come_back();
        store
    }

    /// One whose connections are refused.
    pub fn away(certificate: Option<(PathBuf, PathBuf)>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("objects")).expect("a folder");
        fs::write(folder.path().join("requests"), "").expect("it is written");
        let store = Self { folder, child: None, port: free_address().port(), certificate };
        store.mood("well");
        store
    }

    pub fn come_back(&mut self) {
        let mut command = Command::new(python_path());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/kernel/daemon/upload/s3.py");
        command.arg(script).arg(self.folder.path()).env("PORT", self.port.to_string());
        if let Some((certificate, key)) = &self.certificate {
            command.arg(certificate).arg(key);
        }
        self.child = Some(command.stdin(Stdio::null()).spawn().expect("Python starts"));
        let begun = Instant::now();
        while !self.folder.path().join("port").exists() {
            assert!(begun.elapsed() < PATIENCE, "the store does not come up");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it does from now on: `well`, `503`, `hang`.
    pub fn mood(&self, mood: &str) {
        let made = self.folder.path().join("mood.new");
        fs::write(&made, mood).expect("it is written");
        fs::rename(&made, self.folder.path().join("mood")).expect("it is renamed");
    }

    /// What a daemon has to find in its environment.
    pub fn environment(&self) -> Environment {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        vec![
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            ("AWS_ENDPOINT", format!("{scheme}://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("NO_PROXY", "127.0.0.1".to_owned()),
        ]
    }

    /// Each request, and what became of it.
    pub fn requests(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("requests")).expect("it is there");
        text.lines().map(str::to_owned).collect()
    }

    /// All that it has, by `bucket/key`.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        files(&self.folder())
    }

    /// Where they lie.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("objects")
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// All files below a folder, by their paths from there.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn add(folder: &Path, below: &str, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            match entry.path() {
                path if path.is_dir() => add(&path, &format!("{name}/"), files),
                path => drop(files.insert(name, fs::read(path).expect("a file"))),
            }
        }
    }
    let mut found = BTreeMap::new();
    add(folder, "", &mut found);
    found
}
