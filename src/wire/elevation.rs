//! Requests for a role for a while, as a broker tells of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RevocationReach;

/// The path of elevations, below the broker's URL.
pub const ELEVATIONS_PATH: &str = "v1/elevations";

/// The path at which a broker says which rules are in force, below its URL.
pub const RULES_PATH: &str = "v1/rules";

/// Which rules a broker goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationRules")]
pub struct Rules {
    /// The broker, by its issuer identifier.
    pub broker: String,
    /// The hash of policies and roles, as signed requests name it.
    pub rules: String,
}

/// A statement of several that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationNotTaken")]
pub struct NotTaken {
    /// What kind it is: `approval`, `denial`, `use` or `ending`.
    pub kind: String,
    /// Who said it, as it says.
    pub person: String,
    /// Why.
    pub why: String,
}

/// A request for a role, and what came of it. Times are as RFC 3339 has them.
///
/// Whoever brings statements shows nobody who they are, and is told less: how it stands, who has
/// approved and who could, and of what was asked for what the signed request says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Elevation {
    /// Its id.
    pub id: String,
    /// Grows by one with each event.
    pub version: u64,
    /// How it comes about: `ordinary`, `emergency`, or `provider-down`.
    pub path: String,
    /// Whether it only is practised: nothing is issued under it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drill: bool,
    /// `pending`, `approved`, `active`, `emergency-active`, `expired`, `revoked`, `relinquished`,
    /// `denied`, `withdrawn` or `lapsed`.
    pub access: String,
    /// `none`, `due`, `reviewed` or `disputed`.
    pub review: String,
    /// The role.
    pub role: String,
    /// Whom its tokens are for.
    pub audience: String,
    /// What they cover, separated by spaces; all that policy gives where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// For how long, in seconds.
    pub ttl: u64,
    /// When it is to start; once it is approved where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// The thumbprint of the key that its tokens are bound to, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Who asked.
    pub requester: Party,
    /// Who acts for them, the one who does so now first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<Party>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Whether it was not looked whether there is the ticket, though the role wants that: what is
    /// asked for while things are down does not wait for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ticket_unchecked: bool,
    /// The hash of the signed request, where it was asked for by one: signatures about it name
    /// this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Statements that were brought together with others, and came to nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_taken: Vec<NotTaken>,
    /// From which address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// When.
    pub asked_at: String,
    /// Until when it can be approved.
    pub lapses_at: String,
    /// Names what is asked for, by the rules of this moment: who approves names it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// Who has approved.
    pub approvals: Vec<Approval>,
    /// What is needed.
    pub needs: Vec<Need>,
    /// When enough had approved for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_at: Option<String>,
    /// Until when it has to be begun, once it is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin_by: Option<String>,
    /// From when to when the role is had, once it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Span>,
    /// What ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// Who reviewed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reviewed: Option<Reviewed>,
    /// Of a drill that was given back: whether a token would have been issued, had it been in
    /// earnest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Tried>,
    /// Until when it has to be reviewed, while that is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review_by: Option<String>,
    /// What whoever asks may do about it: `approve`, `deny`, `withdraw`, `activate`,
    /// `relinquish`, `revoke`, `review`.
    pub may: Vec<String>,
    /// Whom it reached that it was ended, where it was had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_reach: Option<RevocationReach>,
    /// What it did not reach, where it was had and AWS reads tokens of the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_sessions: Option<AwsSessions>,
}

impl Elevation {
    /// Whether the role is had under it now.
    pub fn is_had(&self) -> bool {
        ["active", "emergency-active"].contains(&self.access.as_str())
    }
}

/// Sessions of AWS that were had for the tokens of a grant. They last until they expire, whatever
/// becomes of the grant, unless their role denies them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationAwsSessions")]
pub struct AwsSessions {
    /// Only sessions that began before this moment can be of the grant.
    pub begun_before: String,
    /// The policy that denies those sessions everything, to be put on their role.
    pub deny: serde_json::Value,
}

/// Somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationParty")]
pub struct Party {
    /// Who says who they are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub issuer: String,
    /// Who they are there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// Who they are in the directory; left out for machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// What they are called there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How much of what a machine is called is told where it is told of in short, in characters.
const MAX_CALLED: usize = 60;

/// A machine, in short. It may choose what it is called, so that comes last, and is no more than a
/// part of it.
pub fn machine(issuer: &str, subject: &str) -> String {
    if issuer.is_empty() {
        return "a machine".into();
    }
    let called: String = subject.chars().take(MAX_CALLED).collect();
    let more = if subject.chars().nth(MAX_CALLED).is_some() { "…" } else { "" };
    format!("a machine of {issuer} ({called}{more})")
}

/// That somebody approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationApproval")]
pub struct Approval {
    /// Who.
    pub by: Party,
    /// When.
    pub at: String,
    /// Why, where they said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The fingerprint of the key, where they signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether it counts, by the rules and the people of this moment.
    pub counts: bool,
}

/// So many people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationNeed")]
pub struct Need {
    /// How many have to approve.
    pub count: u32,
    /// Of which groups of the directory: of any of these; of any at all where there are none.
    pub groups: Vec<String>,
    /// Who has.
    pub have: Vec<String>,
    /// Who could; left out where many are listed at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub could: Vec<String>,
}

impl Need {
    /// How many are missing.
    pub fn missing(&self) -> u32 {
        self.count.saturating_sub(u32::try_from(self.have.len()).unwrap_or(u32::MAX))
    }
}

/// From when to when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationGrant")]
pub struct Span {
    /// When it began.
    pub from: String,
    /// When it ends at the latest.
    pub until: String,
}

/// What ended it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationEnd")]
pub struct Ended {
    /// Who; left out where the clock did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Party>,
    /// When.
    pub at: String,
    /// Why, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// That somebody looked at what was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationReview")]
pub struct Reviewed {
    /// Who.
    pub by: Party,
    /// When.
    pub at: String,
    /// What they found.
    pub note: String,
}

/// What policy said of a token under a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ElevationTried")]
pub struct Tried {
    /// Whether it would have been issued.
    pub issued: bool,
    /// By which policy and for how long, or why not.
    pub said: String,
}

/// A page of elevations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Elevations")]
pub struct Page {
    /// The newest first.
    pub elevations: Vec<Elevation>,
    /// Where there may be older ones: what `below` is of a request for those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_below: Option<String>,
}
