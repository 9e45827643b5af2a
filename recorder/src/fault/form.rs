//! The fault file as it is written: the shape of its tables, from which docs/fault.schema.json is generated.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

/// Faults to inject. See docs/faults.md.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileForm {
    /// Seed of all that is left to chance. Without it one is chosen and told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Events to change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fault: Vec<FaultForm>,
    /// Networks to cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition: Vec<PartitionForm>,
}

/// What to do to which event.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultForm {
    /// Names the fault in recordings and tables.
    #[schemars(with = "String")]
    pub name: Spanned<String>,
    /// A pattern: which events, of which victims.
    #[schemars(with = "String")]
    pub r#match: Spanned<String>,
    /// The system call, or several: only these, or calls that are no event of their own, such as `bind`.
    #[schemars(with = "Option<OneOrMore>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscall: Option<Spanned<OneOrMore>>,
    /// Which of the matching events; without it, all.
    #[schemars(with = "Option<WhenForm>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<Spanned<WhenForm>>,
    /// `now`, a time after arming such as `30s`, or a pattern: from the first event that matches.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Spanned<String>>,
    /// `never`, a time after arming, or a pattern.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Spanned<String>>,
    /// What becomes of the event: exactly one.
    #[schemars(with = "ActionForm")]
    pub r#do: Spanned<ActionForm>,
    /// What ends the fault. Needed, unless `nth` or `until` does.
    #[schemars(with = "Option<LimitForm>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Spanned<LimitForm>>,
    /// `auto`, `cgroup`, `destroy`, `signal` or `override`.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Spanned<String>>,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// Which of the matching events. At most one of `nth`, `every` and `probability`.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhenForm {
    /// The n-th alone, from 1.
    #[schemars(with = "Option<u64>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nth: Option<Spanned<i64>>,
    /// Each n-th.
    #[schemars(with = "Option<u64>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Spanned<i64>>,
    /// Each with this probability, above 0 and at most 1.
    #[schemars(with = "Option<f64>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<Spanned<f64>>,
    /// A pattern: only in processes that have raised such an event.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Spanned<String>>,
    /// A pattern: only in processes that have not.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Spanned<String>>,
}

/// What becomes of the event.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionForm {
    /// The call fails with this errno: `ECONNRESET`, or a number.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Spanned<String>>,
    /// The call returns this without having been made.
    #[schemars(with = "Option<i64>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#return: Option<Spanned<i64>>,
    /// `packet` (TCP sends it again), `message` (what one call sends) or `blackhole` (all from now on).
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop: Option<Spanned<String>>,
    /// The call takes this much longer: `200ms`.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Spanned<String>>,
    /// The process stands still for this long: `2s`.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Spanned<String>>,
    /// The process gets this signal: `SIGKILL`.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill: Option<Spanned<String>>,
    /// `true`: the connection breaks at both ends.
    #[schemars(with = "Option<bool>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destroy: Option<Spanned<bool>>,
    /// `true`: the process dies and falls silent, as if its machine had lost power.
    #[schemars(with = "Option<bool>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash: Option<Spanned<bool>>,
    /// `true`: the process dies and is started anew.
    #[schemars(with = "Option<bool>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Spanned<bool>>,
}

/// What ends a fault.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitForm {
    /// It fires this often.
    #[schemars(with = "Option<u64>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<Spanned<i64>>,
    /// It is armed for this long: `30s`.
    #[schemars(with = "Option<String>")]
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Spanned<String>>,
}

/// A cut between two sets of endpoints.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartitionForm {
    /// Names the cut in recordings and tables.
    #[schemars(with = "String")]
    pub name: Spanned<String>,
    /// Two patterns; each says which endpoints are on its side.
    #[schemars(with = "[String; 2]")]
    pub between: Spanned<Vec<Spanned<String>>>,
    /// `true`: only what goes from the first side to the second is lost.
    #[serde(default, rename = "one-way", skip_serializing_if = "std::ops::Not::not")]
    pub one_way: bool,
    /// Refused by every mechanism so far: a cut is silent.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Spanned<String>>,
    /// As in a fault.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Spanned<String>>,
    /// As in a fault: the cut heals.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Spanned<String>>,
    /// What ends the cut. Needed, unless `until` does.
    #[schemars(with = "Option<LimitForm>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Spanned<LimitForm>>,
    /// As in a fault.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Spanned<String>>,
}

/// The JSON schema of a fault file.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(FileForm)
}
