//! Which roles somebody may have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The path of the roles that whoever asks may have, below the broker's URL.
pub const ROLES_PATH: &str = "v1/roles";

/// The roles that whoever asks may have, as policy says at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AvailableRoles")]
pub struct Roles {
    /// In the order of their names.
    pub roles: Vec<Role>,
}

/// A role that somebody may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AvailableRole")]
pub struct Role {
    /// Its name.
    pub role: String,
    /// `issue`: it is had when it is asked for; `elevate`: it may be asked for, for a while.
    pub how: String,
    /// Whether somebody has to approve it.
    pub approval: bool,
    /// Whether it may be had at once in an emergency, without approval.
    pub emergency: bool,
    /// Whether AWS reads its tokens.
    pub aws: bool,
    /// Whom its tokens may be shown to, and what can be had for each.
    pub audiences: Vec<Audience>,
}

/// What can be had of a role for one audience, where nothing less is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AvailableAudience")]
pub struct Audience {
    /// Whom its tokens are for.
    pub audience: String,
    /// What they cover, separated by spaces; of a role that is asked for, what it has.
    pub scope: String,
    /// How long a token lasts, or a grant, at most, in seconds.
    pub longest: u64,
    /// Whether it takes the proof of a key (DPoP).
    pub key_bound: bool,
}
