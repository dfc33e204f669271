//! A store that fails on demand, for tests.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Bed, Options};
use crate::broker::audit::Record;
use crate::broker::audit::leaf::Leaf;
use crate::broker::audit::seal::{Seal, SealedEnd};
use crate::broker::audit::tree::Hash;
use crate::broker::keys::{SealedRoot, StoredKey};
use crate::broker::notify::Message;
use crate::broker::store::{
    Backlog, CountedElevations, Delivery, Effect, ElevationFilter, ElevationStore, Enrollment,
    EnrollmentStore, Erasable, ErasureStore, Filter, FoundElevation, IssuerKeySet, IssuerKeyStore,
    KeyStore, Ledger, LogEnds, LogStore, NewDelivery, Noted, NotifyStore, Once, OnceStore,
    OpaqueToken, OutboxStore, Outcome, Revocable, Row, SealedElevation, Step, Store, StoredUses,
    TokenStore, Traces, Turn, Undelivered, Unit, UseStore, Whose, sqlite,
};
use crate::error::{Error, ErrorKind, Result};

/// Commits work.
pub(crate) const WELL: u8 = 0;
/// Commits fail.
pub(crate) const BEFORE: u8 = 1;
/// Commits reach the disk, and then fail.
pub(crate) const AFTER: u8 = 2;

/// A store in front of another one.
pub(crate) struct Failing {
    inner: Arc<dyn Store>,
    /// Reads work.
    pub(crate) reads: AtomicBool,
    /// Reads never end.
    pub(crate) hangs: AtomicBool,
    /// What looks at the whole log works.
    pub(crate) scans: AtomicBool,
    writes: AtomicU8,
    /// By how many seconds its clock is behind this machine's; with 0 it has none of its own.
    pub(crate) behind: AtomicI64,
    /// It says what time it is, where it has a clock.
    pub(crate) tells_time: AtomicBool,
    /// Whether counting what was issued never ends.
    pub(crate) counts_for_ever: AtomicBool,
    /// How many elevations were read to be listed, and keys that approved them.
    pub(crate) rows: AtomicUsize,
    /// What happens as somebody begins to read the leaves.
    meanwhile: Mutex<Option<Meanwhile>>,
    /// What happens as somebody has read the keys.
    after_keys: Mutex<Option<Meanwhile>>,
    /// What happens as somebody is about to commit a change of an elevation or of an enrolled key,
    /// what rests on a key, or a root key.
    before_change: Mutex<Option<Meanwhile>>,
    /// What happens as somebody is about to commit what has to be so at this moment.
    before_moment: Mutex<Option<Meanwhile>>,
    /// What happens as somebody has committed that.
    after_moment: Mutex<Option<Meanwhile>>,
}

type Meanwhile = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Failing {
    /// Nothing fails yet.
    pub(crate) fn over(inner: Arc<dyn Store>) -> Arc<Self> {
        let (reads, hangs, writes) = (true.into(), false.into(), WELL.into());
        let (scans, meanwhile, after_keys) = (true.into(), Mutex::default(), Mutex::default());
        let (rows, before_change) = (AtomicUsize::default(), Mutex::default());
        let behind = AtomicI64::default();
        Arc::new(Self {
            inner,
            reads,
            hangs,
            scans,
            writes,
            behind,
            tells_time: true.into(),
            counts_for_ever: AtomicBool::default(),
            rows,
            meanwhile,
            after_keys,
            before_change,
            before_moment: Mutex::default(),
            after_moment: Mutex::default(),
        })
    }

    /// A broker on such a store.
    pub(crate) async fn bed(change: impl FnOnce(&mut Options)) -> (Bed, Arc<Self>) {
        let store = Self::over(Arc::new(sqlite::in_memory().await.unwrap()));
        let bed = Bed::with(|options| {
            options.store = store.clone();
            change(options);
        })
        .await;
        (bed, store)
    }

    /// Ends once it answers at all.
    async fn answers(&self) -> Result<()> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.reads.load(Ordering::Relaxed) { Ok(()) } else { Err(broken()) }
    }

    fn scan(&self) -> Result<()> {
        if self.scans.load(Ordering::Relaxed) { Ok(()) } else { Err(broken()) }
    }

    /// Does this once somebody begins to read the leaves.
    pub(crate) fn meanwhile(&self, what: impl Future<Output = ()> + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some(Box::pin(what));
    }

    /// Does this once somebody has read the keys, before they go on.
    pub(crate) fn after_keys(&self, what: impl Future<Output = ()> + Send + 'static) {
        *self.after_keys.lock().unwrap() = Some(Box::pin(what));
    }

    /// Does this once somebody has looked at an elevation or an enrolled key and is about to change
    /// it, at a key and is about to commit what rests on it, or for a root key and is about to make
    /// one.
    pub(crate) fn before_change(&self, what: impl Future<Output = ()> + Send + 'static) {
        *self.before_change.lock().unwrap() = Some(Box::pin(what));
    }

    /// Does this once somebody is about to commit what has to be so at this moment.
    pub(crate) fn before_moment(&self, what: impl Future<Output = ()> + Send + 'static) {
        *self.before_moment.lock().unwrap() = Some(Box::pin(what));
    }

    /// Does this once somebody has committed that, before they go on.
    pub(crate) fn after_moment(&self, what: impl Future<Output = ()> + Send + 'static) {
        *self.after_moment.lock().unwrap() = Some(Box::pin(what));
    }

    /// From now on, commits go like this.
    pub(crate) fn writes(&self, how: u8) {
        self.writes.store(how, Ordering::Relaxed);
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Io, "the disk is on fire")
}

#[async_trait]
impl Ledger for Failing {
    async fn commit(&self, units: &[Unit]) -> Result<Vec<Outcome>> {
        let how = self.writes.load(Ordering::Relaxed);
        if how == BEFORE {
            return Err(broken());
        }
        let effects = units.iter().flat_map(|unit| &unit.effects);
        let is_awaited = |effect: &Effect| {
            matches!(
                effect,
                Effect::ChangeElevation(..)
                    | Effect::ChangeEnrollment { .. }
                    | Effect::IfEnrolled { .. }
                    | Effect::AddRoot { .. }
            )
        };
        if effects.into_iter().any(is_awaited) {
            let meanwhile = self.before_change.lock().unwrap().take();
            if let Some(meanwhile) = meanwhile {
                meanwhile.await;
            }
        }
        let mut effects = units.iter().flat_map(|unit| &unit.effects);
        let is_timed = effects.any(|effect| matches!(effect, Effect::IfClocksAgree { .. }));
        let meanwhile = self.before_moment.lock().unwrap().take_if(|_| is_timed);
        if let Some(meanwhile) = meanwhile {
            meanwhile.await;
        }
        let done = self.inner.commit(units).await;
        let meanwhile = self.after_moment.lock().unwrap().take_if(|_| is_timed);
        if let Some(meanwhile) = meanwhile {
            meanwhile.await;
        }
        if how == AFTER { Err(broken()) } else { done }
    }
    async fn records(&self, after: u64, limit: u32) -> Result<Vec<(u64, Record)>> {
        self.inner.records(after, limit).await
    }
}

#[async_trait]
impl LogStore for Failing {
    async fn size(&self) -> Result<u64> {
        self.inner.size().await
    }
    async fn ends(&self) -> Result<LogEnds> {
        self.scan()?;
        self.inner.ends().await
    }
    async fn count(&self, after: u64, until: u64) -> Result<u64> {
        self.inner.count(after, until).await
    }
    async fn sealed_end(&self) -> Result<Option<SealedEnd>> {
        self.inner.sealed_end().await
    }
    async fn leaves(&self, after: u64, limit: u32) -> Result<Vec<Leaf>> {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile.await;
        }
        self.inner.leaves(after, limit).await
    }
    async fn tile(&self, level: u32, number: u64) -> Result<Option<Vec<u8>>> {
        self.inner.tile(level, number).await
    }
    async fn root_at(&self, size: u64) -> Result<Hash> {
        self.inner.root_at(size).await
    }
    async fn notes(&self, after: u64, limit: u32) -> Result<Vec<Noted>> {
        self.inner.notes(after, limit).await
    }
    async fn latest_note(&self) -> Result<Option<Noted>> {
        self.inner.latest_note().await
    }
    async fn latest(&self, since: OffsetDateTime, below: u64) -> Result<Option<OffsetDateTime>> {
        self.inner.latest(since, below).await
    }
    async fn find(&self, filter: &Filter, limit: u32) -> Result<Vec<Row>> {
        self.inner.find(filter, limit).await
    }
    async fn page(&self, after: u64, limit: u32) -> Result<Vec<Row>> {
        self.inner.page(after, limit).await
    }
}

#[async_trait]
impl ErasureStore for Failing {
    async fn of_person(&self, person: &Traces, after: u64, limit: u32) -> Result<Erasable> {
        self.inner.of_person(person, after, limit).await
    }
}

#[async_trait]
impl OutboxStore for Failing {
    async fn turn(&self, sink: &str) -> Result<Option<Turn>> {
        self.inner.turn(sink).await
    }
    async fn add_sink(&self, sink: &str, after: u64) -> Result<()> {
        self.inner.add_sink(sink, after).await
    }
    async fn change_turn(
        &self,
        sink: &str,
        before: &Turn,
        delivered: u64,
        holder: Option<&str>,
    ) -> Result<bool> {
        self.inner.change_turn(sink, before, delivered, holder).await
    }
}

#[async_trait]
impl NotifyStore for Failing {
    async fn unspread(&self, limit: u32) -> Result<Vec<(String, Option<Message>)>> {
        self.inner.unspread(limit).await
    }
    async fn spread(&self, message: &str, to: &[NewDelivery]) -> Result<()> {
        self.inner.spread(message, to).await
    }
    async fn due(
        &self,
        channel: &str,
        now: OffsetDateTime,
        beyond: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<Delivery>> {
        self.inner.due(channel, now, beyond, limit).await
    }
    async fn change_deliveries(&self, changes: &[(Delivery, Step)]) -> Result<Vec<bool>> {
        self.inner.change_deliveries(changes).await
    }
    async fn give_up_strays(
        &self,
        channels: &[String],
        before: OffsetDateTime,
        why: &str,
        limit: u32,
    ) -> Result<u64> {
        self.inner.give_up_strays(channels, before, why, limit).await
    }
    async fn waiting_about(&self, channel: &str, about: &str) -> Result<Vec<Message>> {
        self.inner.waiting_about(channel, about).await
    }
    async fn backlog(&self) -> Result<Vec<Backlog>> {
        self.inner.backlog().await
    }
    async fn undelivered(&self, limit: u32) -> Result<Vec<Undelivered>> {
        self.inner.undelivered(limit).await
    }
    async fn forget_messages(&self, before: OffsetDateTime, limit: u32) -> Result<u64> {
        self.inner.forget_messages(before, limit).await
    }
}

#[async_trait]
impl KeyStore for Failing {
    async fn keys(&self) -> Result<Vec<StoredKey>> {
        let keys = self.inner.keys().await;
        let after = self.after_keys.lock().unwrap().take();
        if let Some(after) = after {
            after.await;
        }
        keys
    }
    async fn sealed_roots(&self) -> Result<Vec<SealedRoot>> {
        self.inner.sealed_roots().await
    }
}

#[async_trait]
impl IssuerKeyStore for Failing {
    async fn issuer_keys(&self, issuer: &str) -> Result<Option<IssuerKeySet>> {
        self.inner.issuer_keys(issuer).await
    }
    async fn keep_issuer_keys(&self, keys: &IssuerKeySet) -> Result<()> {
        self.inner.keep_issuer_keys(keys).await
    }
    async fn forget_issuer_keys(&self, issuer: &str) -> Result<()> {
        self.inner.forget_issuer_keys(issuer).await
    }
}

#[async_trait]
impl OnceStore for Failing {
    async fn any_consumed(&self, kind: Once, ids: &[String]) -> Result<bool> {
        self.answers().await?;
        self.inner.any_consumed(kind, ids).await
    }
    async fn consumed_at(&self, kind: Once, id: &str) -> Result<Option<OffsetDateTime>> {
        self.inner.consumed_at(kind, id).await
    }
    async fn forget_consumed(&self, kind: Once, before: OffsetDateTime, limit: u32) -> Result<u64> {
        self.inner.forget_consumed(kind, before, limit).await
    }
}

#[async_trait]
impl TokenStore for Failing {
    async fn any_revoked(&self, these: Revocable) -> Result<bool> {
        self.answers().await?;
        self.inner.any_revoked(these).await
    }
    async fn opaque(&self, hash: &str) -> Result<Option<OpaqueToken>> {
        self.inner.opaque(hash).await
    }
    async fn revoked_until(&self, whose: &Whose) -> Result<Option<OffsetDateTime>> {
        self.inner.revoked_until(whose).await
    }
    async fn count_issued(
        &self,
        whose: &Whose,
        between: (Option<OffsetDateTime>, OffsetDateTime),
        now: OffsetDateTime,
    ) -> Result<u64> {
        self.scan()?;
        if self.counts_for_ever.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.inner.count_issued(whose, between, now).await
    }
    async fn count_active(&self, now: OffsetDateTime) -> Result<u64> {
        self.scan()?;
        self.inner.count_active(now).await
    }
    async fn forget_cutoffs(&self, before: OffsetDateTime, limit: u32) -> Result<u64> {
        self.inner.forget_cutoffs(before, limit).await
    }
    async fn has_opaque(&self, jti: Uuid) -> Result<bool> {
        self.inner.has_opaque(jti).await
    }

    async fn forget_opaque(&self, before: OffsetDateTime, limit: u32) -> Result<u64> {
        self.inner.forget_opaque(before, limit).await
    }
}

#[async_trait]
impl ElevationStore for Failing {
    async fn elevation(&self, id: Uuid) -> Result<Option<SealedElevation>> {
        self.inner.elevation(id).await
    }

    async fn elevations(
        &self,
        filter: &ElevationFilter,
        limit: u32,
    ) -> Result<Vec<FoundElevation>> {
        let found = self.inner.elevations(filter, limit).await?;
        self.rows.fetch_add(found.len(), Ordering::Relaxed);
        Ok(found)
    }

    async fn elevations_due(
        &self,
        now: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<SealedElevation>> {
        self.inner.elevations_due(now, limit).await
    }

    async fn count_elevations(
        &self,
        now: OffsetDateTime,
        overdue: &[(String, OffsetDateTime)],
    ) -> Result<Vec<CountedElevations>> {
        self.inner.count_elevations(now, overdue).await
    }

    async fn roles_to_review(&self) -> Result<Vec<String>> {
        self.inner.roles_to_review().await
    }

    async fn roles_issued_under(&self, id: Uuid) -> Result<Vec<String>> {
        self.inner.roles_issued_under(id).await
    }

    async fn forget_elevations(&self, before: OffsetDateTime, limit: u32) -> Result<u64> {
        self.inner.forget_elevations(before, limit).await
    }
}

#[async_trait]
impl UseStore for Failing {
    async fn uses(&self, elevation: Uuid) -> Result<Option<StoredUses>> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.inner.uses(elevation).await
    }
    async fn known_events(&self, elevation: Uuid, ids: &[String]) -> Result<BTreeSet<String>> {
        self.inner.known_events(elevation, ids).await
    }
    async fn forget_uses(&self, limit: u32) -> Result<u64> {
        self.inner.forget_uses(limit).await
    }
}

#[async_trait]
impl EnrollmentStore for Failing {
    async fn enrollments(&self) -> Result<Vec<Enrollment>> {
        self.inner.enrollments().await
    }
    async fn all_enrollments(&self) -> Result<Vec<Enrollment>> {
        self.inner.all_enrollments().await
    }
    async fn enrollment(&self, id: Uuid) -> Result<Option<Enrollment>> {
        self.inner.enrollment(id).await
    }
    async fn enrollment_of(&self, fingerprint: &str) -> Result<Option<Enrollment>> {
        self.rows.fetch_add(1, Ordering::Relaxed);
        self.inner.enrollment_of(fingerprint).await
    }
    async fn forget_pending(&self, before: OffsetDateTime, limit: u32) -> Result<u64> {
        self.inner.forget_pending(before, limit).await
    }
}

#[async_trait]
impl Store for Failing {
    async fn seal_with(&self, seal: Seal) -> Result<()> {
        self.inner.seal_with(seal).await
    }
    async fn now(&self) -> Result<Option<OffsetDateTime>> {
        match self.behind.load(Ordering::Relaxed) {
            0 => self.inner.now().await,
            behind => {
                self.answers().await?;
                if !self.tells_time.load(Ordering::Relaxed) {
                    return Err(broken());
                }
                Ok(Some(super::now() - time::Duration::seconds(behind)))
            }
        }
    }
    async fn probe(&self) -> Result<()> {
        self.inner.probe().await
    }
    async fn close(&self) {}
}
