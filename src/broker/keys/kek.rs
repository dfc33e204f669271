//! The key-encryption key, and how it seals signing keys.

use std::path::{Path, is_separator};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{StoredKey, no_randomness};
use crate::broker::audit::seal::Seal;
use crate::broker::config::{KEK_VARIABLE, Keys as KeysConfig};
use crate::broker::private_file;
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::host::files::{self, Guard};
use crate::host::process::printed::{Limit, printed};
use crate::secret::Secret;

/// The length of a key-encryption key in bytes.
pub const KEK_LEN: usize = 32;

/// How much is read of what holds one.
const MAX_LEN: usize = 1024;

/// The key that seals the signing keys. It is kept apart from the store.
#[derive(Clone, Debug)]
pub struct Kek {
    bytes: Secret<[u8; KEK_LEN]>,
    id: String,
}

impl Kek {
    /// A key-encryption key of these bytes.
    pub fn new(bytes: Secret<[u8; KEK_LEN]>) -> Self {
        // A keyed hash of a constant names the key and tells nothing of it.
        let key = hmac::Key::new(hmac::HMAC_SHA256, bytes.expose());
        let tag = hmac::sign(&key, b"tmpcred broker: the name of this key-encryption key");
        let id = URL_SAFE_NO_PAD.encode(tag.as_ref().get(..9).unwrap_or_default());
        Self { bytes, id }
    }

    /// A fresh one, for a broker that forgets everything when it ends.
    pub fn random() -> Result<Self> {
        let mut bytes = Zeroizing::new([0; KEK_LEN]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| no_randomness())?;
        Ok(Self::new(Secret::new(*bytes)))
    }

    /// Reads the key-encryption key from where the configuration says.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is none that can be used, and what
    /// [`printed`] says of a command that gives none.
    pub async fn load(config: &KeysConfig, env: &Env) -> Result<Self> {
        match &config.kek_command {
            Some(command) => {
                Self::printed_by(command, &config.kek_variables, Limit::default(), env).await
            }
            None => Self::at_hand(config, env),
        }
    }

    /// What a command prints, such as one that has a KMS decrypt it.
    pub(super) async fn printed_by(
        words: &[String],
        variables: &[String],
        limit: Limit,
        env: &Env,
    ) -> Result<Self> {
        let program = words.first().map_or("", String::as_str);
        let named = || format!("the program {program}, which is to print the key-encryption key,");
        // Whoever can write to it is handed what it is given, and may print a key of their own.
        let path = Path::new(program);
        if program.contains(is_separator)
            && files::exists(path)
            && files::guard_of(path)? != Guard::Guarded
        {
            return Err(Error::new(ErrorKind::Config, format!("{} cannot be used", named()))
                .because_of("others on this machine can write to it")
                .hint(format!("look at what it does, then `chmod go-w {program}`")));
        }
        let variables = variables.iter().map(String::as_str);
        let what = "key-encryption key";
        let printed = printed(env, what, words, variables, limit, MAX_LEN).await?;
        std::str::from_utf8(printed.expose()).ok().and_then(Self::parse).ok_or_else(|| {
            let message = format!("{} printed something else than 32 bytes in base64", named());
            Error::new(ErrorKind::Config, message)
                .hint("run it by hand: it prints the key on standard output, and nothing else")
        })
    }

    fn at_hand(config: &KeysConfig, env: &Env) -> Result<Self> {
        let refused = |message: String| {
            Error::new(ErrorKind::Config, message).hint(
                "make one with `openssl rand -base64 32`; keep it apart from the database, and keep a copy",
            )
        };
        let text = match (&config.kek_file, &config.kek_env) {
            (Some(path), _) => {
                let name = format!("the key-encryption key file {}", path.display());
                let bytes = private_file::read(path, MAX_LEN as u64, &name, env)?
                    .ok_or_else(|| refused(format!("{name} does not exist")))?;
                return std::str::from_utf8(&bytes)
                    .ok()
                    .and_then(Self::parse)
                    .ok_or_else(|| refused(format!("{name} does not hold 32 bytes in base64")));
            }
            (None, variable) => {
                let variable = variable.as_deref().unwrap_or(KEK_VARIABLE);
                let text = env.get(variable).ok_or_else(|| {
                    refused("there is no key-encryption key to seal the signing keys with".into())
                        .because_of(format!(
                            "[keys] names no kek_file and no kek_command, and the variable {variable} is not set"
                        ))
                })?;
                (variable, text)
            }
        };
        let (variable, text) = text;
        Self::parse(text).ok_or_else(|| {
            refused(format!("the variable {variable} does not hold 32 bytes in base64"))
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bytes = Zeroizing::new(
            STANDARD
                .decode(text)
                .or_else(|_| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')))
                .ok()?,
        );
        let bytes: [u8; KEK_LEN] = bytes.as_slice().try_into().ok()?;
        Some(Self::new(Secret::new(bytes)))
    }

    /// The name by which the store tells which key-encryption key it needs.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the end of the audit log is sealed with.
    pub fn seal_of_log(&self) -> Seal {
        Seal::new(self.derive("the seal of the audit log"))
    }

    /// A key for something else, which whoever has this one can derive, and which tells
    /// nothing of it.
    pub fn derive(&self, purpose: &str) -> hmac::Key {
        let own = hmac::Key::new(hmac::HMAC_SHA256, self.bytes.expose());
        let derived = hmac::sign(&own, format!("tmpcred broker: key for {purpose}").as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
    }

    fn cipher(&self) -> Result<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, self.bytes.expose())
            .map_err(|_| Error::new(ErrorKind::Other, "the key-encryption key cannot be used"))
    }

    /// The same key, sealed with all that it says of itself.
    pub(super) fn seal(&self, key: StoredKey, plain: &Secret<Vec<u8>>) -> Result<StoredKey> {
        let sealed = self.seal_bound_to(bound_to(&key), plain)?;
        Ok(StoredKey { sealed, kek_id: self.id.clone(), ..key })
    }

    fn seal_bound_to(&self, associated_data: Vec<u8>, plain: &Secret<Vec<u8>>) -> Result<Vec<u8>> {
        let mut sealed = plain.expose().clone();
        let nonce = self
            .cipher()?
            .seal_in_place_append_tag(Aad::from(associated_data), &mut sealed)
            .map_err(|_| Error::new(ErrorKind::Other, "a signing key cannot be sealed"))?;
        Ok([nonce.as_ref().as_slice(), &sealed].concat())
    }

    pub(super) fn unseal(&self, key: &StoredKey) -> Result<Secret<Vec<u8>>> {
        if key.kek_id != self.id {
            return Err(Error::new(
                ErrorKind::Config,
                "the key-encryption key is not the one that the signing keys are sealed with",
            )
            .because_of(format!("it is {}; {} is needed", self.id, key.kek_id))
            .hint(
                "start the broker with the key-encryption key that this database was made with",
            ));
        }
        self.open(&key.sealed, bound_to(key))?.ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("the signing key {} cannot be unsealed", key.kid))
                .because_of("what the database holds was changed")
                .hint("restore a backup of the database")
        })
    }

    /// `None` where the seal is broken, or is bound to something else.
    fn open(&self, sealed: &[u8], associated_data: Vec<u8>) -> Result<Option<Secret<Vec<u8>>>> {
        let Some((nonce, sealed)) = sealed.split_at_checked(NONCE_LEN) else { return Ok(None) };
        let Ok(nonce) = Nonce::try_assume_unique_for_key(nonce) else { return Ok(None) };
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let opened = self.cipher()?.open_in_place(nonce, Aad::from(associated_data), &mut bytes);
        Ok(opened.ok().map(|plain| Secret::new(plain.to_vec())))
    }
}

/// What a sealed key is bound to besides the KEK, so that it cannot be passed off as
/// another one, and one that was revoked not as one that signs.
fn bound_to(key: &StoredKey) -> Vec<u8> {
    let micros = |time: OffsetDateTime| time.unix_timestamp_nanos() / 1000;
    format!(
        "tmpcred broker key v2\0{}\0{}\0{}\0{}\0{}\0{}",
        key.purpose.as_str(),
        key.kid,
        key.algorithm,
        key.state.as_str(),
        micros(key.created_at),
        micros(key.changed_at),
    )
    .into_bytes()
}
