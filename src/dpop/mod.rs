//! Tokens that are bound to a key: DPoP (RFC 9449), for client and broker.
//!
//! A token that is bound is good only together with a proof: a JWT for one request,
//! signed by the key that the token names. Whoever steals the token alone has nothing.
//!
//! Making and checking proofs is pure: the time is an argument, and whether a proof was
//! used before, or a nonce is one of the server's own, is for the server to say.

#[cfg(test)]
mod fuzz;
mod key;
mod proof;
mod target;
#[cfg(test)]
mod tests;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

pub use key::{DeviceKey, Signing};
pub use proof::{ALGORITHMS, Expected, Fault, MAX_PROOF, Proof, Refusal, Shown, WINDOW, verify};
pub use target::Target;

/// The header that a proof is in (section 4.1).
pub const HEADER: &str = "dpop";

/// The header in which a server gives the next nonce (section 8.1).
pub const NONCE_HEADER: &str = "dpop-nonce";

/// How a token that is bound is shown (section 7.1), and the type that it is issued as
/// (section 5).
pub const SCHEME: &str = "DPoP";

/// What a proof says of the token that it goes with (section 4.2): a hash of it.
pub fn ath(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()))
}

/// What a token says of the key that it is bound to (RFC 7800, RFC 9449 section 6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// It is bound to nothing: whoever bears it may use it.
    No,
    /// It is bound to the key with this thumbprint.
    To(String),
    /// It is bound to something that no proof of this kind can show.
    Otherwise,
}

impl Bound {
    /// What these claims say.
    pub fn of(claims: &Map<String, Value>) -> Self {
        match claims.get("cnf") {
            None => Self::No,
            Some(cnf) => match cnf.get("jkt").and_then(Value::as_str) {
                Some(thumbprint) if is_thumbprint(thumbprint) => Self::To(thumbprint.to_string()),
                _ => Self::Otherwise,
            },
        }
    }
}

/// Whether this may be the thumbprint of a key: a SHA-256 in base64url.
pub fn is_thumbprint(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Whether this may be a nonce (section 8.1), and is of a length that anybody would send.
pub fn is_nonce(text: &str) -> bool {
    (1..=512).contains(&text.len())
        && text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}
