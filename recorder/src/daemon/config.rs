//! The daemon's configuration: a TOML file, all of whose keys have defaults. An unknown key is an error,
//! with its line and column: a misspelt limit would be no limit.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::history::limits::Limits;
use super::peers::Peers;
use super::profile::settings::Profile;
use super::tls;
use super::upload::target::Target;
use crate::capture::Scope;
use crate::hide::Hide;
use crate::quantity::{Size, Time};
use crate::trigger::Rule;
use crate::trigger::alertmanager::AlertRule;

/// What the daemon does; docs/deployment.md explains each key.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Memory for the kernel's rings. Default: 1/64 of the machine's, between 16 MiB and 1 GiB.
    pub ring: Size,
    /// Record this cgroup and those below it; default: the whole machine.
    pub cgroup: Option<PathBuf>,
    /// What is kept on disk beyond the rings; default: nothing.
    pub history: Option<Limits>,
    /// Names that are written down nowhere.
    pub hide: Hide,
    pub api: Api,
    pub dumps: Dumps,
    /// Whether it is learnt what is usual, and at what cost; default: no.
    pub profile: Profile,
    /// Other hosts, which keep the same interval.
    #[serde(deserialize_with = "Peers::introduced")]
    pub peers: Option<Peers>,
    /// What alerts mean.
    pub alert: Vec<AlertRule>,
    /// What else makes a dump.
    pub trigger: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    pub socket: PathBuf,
    /// `user`, `user:group` or `:group`.
    pub owner: Option<String>,
    pub mode: Mode,
    #[serde(deserialize_with = "Tcp::guarded")]
    pub tcp: Option<Tcp>,
}

/// Listening beyond the machine's own socket: never to anybody, see [`Tcp::guarded`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    pub listen: SocketAddr,
    /// A file whose first line is what `Authorization: Bearer` has to say.
    pub token_file: Option<PathBuf>,
    pub tls: Option<tls::ServerTls>,
}

impl Tcp {
    /// Only with a token or by certificates of clients.
    fn guarded<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Self>, D::Error> {
        let tcp = Self::deserialize(from)?;
        if tcp.token_file.is_none() && tcp.tls.as_ref().is_none_or(|tls| tls.clients.is_none()) {
            return Err(D::Error::custom(
                "whoever can connect could read all that is recorded: `tcp` needs `token_file`, or `tls` with `clients`",
            ));
        }
        Ok(Some(tcp))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dumps {
    pub directory: PathBuf,
    /// All dumps together; the oldest make room.
    pub quota: Size,
    pub per_hour: usize,
    /// For so long one symptom gives one dump.
    pub cooldown: Time,
    /// How long to go on recording before a triggered dump is made.
    pub after: Time,
    /// Where a copy of each goes; default: nowhere.
    pub upload: Option<Target>,
}

/// Permission bits, written in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mode(pub u32);

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match u32::from_str_radix(&text, 8) {
            Ok(bits) if bits <= 0o777 => Ok(Self(bits)),
            _ => {
                Err(format!("`{text}` are no permission bits: write three octal digits, \"0660\""))
            }
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ring: default_ring(memory_bytes()),
            cgroup: None,
            history: None,
            hide: Hide::default(),
            api: Api::default(),
            dumps: Dumps::default(),
            profile: Profile(None),
            peers: None,
            alert: Vec::new(),
            trigger: Vec::new(),
        }
    }
}

/// Where the daemon is asked, unless it or its clients are told otherwise.
pub const SOCKET: &str = "/run/wherefore/wherefore.sock";

impl Default for Api {
    fn default() -> Self {
        Self { socket: SOCKET.into(), owner: None, mode: Mode(0o600), tcp: None }
    }
}

impl Default for Dumps {
    fn default() -> Self {
        Self {
            directory: "/var/lib/wherefore/dumps".into(),
            quota: Size(4 << 30),
            per_hour: 12,
            cooldown: Time(Duration::from_secs(300)),
            after: Time(Duration::from_secs(2)),
            upload: None,
        }
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong, on which line and column.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("read {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)?;
        let mut names = HashSet::new();
        for rule in &config.trigger {
            if !names.insert(&rule.name) {
                bail!(
                    "two triggers are called `{}`: their dumps could not be told apart",
                    rule.name
                );
            }
        }
        crate::trigger::kernel::fits(&config.trigger).map_err(anyhow::Error::msg)?;
        if let Some(Target::Folder(folder)) = &config.dumps.upload
            && folder.starts_with(&config.dumps.directory)
        {
            bail!(
                "dumps are to be uploaded to where they lie: `upload` needs another folder than `directory`"
            );
        }
        Ok(config)
    }

    pub fn scope(&self) -> Scope {
        self.cgroup.clone().map_or(Scope::All, Scope::Cgroup)
    }
}

fn default_ring(memory_bytes: u64) -> Size {
    Size((memory_bytes / 64).clamp(16 << 20, 1 << 30))
}

fn memory_bytes() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn refused(text: &str, expected: Expect) {
        let error = Config::parse(text).expect_err("it is wrong");
        expected.assert_eq(&format!("{error:#}"));
    }

    #[test]
    fn nothing_need_be_said() {
        assert_eq!(Config::parse("").expect("it is right"), Config::default());
        assert_eq!(default_ring(24 << 30), Size(384 << 20));
        assert_eq!((default_ring(1 << 28).0, default_ring(1 << 40).0), (16 << 20, 1 << 30));
    }

    #[test]
    fn everything_can_be_said() {
        let config = Config::parse(
            "ring = '512MiB'\ncgroup = '/app.slice'\nhide = ['acme*']\n[api]\nsocket = '/tmp/s'\nowner = 'root:adm'\nmode = '0660'\n\
             tcp = { listen = '127.0.0.1:9799', token_file = '/etc/token' }\n\
             [dumps]\ndirectory = '/d'\nquota = '1GiB'\nper_hour = 3\ncooldown = '1m'\nafter = '500ms'\nupload = 's3://dumps/a'\n\
             [[alert]]\nlabels = { alertname = 'High*' }\nsymptom = 'comm=nginx op=recv'\n",
        )
        .expect("it is right");
        assert_eq!(config.ring, Size(512 << 20));
        assert_eq!(config.scope(), Scope::Cgroup("/app.slice".into()));
        assert_eq!((config.api.mode, config.dumps.per_hour), (Mode(0o660), 3));
        let upload = config.dumps.upload.map(String::from);
        assert_eq!(upload.as_deref(), Some("s3://dumps/a"));
        assert_eq!(config.alert.len(), 1);
        assert!(config.hide.hides("acme-db"));
    }

    #[test]
    fn triggers_watch_one_thing_each() {
        let config = Config::parse(
            "[[trigger]]\nname = 'Slow'\nlog = '/var/log/x'\nmatches = 'took (?<ms>[0-9]+)'\nlookback = '30s'\n\
             [[trigger]]\nname = 'Oops'\njournal = 'web.service'\nmatches = 'panic'\nsymptom = 'comm=web'\n",
        )
        .expect("it is right");
        assert_eq!(config.trigger.iter().map(Rule::source).collect::<Vec<_>>(), ["log", "journal"]);
        refused(
            "\n[[trigger]]\nname = 'Slow'\nlog = '/x'\njournal = '*'\nmatches = 'x'",
            expect![[r#"
                TOML parse error at line 2, column 1
                  |
                2 | [[trigger]]
                  | ^^^^^^^^^^^
                a trigger watches one thing: give it `log`, `journal`, `event`, `exit` or `count`
            "#]],
        );
        refused(
            "[[trigger]]\nname = 'Slow'\nlog = '/x'",
            expect![[r#"
            TOML parse error at line 1, column 1
              |
            1 | [[trigger]]
              | ^^^^^^^^^^^
            `log` needs `matches`, a regular expression that a line has to match
        "#]],
        );
        refused(
            "[[trigger]]\nname = 'Slow'\nlog = '/x'\nmatches = '('",
            expect![[r#"
            TOML parse error at line 4, column 11
              |
            4 | matches = '('
              |           ^^^
            regex parse error:
                (
                ^
            error: unclosed group
        "#]],
        );
        refused(
            "[[trigger]]\nname = 'Slow'\nlogs = '/x'",
            expect![[r#"
                TOML parse error at line 3, column 1
                  |
                3 | logs = '/x'
                  | ^^^^
                unknown field `logs`, expected one of `name`, `log`, `journal`, `matches`, `event`, `exit`, `count`, `of`, `above`, `window`, `symptom`, `missing`, `scope`, `lookback`, `after`, `raise`
            "#]],
        );
        refused(
            "[[trigger]]\nname = 'S'\nlog = '/x'\nmatches = 'x'\nsymptom = 'comm={who}'",
            expect![[r#"
                TOML parse error at line 1, column 1
                  |
                1 | [[trigger]]
                  | ^^^^^^^^^^^
                nothing is called `who`: name a part of `matches` so, (?<who>…)
            "#]],
        );
        let twice = "[[trigger]]\nname = 'S'\nlog = '/x'\nmatches = 'x'\n".repeat(2);
        refused(
            &twice,
            expect!["two triggers are called `S`: their dumps could not be told apart"],
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        refused(
            "rings = '1GiB'",
            expect![[r#"
                TOML parse error at line 1, column 1
                  |
                1 | rings = '1GiB'
                  | ^^^^^
                unknown field `rings`, expected one of `ring`, `cgroup`, `history`, `hide`, `api`, `dumps`, `profile`, `peers`, `alert`, `trigger`
            "#]],
        );
        refused(
            "[dumps]\nquota = 'plenty'",
            expect![[r#"
            TOML parse error at line 2, column 9
              |
            2 | quota = 'plenty'
              |         ^^^^^^^^
            `plenty` is no size: unknown unit `plenty`: use KiB, MiB or GiB
        "#]],
        );
        refused(
            "[dumps]\nupload = 'gs://dumps'",
            expect![[r#"
            TOML parse error at line 2, column 10
              |
            2 | upload = 'gs://dumps'
              |          ^^^^^^^^^^^^
            `gs://dumps` is no store: write s3://bucket/prefix or file:///folder
        "#]],
        );
        refused(
            "[dumps]\ndirectory = '/d'\nupload = 'file:///d/store'",
            expect![
                "dumps are to be uploaded to where they lie: `upload` needs another folder than `directory`"
            ],
        );
        refused(
            "[api]\nmode = '9'",
            expect![[r#"
            TOML parse error at line 2, column 8
              |
            2 | mode = '9'
              |        ^^^
            `9` are no permission bits: write three octal digits, "0660"
        "#]],
        );
        refused(
            "[[alert]]\nsymptom = 'colour=red'",
            expect![[r#"
                TOML parse error at line 2, column 11
                  |
                2 | symptom = 'colour=red'
                  |           ^^^^^^^^^^^^
                bad pattern: there is no key `colour`
                    colour=red
                    ^
                hint: keys: host pid tid comm cgroup container pod op protocol local remote netns socket iss irs stream_start stream_end result error signal target fault syscall fd cpu ring position time begin_ns time_ns duration lane flag
            "#]],
        );
    }

    #[test]
    fn nobody_is_let_in_whom_nothing_shows() {
        refused(
            "[api]\ntcp = { listen = '0.0.0.0:80' }",
            expect![[r#"
            TOML parse error at line 2, column 7
              |
            2 | tcp = { listen = '0.0.0.0:80' }
              |       ^^^^^^^^^^^^^^^^^^^^^^^^^
            whoever can connect could read all that is recorded: `tcp` needs `token_file`, or `tls` with `clients`
        "#]],
        );
        refused(
            "[peers]\nhosts = ['a:1']\ntls = { servers = '/ca.pem' }",
            expect![[r#"
            TOML parse error at line 1, column 1
              |
            1 | [peers]
              | ^^^^^^^
            no peer lets in whom it does not know: `peers` needs `token_file`, or `tls` with `certificate` and `key`
        "#]],
        );
    }
}
