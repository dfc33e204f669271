//! How keys rest: AES-256-GCM, bound to what they are.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// The length of a key that seals others, in bytes.
pub const KEY_LEN: usize = 32;

/// A name for a key: a keyed hash of a constant, which tells nothing of it.
pub(super) fn id(key: &Secret<[u8; KEY_LEN]>) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let tag = hmac::sign(&key, b"tmpcred broker: the name of this key-encryption key");
    URL_SAFE_NO_PAD.encode(tag.as_ref().get(..9).unwrap_or_default())
}

/// Seals something, bound to what is said of it.
pub(super) fn seal(
    key: &Secret<[u8; KEY_LEN]>,
    bound_to: Vec<u8>,
    plain: &Secret<Vec<u8>>,
) -> Result<Vec<u8>> {
    let mut sealed = plain.expose().clone();
    let nonce = cipher(key)?
        .seal_in_place_append_tag(Aad::from(bound_to), &mut sealed)
        .map_err(|_| Error::new(ErrorKind::Other, "a key cannot be sealed"))?;
    Ok([nonce.as_ref().as_slice(), &sealed].concat())
}

/// What was sealed; `None` where the seal is broken, or is bound to something else.
pub(super) fn open(
    key: &Secret<[u8; KEY_LEN]>,
    bound_to: Vec<u8>,
    sealed: &[u8],
) -> Result<Option<Secret<Vec<u8>>>> {
    let Some((nonce, sealed)) = sealed.split_at_checked(NONCE_LEN) else { return Ok(None) };
    let Ok(nonce) = Nonce::try_assume_unique_for_key(nonce) else { return Ok(None) };
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let opened = cipher(key)?.open_in_place(nonce, Aad::from(bound_to), &mut bytes);
    Ok(opened.ok().map(|plain| Secret::new(plain.to_vec())))
}

fn cipher(key: &Secret<[u8; KEY_LEN]>) -> Result<RandomizedNonceKey> {
    RandomizedNonceKey::new(&AES_256_GCM, key.expose())
        .map_err(|_| Error::new(ErrorKind::Other, "a key that seals others cannot be used"))
}
