//! Takes messages to one channel.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::attempt;
use super::channel::{Named, Parcel, Refused};
use super::message::Message;
use super::outbox::{Newest, Tally, View, now};
use crate::broker::store::{Delivery, Step, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Clock;

/// How often is looked for something to do, at least.
const LOOK: Duration = Duration::from_secs(1);

/// How long an attempt may take beyond what the channel may, before somebody else goes on. So it
/// may begin that late.
const LEASE: Duration = Duration::from_secs(20);

/// Between which times is waited after a failure: after each one up to twice as long as after the
/// one before, by chance.
const PAUSE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(600)];

/// The longest that a receiver may ask for.
const LONGEST_WISH: Duration = Duration::from_secs(3600);

/// Longer than anything is put off.
const BEYOND: time::Duration = time::Duration::hours(2);

/// How long what is over is put off while what it was waits itself.
const HELD: time::Duration = time::Duration::seconds(2);

/// How long what is under way may take at the end.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Takes messages to one channel, for as long as there is one with its name.
///
/// Of several processes each takes what it finds. Whoever takes a delivery moves on when it is
/// due, by as long as they may need, and names what it was: so one of them has it, and where they
/// are killed it is due again.
pub(super) struct Courier<V> {
    name: String,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    newest: Newest<V>,
    tally: Tally,
    /// How often in a row the receiver was out of order, and until when it is left alone.
    trouble: Option<(usize, Instant)>,
    /// Why, as it was told.
    told: Option<Error>,
}

/// How an attempt ended.
struct Ended {
    delivery: Delivery,
    outcome: Result<(), Refused>,
}

impl<V: View> Courier<V> {
    pub(super) fn new(
        name: String,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        newest: Newest<V>,
        tally: Tally,
    ) -> Self {
        Self { name, store, clock, newest, tally, trouble: None, told: None }
    }

    /// Goes until it is stopped, or its channel is no more.
    pub(super) async fn run(mut self, wake: Arc<Notify>, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let view = (self.newest)();
            let Some(named) = view.channels().get(&self.name) else { return };
            // Before it is looked, so that nothing is missed meanwhile.
            let awoken = wake.notified();
            let pause = match self.step(&named, view.as_ref(), &mut stopped).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::debug!(%error, channel = self.name, "the store cannot be used");
                    LOOK
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = awoken => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        }
    }

    /// Delivers what is due, and says how long to wait before the next time.
    pub(super) async fn step(
        &mut self,
        named: &Named,
        view: &V,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<Duration> {
        let left = self.trouble.map(|(_, until)| until.saturating_duration_since(Instant::now()));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            return Ok(left.min(LOOK));
        }
        // One finds out whether it is in order again.
        let limit = if self.trouble.is_some() { 1 } else { named.channel.at_once() };
        let since = self.clock.uptime();
        let at = now(self.store.as_ref(), self.clock.as_ref()).await?;
        let beyond = at.saturating_add(BEYOND);
        let due = self.store.due(&self.name, at, beyond, limit).await?;
        if due.is_empty() {
            return Ok(LOOK);
        }
        let due = self.in_order(named, due, at).await?;
        let until = at.saturating_add(signed(named.channel.limit() + LEASE));
        let taken: Vec<_> = due.into_iter().map(|one| (one, Step::Take(until))).collect();
        let ours = self.store.change_deliveries(&taken).await?;
        let ours = taken.into_iter().zip(ours).filter(|(_, ours)| *ours).map(|((one, _), _)| {
            Delivery { attempts: one.attempts + 1, turn: one.turn + 1, ..one }
        });
        let lease = Lease { clock: self.clock.as_ref(), since };
        let (ended, cut) = deliver_all(named, view, ours.collect(), lease, stopped).await;
        self.settle(named, ended, cut).await?;
        Ok(Duration::ZERO)
    }

    /// Those that may go. Where the receiver is told that something is over, it is told of it
    /// first: what it was may have been put off meanwhile, and would never be over if it came
    /// second. Once that was delivered or given up, nothing is held back any more.
    async fn in_order(
        &self,
        named: &Named,
        due: Vec<Delivery>,
        at: OffsetDateTime,
    ) -> Result<Vec<Delivery>> {
        if !named.channel.follows() {
            return Ok(due);
        }
        let (mut going, mut held) = (Vec::new(), Vec::new());
        for delivery in due {
            if self.comes_second(&delivery).await? {
                let why = "what it ends has not been delivered yet".to_string();
                held.push((delivery, Step::PutOff(at.saturating_add(HELD), why)));
            } else {
                going.push(delivery);
            }
        }
        self.store.change_deliveries(&held).await?;
        Ok(going)
    }

    /// Whether something waits here that is over with this one.
    async fn comes_second(&self, delivery: &Delivery) -> Result<bool> {
        let ends = delivery.message.as_ref().filter(|message| !message.ended().is_empty());
        let Some(message) = ends.filter(|message| !message.id().is_empty()) else {
            return Ok(false);
        };
        let waiting = self.store.waiting_about(&self.name, message.id()).await?;
        // Of what was written after it, nothing is over.
        let first = |other: &Message| {
            other.key() != message.key()
                && other.at() <= message.at()
                && message.ended().contains(other.kind())
        };
        Ok(waiting.iter().any(first))
    }

    /// Puts on record how attempts ended, and puts back those that were cut off.
    async fn settle(&mut self, named: &Named, ended: Vec<Ended>, cut: Vec<Delivery>) -> Result<()> {
        let at = now(self.store.as_ref(), self.clock.as_ref()).await?;
        let mut changes: Vec<_> = cut.into_iter().map(|one| (one, Step::PutBack(at))).collect();
        let mut in_order = false;
        let mut out_of_order: Option<(Error, Option<Duration>)> = None;
        for Ended { delivery, outcome } in ended {
            let refused = match outcome {
                Ok(()) => {
                    in_order = true;
                    changes.push((delivery, Step::Delivered));
                    continue;
                }
                Err(refused) => refused,
            };
            let Refused { error, retry_after, is_about_message } = refused;
            let why = said(&error);
            // Where it is the receiver, that is told of it, once.
            match is_about_message && delivery.attempts <= 1 {
                true => tracing::warn!(
                    channel = self.name,
                    key = delivery.key,
                    why,
                    "a message is not taken; it is tried again"
                ),
                false => {
                    tracing::debug!(channel = self.name, key = delivery.key, why, "not delivered")
                }
            }
            match is_about_message {
                true => in_order = true,
                false => out_of_order = Some((error, retry_after)),
            }
            let (age, limit) = (at - delivery.at, signed(named.give_up_after()));
            changes.push(if age >= limit {
                (delivery, Step::GiveUp(why))
            } else {
                let wish = retry_after.unwrap_or_default().min(LONGEST_WISH);
                let pause = pause(delivery.attempts as usize).max(wish);
                // It is tried once more before it is given up.
                let until = at.saturating_add(signed(pause)).min(delivery.at.saturating_add(limit));
                (delivery, Step::PutOff(until.max(at), why))
            });
        }
        match out_of_order {
            Some((error, retry_after)) if !in_order => self.suffer(error, retry_after),
            _ if in_order => self.recover(),
            _ => {}
        }
        // What is not on record is done again.
        let done = self.store.change_deliveries(&changes).await?;
        for ((delivery, step), _) in changes.iter().zip(done).filter(|(_, done)| *done) {
            self.count(delivery, step);
        }
        Ok(())
    }

    fn count(&self, delivery: &Delivery, step: &Step) {
        self.tally.count(&self.name, |counted| match step {
            Step::Delivered => counted.delivered += 1,
            Step::PutOff(..) => counted.failed += 1,
            Step::GiveUp(_) => {
                counted.failed += 1;
                counted.given_up += 1;
            }
            Step::Take(_) | Step::PutBack(_) => {}
        });
        if let Step::GiveUp(why) = step {
            self.given_up(delivery, why);
        }
    }

    fn given_up(&self, delivery: &Delivery, why: &str) {
        let message = delivery.message.as_ref();
        tracing::error!(
            channel = self.name,
            key = delivery.key,
            kind = message.map(|message| message.kind()),
            addressee = delivery.addressee,
            attempts = delivery.attempts,
            why,
            "a message was given up: nobody is told of it there"
        );
    }

    /// Leaves the receiver alone for a while.
    fn suffer(&mut self, error: Error, retry_after: Option<Duration>) {
        if self.told.as_ref() != Some(&error) {
            let causes = error.causes().join(": ");
            tracing::warn!(channel = self.name, %error, causes, "messages cannot be delivered");
        }
        self.told = Some(error);
        let failures = self.trouble.map_or(0, |(failures, _)| failures) + 1;
        let wish = retry_after.unwrap_or_default().min(LONGEST_WISH);
        self.trouble = Some((failures, Instant::now() + pause(failures).max(wish)));
    }

    fn recover(&mut self) {
        self.trouble = None;
        if self.told.take().is_some() {
            tracing::info!(channel = self.name, "messages are delivered again");
        }
    }
}

/// For how long what was taken is whose who took it.
#[derive(Clone, Copy)]
struct Lease<'a> {
    clock: &'a dyn Clock,
    /// Since when this machine had been up when it was looked for something to take.
    since: time::Duration,
}

impl Lease<'_> {
    /// Whether an attempt that begins now ends before somebody else may go on: this process may have been
    /// stopped since, or the machine that it is on, and what it would tell may be over.
    fn lasts(self) -> bool {
        self.clock.uptime().saturating_sub(self.since) < signed(LEASE)
    }
}

/// Delivers these at the same time. Once it is to stop they have a little time; those are returned
/// apart that did not end by then, or could not begin in time.
async fn deliver_all<V: View>(
    named: &Named,
    view: &V,
    deliveries: Vec<Delivery>,
    lease: Lease<'_>,
    stopped: &mut watch::Receiver<bool>,
) -> (Vec<Ended>, Vec<Delivery>) {
    let mut under_way: FuturesUnordered<_> = deliveries
        .iter()
        .enumerate()
        .map(|(place, delivery)| async move {
            if !lease.lasts() {
                return (place, None);
            }
            let Some(message) = &delivery.message else {
                return (place, Some(Err(unreadable())));
            };
            let (addressee, now) = (delivery.addressee.as_str(), lease.clock.now());
            let parcel = Parcel { message, addressee, people: view.people(), now };
            (place, Some(attempt(named.channel.as_ref(), &parcel).await))
        })
        .collect();
    let mut outcomes: Vec<Option<Result<(), Refused>>> = deliveries.iter().map(|_| None).collect();
    let end = async {
        // Where nobody can tell it to stop any more, it is told to.
        let _ = stopped.wait_for(|stopped| *stopped).await;
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            ended = under_way.next() => match ended {
                Some((place, outcome)) => outcomes[place] = outcome,
                None => break,
            },
            () = &mut end => break,
        }
    }
    drop(under_way);
    let (mut ended, mut cut) = (Vec::new(), Vec::new());
    for (delivery, outcome) in deliveries.into_iter().zip(outcomes) {
        match outcome {
            Some(outcome) => ended.push(Ended { delivery, outcome }),
            None => cut.push(delivery),
        }
    }
    (ended, cut)
}

fn unreadable() -> Refused {
    Refused::message(Error::new(ErrorKind::Io, "what it says cannot be read"))
}

/// An error on one line.
fn said(error: &Error) -> String {
    let causes = error.causes().iter().map(String::as_str);
    [error.to_string().as_str()].into_iter().chain(causes).collect::<Vec<_>>().join(": ")
}

/// How long to wait after so many failures: up to twice as long as after one less. All of it is up
/// to chance, so that not all who failed together come again together.
fn pause(failures: usize) -> Duration {
    let most = ExponentialBuilder::new()
        .with_min_delay(PAUSE[0])
        .with_max_delay(PAUSE[1])
        .without_max_times()
        .build()
        .nth(failures.saturating_sub(1).min(30))
        .unwrap_or(PAUSE[1]);
    let mut chance = [0; 4];
    // Where there is no chance, all of it will do.
    match aws_lc_rs::rand::fill(&mut chance) {
        Ok(()) => most.mul_f64(f64::from(u32::from_be_bytes(chance)) / f64::from(u32::MAX)),
        Err(_) => most,
    }
}

fn signed(duration: Duration) -> time::Duration {
    time::Duration::try_from(duration).unwrap_or(time::Duration::MAX)
}

#[cfg(test)]
mod tests;
