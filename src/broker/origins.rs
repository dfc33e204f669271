//! From where tokens are used. That one is used from another network than the one that it was
//! issued to is an event: it may have been stolen. It is told and counted, and refuses nothing:
//! people travel.
//!
//! Where a token was issued to is in its record. Whoever issued it remembers; for one that
//! another process issued, or this one before it was started, the record is looked up once, by
//! a task that nobody waits for. No more are remembered than have room, those that were seen
//! last, and what is beside a full queue is not looked at.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::audit::Decision;
use super::config;
use super::metrics::Metrics;
use super::own::OwnToken;
use super::store::{Filter, Store};
use super::survive::survive;

/// Of how many tokens it is remembered.
const REMEMBERED: usize = 64 * 1024;

/// How many uses may wait for their record.
const QUEUE: usize = 1024;

/// From how many other networks a token has to come until no more is told of it.
const TOLD: usize = 8;

/// Where a token was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a proxy, which asks the broker about the request.
    Authz,
    /// At a resource owner, who says so in an introspection.
    Introspection,
    /// At the broker, to be exchanged.
    Exchange,
}

/// A token that was used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    jti: Uuid,
    source: IpAddr,
    place: Place,
}

impl Used {
    /// This token.
    pub(super) fn of(own: &OwnToken, source: IpAddr, place: Place) -> Self {
        Self::token(own.jti, source, place)
    }

    /// The token with this id.
    pub(super) fn token(jti: Uuid, source: IpAddr, place: Place) -> Self {
        Self { jti, source: source.to_canonical(), place }
    }
}

/// What is known of tokens, and the task that finds out about others.
pub(super) struct Origins {
    known: Arc<Known>,
    queue: mpsc::Sender<(Used, config::Origins)>,
    finding: JoinHandle<()>,
}

impl Origins {
    /// Needs a runtime.
    pub(super) fn start(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        let known = Arc::new(Known::of_none(metrics));
        let (queue, uses) = mpsc::channel(QUEUE);
        let finding = tokio::spawn(find(known.clone(), store, uses));
        Self { known, queue, finding }
    }

    /// Takes note that a token was issued to whoever is at `source`.
    pub(super) fn issued(&self, jti: Uuid, source: IpAddr) {
        self.known.add(jti, Some(source.to_canonical()));
    }

    /// Looks whether a token was used from where it was issued to. Nobody waits for it.
    pub(super) fn used(&self, config: &config::Origins, used: Used) {
        let is_watched = config.watch
            && !used.source.is_unspecified()
            && !config.expected.iter().any(|network| network.contains(used.source));
        if is_watched
            && !self.known.judge(&used, config)
            && self.queue.try_send((used, config.clone())).is_err()
        {
            tracing::debug!(jti = %used.jti, "too many tokens are new: this one is not looked at");
        }
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        self.finding.abort();
    }
}

/// Looks records up, one after the other: those who issue and verify go first.
async fn find(
    known: Arc<Known>,
    store: Arc<dyn Store>,
    mut uses: mpsc::Receiver<(Used, config::Origins)>,
) {
    while let Some((used, config)) = uses.recv().await {
        survive("origins", find_one(&known, store.as_ref(), &used, &config)).await;
    }
}

async fn find_one(known: &Known, store: &dyn Store, used: &Used, config: &config::Origins) {
    // It may have been asked for many times before the first was looked at.
    if known.judge(used, config) {
        return;
    }
    let (jti, decision) = (Some(used.jti), Some(Decision::Issued));
    let filter = Filter { jti, decision, ..Filter::default() };
    match store.find(&filter, 1).await {
        Ok(mut found) => {
            // Of one whose record was erased nobody knows any more.
            let record = found.pop().and_then(|(_, record)| record);
            let source = record.and_then(|record| record.source.parse().ok());
            known.add(used.jti, source);
            known.judge(used, config);
        }
        Err(error) => {
            tracing::debug!(%error, "where a token was issued to cannot be looked up");
        }
    }
}

/// Where tokens were issued to.
struct Known {
    tokens: Mutex<LruCache<Uuid, Entry>>,
    metrics: Arc<Metrics>,
}

struct Entry {
    /// `None` where nobody knows.
    issued_to: Option<IpAddr>,
    /// The networks that it was told of.
    told: Vec<IpAddr>,
}

impl Known {
    fn of_none(metrics: Arc<Metrics>) -> Self {
        // Not made with all its room at once: most never need it.
        Self { tokens: Mutex::new(LruCache::unbounded()), metrics }
    }

    fn add(&self, jti: Uuid, issued_to: Option<IpAddr>) {
        let mut tokens = self.tokens();
        tokens.get_or_insert(jti, || Entry { issued_to, told: Vec::new() });
        // The record of whichever goes can be looked up again.
        if tokens.len() > REMEMBERED {
            tokens.pop_lru();
        }
    }

    fn tokens(&self) -> MutexGuard<'_, LruCache<Uuid, Entry>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells where a token comes from another network. Returns whether it is known.
    fn judge(&self, used: &Used, config: &config::Origins) -> bool {
        let issued_to = {
            let mut tokens = self.tokens();
            let Some(entry) = tokens.get_mut(&used.jti) else { return false };
            let Some(issued_to) = entry.issued_to else { return true };
            let Some(other) = other_network(issued_to, used.source, config) else { return true };
            if entry.told.contains(&other) || entry.told.len() >= TOLD {
                return true;
            }
            entry.told.push(other);
            issued_to
        };
        self.metrics.used_elsewhere(used.place);
        tracing::warn!(
            jti = %used.jti,
            issued_to = %issued_to,
            used_from = %used.source,
            place = used.place.as_str(),
            "a token is used from another network than the one that it was issued to"
        );
        true
    }
}

impl Place {
    /// As it is counted and told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authz => "authz",
            Self::Introspection => "introspection",
            Self::Exchange => "exchange",
        }
    }
}

/// The network of `source`, where it is another one than that of `issued_to`. Whoever has both
/// kinds of addresses uses now this one and now that, so they are not compared.
fn other_network(issued_to: IpAddr, source: IpAddr, config: &config::Origins) -> Option<IpAddr> {
    let (home, other) = match (issued_to.to_canonical(), source) {
        (home @ IpAddr::V4(_), other @ IpAddr::V4(_))
        | (home @ IpAddr::V6(_), other @ IpAddr::V6(_)) => (home, other),
        _ => return None,
    };
    let (home, other) = (network(home, config), network(other, config));
    (home != other).then_some(other)
}

/// The first address of the network of this one.
fn network(address: IpAddr, config: &config::Origins) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let drop = u32::from(32_u8.saturating_sub(config.ipv4_bits));
            let mask = u32::MAX.checked_shl(drop).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let drop = u32::from(128_u8.saturating_sub(config.ipv6_bits));
            let mask = u128::MAX.checked_shl(drop).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests;
