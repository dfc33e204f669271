//! What was done under a grant, as a broker tells of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known of what was done under a grant. Times are as RFC 3339 has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationUses")]
pub struct Uses {
    /// The grant.
    pub elevation: String,
    /// What was done, what was done last first.
    pub uses: Vec<Use>,
    /// What there was besides, of so many kinds that they are not told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<Times>,
    /// Whether more tokens were issued than are counted.
    #[serde(default)]
    pub more_issued: bool,
    /// How many things were done that were not written.
    pub lost: u64,
}

/// What was done; all that is the same is summed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationUse")]
pub struct Use {
    /// `issued`, `decision`, `introspection` or `outside`.
    pub kind: String,
    /// The client that a token was issued to, the route, whoever asked about a token, or the
    /// outside log.
    pub source: String,
    /// What was done: of a decision the method.
    pub action: String,
    /// To what: of a decision the path, in which `{}` stands for one of many.
    pub resource: String,
    /// How it ended.
    pub outcome: String,
    /// From which address; empty where that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// How often, and when.
    #[serde(flatten)]
    pub times: Times,
}

/// How often, and when first and last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationUseTimes")]
pub struct Times {
    /// How often.
    pub count: u64,
    /// When first.
    pub first: String,
    /// When last.
    pub last: String,
}

/// What became of what an outside log told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationUsesTaken")]
pub struct Taken {
    /// How many events were new.
    pub taken: u64,
    /// How many were known.
    pub known: u64,
}
