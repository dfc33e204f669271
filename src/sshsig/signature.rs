//! One signature: reading it, checking it, and putting it together.

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use ssh_key::{HashAlg, LineEnding, SshSig};

use super::key::Shown;
use super::{Kind, NAMESPACE, PublicKey};
use crate::error::{Error, ErrorKind, Result, foreign};

/// The longest signature that is looked at, in bytes. One by RSA with 8192 bits has 3,300.
const MAX_SIGNATURE: usize = 8 * 1024;

/// A signature for [`NAMESPACE`] by a key of a kind that there may be. Whether it is one of
/// anything is not known before it is [verified](Self::verify).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    inner: SshSig,
    key: PublicKey,
}

/// What is asked of signatures and their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demands<'a> {
    /// The kinds of keys that are accepted.
    pub kinds: &'a [Kind],
    /// Whether security keys have to be told who holds them, by a PIN or a finger. That
    /// somebody touches them is asked in any case.
    pub user_verified: bool,
}

impl Default for Demands<'_> {
    fn default() -> Self {
        Self { kinds: &Kind::ALL, user_verified: false }
    }
}

impl Signature {
    /// Reads a signature as `ssh-keygen -Y sign` writes it, with nothing before it and nothing
    /// after it but an end of line.
    ///
    /// # Errors
    /// Where it is none, for another namespace, or by a key of another kind.
    pub fn parse(armored: &str) -> Result<Self> {
        if armored.len() > MAX_SIGNATURE {
            return Err(unacceptable(format!("it is longer than {MAX_SIGNATURE} bytes")));
        }
        let inner = SshSig::from_pem(armored)
            .map_err(|cause| unacceptable(format!("it cannot be read: {cause}")))?;
        if inner.version() != SshSig::VERSION {
            return Err(unacceptable(format!("it is of version {}", inner.version())));
        }
        if inner.namespace() != NAMESPACE {
            let why = format!("it is for '{}', not for '{NAMESPACE}'", foreign(inner.namespace()));
            return Err(unacceptable(why).hint(format!("sign with `-n {NAMESPACE}`")));
        }
        if !inner.reserved().is_empty() {
            return Err(unacceptable("it says something that is not understood"));
        }
        let key = PublicKey::of(inner.public_key().clone())?;
        let parsed = Self { inner, key };
        // There is one way to write it: what is changed is another signature, or none.
        if parsed.armored()?.trim_end() != armored.trim_end_matches('\n') {
            return Err(unacceptable("it is not written as `ssh-keygen -Y sign` writes it"));
        }
        Ok(parsed)
    }

    /// The key that is to have made it.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether its key signed these bytes, and as is asked.
    ///
    /// # Errors
    /// Where not, with the reason.
    pub fn verify(&self, message: &[u8], demands: Demands<'_>) -> Result<()> {
        let kind = self.key.kind();
        if !demands.kinds.contains(&kind) {
            let accepted: Vec<_> = demands.kinds.iter().map(|kind| kind.name()).collect();
            return Err(unacceptable(format!("it is by a key of the kind {}", kind.name()))
                .hint(format!("accepted are {}", accepted.join(", "))));
        }
        let signed = to_be_signed(message, self.inner.hash_alg())?;
        match self.key.made(self.inner.signature(), &signed) {
            None => Err(unacceptable("its key did not sign this")),
            Some(Shown::Nothing) => Ok(()),
            Some(Shown::Said { present: false, .. }) => {
                Err(unacceptable("nobody touched the security key for it")
                    .hint("use a key that was made without `no-touch-required`"))
            }
            Some(Shown::Said { verified: false, .. }) if demands.user_verified => Err(
                unacceptable("the security key was not told who holds it, by a PIN or a finger")
                    .hint("use a key that was made with `ssh-keygen -O verify-required`"),
            ),
            Some(Shown::Said { .. }) => Ok(()),
        }
    }

    /// The signature as `ssh-keygen -Y sign` writes it, with an end of line.
    ///
    /// # Errors
    /// Never, of one that was read or made.
    pub fn armored(&self) -> Result<String> {
        let mut text = self
            .inner
            .to_pem(LineEnding::LF)
            .map_err(|cause| unacceptable(format!("it cannot be written: {cause}")))?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    }

    /// Makes a signature of these bytes, where `sign` makes one by this key of what it is
    /// given. What comes of it is checked before anybody gets it.
    pub(super) fn make(
        key: &PublicKey,
        message: &[u8],
        sign: impl FnOnce(&[u8]) -> Result<ssh_key::Signature>,
    ) -> Result<Self> {
        let raw = sign(&to_be_signed(message, HashAlg::Sha512)?)?;
        let inner = SshSig::new(key.data().clone(), NAMESPACE, HashAlg::Sha512, raw)
            .map_err(|cause| unacceptable(format!("it cannot be made: {cause}")))?;
        let made = Self { inner, key: key.clone() };
        made.verify(message, Demands::default())?;
        Ok(made)
    }
}

/// What is signed in place of a message.
fn to_be_signed(message: &[u8], hash: HashAlg) -> Result<Vec<u8>> {
    let by = match hash {
        HashAlg::Sha256 => &SHA256,
        HashAlg::Sha512 => &SHA512,
        _ => return Err(unacceptable("it is of a hash by another algorithm")),
    };
    SshSig::signed_data_for_prehash(NAMESPACE, hash, digest(by, message).as_ref())
        .map_err(|cause| unacceptable(format!("it cannot be made: {cause}")))
}

fn unacceptable(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Verification, "the signature is not acceptable").because_of(why)
}
