//! How much of the past is kept on disk: so long, so much, or both.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::quantity::{self, Size, Time};

/// What `history` says in the configuration: `"10m"`, `"2GiB"`, or a table of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What is older goes; nothing: only the size counts.
    pub age: Option<Duration>,
    /// All together, bytes.
    pub size: u64,
    pub directory: Option<PathBuf>,
}

/// As with dumps.
const SIZE: u64 = 4 << 30;
/// Less would hold next to nothing beside the newest segment.
const SMALLEST: u64 = 16 << 20;
const SHORTEST: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    age: Option<Time>,
    size: Option<Size>,
    directory: Option<PathBuf>,
}

impl Limits {
    /// Where it lies: beside the dumps, unless said otherwise.
    pub fn directory(&self, dumps: &Path) -> PathBuf {
        let beside = || dumps.parent().unwrap_or(dumps).join("history");
        self.directory.clone().unwrap_or_else(beside)
    }

    fn new(table: Table) -> Result<Self, String> {
        let Table { age, size, directory } = table;
        let age = age.map(|age| age.0);
        let size = size.map_or(SIZE, |size| size.0);
        if age.is_none_or(|age| age >= SHORTEST) && size >= SMALLEST {
            return Ok(Self { age, size, directory });
        }
        Err(format!("a history has at least {} s and {}", SHORTEST.as_secs(), Size(SMALLEST)))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let bare = text.chars().all(|c| c.is_ascii_digit());
        let (age, size) = match (quantity::duration(text), quantity::size(text)) {
            (Ok(age), _) if !bare => (Some(Time(age)), None),
            (_, Ok(size)) if !bare => (None, Some(Size(size))),
            _ => {
                return Err(format!(
                    "`{text}` is neither a time nor a size: write \"10m\" or \"2GiB\""
                ));
            }
        };
        Self::new(Table { age, size, directory: None })
    }
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrTable)
    }
}

struct TextOrTable;

impl<'de> Visitor<'de> for TextOrTable {
    type Value = Limits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"10m\", \"2GiB\" or { age, size, directory }")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Limits, E> {
        Limits::parse(text).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Limits, A::Error> {
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        Limits::new(table).map_err(A::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Limits, String> {
        #[derive(Deserialize)]
        struct Config {
            history: Limits,
        }
        let config: Result<Config, _> = toml::from_str(&format!("history = {text}"));
        config.map(|config| config.history).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_time_a_size_or_both() {
        let minutes = |n: u64| Some(Duration::from_secs(60 * n));
        assert_eq!(parse("'10m'"), Ok(Limits { age: minutes(10), size: SIZE, directory: None }));
        assert_eq!(parse("'2GiB'"), Ok(Limits { age: None, size: 2 << 30, directory: None }));
        let both = parse("{ age = '1m', size = '64MiB', directory = '/h' }").expect("it is right");
        assert_eq!((both.age, both.size), (minutes(1), 64 << 20));
        assert_eq!(both.directory(Path::new("/var/d")), Path::new("/h"));
        assert_eq!(
            parse("'1h'").expect("right").directory(Path::new("/v/dumps")),
            Path::new("/v/history")
        );
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let why = |text| parse(text).expect_err("it is wrong");
        assert!(why("'600'").contains("neither a time nor a size"));
        assert!(why("'1s'").contains("at least 10 s and 16 MiB"));
        assert!(why("{ size = '1MiB' }").contains("at least 10 s"));
        assert!(why("{ sise = '1GiB' }").contains("unknown field `sise`"));
        assert!(why("7").contains("expected \"10m\""));
    }
}
