//! Taking notes of what is done under grants, without making anybody wait: they are summed up
//! in memory, and written now and then by a task of its own, and at the end.
//!
//! A database that cannot be written holds up nobody. What there is no room for meanwhile is
//! counted, and told with the grant and by a metric.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::sum::{FORMS, Sum, Times, What};
use crate::broker::elevation::ElevationSeal;
use crate::broker::metrics::Metrics;
use crate::broker::store::{Effect, Store, StoredUses, Unit};
use crate::error::{Error, ErrorKind, Result};

/// How often what was gathered is written.
const EVERY: Duration = Duration::from_secs(5);

/// How many rows are kept in memory until then.
const ROWS: usize = 10_000;

/// How many of them one grant has, by how much of each is told: who has it leaves room for what
/// is done under others.
const ROWS_OF_GRANT: [usize; FORMS] = [1000, 1100, 1150, 1180, 1200];

/// How long the end of the process waits for the last of it.
const AT_END: Duration = Duration::from_secs(5);

/// How many times it is merged anew because another process was quicker.
const TRIES: u32 = 20;

/// What is gathered, and the task that writes it.
pub(in crate::broker) struct Gathering {
    notes: Arc<Notes>,
    writing: JoinHandle<()>,
    ending: Option<oneshot::Sender<()>>,
}

struct Notes {
    state: Mutex<State>,
    store: Arc<dyn Store>,
    seal: ElevationSeal,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    grants: HashMap<Uuid, Waiting>,
    /// How many rows all of them have.
    rows: usize,
    /// How much of it is being written.
    writing: u64,
}

/// What is not written yet of one grant.
#[derive(Clone, Default)]
struct Waiting {
    rows: HashMap<What, Times>,
    lost: u64,
    /// What may be written already: nobody could tell.
    tried: Option<Box<Tried>>,
}

/// What was to be written of one grant.
#[derive(Clone, Default)]
struct Tried {
    rows: HashMap<What, Times>,
    lost: u64,
    /// What was to be stored last, with all that was there before. Until it is known whether it
    /// is, the same is tried again, and nothing besides: then there is one such document of a
    /// version, and one of an older version cannot be written any more.
    made: Option<StoredUses>,
}

impl Gathering {
    /// Needs a runtime.
    pub(in crate::broker) fn start(
        store: Arc<dyn Store>,
        seal: ElevationSeal,
        metrics: Arc<Metrics>,
    ) -> Self {
        let notes = Arc::new(Notes { state: Mutex::default(), store, seal, metrics });
        let (ending, mut ended) = oneshot::channel();
        let shared = notes.clone();
        let writing = tokio::spawn(async move {
            loop {
                let is_over = tokio::select! {
                    _ = &mut ended => true,
                    () = tokio::time::sleep(EVERY) => false,
                };
                shared.write().await;
                if is_over {
                    return;
                }
            }
        });
        Self { notes, writing, ending: Some(ending) }
    }

    /// Takes note of something.
    pub(in crate::broker) fn note(&self, elevation: Uuid, what: What, at: OffsetDateTime) {
        self.notes.add(elevation, what, &Times::once(at));
    }

    /// All that is known of a grant by this process, written or not.
    ///
    /// # Errors
    /// Where it cannot be read, or somebody else wrote it.
    pub(super) async fn of(&self, elevation: Uuid) -> Result<Sum> {
        let (stored, mut sum) = self.notes.read(elevation).await?;
        let waiting = self.notes.state().grants.get(&elevation).cloned().unwrap_or_default();
        let (fresh, tried) = waiting.parts();
        for part in tried.into_iter().chain([fresh]) {
            if !part.is_in(stored.as_ref()) {
                part.put_into(&mut sum);
            }
        }
        Ok(sum)
    }

    /// The same as it is stored, with its version; and with what becomes of it, as an effect.
    pub(super) async fn stored(&self, elevation: Uuid) -> Result<(u64, Sum)> {
        self.notes.stored(elevation).await
    }

    /// The effect that makes this of it, with the events that are new in it.
    pub(super) fn effect(
        &self,
        (elevation, version): (Uuid, u64),
        sum: &Sum,
        events: Vec<String>,
    ) -> Result<Effect> {
        self.notes.effect((elevation, version), sum, events)
    }

    /// Writes what there is now.
    #[cfg(test)]
    pub(in crate::broker) async fn write(&self) {
        self.notes.write().await;
    }

    /// Writes the last of it, as long as that does not take too long.
    pub(in crate::broker) async fn close(&mut self) {
        self.close_within(AT_END).await;
    }

    pub(super) async fn close_within(&mut self, limit: Duration) {
        if let Some(ending) = self.ending.take() {
            // Whoever has ended already needs no word of it.
            let _ = ending.send(());
        }
        if tokio::time::timeout(limit, &mut self.writing).await.is_err() {
            self.writing.abort();
        }
        let left = self.notes.state().left();
        if left > 0 {
            tracing::error!(left, "what was done under grants could not be written at the end");
        }
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

impl Notes {
    fn add(&self, elevation: Uuid, what: What, times: &Times) {
        let mut state = self.state();
        let State { grants, rows, .. } = &mut *state;
        let is_full = *rows >= ROWS;
        let waiting = match is_full {
            // Where there is nothing of it yet, even that it was lost has no place.
            true => grants.get_mut(&elevation),
            false => Some(grants.entry(elevation).or_default()),
        };
        let kept = waiting.is_some_and(|waiting| {
            let before = waiting.len();
            let kept = waiting.add(what, times, is_full);
            *rows += waiting.len() - before;
            kept
        });
        if !kept {
            self.metrics.uses_lost(times.count);
        }
    }

    /// Writes all that there is. What cannot be written waits for the next time, as far as
    /// there is room.
    async fn write(&self) {
        let there: Vec<_> = self.state().grants.keys().copied().collect();
        for elevation in there {
            let Some(waiting) = self.state().take(elevation) else { continue };
            let goes_on = self.write_waiting(elevation, waiting).await;
            self.state().writing = 0;
            if !goes_on {
                break;
            }
        }
    }

    /// Writes what waits of one grant. Returns whether others can be written.
    async fn write_waiting(&self, elevation: Uuid, waiting: Waiting) -> bool {
        let (mut fresh, tried) = waiting.parts();
        if let Some(mut tried) = tried
            && let Err(error) = self.write_one(elevation, &mut tried).await
        {
            let waiting = Waiting { tried: Some(Box::new(tried)), ..fresh.into() };
            return self.not_written(elevation, waiting, &error);
        }
        match self.write_one(elevation, &mut fresh).await {
            Ok(()) => true,
            Err(error) => self.not_written(elevation, fresh.into(), &error),
        }
    }

    /// Returns whether others can be written.
    fn not_written(&self, elevation: Uuid, waiting: Waiting, error: &Error) -> bool {
        let is_foreign = error.kind() == ErrorKind::Verification;
        if is_foreign {
            self.metrics.uses_lost(waiting.count());
            tracing::error!(%error, %elevation, "what was done under a grant is not kept");
        } else {
            tracing::warn!(%error, "what was done under grants cannot be written yet");
            self.put_back(elevation, waiting);
        }
        is_foreign
    }

    fn put_back(&self, elevation: Uuid, waiting: Waiting) {
        let Waiting { rows, lost, tried } = waiting;
        if tried.is_some() || lost > 0 {
            let mut state = self.state();
            let State { grants, rows, .. } = &mut *state;
            let known = grants.entry(elevation).or_default();
            known.lost = known.lost.saturating_add(lost);
            *rows += tried.as_ref().map_or(0, |tried| tried.rows.len());
            known.tried = tried;
        }
        for (what, times) in rows {
            self.add(elevation, what, &times);
        }
    }

    /// Writes this, unless it is. Where somebody else has gone on since it was tried (another
    /// process, or who takes in what others tell), nobody can tell, and it is written: rather twice
    /// than never.
    async fn write_one(&self, elevation: Uuid, tried: &mut Tried) -> Result<()> {
        if tried.is_empty() {
            return Ok(());
        }
        for _ in 0..TRIES {
            let (stored, mut sum) = self.read(elevation).await?;
            if tried.is_in(stored.as_ref()) {
                return Ok(());
            }
            tried.put_into(&mut sum);
            let made = self.seal.over_uses((elevation, version_of(stored.as_ref()) + 1), &sum)?;
            tried.made = Some(made.clone());
            let effects = vec![Effect::SumUses(made, Vec::new())];
            let unit = Unit { records: Vec::new(), effects };
            let done = self.store.commit(&[unit]).await?;
            if done.iter().all(|outcome| outcome.is_committed()) {
                return Ok(());
            }
            if self.store.elevation(elevation).await?.is_none() {
                // It was forgotten, and all of it with it.
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Other, "others are always quicker to write it"))
    }

    async fn stored(&self, elevation: Uuid) -> Result<(u64, Sum)> {
        let (stored, sum) = self.read(elevation).await?;
        Ok((version_of(stored.as_ref()), sum))
    }

    async fn read(&self, elevation: Uuid) -> Result<(Option<StoredUses>, Sum)> {
        let stored = self.store.uses(elevation).await?;
        let sum = stored.as_ref().map(|stored| self.seal.open_uses(stored)).transpose()?;
        Ok((stored, sum.unwrap_or_default()))
    }

    fn effect(
        &self,
        (elevation, version): (Uuid, u64),
        sum: &Sum,
        events: Vec<String>,
    ) -> Result<Effect> {
        let stored: StoredUses = self.seal.over_uses((elevation, version + 1), sum)?;
        Ok(Effect::SumUses(stored, events))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes what waits of a grant, to write it.
    fn take(&mut self, elevation: Uuid) -> Option<Waiting> {
        let waiting = self.grants.remove(&elevation)?;
        self.rows -= waiting.len();
        self.writing = waiting.count();
        Some(waiting)
    }

    /// How much is not written.
    fn left(&self) -> u64 {
        self.grants.values().map(Waiting::count).fold(self.writing, u64::saturating_add)
    }
}

impl Waiting {
    /// Returns whether it is kept, be it together with others.
    fn add(&mut self, what: What, times: &Times, is_full: bool) -> bool {
        if let Some(known) = self.rows.get_mut(&what) {
            known.add(times);
            return true;
        }
        // What is being written already has room once more: it is told all the same.
        if self.tried.as_ref().is_some_and(|tried| tried.rows.contains_key(&what)) {
            self.rows.insert(what, *times);
            return true;
        }
        for (what, most) in what.forms().into_iter().zip(ROWS_OF_GRANT) {
            let has_room = !is_full && self.rows.len() < most;
            match self.rows.entry(what) {
                Entry::Occupied(known) => known.into_mut().add(times),
                Entry::Vacant(new) if has_room => _ = new.insert(*times),
                Entry::Vacant(_) => continue,
            }
            return true;
        }
        self.lost = self.lost.saturating_add(times.count);
        false
    }

    /// What was not tried yet, and what was.
    fn parts(self) -> (Tried, Option<Tried>) {
        let Self { rows, lost, tried } = self;
        (Tried { rows, lost, made: None }, tried.map(|tried| *tried))
    }

    fn len(&self) -> usize {
        self.rows.len() + self.tried.as_ref().map_or(0, |tried| tried.rows.len())
    }

    fn count(&self) -> u64 {
        let tried = self.tried.as_ref().map_or(0, |tried| count(&tried.rows, tried.lost));
        count(&self.rows, self.lost).saturating_add(tried)
    }
}

/// What was tried alone waits as that, and what was not waits for others to join it.
impl From<Tried> for Waiting {
    fn from(tried: Tried) -> Self {
        match tried {
            Tried { rows, lost, made: None } => Self { rows, lost, tried: None },
            tried => Self { tried: Some(Box::new(tried)), ..Self::default() },
        }
    }
}

impl Tried {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.lost == 0
    }

    /// Whether what is stored is what was to be.
    fn is_in(&self, stored: Option<&StoredUses>) -> bool {
        self.made.is_some() && self.made.as_ref() == stored
    }

    fn put_into(&self, sum: &mut Sum) {
        // In some order that is always the same: there may not be room for all.
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_unstable_by_key(|(what, times)| (times.first, *what));
        for (what, times) in rows {
            sum.add(what.clone(), times);
        }
        sum.lost = sum.lost.saturating_add(self.lost);
    }
}

fn version_of(stored: Option<&StoredUses>) -> u64 {
    stored.map_or(0, |stored| stored.version)
}

fn count(rows: &HashMap<What, Times>, lost: u64) -> u64 {
    rows.values().map(|times| times.count).sum::<u64>().saturating_add(lost)
}
