//! Where dumps go, as the configuration has it: `s3://bucket/prefix` or `file:///folder`. All else is refused when the
//! configuration is read, so that no dump goes where nobody meant it to.

use std::fmt;
use std::path::{Component, PathBuf};

use object_store::path::Path;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// A bucket, and what all keys begin with.
    S3 { bucket: String, prefix: Path },
    /// A folder, which has to be there: where it lies in a file system that is not mounted, nothing goes elsewhere.
    Folder(PathBuf),
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.contains(['%', '?', '#']) || text.contains(char::is_control) {
            return Err(format!(
                "`{text}`: names are written as they are, without `%`, `?` and `#`"
            ));
        }
        match text.split_once("://") {
            Some(("s3", rest)) => s3(rest),
            Some(("file", path)) => folder(path),
            _ => Err(format!("`{text}` is no store: write s3://bucket/prefix or file:///folder")),
        }
    }
}

fn s3(rest: &str) -> Result<Target, String> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || !bucket.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
    {
        return Err(format!(
            "`{bucket}` is no bucket's name; who asks, and where, is said by variables of the environment (AWS_…)"
        ));
    }
    let prefix =
        Path::parse(prefix).map_err(|error| format!("`{prefix}` is no prefix: {error}"))?;
    Ok(Target::S3 { bucket: bucket.to_owned(), prefix })
}

fn folder(path: &str) -> Result<Target, String> {
    let path = PathBuf::from(path);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(format!(
            "`{}` is no absolute path: write three slashes, file:///folder",
            path.display()
        ));
    }
    Ok(Target::Folder(path))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.as_ref().is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Folder(path) => write!(f, "file://{}", path.display()),
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn target(text: &str) -> Result<Target, String> {
        Target::try_from(text.to_owned())
    }

    #[test]
    fn a_store_is_told_as_it_was_written() {
        for text in
            ["s3://dumps", "s3://my.dumps-1/a/b c", "file:///srv/dumps", "file:///srv/dümps"]
        {
            assert_eq!(target(text).map(String::from).as_deref(), Ok(text));
        }
        assert_eq!(target("s3://dumps/a/").map(String::from).as_deref(), Ok("s3://dumps/a"));
        let prefix = Path::from("a/b");
        assert_eq!(target("s3://d/a/b"), Ok(Target::S3 { bucket: "d".to_owned(), prefix }));
    }

    #[test]
    fn what_is_no_store_is_refused() {
        let refused = |text: &str, expected: Expect| {
            expected.assert_eq(&target(text).expect_err("it is wrong"));
        };
        refused(
            "https://dumps.s3.amazonaws.com",
            expect![
                "`https://dumps.s3.amazonaws.com` is no store: write s3://bucket/prefix or file:///folder"
            ],
        );
        refused(
            "/srv/dumps",
            expect!["`/srv/dumps` is no store: write s3://bucket/prefix or file:///folder"],
        );
        refused(
            "S3://dumps",
            expect!["`S3://dumps` is no store: write s3://bucket/prefix or file:///folder"],
        );
        refused(
            "s3://key:secret@dumps/a",
            expect![
                "`key:secret@dumps` is no bucket's name; who asks, and where, is said by variables of the environment (AWS_…)"
            ],
        );
        refused(
            "s3:///a",
            expect![
                "`` is no bucket's name; who asks, and where, is said by variables of the environment (AWS_…)"
            ],
        );
        refused(
            "s3://dumps/../others",
            expect![[
                r#"`../others` is no prefix: Error parsing Path "../others": Encountered illegal character sequence ".." whilst parsing path segment "..""#
            ]],
        );
        refused(
            "s3://dumps/a//b",
            expect![[r#"`a//b` is no prefix: Path "a//b" contained empty path segment"#]],
        );
        refused(
            "s3://dumps/a%2fb",
            expect!["`s3://dumps/a%2fb`: names are written as they are, without `%`, `?` and `#`"],
        );
        refused(
            "file://srv/dumps",
            expect!["`srv/dumps` is no absolute path: write three slashes, file:///folder"],
        );
        refused(
            "file:///srv/../etc",
            expect!["`/srv/../etc` is no absolute path: write three slashes, file:///folder"],
        );
    }
}
