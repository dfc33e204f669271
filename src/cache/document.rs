//! Public documents that were fetched once, such as discovery metadata and keys.
//!
//! A file holds a header line (format, when kept, until when, hash) and then
//! the document. What is damaged in any way is fetched again.

use std::path::PathBuf;

use time::OffsetDateTime;

use super::key::digest;
use crate::host::files;

/// How large a document may be, in bytes: as large as an HTTP answer.
const DOCUMENT_LIMIT: usize = crate::host::http::MAX_BODY;
/// How large a file may be: the document and its header.
const FILE_LIMIT: u64 = (DOCUMENT_LIMIT + 256) as u64;
const MAGIC: &str = "tmpcred-document-1";

/// The documents of one user.
pub(super) struct Documents {
    dir: PathBuf,
}

impl Documents {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// A document that is good now. A clock that was set back since it was kept
    /// makes it absent, so that none lives longer than it was meant to.
    pub(super) fn get(&self, name: &str, now: OffsetDateTime) -> Option<Vec<u8>> {
        let mut bytes = files::read(&self.path(name), FILE_LIMIT).ok()??;
        let line = bytes.iter().position(|byte| *byte == b'\n')?;
        let document = bytes.split_off(line + 1);
        let header = std::str::from_utf8(&bytes[..line]).ok()?;
        let mut fields = header.split(' ');
        let (magic, kept, until, hash) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let good = magic == MAGIC
            && fields.next().is_none()
            && hash == hash_of(name, kept, until, &document)
            && (kept.parse().ok()?..until.parse::<i64>().ok()?).contains(&now.unix_timestamp());
        good.then_some(document)
    }

    /// Keeps a document until `until`.
    pub(super) fn put(
        &self,
        name: &str,
        document: &[u8],
        now: OffsetDateTime,
        until: OffsetDateTime,
    ) -> crate::error::Result<()> {
        if document.len() > DOCUMENT_LIMIT || until <= now {
            return Ok(());
        }
        let kept = now.unix_timestamp().to_string();
        let until = until.unix_timestamp().to_string();
        let header = format!("{MAGIC} {kept} {until} {}\n", hash_of(name, &kept, &until, document));
        files::write_private(&self.path(name), &[header.as_bytes(), document].concat())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(digest(&[b"document name", name.as_bytes()]))
    }
}

/// Tells damage, not malice: who can write here can write the hash too.
fn hash_of(name: &str, kept: &str, until: &str, document: &[u8]) -> String {
    digest(&[b"document", name.as_bytes(), kept.as_bytes(), until.as_bytes(), document])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    fn documents() -> (tempfile::TempDir, Documents) {
        let dir = tempfile::tempdir().unwrap();
        let documents = Documents::new(dir.path().join("documents"));
        (dir, documents)
    }

    #[test]
    fn a_document_is_there_until_it_ends() {
        let (_dir, documents) = documents();
        let until = NOW + Duration::hours(1);
        assert_eq!(documents.get("https://i/keys", NOW), None);
        documents.put("https://i/keys", b"{}\n{}", NOW, until).unwrap();
        assert_eq!(documents.get("https://i/keys", NOW).unwrap(), b"{}\n{}");
        assert_eq!(documents.get("https://i/other", NOW), None);
        assert_eq!(documents.get("https://i/keys", until), None);
        assert_eq!(documents.get("https://i/keys", NOW - Duration::seconds(1)), None);
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let (_dir, documents) = documents();
        let until = NOW + Duration::hours(1);
        documents.put("a", &vec![0; DOCUMENT_LIMIT + 1], NOW, until).unwrap();
        assert_eq!(documents.get("a", NOW), None);
        documents.put("a", &vec![0; DOCUMENT_LIMIT], NOW, until).unwrap();
        assert_eq!(documents.get("a", NOW).unwrap().len(), DOCUMENT_LIMIT);
    }

    #[test]
    fn a_document_does_not_pass_for_another() {
        let (_dir, documents) = documents();
        documents.put("a", b"{}", NOW, NOW + Duration::hours(1)).unwrap();
        let bytes = files::read(&documents.path("a"), FILE_LIMIT).unwrap().unwrap();
        files::write_private(&documents.path("b"), &bytes).unwrap();
        assert_eq!(documents.get("b", NOW), None);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_makes_a_document_absent() {
        let (_dir, documents) = documents();
        documents.put("a", b"{\"keys\":[]}", NOW, NOW + Duration::hours(1)).unwrap();
        let good = files::read(&documents.path("a"), FILE_LIMIT).unwrap().unwrap();
        for at in 0..good.len() {
            files::write_private(&documents.path("a"), &good[..at]).unwrap();
            assert_eq!(documents.get("a", NOW), None, "cut at {at}");
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            files::write_private(&documents.path("a"), &bad).unwrap();
            assert_eq!(documents.get("a", NOW), None, "byte {at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn garbage_is_absent(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (_dir, documents) = documents();
            files::write_private(&documents.path("a"), &bytes).unwrap();
            prop_assert_eq!(documents.get("a", NOW), None);
        }
    }
}
