//! What happens by the clock: requests that lapse, grants that expire, reviews that are
//! overdue.
//!
//! Nothing rests on it: whoever asks later finds a grant over when its time is, whether that is
//! on record by then or not. It is looked every few seconds, by every process; of several one
//! puts it on record.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::crowd::Lane;
use super::desk::span;
use super::life::{Access, Event, Review};
use super::{Elevation, Refused};
use crate::broker::Broker;
use crate::broker::audit::{Decision, Record};
use crate::broker::rulebook::Rulebook;
use crate::broker::store::{CountedElevations, Effect, Unit, Unless};
use crate::broker::survive::survive;
use crate::credential::Principal;
use crate::error::Result;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(2);

/// How much is done in one go.
const BATCH: u32 = 200;

/// How much is looked at, where none of it can be read.
const MOST: u32 = 50_000;

/// For how long nobody is told again that a review is overdue.
const AGAIN: time::Duration = time::Duration::days(1);

impl Broker {
    /// Sees to what is due for as long as the broker is there. Needs a runtime.
    pub(in crate::broker) fn see_to_elevations(self: &Arc<Self>) {
        let broker = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut known = String::new();
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(broker) = broker.upgrade().filter(|it| !it.readiness.is_ending()) else {
                    return;
                };
                if survive("elevations", broker.see_to_what_is_due(&mut known)).await == Some(true)
                {
                    ticks.reset_immediately();
                }
            }
        });
    }

    /// Sees to what is due at this moment, under rules with another hash than those that were known.
    /// Returns whether there is more: very many may lapse at once.
    async fn see_to_what_is_due(&self, known: &mut String) -> bool {
        let book = self.policies();
        if book.rules_hash() != known && self.warn_of_the_rest(&book).await {
            *known = book.rules_hash().to_string();
        }
        drop(book);
        let is_more = match self.due_elevations().await {
            Ok(done) => done >= BATCH as usize,
            Err(error) => {
                tracing::warn!(%error, "what is due of elevations cannot be put on record");
                false
            }
        };
        // Nobody need ask for what was only counted to be put on record.
        self.summarize(self.denials.due(self.clock.now())).await;
        is_more
    }

    /// Warns of what is left of roles that are had by elevation no more, as it is found at the
    /// start and by each new configuration. Returns whether it could be looked up.
    async fn warn_of_the_rest(&self, book: &Rulebook) -> bool {
        let left = match self.left_of_roles(book, self.clock.now()).await {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(%error, "it cannot be told what is left of roles that are gone");
                return false;
            }
        };
        for CountedElevations { role, state, count } in left {
            tracing::warn!(
                role,
                state,
                count,
                "a role is had by elevation no more, and some of it is left: nobody approves what waits, and what is to be reviewed is reviewed by whoever may revoke its tokens"
            );
        }
        true
    }

    /// Puts on record what has come about by the clock, and returns how much that was.
    ///
    /// # Errors
    /// Where the store cannot be read or written.
    pub(in crate::broker) async fn due_elevations(&self) -> Result<usize> {
        // The store's clock, where it has one: that of one process must not end what others
        // still serve, nor be behind for ever.
        let now =
            self.store.now().await?.map_or(self.clock.now(), |there| there.min(self.clock.now()));
        let mut done = 0;
        for elevation in self.elevations_due(now).await? {
            done += usize::from(self.tick(&elevation, now).await?);
        }
        Ok(done)
    }

    /// What is due. Those that somebody has tampered with do not keep the others, however many
    /// they are: it is looked beyond them.
    async fn elevations_due(&self, now: OffsetDateTime) -> Result<Vec<Elevation>> {
        let mut wanted = BATCH;
        loop {
            let sealed = self.store.elevations_due(now, wanted).await?;
            let (read, unread): (Vec<_>, Vec<_>) =
                sealed.iter().map(|sealed| self.elevations.open(sealed)).partition(Result::is_ok);
            if !read.is_empty() || sealed.len() < wanted as usize || wanted >= MOST {
                if let Some(Err(error)) = unread.first() {
                    let many = unread.len();
                    tracing::error!(%error, many, "elevations are passed over that cannot be read");
                }
                return Ok(read.into_iter().flatten().collect());
            }
            wanted = wanted.saturating_mul(4).min(MOST);
        }
    }

    async fn tick(&self, elevation: &Elevation, now: OffsetDateTime) -> Result<bool> {
        let book = self.policies();
        let role = book.roles().get(&elevation.asked.role);
        let rules = role.and_then(|role| role.elevation.as_ref());
        let window = rules.map_or(time::Duration::ZERO, |rules| span(rules.start_window));
        let reviews = rules.is_none_or(|rules| rules.review_within.is_some());
        let own = Principal { issuer: self.issuer.as_str().into(), subject: "broker".into() };
        let record = |name: &str| Record {
            policy_hash: book.hash().to_string(),
            ..Record::of_the_broker(now, name, Decision::Changed, own.clone())
        };
        match elevation.after(&Event::Tick(window), now, reviews) {
            Ok(next) => {
                let next = self.noting(&book, next).await;
                let name = if next.access == Access::Lapsed { "lapse" } else { "expire" };
                let record = self.record_of(&next, record(name));
                let told = self.telling(&book, (&next, name), Lane::Settling, now).await?;
                let change = (elevation, &next, Unless::default());
                self.commit_next(&book, change, record, told, now).await
            }
            Err(Refused::State(_)) if elevation.review == Review::Due => {
                // It is told again after a while.
                let mut next = elevation.clone();
                next.version += 1;
                let record = self.record_of(&next, record("review-overdue"));
                let mut stored = self.elevations.over(&next, role)?;
                stored.next_at = Some(now.saturating_add(AGAIN));
                let mut unit =
                    Unit::of(record).with(Effect::ChangeElevation(stored, Unless::default()));
                let told = self.telling(&book, (&next, "review-overdue"), Lane::Settling, now);
                unit.effects.extend(told.await?);
                Ok(self.metrics.recording(self.audit.commit(unit)).await?.is_some())
            }
            // The rules have changed meanwhile: it is looked at again by those.
            Err(_) => {
                let mut next = elevation.clone();
                next.version += 1;
                let stored = self.elevations.over(&next, role)?;
                if stored.next_at.is_none_or(|next_at| next_at > now) {
                    let unit = Unit {
                        records: Vec::new(),
                        effects: vec![Effect::ChangeElevation(stored, Unless::default())],
                    };
                    self.store.commit(&[unit]).await?;
                }
                Ok(false)
            }
        }
    }
}
