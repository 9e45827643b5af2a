//! Whether there is a profile, and what it may cost.

use std::time::Duration;

use serde::Deserialize;

/// What `profile` says in the configuration: `true`, or a table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Said")]
pub struct Profile(pub Option<Settings>);

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Share of one CPU that samples may take.
    pub cpu: Share,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`profile` is true, false or { cpu = \"0.05%\" }")]
enum Said {
    Whether(bool),
    Settings(Settings),
}

impl From<Said> for Profile {
    fn from(said: Said) -> Self {
        match said {
            Said::Whether(false) => Self(None),
            Said::Whether(true) => Self(Some(Settings { cpu: Share(0.0005) })),
            Said::Settings(settings) => Self(Some(settings)),
        }
    }
}

/// A share, written in percent.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Share(f64);

impl TryFrom<String> for Share {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        match percent {
            Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self(percent / 100.0)),
            _ => Err(format!("`{text}` is no share: write \"0.05%\"")),
        }
    }
}

impl Settings {
    /// How long to wait after what took so much CPU time.
    pub fn pause(&self, cpu_ns: u64) -> Duration {
        Duration::from_nanos((cpu_ns as f64 / self.cpu.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Profile, String> {
        #[derive(Deserialize)]
        struct Config {
            profile: Profile,
        }
        let config: Result<Config, _> = toml::from_str(&format!("profile = {text}"));
        config.map(|config| config.profile).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn it_is_there_or_not_or_costs_what_is_said() {
        assert_eq!(parse("false"), Ok(Profile(None)));
        let settings = |text| parse(text).expect("it is right").0.expect("it is there");
        // 30 ms of CPU time, once a minute.
        assert_eq!(settings("true").pause(30_000_000), Duration::from_secs(60));
        assert_eq!(settings("{ cpu = '3%' }").pause(30_000_000), Duration::from_secs(1));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in
            ["'yes'", "{ cpu = '0%' }", "{ cpu = '1' }", "{ cpu = '101%' }", "{ share = '1%' }"]
        {
            let why = parse(text).expect_err("it is wrong");
            assert!(why.contains("`profile` is true, false or"), "{text}: {why}");
        }
    }
}
