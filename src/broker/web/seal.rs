//! What browsers carry for the broker: nobody else can read it, and nobody can change it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::broker::keys::RootKey;
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::Issuer;

/// How many random bytes say by which key something is sealed.
const SALT: usize = 32;

/// What something is sealed for: it is good for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Purpose {
    /// What has to be known when somebody comes back from the provider.
    SignIn,
    /// That somebody is signed in.
    Session,
}

/// Seals what browsers carry, by keys that follow from the root key.
///
/// Whoever signs in has something sealed, and strangers may begin to, as often as they like.
/// So each seal has a key of its own, which follows from a random salt: no number of them
/// wears a key out.
pub(in crate::broker) struct PageSeal {
    sign_ins: hmac::Key,
    sessions: hmac::Key,
    issuer: String,
}

impl PageSeal {
    pub(in crate::broker) fn new(root_key: &RootKey, issuer: &Issuer) -> Self {
        Self {
            sign_ins: root_key.derive("signing in to pages"),
            sessions: root_key.derive("sessions of pages"),
            issuer: issuer.as_str().into(),
        }
    }

    fn cipher(&self, purpose: Purpose, salt: &[u8]) -> Result<RandomizedNonceKey> {
        let key = match purpose {
            Purpose::SignIn => &self.sign_ins,
            Purpose::Session => &self.sessions,
        };
        let key = hmac::sign(key, salt);
        RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).map_err(|_| failed())
    }

    fn bound_to(&self, purpose: Purpose) -> Aad<Vec<u8>> {
        let purpose = match purpose {
            Purpose::SignIn => "sign-in",
            Purpose::Session => "session",
        };
        Aad::from(format!("tmpcred broker: {purpose} v1\0{}", self.issuer).into_bytes())
    }

    /// This as a text that says nothing.
    pub(in crate::broker) fn seal<T: Serialize>(
        &self,
        purpose: Purpose,
        value: &T,
    ) -> Result<String> {
        let mut salt = [0; SALT];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| failed())?;
        let mut sealed =
            Zeroizing::new(serde_json::to_vec(value).map_err(|cause| failed().because(cause))?);
        let nonce = self
            .cipher(purpose, &salt)?
            .seal_in_place_append_tag(self.bound_to(purpose), &mut *sealed)
            .map_err(|_| failed())?;
        Ok(URL_SAFE_NO_PAD.encode([&salt, nonce.as_ref().as_slice(), &sealed].concat()))
    }

    /// What was sealed for this purpose; `None` for anything else.
    pub(in crate::broker) fn open<T: DeserializeOwned>(
        &self,
        purpose: Purpose,
        text: &str,
    ) -> Option<T> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (salt, rest) = bytes.split_at_checked(SALT)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let cipher = self.cipher(purpose, salt).ok()?;
        let plain = cipher.open_in_place(nonce, self.bound_to(purpose), &mut sealed).ok()?;
        serde_json::from_slice(plain).ok()
    }
}

fn failed() -> Error {
    Error::new(ErrorKind::Other, "what a browser is to carry cannot be sealed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn seal(key: u8, issuer: &str) -> PageSeal {
        PageSeal::new(&RootKey::new(Secret::new([key; 32])), &Issuer::parse(issuer).unwrap())
    }

    const OWN: &str = "https://broker.example.com";

    #[test]
    fn it_is_opened_by_its_own_key_for_its_own_purpose_and_unchanged_only() {
        let own = seal(1, OWN);
        let text = own.seal(Purpose::Session, &"alice").unwrap();
        let opened = |seal: &PageSeal, purpose, text: &str| seal.open::<String>(purpose, text);
        assert_eq!(opened(&own, Purpose::Session, &text).as_deref(), Some("alice"));
        assert_eq!(opened(&seal(1, OWN), Purpose::Session, &text).as_deref(), Some("alice"));
        assert_eq!(opened(&own, Purpose::SignIn, &text), None);
        assert_eq!(opened(&seal(2, OWN), Purpose::Session, &text), None);
        let other = seal(1, "https://other.example.com");
        assert_eq!(opened(&other, Purpose::Session, &text), None);
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(opened(&own, Purpose::Session, &changed), None, "{at}");
        }
        for end in [0, 1, SALT, SALT + NONCE_LEN, bytes.len() - 1] {
            let short = URL_SAFE_NO_PAD.encode(&bytes[..end]);
            assert_eq!(opened(&own, Purpose::Session, &short), None, "{end}");
        }
        assert_eq!(opened(&own, Purpose::Session, "%%%"), None);
    }

    #[test]
    fn nothing_of_it_can_be_read_and_no_two_are_the_same() {
        let own = seal(1, OWN);
        let one = own.seal(Purpose::Session, &"hunter2").unwrap();
        assert_ne!(one, own.seal(Purpose::Session, &"hunter2").unwrap());
        let bytes = URL_SAFE_NO_PAD.decode(&one).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"));
    }
}
