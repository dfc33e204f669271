//! The keys of an issuer outlast the process that fetched them: who starts while the issuer
//! is down goes on with them, for no longer than anybody who has fetched them.
//!
//! They are public, and whoever can write to the database could add one of their own. So
//! they are sealed under a key that follows from the root key, with whose they are, where they are from,
//! when they were good, and how the configuration says that they are found: what came from an
//! address, or through an authority, that is trusted no more is not gone on with.

use std::sync::Arc;

use aws_lc_rs::hmac;
use time::{Duration, OffsetDateTime};
use url::Url;

use super::caller::Fingerprint;
use super::issuer::Trusted;
use crate::broker::audit::micros;
use crate::broker::keys::RootKey;
use crate::broker::store::{IssuerKeySet, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::remote_keys::Kept;

/// How often it is noted that keys are still the same, at most.
const EVERY: Duration = Duration::minutes(5);

/// How long the store is left alone after it failed.
const RETRY_AFTER: Duration = Duration::seconds(30);

/// How far another process's clock may have been ahead.
const AHEAD: Duration = Duration::minutes(1);

/// What seals kept keys.
pub(in crate::broker) struct KeysSeal(hmac::Key);

impl KeysSeal {
    pub(in crate::broker) fn new(root_key: &RootKey) -> Self {
        Self(root_key.derive("the keys of trusted issuers"))
    }

    pub(super) fn over(&self, found_by: &Fingerprint, keys: IssuerKeySet) -> IssuerKeySet {
        let seal = hmac::sign(&self.0, &covered(found_by, &keys)).as_ref().to_vec();
        IssuerKeySet { seal, ..keys }
    }

    fn is_good(&self, found_by: &Fingerprint, keys: &IssuerKeySet) -> bool {
        hmac::verify(&self.0, &covered(found_by, keys), &keys.seal).is_ok()
    }
}

fn covered(found_by: &Fingerprint, keys: &IssuerKeySet) -> Vec<u8> {
    // Neither identifiers nor addresses have null characters.
    let IssuerKeySet { issuer, address, good_at, document, seal: _ } = keys;
    let good_at = micros(*good_at);
    let about = format!("tmpcred broker: keys of an issuer v2\0{issuer}\0{address}\0{good_at}\0");
    [about.as_bytes(), found_by, document].concat()
}

/// Keeps the keys of one issuer in the store.
pub(super) struct Keeper {
    trusted: Arc<Trusted>,
    store: Arc<dyn Store>,
    seal: Arc<KeysSeal>,
    /// What is in the store, as far as this process has put it there or found it good.
    last: Option<Kept>,
    /// Until when the store is left alone.
    again_at: Duration,
}

impl Keeper {
    pub(super) fn new(trusted: Arc<Trusted>, store: Arc<dyn Store>, seal: Arc<KeysSeal>) -> Self {
        Self { trusted, store, seal, last: None, again_at: Duration::ZERO }
    }

    /// Goes on with keys that were kept; they are to be fetched again within `pause`.
    pub(super) async fn resume(&mut self, pause: Duration) {
        let issuer = self.trusted.issuer();
        match self.kept().await {
            Ok(Some((address, kept))) => match self.trusted.resume(address, &kept, pause) {
                Ok(()) => {
                    tracing::info!(%issuer, "going on with the keys of an issuer that were kept");
                    self.last = Some(kept);
                }
                Err(error) => tracing::warn!(%issuer, %error, "kept keys cannot be used"),
            },
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%issuer, %error, "the keys that were kept of an issuer are not used");
            }
        }
    }

    /// The keys that were kept, where they are good still.
    async fn kept(&self) -> Result<Option<(Url, Kept)>> {
        let Some(keys) = self.store.issuer_keys(self.trusted.issuer().as_str()).await? else {
            return Ok(None);
        };
        if !self.seal.is_good(&self.trusted.found_by(), &keys) {
            return Err(Error::new(ErrorKind::Verification, "they are not as they were kept")
                .because_of(
                    "what the database has was not written by this broker, or not as it is configured now",
                ));
        }
        let age = self.now().await? - keys.good_at;
        if age < -AHEAD {
            return Err(Error::new(ErrorKind::Verification, "they are from a time yet to come")
                .because_of("a clock has been set back, or was ahead"));
        }
        let age = age.max(Duration::ZERO);
        if age >= self.trusted.max_age() {
            return Ok(None);
        }
        let address = Url::parse(&keys.address).map_err(|cause| {
            Error::new(ErrorKind::Other, "their address is none").because(cause)
        })?;
        let good_at = self.trusted.clock().uptime() - age;
        Ok(Some((address, Kept { document: keys.document.into(), good_at })))
    }

    /// The time by the clock of the database, by which it is said when they were good; or by
    /// this machine's, where that is later.
    async fn now(&self) -> Result<OffsetDateTime> {
        let here = self.trusted.clock().now();
        Ok(self.store.now().await?.map_or(here, |there| there.max(here)))
    }

    /// Keeps what has been fetched meanwhile, and forgets what was withdrawn.
    pub(super) async fn keep(&mut self) {
        let now = self.trusted.clock().uptime();
        if now < self.again_at {
            return;
        }
        let done = match (self.trusted.kept(), &self.last) {
            (Some((_, kept)), Some(last)) if !self.is_news(&kept, last) => return,
            (Some((address, kept)), _) => {
                self.write(&address, &kept).await.map(|()| self.last = Some(kept))
            }
            (None, Some(_)) => {
                let issuer = self.trusted.issuer().as_str();
                self.store.forget_issuer_keys(issuer).await.map(|()| self.last = None)
            }
            (None, None) => return,
        };
        if let Err(error) = done {
            let issuer = self.trusted.issuer();
            tracing::warn!(%issuer, %error, "the keys of an issuer cannot be kept");
            self.again_at = now + RETRY_AFTER;
        }
    }

    fn is_news(&self, kept: &Kept, last: &Kept) -> bool {
        let every = EVERY.min(self.trusted.max_age() / 8);
        kept.document != last.document || kept.good_at - last.good_at >= every
    }

    async fn write(&self, address: &Url, kept: &Kept) -> Result<()> {
        let clock = self.trusted.clock();
        let there = self.store.now().await?.unwrap_or_else(|| clock.now());
        let keys = IssuerKeySet {
            issuer: self.trusted.issuer().as_str().into(),
            address: address.as_str().into(),
            good_at: there - (clock.uptime() - kept.good_at),
            document: kept.document.to_vec(),
            seal: Vec::new(),
        };
        self.store.keep_issuer_keys(&self.seal.over(&self.trusted.found_by(), keys)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_seal_is_good_for_what_it_is_over_and_its_key_only() {
        let seal = |key: u8| KeysSeal::new(&RootKey::new(Secret::new([key; 32])));
        let keys = IssuerKeySet {
            issuer: "https://login.example.com".into(),
            address: "https://login.example.com/keys".into(),
            good_at: OffsetDateTime::UNIX_EPOCH,
            document: b"{}".to_vec(),
            seal: Vec::new(),
        };
        let (found_by, otherwise) = ([3; 32], [4; 32]);
        let kept = seal(1).over(&found_by, keys);
        assert!(seal(1).is_good(&found_by, &kept));
        assert!(!seal(2).is_good(&found_by, &kept) && !seal(1).is_good(&otherwise, &kept));
        let later = kept.good_at + Duration::microseconds(1);
        for changed in [
            IssuerKeySet { issuer: "https://evil.example".into(), ..kept.clone() },
            IssuerKeySet { address: "https://evil.example/keys".into(), ..kept.clone() },
            IssuerKeySet { good_at: later, ..kept.clone() },
            IssuerKeySet { document: b"[]".to_vec(), ..kept.clone() },
            IssuerKeySet { seal: Vec::new(), ..kept.clone() },
        ] {
            assert!(!seal(1).is_good(&found_by, &changed), "{changed:?}");
        }
    }
}
