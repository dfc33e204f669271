//! The outbox: finds out to whom messages go, and has a courier for each channel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::channel::Channels;
use super::courier::{Courier, PATIENCE};
use super::message::Message;
use crate::broker::directory::Directory;
use crate::broker::store::{Backlog, NewDelivery, Store};
use crate::broker::survive::survive;
use crate::error::Result;
use crate::host::clock::Clock;

/// How often is looked for messages; and where there is no channel, so that none of them is found
/// by one that is there later.
const LOOK: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(10);

/// How many messages are looked at together.
const BATCH: u32 = 100;

/// How long a message for which this process has no channel is left for others on the same
/// database: a new configuration does not come into force everywhere at once.
const LEFT_FOR: time::Duration = time::Duration::minutes(5);

/// How often is looked for deliveries on channels that are no more, how long they wait for
/// their channel to come back, and how many are given up together.
const STRAYS_EVERY: Duration = Duration::from_secs(60);
const STRAYS_KEPT: time::Duration = time::Duration::days(1);
const STRAYS: u32 = 500;

/// What stands for all channels that the configuration lacks, where channels are named; no channel
/// is called so.
const REMOVED: &str = "(removed)";

/// What is in force at the moment.
pub trait View: Send + Sync {
    /// Where messages go.
    fn channels(&self) -> &Channels;

    /// Who the people are.
    fn people(&self) -> Option<&Directory>;
}

/// Shows what is in force.
pub(super) type Newest<V> = Arc<dyn Fn() -> Arc<V> + Send + Sync>;

/// What this process has counted of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Deliveries that came about.
    pub delivered: u64,
    /// How often one did not.
    pub failed: u64,
    /// Deliveries that were given up.
    pub given_up: u64,
}

/// What was counted, by the names of channels.
#[derive(Clone, Default)]
pub(super) struct Tally(Arc<Mutex<BTreeMap<String, Counted>>>);

impl Tally {
    pub(super) fn count(&self, channel: &str, count: impl FnOnce(&mut Counted)) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        count(table.entry(channel.to_string()).or_default());
    }

    fn of(&self, channel: &str) -> Counted {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(channel).copied().unwrap_or_default()
    }
}

/// Tells people, for as long as the process lives.
pub struct Outbox {
    store: Arc<dyn Store>,
    tally: Tally,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Outbox {
    /// Begins. Needs a runtime.
    pub fn start<V: View + 'static>(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        newest: impl Fn() -> Arc<V> + Send + Sync + 'static,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let tally = Tally::default();
        let sorter = Sorter {
            store: store.clone(),
            clock,
            newest: Arc::new(newest),
            tally: tally.clone(),
            wake: Arc::default(),
            couriers: BTreeMap::new(),
            left: BTreeSet::new(),
            strays: None,
            failed: false,
        };
        Self { store, tally, stop, task: tokio::spawn(sorter.run(stopped)) }
    }

    /// What waits on these channels, and what was counted of them; and, as one more, on all that
    /// are none of these.
    pub async fn look(&self, names: &[String]) -> Result<Vec<(String, Counted, Option<Backlog>)>> {
        let backlog = self.store.backlog().await?;
        Ok(looked(backlog, names, &self.tally))
    }

    /// Lets it end. What is under way has a little time; what has not come about goes on from
    /// there the next time.
    pub async fn close(self) {
        self.stop.send_replace(true);
        let mut task = self.task;
        if tokio::time::timeout(PATIENCE * 2, &mut task).await.is_err() {
            tracing::warn!("those who tell people did not end in time");
            task.abort();
        }
    }
}

fn looked(
    backlog: Vec<Backlog>,
    names: &[String],
    tally: &Tally,
) -> Vec<(String, Counted, Option<Backlog>)> {
    let (known, removed): (Vec<_>, Vec<_>) =
        backlog.into_iter().partition(|backlog| names.contains(&backlog.channel));
    let of = |name: &String| {
        let waits = known.iter().find(|backlog| backlog.channel == *name).cloned();
        (name.clone(), tally.of(name), waits)
    };
    let all_removed = removed.into_iter().reduce(|one, other| Backlog {
        channel: REMOVED.into(),
        waiting: one.waiting + other.waiting,
        since: one.since.min(other.since),
    });
    // It is told of at all times: of a counter that begins with what it counts nobody sees it grow.
    let removed = (REMOVED.to_string(), tally.of(REMOVED), all_removed);
    names.iter().map(of).chain([removed]).collect()
}

/// Finds out to whom messages go.
struct Sorter<V> {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    newest: Newest<V>,
    tally: Tally,
    /// Tells couriers that there is something.
    wake: Arc<Notify>,
    couriers: BTreeMap<String, JoinHandle<()>>,
    /// The keys of messages that were left for others when it was looked last.
    left: BTreeSet<String>,
    /// When was looked for strays last.
    strays: Option<Instant>,
    /// Whether it was told that it fails.
    failed: bool,
}

impl<V: View + 'static> Sorter<V> {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            self.have_couriers(&stopped);
            let step = async {
                let pause = survive("messages", self.step()).await;
                tokio::time::sleep(pause.unwrap_or(LOOK)).await;
            };
            tokio::select! {
                () = step => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        for courier in std::mem::take(&mut self.couriers).into_values() {
            // Each ends by itself.
            let _ = courier.await;
        }
    }

    /// Sees to it that each channel has a courier. Those of channels that are no more end by
    /// themselves.
    fn have_couriers(&mut self, stopped: &watch::Receiver<bool>) {
        self.couriers.retain(|_, courier| !courier.is_finished());
        for (name, _) in (self.newest)().channels().iter() {
            if !self.couriers.contains_key(name) {
                let courier = Courier::new(
                    name.clone(),
                    self.store.clone(),
                    self.clock.clone(),
                    self.newest.clone(),
                    self.tally.clone(),
                );
                let running = tokio::spawn(courier.run(self.wake.clone(), stopped.clone()));
                self.couriers.insert(name.clone(), running);
            }
        }
    }

    /// Looks at what is there, and says how long to wait before the next time.
    async fn step(&mut self) -> Duration {
        let view = (self.newest)();
        let sorted = match self.sort(view.as_ref()).await {
            Ok(more) => self.strays(view.channels()).await.map(|()| more),
            Err(error) => Err(error),
        };
        // The store fails: others say that louder.
        if let (Err(error), false) = (&sorted, self.failed) {
            tracing::warn!(%error, "what people are to be told cannot be looked at");
        }
        self.failed = sorted.is_err();
        match sorted {
            Ok(true) => Duration::ZERO,
            _ if view.channels().names().is_empty() => IDLE,
            _ => LOOK,
        }
    }

    /// Says of messages to whom they go. Returns whether there may be more.
    async fn sort(&mut self, view: &V) -> Result<bool> {
        // Those that are left are the oldest, and come before what is new.
        let limit = u32::try_from(self.left.len()).unwrap_or(u32::MAX).saturating_add(BATCH);
        let messages = self.store.unspread(limit).await?;
        let is_more = messages.len() >= limit as usize;
        let to = |message: &Option<Message>| {
            message.as_ref().map(|message| deliveries(view.channels(), message)).unwrap_or_default()
        };
        let sorted: Vec<_> =
            messages.into_iter().map(|(key, message)| (key, to(&message), message)).collect();
        // What only this process has, nobody else could know channels for.
        let shared_now = match sorted.iter().any(|(_, to, _)| to.is_empty()) {
            true => self.store.now().await?,
            false => None,
        };
        let (mut left, mut any) = (BTreeSet::new(), false);
        for (key, to, message) in sorted {
            if let (true, Some(message)) = (to.is_empty(), &message) {
                let (kind, urgency) = (message.kind(), message.urgency().as_str());
                if shared_now.is_some_and(|now| (now - message.at()).abs() < LEFT_FOR) {
                    if !self.left.contains(&key) {
                        tracing::info!(
                            key,
                            kind,
                            urgency,
                            "no channel is for a message as this process is configured, so it is left for others"
                        );
                    }
                    left.insert(key);
                    continue;
                }
                tracing::warn!(
                    key,
                    kind,
                    urgency,
                    "no channel is for a message, so nobody is told"
                );
            }
            if message.is_none() {
                tracing::error!(key, "a message cannot be read, so nobody is told");
            }
            self.store.spread(&key, &to).await?;
            any = true;
        }
        self.left = left;
        if any {
            self.wake.notify_waiters();
        }
        Ok(is_more)
    }

    /// Gives up what was for channels that are no more. Another process may know them still, or
    /// already; not for long.
    async fn strays(&mut self, channels: &Channels) -> Result<()> {
        if self.strays.is_some_and(|last| last.elapsed() < STRAYS_EVERY) {
            return Ok(());
        }
        let now = now(self.store.as_ref(), self.clock.as_ref()).await?;
        let (names, before) = (channels.names(), now.saturating_sub(STRAYS_KEPT));
        let why = "no channel has this name any more";
        let given_up = self.store.give_up_strays(&names, before, why, STRAYS).await?;
        if given_up > 0 {
            tracing::error!(given_up, "messages were for channels that are no more: given up");
            self.tally.count(REMOVED, |counted| counted.given_up += given_up);
        }
        if given_up < u64::from(STRAYS) {
            self.strays = Some(Instant::now());
        }
        Ok(())
    }
}

/// To whom a message goes, on all channels.
fn deliveries(channels: &Channels, message: &Message) -> Vec<NewDelivery> {
    let (hurry, at) = (message.urgency() as u8, message.at());
    let on = |(channel, named): (&String, &Arc<super::channel::Named>)| {
        let to = |addressee| NewDelivery { channel: channel.clone(), addressee, hurry, at };
        named.addressees(message).into_iter().map(to).collect::<Vec<_>>()
    };
    channels.iter().flat_map(on).collect()
}

/// The time by which those go who share the store.
pub(super) async fn now(store: &dyn Store, clock: &dyn Clock) -> Result<OffsetDateTime> {
    Ok(store.now().await?.unwrap_or_else(|| clock.now()))
}

#[cfg(test)]
mod tests;
