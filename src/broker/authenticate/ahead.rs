//! Fetching the keys of issuers ahead of all need: when the broker starts, and before their
//! time is over. So no request waits for an issuer whose keys are known, and one that is down
//! is tried again by somebody who has the time.

use std::sync::Arc;

use time::Duration;
use tokio::task::JoinSet;

use super::issuer::Trusted;
use super::kept::{Keeper, KeysSeal};
use crate::broker::store::Store;
use crate::broker::survive::survive;

/// How often it is looked whether it is time for something.
const TICK: std::time::Duration = std::time::Duration::from_secs(1);

/// How long an issuer that could not be reached is left alone: the first time, and at most.
const PAUSES: [Duration; 2] = [Duration::seconds(5), Duration::seconds(30)];

/// How much later than said somebody may come again, before those who have a request do it
/// themselves. Whoever fetches at that moment is waited for by nobody who has keys at hand.
const LATE: Duration = Duration::seconds(5);

/// What is fetched of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Its metadata, where they say where its keys are.
    Document,
    /// Its keys.
    Keys,
}

impl Part {
    /// All that is fetched.
    pub(super) const ALL: [Self; 2] = [Self::Document, Self::Keys];
}

/// What fetches keys ahead of all need. It ends when this is dropped.
pub struct Ahead(JoinSet<()>);

impl Ahead {
    /// Begins with what was kept of each of these issuers, and goes on with those that there
    /// are at each moment.
    pub(in crate::broker) async fn start(
        issuers: impl Fn() -> Vec<Arc<Trusted>> + Send + 'static,
        store: &Arc<dyn Store>,
        seal: KeysSeal,
    ) -> Self {
        let (store, seal) = (store.clone(), Arc::new(seal));
        let mut fetching = Fetching { store, seal, under_way: Vec::new() };
        fetching.follow(issuers()).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                survive("issuers", fetching.follow(issuers())).await;
            }
        });
        Self(tasks)
    }

    /// Ends it.
    pub(in crate::broker) async fn close(mut self) {
        self.0.shutdown().await;
    }
}

/// The issuers whose keys are fetched.
struct Fetching {
    store: Arc<dyn Store>,
    seal: Arc<KeysSeal>,
    /// Each with what does it, which ends when it is dropped.
    under_way: Vec<(Arc<Trusted>, JoinSet<()>)>,
}

impl Fetching {
    /// Begins with those that are new, and ends with those that are gone.
    async fn follow(&mut self, issuers: Vec<Arc<Trusted>>) {
        self.under_way.retain(|(one, _)| issuers.iter().any(|other| Arc::ptr_eq(one, other)));
        for trusted in issuers {
            if self.under_way.iter().any(|(one, _)| Arc::ptr_eq(one, &trusted)) {
                continue;
            }
            let mut keeper = Keeper::new(trusted.clone(), self.store.clone(), self.seal.clone());
            keeper.resume(LATE).await;
            let mut task = JoinSet::new();
            task.spawn(keep_up(trusted.clone(), keeper));
            self.under_way.push((trusted, task));
        }
    }
}

async fn keep_up(trusted: Arc<Trusted>, keeper: Keeper) {
    // None of them waits for another one that takes its time.
    tokio::join!(attend(&trusted, Part::Document), attend(&trusted, Part::Keys), keep(keeper));
}

async fn attend(trusted: &Trusted, part: Part) {
    let mut failures = 0;
    loop {
        if trusted.is_due(part) && trusted.left_alone(part).is_zero() {
            let pause = pause_after(failures);
            match survive("issuer_keys", trusted.renew(part, pause + LATE)).await {
                Some(Ok(())) => failures = 0,
                None => failures += 1,
                Some(Err(error)) => {
                    failures += 1;
                    trusted.leave_alone(part, pause);
                    let issuer = trusted.issuer();
                    tracing::warn!(%issuer, %error, "the keys of an issuer cannot be fetched ahead of need");
                }
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn keep(mut keeper: Keeper) {
    loop {
        survive("kept_keys", keeper.keep()).await;
        tokio::time::sleep(TICK).await;
    }
}

/// How long to wait after so many failures before this one.
fn pause_after(failures: u32) -> Duration {
    let [first, most] = PAUSES;
    let pause = first.saturating_mul(1 << failures.min(8)).min(most);
    let mut random = [0];
    // Those who lost an issuer together need not come back together.
    let drawn = aws_lc_rs::rand::fill(&mut random).map_or(0, |()| i32::from(random[0]));
    pause * (256 + drawn / 4) / 256
}
