//! Files sealed under a key that the environment brings, [`CACHE_KEY`]: for places
//! without a keyring that several runs share, such as the containers of one CI job.
//!
//! The files are those of [`super::sealed`]. Each key has a directory of its own, so
//! that what another key sealed is neither read nor replaced.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::key::{ItemKey, digest};
use super::notice::Notices;
use super::sealed::{KEY_LEN, Sealed};
use super::store::{Fault, Item, Store, StoreId};
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Clock;
use crate::host::dirs::Dirs;
use crate::host::env::{CACHE_KEY, Env};
use crate::host::{Host, files};
use crate::secret::Secret;

/// As `openssl rand -base64 32` has it, or without the padding.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The key that the environment brings: 32 bytes in Base64. `None` where it brings none.
///
/// # Errors
/// [`ErrorKind::Config`] where it is something else.
pub(super) fn key(env: &Env) -> Result<Option<Secret<Vec<u8>>>> {
    let Some(text) = env.get_os(CACHE_KEY) else { return Ok(None) };
    let bad = |why: String| {
        Error::new(ErrorKind::Config, format!("{CACHE_KEY} is no key"))
            .because_of(why)
            .hint("make one with: openssl rand -base64 32")
    };
    let text = text.to_str().map(str::trim).unwrap_or_default();
    // What cannot be decoded is not shown: it may be a key with a slip in it.
    let key = ENGINE.decode(text).map(Secret::new).map_err(|_| bad("it is not Base64".into()))?;
    match key.expose().len() {
        KEY_LEN => Ok(Some(key)),
        other => Err(bad(format!("it has {other} bytes; a key has {KEY_LEN}"))),
    }
}

/// The files sealed under one key.
pub(super) struct Keyed {
    key: Secret<Vec<u8>>,
    /// The directory of this key's files; beside it are those of others.
    dir: PathBuf,
    sealed: Sealed,
    clock: Arc<dyn Clock>,
    notices: Arc<Notices>,
}

impl Keyed {
    /// The store of the key that the environment brings.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it brings none, or something else.
    pub(super) fn open(host: &Host, notices: Arc<Notices>) -> Result<Self> {
        let Some(key) = key(&host.env)? else {
            return Err(Error::new(ErrorKind::Config, format!("{CACHE_KEY} is not set")));
        };
        let dir = directory(host, &key);
        let sealed = Sealed::new(dir.clone());
        Ok(Self { key, dir, sealed, clock: host.clock.clone(), notices })
    }

    /// The directories of other keys.
    fn others(&self) -> Vec<PathBuf> {
        let all = self.dir.parent().and_then(|all| files::list(all).ok()).unwrap_or_default();
        all.into_iter().filter(|dir| *dir != self.dir).collect()
    }

    /// Whether another key sealed this item, and it is still good.
    fn is_elsewhere(&self, key: &ItemKey) -> bool {
        let now = self.clock.now();
        self.others().into_iter().map(Sealed::new).any(|other| {
            other.has(StoreId::Keyed, key) && !other.ended(StoreId::Keyed, now).contains(key)
        })
    }

    /// Removes what other keys sealed and what has ended since: nobody may ever come
    /// back with such a key, as that of a job.
    fn tidy(&self) {
        let now = self.clock.now();
        for dir in self.others() {
            let other = Sealed::new(dir.clone());
            for key in other.ended(StoreId::Keyed, now) {
                other.remove(StoreId::Keyed, &key);
            }
            files::remove_empty_dir(&dir.join(StoreId::Keyed.slug()));
            files::remove_empty_dir(&dir);
        }
    }
}

/// Whether the files of the environment's key have this item, as far as names tell.
pub(super) fn may_have(host: &Host, key: &ItemKey) -> bool {
    let own = super::keyed::key(&host.env).ok().flatten();
    own.is_some_and(|own| Sealed::new(directory(host, &own)).has(StoreId::Keyed, key))
}

/// The directory of a key's files. Its name tells keys apart, and nothing of them:
/// they are random.
fn directory(host: &Host, key: &Secret<Vec<u8>>) -> PathBuf {
    let name = digest(&[b"name of a cache key", key.expose()]);
    all(&host.dirs).join(&name[..32])
}

fn all(dirs: &Dirs) -> PathBuf {
    home(dirs).join("by-key")
}

/// Where the files of all keys are, and their locks: whoever shares the ones shares the
/// others.
pub(super) fn home(dirs: &Dirs) -> PathBuf {
    dirs.state.join("sealed")
}

impl Store for Keyed {
    fn id(&self) -> StoreId {
        StoreId::Keyed
    }

    fn probe(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn get(&self, key: &ItemKey) -> Result<Option<Secret<Vec<u8>>>, Fault> {
        let found = self.sealed.read(StoreId::Keyed, key, &self.key, self.clock.now());
        if found.is_none() && self.is_elsewhere(key) {
            self.notices.warn_once(
                "another key",
                &format!(
                    "what is cached here for this run was sealed under another {CACHE_KEY}; it is left alone"
                ),
            );
        }
        Ok(found)
    }

    fn put(&self, item: &Item<'_>) -> Result<(), Fault> {
        let until = item.lifetime.map(|lifetime| self.clock.now().saturating_add(lifetime));
        self.sealed.write(StoreId::Keyed, item.key, &self.key, item.value, until)?;
        self.tidy();
        Ok(())
    }

    fn delete(&self, key: &ItemKey) -> Result<(), Fault> {
        self.sealed.remove(StoreId::Keyed, key);
        Ok(())
    }

    fn keys(&self) -> Result<Vec<ItemKey>, Fault> {
        Ok(self.sealed.keys(StoreId::Keyed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_thirty_two_bytes_in_base64_and_nothing_else() {
        let of = |text: &str| key(&Env::from_pairs([(CACHE_KEY, text)]));
        let good = ENGINE.encode([7; KEY_LEN]);
        for text in [good.clone(), good.trim_end_matches('=').into(), format!("{good}\n")] {
            assert_eq!(of(&text).unwrap().unwrap().expose(), &[7; KEY_LEN]);
        }
        assert!(of("").unwrap().is_none());
        assert!(key(&Env::default()).unwrap().is_none());
        for (bad, why) in [
            (ENGINE.encode([7; 31]), "it has 31 bytes"),
            (ENGINE.encode([7; 33]), "it has 33 bytes"),
            ("ab".repeat(KEY_LEN), "it has 48 bytes"),
            (format!("{good}!"), "it is not Base64"),
        ] {
            let error = of(&bad).unwrap_err();
            assert!(error.causes()[0].contains(why), "{error:?}");
            assert!(!format!("{error:?}").contains(&bad));
            assert!(error.hints()[0].contains("openssl rand"));
        }
    }
}
