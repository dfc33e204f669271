//! The table `[keys]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf, is_separator};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use super::KEK_VARIABLE;
use crate::broker::keys::{Algorithms, SigningAlgorithm};
use crate::error::{Error, ErrorKind, Result, lasting};
use crate::host::process::printed;

/// The bounds of how long a key is published before it signs. What is below would leave
/// nobody the time to fetch it.
const PUBLISH_BEFORE: [Duration; 2] =
    [Duration::from_secs(15), Duration::from_secs(30 * 24 * 60 * 60)];

/// The least age at which keys are rotated: every key that signed within the last day is
/// in the JWKS.
const MIN_ROTATE_EVERY: Duration = Duration::from_secs(60 * 60);

/// The table `[keys]`: where the key-encryption key comes from, 32 random bytes in
/// base64 (`openssl rand -base64 32`), from at most one place; and when the
/// signing keys are rotated.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// A file that holds it, private to the user who runs the broker.
    #[serde(default)]
    pub kek_file: Option<PathBuf>,
    /// The environment variable that holds it; `TMPCRED_BROKER_KEK` where neither
    /// is given.
    #[serde(default)]
    pub kek_env: Option<String>,
    /// A program that prints it, such as one that asks a KMS to decrypt it, and its
    /// arguments; no shell reads them.
    #[serde(default, deserialize_with = "command")]
    pub kek_command: Option<Vec<String>>,
    /// The variables that this program gets besides `PATH` and `HOME`.
    #[serde(default)]
    pub kek_variables: Vec<String>,
    /// How long a signing key signs before another takes its place, such as `90d`;
    /// `never` leaves that to `tmpcred broker keys rotate`.
    #[serde(default = "default_rotate_every", deserialize_with = "age")]
    #[schemars(with = "String")]
    pub rotate_every: Option<Duration>,
    /// How long a new key is published before it signs; from 15 seconds to 30 days.
    #[serde(default = "default_publish_before", deserialize_with = "super::duration")]
    #[schemars(with = "String")]
    pub publish_before: Duration,
    /// The algorithm by which tokens are signed: `ES256`, `EdDSA` or `RS256`.
    #[serde(default)]
    pub algorithm: SigningAlgorithm,
    /// Another algorithm for tokens for these audiences.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub audiences: BTreeMap<String, SigningAlgorithm>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            kek_file: None,
            kek_env: None,
            kek_command: None,
            kek_variables: Vec::new(),
            rotate_every: default_rotate_every(),
            publish_before: default_publish_before(),
            algorithm: SigningAlgorithm::default(),
            audiences: BTreeMap::new(),
        }
    }
}

fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    printed::words(deserializer).map(Some)
}

fn default_rotate_every() -> Option<Duration> {
    Some(Duration::from_secs(90 * 24 * 60 * 60))
}

fn default_publish_before() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

fn age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "never" {
        return Ok(None);
    }
    super::parse_duration(&text).map(Some).map_err(de::Error::custom)
}

impl Keys {
    /// The algorithms by which tokens are signed.
    pub fn algorithms(&self) -> Algorithms {
        Algorithms::new(self.algorithm, self.audiences.values().copied())
    }

    /// Where the program is that prints the key-encryption key, relative to the file; a bare
    /// name is found through PATH.
    pub(super) fn resolve_paths(&mut self, base: &Path) {
        let program = self.kek_command.as_mut().and_then(|command| command.first_mut());
        if let Some(program) = program.filter(|program| program.contains(is_separator)) {
            *program = base.join(&*program).to_string_lossy().into_owned();
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let wrong = |why: String| Err(Error::new(ErrorKind::Config, format!("[keys] {why}")));
        let sources = [
            ("kek_file", self.kek_file.is_some()),
            ("kek_env", self.kek_env.is_some()),
            ("kek_command", self.kek_command.is_some()),
        ];
        let named: Vec<_> =
            sources.iter().filter(|(_, named)| *named).map(|(key, _)| *key).collect();
        if let [one, other, ..] = named[..] {
            return wrong(format!("names both {one} and {other}"));
        }
        if self.kek_command.is_none() && !self.kek_variables.is_empty() {
            return wrong("has kek_variables, and no kek_command that gets them".into());
        }
        // Whoever is to print the key has no use for another one.
        if self.kek_variables.iter().any(|name| name == KEK_VARIABLE) {
            return wrong(format!("hands {KEK_VARIABLE} to a program that is to print the key"));
        }
        let [least, most] = PUBLISH_BEFORE;
        if self.publish_before < least || self.publish_before > most {
            return wrong(format!(
                "has a publish_before of {}; it must be at least {} and at most {}",
                lasting(self.publish_before),
                lasting(least),
                lasting(most)
            ));
        }
        // One is made, published and used before the next one.
        let least = MIN_ROTATE_EVERY.max(2 * self.publish_before);
        if let Some(age) = self.rotate_every
            && age < least
        {
            return wrong(format!(
                "has a rotate_every of {}; it must be at least {}, twice publish_before and no less than an hour",
                lasting(age),
                lasting(least)
            ));
        }
        Ok(())
    }
}
