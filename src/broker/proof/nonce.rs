//! Nonces without a store: each says when it was given, under a seal that every process
//! of a broker can check.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;
use time::{Duration, OffsetDateTime};

use crate::broker::keys::RootKey;
use crate::dpop::WINDOW;
use crate::oidc::Issuer;

/// How long a nonce may be used.
const LIFETIME: Duration = Duration::minutes(5);

/// How much of a seal is kept, in bytes.
const SEAL: usize = 16;

/// What a nonce is for. One that is for something else is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The token endpoint.
    Token,
    /// What the broker decides about for a proxy.
    Resource,
}

impl Place {
    fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Resource => "resource",
        }
    }
}

/// What gives nonces and knows them again.
pub struct Nonces {
    key: hmac::Key,
    issuer: String,
}

impl Nonces {
    /// The nonces of a broker with this root key, which all its processes have.
    pub fn new(root_key: &RootKey, issuer: &Issuer) -> Self {
        Self { key: root_key.derive("DPoP nonces"), issuer: issuer.as_str().to_string() }
    }

    /// One that is good from now on.
    pub fn give(&self, place: Place, now: OffsetDateTime) -> String {
        let seconds = now.unix_timestamp().to_be_bytes();
        let seal = self.seal(place, seconds);
        URL_SAFE_NO_PAD.encode([&seconds[..], &seal[..]].concat())
    }

    /// Whether this is one that was given lately.
    pub fn accept(&self, place: Place, nonce: &str, now: OffsetDateTime) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(nonce) else { return false };
        let Some((seconds, seal)) = bytes.split_first_chunk::<8>() else { return false };
        if !bool::from(self.seal(place, *seconds).ct_eq(seal)) {
            return false;
        }
        let given = OffsetDateTime::from_unix_timestamp(i64::from_be_bytes(*seconds));
        // The clock of the process that gave it may be ahead.
        given.is_ok_and(|given| {
            given <= now.saturating_add(WINDOW) && now <= given.saturating_add(LIFETIME)
        })
    }

    fn seal(&self, place: Place, seconds: [u8; 8]) -> [u8; SEAL] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [place.as_str(), "\0", &self.issuer, "\0"] {
            context.update(part.as_bytes());
        }
        context.update(&seconds);
        let mut seal = [0; SEAL];
        seal.copy_from_slice(&context.sign().as_ref()[..SEAL]);
        seal
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::secret::Secret;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    fn nonces(root_key: u8, issuer: &str) -> Nonces {
        Nonces::new(&RootKey::new(Secret::new([root_key; 32])), &Issuer::parse(issuer).unwrap())
    }

    #[test]
    fn a_nonce_is_known_by_every_process_of_its_broker_for_a_while() {
        let one = nonces(1, "https://a.example");
        let nonce = one.give(Place::Token, NOW);
        assert!(crate::dpop::is_nonce(&nonce));
        let again = nonces(1, "https://a.example");
        for (after, good) in [(0, true), (300, true), (301, false), (-60, true), (-61, false)] {
            let then = NOW + Duration::seconds(after);
            assert_eq!(again.accept(Place::Token, &nonce, then), good, "{after}");
        }
        assert!(!again.accept(Place::Resource, &nonce, NOW));
        assert!(!nonces(2, "https://a.example").accept(Place::Token, &nonce, NOW));
        assert!(!nonces(1, "https://b.example").accept(Place::Token, &nonce, NOW));
    }

    #[test]
    fn what_was_made_up_is_none() {
        let nonces = nonces(1, "https://a.example");
        let good = URL_SAFE_NO_PAD.decode(nonces.give(Place::Token, NOW)).unwrap();
        let accept =
            |bytes: &[u8]| nonces.accept(Place::Token, &URL_SAFE_NO_PAD.encode(bytes), NOW);
        assert!(accept(&good));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!accept(&bad), "{at}");
            assert!(!accept(&good[..at]), "{at}");
        }
        assert!(!accept(&[&good[..], &[0]].concat()));
        assert!(!nonces.accept(Place::Token, "", NOW) && !nonces.accept(Place::Token, "é", NOW));
    }
}
