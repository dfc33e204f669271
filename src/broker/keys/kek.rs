//! The key-encryption key: where it comes from, and how it seals the root key.

use std::path::{Path, is_separator};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::sealing::{self, KEY_LEN};
use crate::broker::config::{KEK_VARIABLE, Keys as KeysConfig};
use crate::broker::private_file;
use crate::broker::private_text::variable_name;
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::host::files::{self, Guard};
use crate::host::process::printed::{Limit, printed};
use crate::secret::Secret;

/// What to do where there is none.
const MAKE_ONE: &str =
    "make one with `openssl rand -base64 32`; keep it apart from the database, and keep a copy";

/// What to know where a database is to be opened.
const NEEDS_ITS_OWN: &str =
    "a database that there is takes no new one: it needs the one that it was made with";

/// The key that seals the [root key](super::RootKey). It is kept apart from the store.
#[derive(Clone, Debug)]
pub struct Kek {
    bytes: Secret<[u8; KEY_LEN]>,
    id: String,
}

impl Kek {
    /// How much is read of what holds one, in bytes.
    pub const MAX_LEN: usize = 1024;

    /// A key-encryption key of these bytes.
    pub fn new(bytes: Secret<[u8; KEY_LEN]>) -> Self {
        let id = sealing::id(&bytes);
        Self { bytes, id }
    }

    /// Reads the key-encryption key from where the configuration says.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is none that can be used, and what
    /// [`printed`] says of a command that gives none.
    pub async fn load(config: &KeysConfig, env: &Env) -> Result<Self> {
        Self::load_for(config, env, &[MAKE_ONE, NEEDS_ITS_OWN]).await
    }

    /// The same of one that a database is to be opened by besides those that it has.
    ///
    /// # Errors
    /// As with [`load`](Self::load).
    pub async fn load_another(config: &KeysConfig, env: &Env) -> Result<Self> {
        Self::load_for(config, env, &[MAKE_ONE]).await
    }

    async fn load_for(config: &KeysConfig, env: &Env, hints: &[&str]) -> Result<Self> {
        match &config.kek_command {
            Some(command) => {
                Self::printed_by(command, &config.kek_variables, Limit::default(), env).await
            }
            None => Self::at_hand(config, env, hints),
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
        let printed = printed(env, what, words, variables, limit, Self::MAX_LEN).await?;
        std::str::from_utf8(printed.expose()).ok().and_then(Self::parse).ok_or_else(|| {
            let message = format!("{} printed something else than 32 bytes in base64", named());
            Error::new(ErrorKind::Config, message)
                .hint("run it by hand: it prints the key on standard output, and nothing else")
        })
    }

    fn at_hand(config: &KeysConfig, env: &Env, hints: &[&str]) -> Result<Self> {
        let refused = |message: String| {
            let error = Error::new(ErrorKind::Config, message);
            hints.iter().fold(error, |error, hint| error.hint(*hint))
        };
        let text = match (&config.kek_file, &config.kek_env) {
            (Some(path), _) => {
                let name = format!("the key-encryption key file {}", path.display());
                let bytes = private_file::read(path, Self::MAX_LEN as u64, &name, env)
                    // It is named by a configuration that is of no use as it is.
                    .map_err(|error| error.of_kind(ErrorKind::Config))?
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
                            "[keys] names no kek_file and no kek_command, and {} is not set",
                            variable_name(variable)
                        ))
                })?;
                (variable, text)
            }
        };
        let (variable, text) = text;
        Self::parse(text).ok_or_else(|| {
            refused(format!("{} does not hold 32 bytes in base64", variable_name(variable)))
        })
    }

    /// One as it is written: 32 bytes in base64.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bytes = Zeroizing::new(
            STANDARD
                .decode(text)
                .or_else(|_| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')))
                .ok()?,
        );
        let bytes: [u8; KEY_LEN] = bytes.as_slice().try_into().ok()?;
        Some(Self::new(Secret::new(bytes)))
    }

    /// Its name, which tells nothing of it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it seals with.
    pub(super) fn bytes(&self) -> &Secret<[u8; KEY_LEN]> {
        &self.bytes
    }
}
