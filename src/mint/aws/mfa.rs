//! Codes of MFA devices (TOTP, RFC 6238): from a person or from a program, and each
//! sent once.
//!
//! AWS takes a code only once, and so refuses the second of two runs that send the
//! same. What was sent is therefore remembered, under a lock, by all processes of a
//! user.

use std::fs::{File, TryLockError};
use std::future::Future;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::{digest, pbkdf2, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::MfaSerial;
use crate::error::{Error, ErrorKind, Result};
use crate::host::process::printed::{self, Limit, printed};
use crate::host::{Host, files};
use crate::secret::Secret;

/// How long a code has: <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html>.
const DIGITS: usize = 6;
/// How often a device has another code, in seconds (RFC 6238 section 4.1).
const STEP: i64 = 30;
/// For how long a code is remembered, in seconds. No server accepts it for so long.
const REMEMBERED: i64 = 600;
/// How often a code that was sent before may be given instead of another one.
const PATIENCE: usize = 3;
/// How long another process may take, whose person looks for the device.
const LOCK_LIMIT: Duration = Duration::from_secs(300);
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// A code has few digits, and is good for a minute or two. This makes trying all of
/// them take longer than that.
const ROUNDS: NonZeroU32 = NonZeroU32::new(100_000).unwrap();
/// How much is read of what a program prints, and of what is remembered, in bytes.
const MAX_PRINTED: usize = 1024;
const MAX_FILE: u64 = 64 * 1024;

/// The MFA device of a user, and where its codes come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mfa {
    /// The device.
    pub serial: MfaSerial,
    /// The program that prints a code, and its arguments. Where left out, the
    /// person is asked.
    #[serde(default, deserialize_with = "command", skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// The variables that it gets besides PATH and HOME.
    #[serde(default)]
    pub variables: Vec<String>,
    /// How long it may take.
    #[serde(default)]
    pub limit: Limit,
}

fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    printed::command(deserializer).map(Some)
}

impl Mfa {
    /// Where its codes come from, for people.
    pub(super) fn shown(&self) -> String {
        let program = self.command.as_ref().and_then(|command| command.first());
        let from = program.map_or("you are asked for".into(), |program| format!("{program} prints"));
        format!(", with a code of the MFA device {} that {from}", self.serial)
    }

    /// A code that was not sent before. It counts as sent from now on.
    ///
    /// # Errors
    /// [`ErrorKind::LoginRequired`] where nobody may be asked for one.
    pub(super) async fn code(&self, host: &Host) -> Result<Secret<String>> {
        self.code_with(host, tokio::time::sleep).await
    }

    async fn code_with<P: Future<Output = ()>>(
        &self,
        host: &Host,
        pause: impl Fn(Duration) -> P,
    ) -> Result<Secret<String>> {
        let sent = Sent::of(host, &self.serial);
        let _held = sent.lock(host, &pause).await?;
        for attempt in 0..PATIENCE {
            let code = match self.next(host).await {
                // A slip of the finger.
                Err(error)
                    if self.command.is_none()
                        && error.kind() == ErrorKind::Verification
                        && attempt + 1 < PATIENCE =>
                {
                    host.interact.warn(&error.to_string());
                    continue;
                }
                next => next?,
            };
            if sent.add(host, &code)? {
                return Ok(code);
            }
            if attempt + 1 == PATIENCE {
                break;
            }
            if self.command.is_none() {
                host.interact.warn("that code was sent before, and each is good once: wait for the next one");
            } else {
                let now = host.clock.now().unix_timestamp();
                let left = STEP - now.rem_euclid(STEP);
                let wait = Duration::from_secs(left.unsigned_abs());
                host.interact.note(&format!(
                    "this MFA code was sent before, and each is good once: waiting {} for the next one",
                    humantime::format_duration(wait)
                ));
                let _waiting = host.interact.waiting("waiting for the next MFA code");
                pause(wait).await;
            }
        }
        Err(Error::new(ErrorKind::Other, "there is no MFA code that was not sent before")
            .because_of(format!("the device {} gave the same again", self.serial))
            .hint("wait until the device shows another code, then try again"))
    }

    async fn next(&self, host: &Host) -> Result<Secret<String>> {
        let given = match &self.command {
            Some(command) => {
                let variables = self.variables.iter().map(String::as_str);
                let bytes =
                    printed(&host.env, "MFA code", command, variables, self.limit, MAX_PRINTED).await?;
                String::from_utf8(bytes.expose().clone()).map(Secret::new).unwrap_or_else(|_| Secret::new(String::new()))
            }
            None if host.interact.may_ask() => {
                host.interact.ask(&format!("Code of the MFA device {}", self.serial))?
            }
            None => {
                return Err(Error::new(ErrorKind::LoginRequired, "an MFA code is needed, and nobody may be asked for it")
                    .because_of(format!("the profile says `mfa` with the device {}", self.serial))
                    .hint("run the same profile in a terminal first: what it gets is cached")
                    .hint("or let a program print the codes: `command` of `mfa`"));
            }
        };
        let code = given.expose().trim();
        if code.len() != DIGITS || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::new(ErrorKind::Verification, "that is no MFA code")
                .because_of(format!("a code has {DIGITS} digits")));
        }
        Ok(Secret::new(code.to_string()))
    }
}

/// What was sent of one device's codes.
struct Sent {
    file: PathBuf,
    lock: PathBuf,
}

/// How it rests: nothing that tells a code in time.
#[derive(Default, Serialize, Deserialize)]
struct Record {
    salt: String,
    codes: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    at: i64,
    hash: String,
}

impl Sent {
    fn of(host: &Host, serial: &MfaSerial) -> Self {
        let name = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, serial.as_str().as_bytes()));
        let dir = host.dirs.state.join("mfa");
        Self { file: dir.join(format!("{name}.json")), lock: dir.join(format!("{name}.lock")) }
    }

    /// The lock on the device. It is let go of when the file is dropped.
    async fn lock<P: Future<Output = ()>>(
        &self,
        host: &Host,
        pause: &impl Fn(Duration) -> P,
    ) -> Result<File> {
        let failed = || Error::new(ErrorKind::Io, "the MFA codes that were sent cannot be kept apart");
        let file = files::open_lock(&self.lock)?;
        let rounds = LOCK_LIMIT.as_millis() / LOCK_PAUSE.as_millis();
        for round in 0..rounds {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    if round == 20 {
                        host.interact.note("another tmpcred is asking for a code of the same MFA device");
                    }
                    pause(LOCK_PAUSE).await;
                }
                Err(TryLockError::Error(cause)) => return Err(failed().because(cause)),
            }
        }
        Err(failed().because_of("another tmpcred asks for a code of the same MFA device, and does not finish"))
    }

    /// Remembers a code; `false` where it is remembered already.
    fn add(&self, host: &Host, code: &Secret<String>) -> Result<bool> {
        let now = host.clock.now().unix_timestamp();
        // What cannot be read was written by nobody who sent anything.
        let mut record: Record = files::read(&self.file, MAX_FILE)?
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        record.codes.retain(|entry| (now - entry.at).abs() <= REMEMBERED);
        if record.codes.is_empty() {
            let mut salt = [0; 16];
            rand::fill(&mut salt)
                .map_err(|_| Error::new(ErrorKind::Other, "the system gives no random numbers"))?;
            record.salt = URL_SAFE_NO_PAD.encode(salt);
        }
        let mut hash = [0; digest::SHA256_OUTPUT_LEN];
        let salt = record.salt.as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt, code.expose().as_bytes(), &mut hash);
        let hash = URL_SAFE_NO_PAD.encode(hash);
        if record.codes.iter().any(|entry| entry.hash == hash) {
            return Ok(false);
        }
        record.codes.push(Entry { at: now, hash });
        let bytes = serde_json::to_vec(&record).map_err(|cause| {
            Error::new(ErrorKind::Other, "what was sent cannot be written down").because(cause)
        })?;
        files::write_private(&self.file, &bytes)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
