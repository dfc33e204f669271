//! What is known of a broker for when nobody can log in: who somebody is there, which key they
//! enrolled, which rules it said last, and what they asked for. A file in the state directory,
//! with nothing secret in it.

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::error::{Error, ErrorKind, Result};
use crate::host::{Host, files};
use crate::oidc::Issuer;

/// How large the file may be, in bytes.
const LIMIT: u64 = 512 * 1024;

/// How many requests are kept.
const REQUESTS: usize = 20;

/// What is known of one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Who somebody is, by their name in the directory.
    #[serde(default)]
    pub person: Option<String>,
    /// The fingerprint of the key that they enrolled last.
    #[serde(default)]
    pub key: Option<String>,
    /// The rules that it said last.
    #[serde(default)]
    pub rules: Option<String>,
    /// What they asked for by signatures, the newest last.
    #[serde(default)]
    pub requests: Vec<Kept>,
}

/// A request that somebody signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The role.
    pub role: String,
    /// Whom its tokens are for, where the request says so.
    pub audience: Option<String>,
    /// As it was signed.
    pub text: String,
    /// Until when something may come of it (seconds since 1970).
    pub until: i64,
}

impl Known {
    /// What is known of this broker. What cannot be read is not known.
    pub(crate) fn of(host: &Host, broker: &Issuer) -> Self {
        let bytes = files::read(&path(host, broker), LIMIT).ok().flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Changes what is known; of several processes one after the other.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(crate) fn change(
        host: &Host,
        broker: &Issuer,
        change: impl FnOnce(&mut Self),
    ) -> Result<()> {
        let path = path(host, broker);
        let failed = |cause| {
            let what = "nobody else can be kept from changing what is known of the broker";
            Error::new(ErrorKind::Io, what).because(cause)
        };
        let lock = files::open_lock(&path.with_extension("lock"))?;
        lock.lock().map_err(failed)?;
        let before = Self::of(host, broker);
        let mut known = before.clone();
        change(&mut known);
        let now = host.clock.now().unix_timestamp();
        known.requests.retain(|kept| kept.until > now);
        let many = known.requests.len().saturating_sub(REQUESTS);
        known.requests.drain(..many);
        if known == before {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&known).map_err(|cause| {
            Error::new(ErrorKind::Other, "what is known of the broker cannot be written")
                .because(cause)
        })?;
        files::write_private(&path, &bytes)
    }

    /// What was asked for of this role, of which something may still come; the newest first.
    pub(crate) fn requests<'a>(
        &'a self,
        role: &'a str,
        audience: &'a str,
        now: OffsetDateTime,
    ) -> impl Iterator<Item = &'a Kept> {
        self.requests.iter().rev().filter(move |kept| {
            kept.role == role
                && kept.audience.as_deref().is_none_or(|one| one == audience)
                && kept.until > now.unix_timestamp()
        })
    }
}

fn path(host: &Host, broker: &Issuer) -> PathBuf {
    let hash = digest(&SHA256, broker.as_str().as_bytes());
    let name = HEXLOWER.encode(hash.as_ref());
    host.dirs.state.join("provider-down").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::test_server;

    #[test]
    fn what_several_take_note_of_at_once_is_all_there() {
        let dir = tempfile::tempdir().unwrap();
        let broker = Issuer::parse("https://broker.example").unwrap();
        std::thread::scope(|scope| {
            for number in 0..REQUESTS {
                let (dir, broker) = (dir.path(), &broker);
                scope.spawn(move || {
                    let host = test_server::host(dir, time::Duration::ZERO);
                    let until = host.clock.now().unix_timestamp() + 60;
                    let (role, text) = (format!("role-{number}"), String::new());
                    Known::change(&host, broker, |known| {
                        known.requests.push(Kept { role, audience: None, text, until });
                    })
                    .unwrap();
                });
            }
        });
        let host = test_server::host(dir.path(), time::Duration::ZERO);
        assert_eq!(Known::of(&host, &broker).requests.len(), REQUESTS);
    }

    #[test]
    fn what_is_over_is_forgotten_and_of_the_rest_the_newest_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let host = test_server::host(dir.path(), time::Duration::ZERO);
        let broker = Issuer::parse("https://broker.example").unwrap();
        let now = host.clock.now();
        let kept = |text: &str, audience: Option<&str>, seconds: i64| Kept {
            role: "admin".into(),
            audience: audience.map(String::from),
            text: text.into(),
            until: now.unix_timestamp() + seconds,
        };
        assert_eq!(Known::of(&host, &broker), Known::default());
        Known::change(&host, &broker, |known| {
            known.person = Some("alice".into());
            known.requests =
                vec![kept("first", None, 60), kept("over", None, 0), kept("other", Some("b"), 60)];
            known.requests.extend((0..REQUESTS).map(|_| kept("newest", Some("a"), 60)));
        })
        .unwrap();
        let known = Known::of(&host, &broker);
        assert_eq!(known.person.as_deref(), Some("alice"));
        assert_eq!(known.requests.len(), REQUESTS);
        let found: Vec<_> = known.requests("admin", "a", now).map(|kept| &kept.text).collect();
        assert_eq!((found.len(), found[0].as_str()), (REQUESTS, "newest"));
        assert_eq!(known.requests("reader", "a", now).count(), 0);
        let elsewhere = Issuer::parse("https://other.example").unwrap();
        assert_eq!(Known::of(&host, &elsewhere), Known::default());
        // What somebody else wrote there is as if it was not there.
        files::write_private(&path(&host, &broker), b"{").unwrap();
        assert_eq!(Known::of(&host, &broker), Known::default());
    }
}
