//! Sealed files: what a keyring cannot take, encrypted under a key that is kept
//! in that same keyring.
//!
//! A file holds a header (which format, until when), a random nonce, and the
//! item under AES-256-GCM. The header, the store and the item's key are bound
//! to it as associated data, so a file that was moved, swapped or prolonged does
//! not open.

use std::path::PathBuf;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use time::OffsetDateTime;

use super::key::ItemKey;
use super::store::{ITEM_LIMIT, StoreId};
use crate::error::{Error, ErrorKind, Result};
use crate::host::files;
use crate::secret::Secret;

/// The length of the sealing key, in bytes.
pub(super) const KEY_LEN: usize = 32;

/// What a file begins with. Another format has another beginning.
const MAGIC: &[u8; 8] = b"tmpcred1";
/// The header: the beginning, and the time at which the item ends.
const HEADER_LEN: usize = MAGIC.len() + size_of::<i64>();
/// Stands for «no end».
const NEVER: i64 = i64::MAX;
/// How large a file may be.
const FILE_LIMIT: u64 = (ITEM_LIMIT + 1024) as u64;

/// A new sealing key.
pub(super) fn new_key() -> Result<Secret<Vec<u8>>> {
    let mut key = vec![0; KEY_LEN];
    let filled = aws_lc_rs::rand::fill(&mut key);
    let key = Secret::new(key);
    filled
        .map_err(|_| Error::new(ErrorKind::Other, "the system has no randomness for a key"))
        .map(|()| key)
}

/// The directory of sealed files.
pub(super) struct Sealed {
    dir: PathBuf,
}

impl Sealed {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Whether there is a file for this item.
    pub(super) fn has(&self, store: StoreId, key: &ItemKey) -> bool {
        files::exists(self.path(store, key))
    }

    /// Seals an item until `until`, or for good.
    pub(super) fn write(
        &self,
        store: StoreId,
        key: &ItemKey,
        sealing_key: &Secret<Vec<u8>>,
        value: &Secret<Vec<u8>>,
        until: Option<OffsetDateTime>,
    ) -> Result<()> {
        let header = header(until);
        let sealed = encrypt(sealing_key, &bound_to(&header, store, key), value)
            .ok_or_else(|| Error::new(ErrorKind::Other, "an item cannot be sealed"))?;
        files::write_private(&self.path(store, key), &[&header[..], &sealed].concat())
    }

    /// Opens an item's file. One that does not open is removed.
    pub(super) fn read(
        &self,
        store: StoreId,
        key: &ItemKey,
        sealing_key: &Secret<Vec<u8>>,
        now: OffsetDateTime,
    ) -> Option<Secret<Vec<u8>>> {
        // What cannot be read now may be readable later: it stays.
        let bytes = files::read(&self.path(store, key), FILE_LIMIT).ok()??;
        let opened = bytes.split_at_checked(HEADER_LEN).and_then(|(header, sealed)| {
            Some((until(header)?, decrypt(sealing_key, &bound_to(header, store, key), sealed)?))
        });
        match opened {
            Some((until, value)) => (now.unix_timestamp() < until).then_some(value),
            None => {
                self.remove(store, key);
                None
            }
        }
    }

    /// Removes an item's file, where there is one.
    pub(super) fn remove(&self, store: StoreId, key: &ItemKey) {
        if let Err(error) = files::remove(&self.path(store, key)) {
            tracing::debug!(%error, "cannot remove a sealed file");
        }
    }

    /// The items whose files say that they have ended, or say nothing at all.
    pub(super) fn ended(&self, store: StoreId, now: OffsetDateTime) -> Vec<ItemKey> {
        let mut keys = self.keys(store);
        keys.retain(|key| match files::read(&self.path(store, key), FILE_LIMIT) {
            Ok(Some(bytes)) => bytes
                .get(..HEADER_LEN)
                .and_then(until)
                .is_none_or(|until| until <= now.unix_timestamp()),
            _ => false,
        });
        keys
    }

    /// The items that have a file.
    pub(super) fn keys(&self, store: StoreId) -> Vec<ItemKey> {
        let paths = files::list(&self.dir.join(store.slug())).unwrap_or_default();
        let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
        names.filter_map(ItemKey::parse).collect()
    }

    fn path(&self, store: StoreId, key: &ItemKey) -> PathBuf {
        self.dir.join(store.slug()).join(key.as_str())
    }
}

fn header(until: Option<OffsetDateTime>) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let (magic, end) = header.split_at_mut(MAGIC.len());
    magic.copy_from_slice(MAGIC);
    end.copy_from_slice(&until.map_or(NEVER, OffsetDateTime::unix_timestamp).to_be_bytes());
    header
}

/// When an item ends, by its file's header.
fn until(header: &[u8]) -> Option<i64> {
    let end = header.strip_prefix(MAGIC)?;
    Some(i64::from_be_bytes(end.try_into().ok()?))
}

fn bound_to(header: &[u8], store: StoreId, key: &ItemKey) -> Vec<u8> {
    // The header has a fixed length, and neither name holds a slash.
    [header, store.slug().as_bytes(), b"/", key.as_str().as_bytes()].concat()
}

fn encrypt(key: &Secret<Vec<u8>>, bound_to: &[u8], value: &Secret<Vec<u8>>) -> Option<Vec<u8>> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key.expose()).ok()?;
    // With room for the tag, so that no copy of the value is left behind.
    let mut bytes = Vec::with_capacity(value.expose().len() + AES_256_GCM.tag_len());
    bytes.extend_from_slice(value.expose());
    let nonce = key.seal_in_place_append_tag(Aad::from(bound_to), &mut bytes).ok()?;
    Some([nonce.as_ref().as_slice(), &bytes].concat())
}

fn decrypt(key: &Secret<Vec<u8>>, bound_to: &[u8], sealed: &[u8]) -> Option<Secret<Vec<u8>>> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key.expose()).ok()?;
    let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut bytes = Vec::from(ciphertext);
    let len = key.open_in_place(nonce, Aad::from(bound_to), &mut bytes).ok()?.len();
    bytes.truncate(len);
    Some(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;
    use time::Duration;
    use time::macros::datetime;

    use super::*;
    use crate::cache::SessionKey;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    struct Fixture {
        _dir: TempDir,
        sealed: Sealed,
        key: ItemKey,
        sealing_key: Secret<Vec<u8>>,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let sealed = Sealed::new(dir.path().join("sealed"));
            let key = SessionKey::new(&["a"]).item();
            Self { _dir: dir, sealed, key, sealing_key: new_key().unwrap() }
        }

        fn write(&self, value: &[u8], until: Option<OffsetDateTime>) {
            let value = Secret::new(value.to_vec());
            self.sealed
                .write(StoreId::Kernel, &self.key, &self.sealing_key, &value, until)
                .unwrap();
        }

        fn read(&self) -> Option<Vec<u8>> {
            let read = self.sealed.read(StoreId::Kernel, &self.key, &self.sealing_key, NOW);
            read.map(|value| value.expose().clone())
        }

        fn path(&self) -> PathBuf {
            self.sealed.path(StoreId::Kernel, &self.key)
        }
    }

    #[test]
    fn what_is_sealed_opens_and_does_not_show_in_the_file() {
        let f = Fixture::new();
        f.write(b"hunter2", None);
        let file = files::read(&f.path(), 1000).unwrap().unwrap();
        assert!(!file.windows(7).any(|w| w == b"hunter2"));
        assert_eq!(f.read().unwrap(), b"hunter2");
        f.write(b"", None);
        assert_eq!(f.read().unwrap(), b"");
    }

    #[test]
    fn no_nonce_is_used_twice() {
        let f = Fixture::new();
        let nonces: std::collections::BTreeSet<Vec<u8>> = (0..50)
            .map(|_| {
                f.write(b"a", None);
                let file = files::read(&f.path(), 1000).unwrap().unwrap();
                file[HEADER_LEN..HEADER_LEN + NONCE_LEN].to_vec()
            })
            .collect();
        assert_eq!(nonces.len(), 50);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_makes_a_file_absent() {
        let f = Fixture::new();
        f.write(b"hunter2", Some(NOW + Duration::hours(1)));
        let good = files::read(&f.path(), 1000).unwrap().unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                files::write_private(&f.path(), &bad).unwrap();
                assert_eq!(f.read(), None, "byte {at}, bit {bit}");
                assert!(!files::exists(f.path()), "byte {at}, bit {bit}");
            }
            files::write_private(&f.path(), &good[..at]).unwrap();
            assert_eq!(f.read(), None, "cut at {at}");
        }
    }

    #[test]
    fn a_file_opens_only_in_its_place() {
        let f = Fixture::new();
        f.write(b"hunter2", None);
        let good = files::read(&f.path(), 1000).unwrap().unwrap();
        let other = SessionKey::new(&["b"]).item();
        files::write_private(&f.sealed.path(StoreId::Kernel, &other), &good).unwrap();
        files::write_private(&f.sealed.path(StoreId::Native, &f.key), &good).unwrap();
        assert!(f.sealed.read(StoreId::Kernel, &other, &f.sealing_key, NOW).is_none());
        assert!(f.sealed.read(StoreId::Native, &f.key, &f.sealing_key, NOW).is_none());
        let other_key = new_key().unwrap();
        assert!(f.sealed.read(StoreId::Kernel, &f.key, &other_key, NOW).is_none());
    }

    #[test]
    fn what_has_ended_is_absent_and_listed() {
        let f = Fixture::new();
        f.write(b"a", Some(NOW));
        assert_eq!(f.read(), None);
        assert_eq!(f.sealed.ended(StoreId::Kernel, NOW), vec![f.key.clone()]);
        f.write(b"a", Some(NOW + Duration::seconds(1)));
        assert_eq!(f.read().unwrap(), b"a");
        assert_eq!(f.sealed.ended(StoreId::Kernel, NOW), vec![]);
        assert_eq!(f.sealed.keys(StoreId::Kernel), vec![f.key.clone()]);
        assert_eq!(f.sealed.keys(StoreId::Native), vec![]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn garbage_never_opens(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let f = Fixture::new();
            files::write_private(&f.path(), &bytes).unwrap();
            prop_assert_eq!(f.read(), None);
        }
    }
}
