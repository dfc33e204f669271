//! What shows that the broker itself wrote an elevation.

use aws_lc_rs::hmac;
use time::Duration;

use super::Elevation;
use super::sift::Question;
use crate::broker::config::Role;
use crate::broker::keys::Kek;
use crate::broker::store::{SealedElevation, StoredElevation};
use crate::error::{Error, ErrorKind, Result};

/// Seals elevations, by a key that follows from the key-encryption key.
pub(in crate::broker) struct ElevationSeal {
    key: hmac::Key,
    /// How many were opened.
    #[cfg(test)]
    pub(in crate::broker) opened: std::sync::atomic::AtomicUsize,
}

impl ElevationSeal {
    pub(in crate::broker) fn new(kek: &Kek) -> Self {
        Self {
            key: kek.derive("elevations"),
            #[cfg(test)]
            opened: Default::default(),
        }
    }

    /// An elevation as the store has it, by the rules of its role.
    pub(super) fn over(
        &self,
        elevation: &Elevation,
        role: Option<&Role>,
    ) -> Result<StoredElevation> {
        let document = serde_json::to_string(elevation).map_err(|cause| {
            Error::new(ErrorKind::Other, "the elevation cannot be written").because(cause)
        })?;
        let seal = hmac::sign(&self.key, &covered(&document)).as_ref().to_vec();
        let rules = role.and_then(|role| role.elevation.as_ref());
        let span = |span: Option<std::time::Duration>| {
            span.and_then(|span| Duration::try_from(span).ok()).unwrap_or(Duration::HOUR)
        };
        let window = span(rules.map(|rules| rules.start_window));
        let review_within = span(rules.and_then(|rules| rules.review_within));
        Ok(StoredElevation {
            id: elevation.id,
            version: elevation.version,
            path: elevation.asked.path.as_str(),
            drill: elevation.asked.drill,
            access: elevation.access.as_str(),
            review: elevation.review.as_str(),
            role: elevation.asked.role.clone(),
            owner: elevation.asked.by.key(),
            asked_at: elevation.asked.at,
            next_at: elevation.next_at(window, review_within),
            ended_at: elevation.ended.as_ref().map(|ended| ended.at),
            question: Question::of(&elevation.asked).text(),
            acted: !elevation.asked.actors.is_empty(),
            sealed: SealedElevation { document, seal },
        })
    }

    /// The elevation, where the seal over it is good.
    ///
    /// # Errors
    /// Where it is not: somebody else wrote it.
    pub(super) fn open(&self, sealed: &SealedElevation) -> Result<Elevation> {
        #[cfg(test)]
        self.opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let foreign = || {
            Error::new(ErrorKind::Verification, "an elevation in the database is not the broker's")
                .hint("somebody else wrote it, or the key-encryption key is another one")
        };
        hmac::verify(&self.key, &covered(&sealed.document), &sealed.seal).map_err(|_| foreign())?;
        serde_json::from_str(&sealed.document).map_err(|cause| foreign().because(cause))
    }
}

fn covered(document: &str) -> Vec<u8> {
    [b"tmpcred broker: an elevation v1\0", document.as_bytes()].concat()
}
