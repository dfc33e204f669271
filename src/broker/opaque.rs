//! Tokens that say nothing: random texts, of which the store has a hash, and what they
//! would say.
//!
//! That is sealed by a key that follows from the root key: a signature keeps
//! JWTs from being made up, and whoever writes the database shall not have it easier with
//! these.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::keys::RootKey;
use super::store::OpaqueToken;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// How they begin.
const PREFIX: &str = "tmpcred_o_";

/// A new one: 32 random bytes.
pub(super) fn random() -> Result<Secret<String>> {
    let mut bytes = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice())
        .map_err(|_| Error::new(ErrorKind::Other, "the system gives no random numbers"))?;
    Ok(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice()))))
}

/// The hash by which such a token is known; `None` for all others. Nobody can guess
/// 32 random bytes, so it needs no salt.
pub(super) fn hash(token: &Secret<String>) -> Option<String> {
    let token = token.expose();
    token.starts_with(PREFIX).then(|| HEXLOWER.encode(digest(&SHA256, token.as_bytes()).as_ref()))
}

/// What seals that which they say.
pub(super) struct OpaqueSeal(hmac::Key);

impl OpaqueSeal {
    pub(super) fn new(root_key: &RootKey) -> Self {
        Self(root_key.derive("what opaque tokens say"))
    }

    /// The token with this hash and these claims, as the store has it.
    pub(super) fn over(
        &self,
        hash: String,
        claims: String,
        keep_until: OffsetDateTime,
    ) -> OpaqueToken {
        let seal = hmac::sign(&self.0, &covered(&hash, &claims)).as_ref().to_vec();
        OpaqueToken { hash, claims, seal, keep_until }
    }

    /// Its claims, where the seal over them is good.
    pub(super) fn open(&self, token: &OpaqueToken) -> Option<Map<String, Value>> {
        let covered = covered(&token.hash, &token.claims);
        if hmac::verify(&self.0, &covered, &token.seal).is_err() {
            tracing::error!(
                hash = token.hash,
                "what the database says of an opaque token was not written by this broker"
            );
            return None;
        }
        serde_json::from_str(&token.claims).ok()
    }
}

fn covered(hash: &str, claims: &str) -> Vec<u8> {
    // A hash is always of one length.
    [b"tmpcred broker: an opaque token v1\0", hash.as_bytes(), b"\0", claims.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_good_for_its_own_token_claims_and_key_only() {
        let seal = |key: u8| OpaqueSeal::new(&RootKey::new(Secret::new([key; 32])));
        let (token, other) = (random().unwrap(), random().unwrap());
        let of = |token: &Secret<String>| hash(token).unwrap();
        let end = OffsetDateTime::UNIX_EPOCH;
        let kept = seal(1).over(of(&token), r#"{"role":"deploy"}"#.into(), end);
        assert_eq!(seal(1).open(&kept).unwrap()["role"], "deploy");
        assert!(seal(2).open(&kept).is_none());
        for changed in [
            OpaqueToken { hash: of(&other), ..kept.clone() },
            OpaqueToken { claims: r#"{"role":"root"}"#.into(), ..kept.clone() },
            OpaqueToken { seal: Vec::new(), ..kept.clone() },
        ] {
            assert!(seal(1).open(&changed).is_none());
        }
        assert_eq!(hash(&Secret::new("a.b.c".into())), None);
    }
}
