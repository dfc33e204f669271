//! What shows that the broker itself wrote an elevation.

use aws_lc_rs::hmac;
use time::Duration;
use uuid::Uuid;

use super::Elevation;
use super::names::asker_of;
use super::sift::Question;
use super::uses::Sum;
use crate::broker::config::Role;
use crate::broker::keys::RootKey;
use crate::broker::store::{SealedElevation, StoredElevation, StoredUses};
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::Issuer;

/// Seals elevations, by a key that follows from the root key.
pub(in crate::broker) struct ElevationSeal {
    key: hmac::Key,
    /// The broker's own issuer.
    own: String,
    /// How many were opened.
    #[cfg(test)]
    pub(in crate::broker) opened: std::sync::atomic::AtomicUsize,
}

impl ElevationSeal {
    pub(in crate::broker) fn new(root_key: &RootKey, own: &Issuer) -> Self {
        Self {
            key: root_key.derive("elevations"),
            own: own.as_str().to_string(),
            #[cfg(test)]
            opened: Default::default(),
        }
    }

    /// An elevation as the store has it, by the rules of its role.
    pub(in crate::broker) fn over(
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
            asker: asker_of(&elevation.asked.by, &self.own),
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
    pub(in crate::broker) fn open(&self, sealed: &SealedElevation) -> Result<Elevation> {
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

impl ElevationSeal {
    /// What was done under a grant, as the store has it in this version.
    pub(super) fn over_uses(
        &self,
        (elevation, version): (Uuid, u64),
        sum: &Sum,
    ) -> Result<StoredUses> {
        let document = serde_json::to_string(sum).map_err(|cause| {
            let what = "what was done under a grant cannot be written";
            Error::new(ErrorKind::Other, what).because(cause)
        })?;
        let covered = covered_uses(elevation, version, &document);
        let seal = hmac::sign(&self.key, &covered).as_ref().to_vec();
        Ok(StoredUses { elevation, version, document, seal })
    }

    /// What was done under a grant, where the seal over it is good.
    ///
    /// # Errors
    /// Where it is not: somebody else wrote it.
    pub(super) fn open_uses(&self, stored: &StoredUses) -> Result<Sum> {
        let foreign = || {
            let what = "what was done under a grant is not as the broker wrote it";
            Error::new(ErrorKind::Verification, what)
                .hint("somebody else wrote it, or the key-encryption key is another one")
        };
        let StoredUses { elevation, version, document, seal } = stored;
        let covered = covered_uses(*elevation, *version, document);
        hmac::verify(&self.key, &covered, seal).map_err(|_| foreign())?;
        serde_json::from_str(document).map_err(|cause| foreign().because(cause))
    }
}

fn covered_uses(elevation: Uuid, version: u64, document: &str) -> Vec<u8> {
    let name = b"tmpcred broker: uses of an elevation v1\0";
    [&name[..], elevation.as_bytes(), &version.to_be_bytes()[..], document.as_bytes()].concat()
}

fn covered(document: &str) -> Vec<u8> {
    [b"tmpcred broker: an elevation v1\0", document.as_bytes()].concat()
}
