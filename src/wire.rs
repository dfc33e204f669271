//! The messages that client and broker exchange: RFC 8693 token exchange with
//! four parameters of our own.

pub mod elevation;
pub mod roles;
pub mod uses;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of what follows. The client sends it in [`VERSION_HEADER`]; a
/// broker that does not know it answers with an error instead of a guess.
pub const VERSION: u32 = 1;

/// The header that carries [`VERSION`], in both directions.
pub const VERSION_HEADER: &str = "tmpcred-protocol";

/// The grant type (RFC 8693 section 2.1).
pub const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The path of the token endpoint, below the broker's URL.
pub const TOKEN_PATH: &str = "token";

/// The path of the revocation endpoint (RFC 7009), below the broker's URL.
pub const REVOCATION_PATH: &str = "revoke";

/// The path of the introspection endpoint (RFC 7662), below the broker's URL.
pub const INTROSPECTION_PATH: &str = "introspect";

/// The path where tokens of others are revoked, below the broker's URL.
pub const REVOCATIONS_PATH: &str = "v1/revocations";

/// The path where it is told what of that would be revoked, below the broker's URL. It is one of
/// its own: a broker that does not know it revokes nothing.
pub const REVOCATIONS_DRY_RUN_PATH: &str = "v1/revocations/dry-run";

/// The path of the keys that sign, for those who look after the broker, below its URL.
pub const KEYS_PATH: &str = "v1/keys";

/// The path where the next key is published, below the broker's URL.
pub const KEYS_ROTATE_PATH: &str = "v1/keys/rotate";

/// The path where keys are revoked, below the broker's URL.
pub const KEYS_REVOKE_PATH: &str = "v1/keys/revoke";

/// The path of the records of the audit log, below the broker's URL.
pub const AUDIT_PATH: &str = "v1/audit/records";

/// The path of the keys that people enrolled, below the broker's URL.
pub const ENROLLMENTS_PATH: &str = "v1/enrollments";

/// The path of the public keys (RFC 7517), below the broker's URL.
pub const JWKS_PATH: &str = "jwks.json";

/// The parameters of a request besides the grant type (RFC 8693 section 2.1).
/// They travel as a form.
#[derive(Serialize, Deserialize)]
pub struct TokenRequest<'a> {
    /// Always [`GRANT_TYPE`].
    pub grant_type: &'a str,
    /// The assertion.
    pub subject_token: &'a str,
    /// Its type, a URN of RFC 8693 section 3.
    pub subject_token_type: &'a str,
    /// Whom the credential is to be shown to.
    pub audience: &'a str,
    /// Space-separated; absent: all that policy gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Ours: the role.
    pub role: &'a str,
    /// Ours: the lifetime wanted, in seconds; absent: as long as policy gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_ttl: Option<u64>,
    /// Ours: the grant under which it is asked for, by its id; absent: the one that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elevation: Option<String>,
    /// Ours: the same where the same is asked for again, because the answer was lost.
    pub idempotency_key: String,
}

/// What a broker grants (RFC 8693 section 2.2.1). The token itself is read
/// apart, into a `Secret`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TokenGrant {
    /// A URN of RFC 8693 section 3.
    pub issued_token_type: String,
    /// `Bearer`; `DPoP` where the token is bound to the key that was proved.
    pub token_type: String,
    /// The lifetime in seconds.
    pub expires_in: u64,
    /// Space-separated: what was granted. Absent: as it was asked for, so nothing where nothing
    /// was (RFC 6749 section 5.1; section 3.3: there is no scope without a word).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Ours: the role that was granted.
    pub role: String,
    /// Ours: the subject as the broker has it.
    pub subject: String,
    /// Ours: in how many seconds the grant ends under which it was issued: whatever is had for
    /// the token may last no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elevation_expires_in: Option<u64>,
    /// Ours: whom the revocation of the token reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_reach: Option<RevocationReach>,
    /// Ours: the number of the token's record in the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_sequence: Option<u64>,
}

/// Whom the revocation of a token reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReach {
    /// Those who ask the broker. Who checks the signature alone accepts the token until it
    /// expires.
    Introspection,
    /// Everybody, at once: nobody can tell without asking whether the token is good.
    Everywhere,
}

/// Sessions of AWS that may have been had for tokens that were revoked. They last until they
/// expire, whatever becomes of the tokens, unless their roles deny them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RevocationAwsSessions")]
pub struct RevokedAwsSessions {
    /// The roles of the broker whose tokens AWS reads; left out of one token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Only sessions that began before this moment can be of those tokens.
    pub begun_before: String,
    /// The policy that denies those sessions everything, to be put on their roles in AWS.
    pub deny: serde_json::Value,
}

/// The longest name of a role, in bytes.
const MAX_ROLE: usize = 64;

/// Whether this may be the name of a role.
pub fn is_role(text: &str) -> bool {
    text.len() <= MAX_ROLE
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// What a broker says of an address where it has nothing.
pub const NO_SUCH_ADDRESS: &str = "there is nothing at this address";

/// The codes with which a broker refuses.
pub mod refusal {
    /// The request is malformed, or the assertion is not acceptable (RFC 8693
    /// section 2.2.2 has one code for both).
    pub const INVALID_REQUEST: &str = "invalid_request";
    /// The client did not show that it is the one (RFC 6749 section 5.2).
    pub const INVALID_CLIENT: &str = "invalid_client";
    /// The grant type is not token exchange (RFC 6749 section 5.2).
    pub const UNSUPPORTED_GRANT_TYPE: &str = "unsupported_grant_type";
    /// The scope cannot be had (RFC 6749 section 5.2).
    pub const INVALID_SCOPE: &str = "invalid_scope";
    /// The role is not for this audience (RFC 8693 section 2.2.2).
    pub const INVALID_TARGET: &str = "invalid_target";
    /// The bearer token of a request is not acceptable (RFC 6750 section 3.1).
    pub const INVALID_TOKEN: &str = "invalid_token";
    /// The token of a request is good for less than that (RFC 6750 section 3.1).
    pub const INSUFFICIENT_SCOPE: &str = "insufficient_scope";
    /// The proof of a key is not acceptable, or there is none where there has to be
    /// (RFC 9449 section 5).
    pub const INVALID_DPOP_PROOF: &str = "invalid_dpop_proof";
    /// The proof needs the nonce in the header `DPoP-Nonce` of this answer (RFC 9449
    /// section 8).
    pub const USE_DPOP_NONCE: &str = "use_dpop_nonce";
    /// Who asks has to log in for it, like this (RFC 9470 section 3).
    pub const INSUFFICIENT_AUTHENTICATION: &str = "insufficient_user_authentication";
    /// Something cannot be done about an elevation as that stands.
    pub const ELEVATION_STATE: &str = "elevation_state";
    /// Not enough approve of an elevation at this moment: others still may.
    pub const ELEVATION_SHORT: &str = "elevation_short";
    /// Another elevation speaks against it.
    pub const ELEVATION_CONFLICT: &str = "elevation_conflict";
    /// The role is had under a grant only, and there is none.
    pub const ELEVATION_REQUIRED: &str = "elevation_required";
    /// The same, and one that was asked for has not begun.
    pub const ELEVATION_PENDING: &str = "elevation_pending";
    /// Policy said no.
    pub const ACCESS_DENIED: &str = "access_denied";
    /// The broker cannot decide at present; `Retry-After` says when to ask again.
    pub const TEMPORARILY_UNAVAILABLE: &str = "temporarily_unavailable";
    /// Something of the broker's own failed.
    pub const SERVER_ERROR: &str = "server_error";
}

/// What a broker says instead (RFC 6749 section 5.2).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TokenRefusal {
    /// The code, one of [`refusal`].
    pub error: String,
    /// What it means here, for the person who reads it.
    #[serde(default)]
    pub error_description: String,
    /// Ours: the id under which the broker logged and audited the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Ours: the id of the elevation that is in the way, or that is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elevation: Option<String>,
}
