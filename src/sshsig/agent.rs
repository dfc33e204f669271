//! Keys of an SSH agent (draft-ietf-sshm-ssh-agent): which it has, and having it sign.
//!
//! Two messages of the protocol are all that is needed. The libraries for it bring along an
//! implementation of RSA that must not be linked in.

use std::time::Duration;

use ssh_key::encoding::{Decode, Encode as _, Reader as _};

use super::{Kind, PublicKey, Signature};
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::agent::Socket;
use crate::host::env::Env;

/// How long an agent may take to say which keys it has.
const LIST: Duration = Duration::from_secs(5);

/// How long it may take to sign: somebody may have to find a security key, and touch it.
const SIGN: Duration = Duration::from_secs(60);

/// How many keys are looked at.
const MAX_KEYS: u32 = 1000;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Asks for SHA-512 where the key is of RSA; the agent would take SHA-1 otherwise.
const RSA_SHA2_512: u32 = 4;

/// An agent that holds keys of somebody.
#[derive(Clone, Debug)]
pub struct Agent {
    socket: Socket,
    list: Duration,
    sign: Duration,
}

/// A key that an agent has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentKey {
    /// Its public half.
    pub public: PublicKey,
    /// What it is called; a label.
    pub comment: String,
}

impl Agent {
    /// The agent of this environment.
    ///
    /// # Errors
    /// Where there is none.
    pub fn of(env: &Env) -> Result<Self> {
        Ok(Self { socket: Socket::of(env)?, list: LIST, sign: SIGN })
    }

    /// The same, which is given up after this.
    #[cfg(test)]
    pub(super) fn within(self, limit: Duration) -> Self {
        Self { list: limit, sign: limit, ..self }
    }

    /// The keys that it has and that are of a kind there may be.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn keys(&self) -> Result<Vec<AgentKey>> {
        let answer = self.socket.ask(&[REQUEST_IDENTITIES], self.list)?;
        identities(&answer)
    }

    /// The key with this fingerprint; where none is named, the only one that it has.
    ///
    /// # Errors
    /// Where there is none, or more than one.
    pub fn key(&self, fingerprint: Option<&str>) -> Result<AgentKey> {
        let mut keys = self.keys()?;
        if let Some(fingerprint) = fingerprint {
            keys.retain(|key| key.public.fingerprint() == fingerprint);
        }
        match (keys.pop(), keys.is_empty()) {
            (Some(key), true) => Ok(key),
            (Some(key), false) => {
                keys.push(key);
                let named: Vec<_> = keys.iter().map(|key| key.public.fingerprint()).collect();
                Err(Error::new(ErrorKind::Usage, "the SSH agent has more than one key")
                    .hint(format!("name one of {}", named.join(", "))))
            }
            (None, _) => {
                let what = match fingerprint {
                    Some(_) => "the SSH agent does not have this key",
                    None => "the SSH agent has no key that can be used",
                };
                // It does not say whether it is locked.
                Err(Error::new(ErrorKind::Usage, what)
                    .hint("`ssh-add -l` lists what it has, `ssh-add` adds a key")
                    .hint("where it is locked it lists none: `ssh-add -X` unlocks it"))
            }
        }
    }

    /// Has it sign a message.
    ///
    /// # Errors
    /// Where it refuses, does not answer, or answers something that is no signature of this.
    pub fn sign(&self, key: &PublicKey, message: &[u8]) -> Result<Signature> {
        Signature::make(key, message, |signed| {
            let answer = self.socket.ask(&sign_request(key, signed)?, self.sign)?;
            signature(&answer)
        })
    }
}

/// Asks to sign these bytes.
fn sign_request(key: &PublicKey, signed: &[u8]) -> Result<Vec<u8>> {
    let flags = if key.kind() == Kind::Rsa { RSA_SHA2_512 } else { 0 };
    let mut message = vec![SIGN_REQUEST];
    let mut write = || {
        key.to_bytes().ok()?.encode(&mut message).ok()?;
        signed.encode(&mut message).ok()?;
        flags.encode(&mut message).ok()
    };
    write().ok_or_else(|| Error::new(ErrorKind::Other, "the SSH agent cannot be asked to sign"))?;
    Ok(message)
}

/// Which keys it has, by its answer.
pub(super) fn identities(answer: &[u8]) -> Result<Vec<AgentKey>> {
    let mut rest = body(answer, IDENTITIES_ANSWER, "say which keys it has")?;
    let read = || -> Result<_, ssh_key::encoding::Error> {
        let count = u32::decode(&mut rest)?;
        let mut found = Vec::new();
        for _ in 0..count.min(MAX_KEYS) {
            found.push((Vec::<u8>::decode(&mut rest)?, Vec::<u8>::decode(&mut rest)?));
        }
        Ok(found)
    };
    let found = read_all(read)?;
    // Keys of other kinds, and certificates, are nobody's business here.
    let keys = found.into_iter().filter_map(|(key, comment)| {
        let public = PublicKey::from_bytes(&key).ok()?;
        Some(AgentKey { public, comment: foreign(&String::from_utf8_lossy(&comment)) })
    });
    Ok(keys.collect())
}

/// What it signed, by its answer.
pub(super) fn signature(answer: &[u8]) -> Result<ssh_key::Signature> {
    let mut rest = body(answer, SIGN_RESPONSE, "sign")?;
    let signature =
        rest.read_prefixed(ssh_key::Signature::decode).map_err(|cause| strange().because(cause))?;
    match rest.is_empty() {
        true => Ok(signature),
        false => Err(strange().because_of("there is something behind the signature")),
    }
}

fn read_all<T>(read: impl FnOnce() -> Result<T, ssh_key::encoding::Error>) -> Result<T> {
    read().map_err(|cause| strange().because(cause))
}

/// What is in an answer of this kind.
fn body<'a>(answer: &'a [u8], kind: u8, what: &str) -> Result<&'a [u8]> {
    match answer.split_first() {
        Some((first, rest)) if *first == kind => Ok(rest),
        Some((&FAILURE, _)) => {
            Err(Error::new(ErrorKind::Denied, format!("the SSH agent does not {what}")).hint(
                "it may be locked (`ssh-add -X`), somebody may have said no, or the key is gone",
            ))
        }
        _ => Err(strange()),
    }
}

fn strange() -> Error {
    Error::new(ErrorKind::Verification, "the SSH agent answers something that is no answer")
}
