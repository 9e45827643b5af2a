//! Under which key each file of a dump lies in the store: one prefix for an incident, in it one recording for a host, and
//! what a host has to say about it in a folder of its name.
//!
//! ```text
//!   2026-11-20T12-00-01Z-HighErrorRate-web-1/
//!       web-1.parquet                 what web-1 recorded
//!       app-1.parquet                 what app-1 recorded, which uploads by itself
//!       peer-10.0.0.3_9799.parquet    what a host sent that does not
//!       web-1/why.txt                 web-1's answer, and what else its dump holds
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object_store::path::Path as Key;

use super::note::NOTE;
use super::target::Target;
use crate::daemon::store::is_plain;

/// Whose dump of which incident.
pub struct Place<'a> {
    pub target: &'a Target,
    pub incident: &'a str,
    pub host: &'a str,
}

impl Place<'_> {
    /// What all addresses of the incident begin with.
    pub fn incident_url(&self) -> String {
        format!("{}/{}/", self.target, self.incident)
    }

    /// The address of this host's recording.
    pub fn url(&self) -> String {
        format!("{}{}.parquet", self.incident_url(), self.host)
    }

    fn key(&self, file: &str) -> Key {
        let Self { target, incident, host } = self;
        let below = match target {
            Target::S3 { prefix, .. } => prefix.clone(),
            Target::Folder(_) => Key::default(),
        };
        let below = below.join(*incident);
        match file {
            "recording.parquet" => below.join(format!("{host}.parquet")),
            file if file.starts_with("peer-") && file.ends_with(".parquet") => below.join(file),
            file => below.join(*host).join(file),
        }
    }

    /// The files of a dump with their keys, `why.txt` last: when that is there, all is. Left out are those that other
    /// hosts upload themselves, and whatever the daemon did not put there.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn files(&self, folder: &Path, elsewhere: &[String]) -> Result<Vec<(PathBuf, Key)>> {
        let listed = || format!("list {}", folder.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).with_context(listed)? {
            let entry = entry.with_context(listed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let wanted = is_plain(&name) && name != NOTE && !elsewhere.contains(&name);
            if wanted && entry.file_type().with_context(listed)?.is_file() {
                names.push(name);
            }
        }
        names.sort_by_key(|name| (name == "why.txt", !name.ends_with(".parquet"), name.clone()));
        Ok(names.into_iter().map(|name| (folder.join(&name), self.key(&name))).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn target(text: &str) -> Target {
        Target::try_from(text.to_owned()).expect("it is right")
    }

    #[test]
    fn an_incident_is_one_prefix_and_a_host_one_recording() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in [
            "why.txt",
            "graph.svg",
            "recording.parquet",
            "peer-a_1.parquet",
            "peer-b_1.parquet",
            "peer-c_1.parquet.unreadable",
            NOTE,
            ".hidden",
            "not plain",
        ] {
            fs::write(folder.path().join(name), name).expect("it is written");
        }
        symlink("/etc/passwd", folder.path().join("passwd")).expect("a link");
        let keys = |text: &str| {
            let target = target(text);
            let place = Place { target: &target, incident: "x", host: "web" };
            let files = place.files(folder.path(), &["peer-b_1.parquet".to_owned()]);
            let files = files.expect("a list").into_iter();
            files.map(|(_, key)| key.to_string()).collect::<Vec<_>>()
        };
        let expected = [
            "x/peer-a_1.parquet",
            "x/web.parquet",
            "x/web/graph.svg",
            "x/web/peer-c_1.parquet.unreadable",
            "x/web/why.txt",
        ];
        assert_eq!(keys("file:///srv"), expected);
        assert_eq!(keys("s3://dumps/a/b"), expected.map(|key| format!("a/b/{key}")));
    }

    #[test]
    fn no_name_leads_out_of_the_prefix() {
        let target = target("s3://dumps/a");
        for name in ["..", "../../etc", "/etc", "."] {
            let place = Place { target: &target, incident: name, host: name };
            for file in ["recording.parquet", name] {
                let key = place.key(file).to_string();
                assert!(key.starts_with("a/") && key.split('/').all(|p| p != ".." && p != "."));
            }
        }
    }

    #[test]
    fn a_dump_has_an_address() {
        let target = target("s3://dumps/a");
        let place = Place { target: &target, incident: "x", host: "web" };
        assert_eq!(place.url(), "s3://dumps/a/x/web.parquet");
    }
}
