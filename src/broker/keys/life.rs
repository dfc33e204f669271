//! The life of a signing key: which changes of state are due, and what they make of
//! the keys. Pure: no clock, no store.
//!
//! ```text
//! prepared ─▶ published ─▶ active ─▶ retired
//!     └───────────┴───────────┴─────────┴──▶ revoked
//! ```
//!
//! Two promises hold for all who read the JWKS and keep it as long as its
//! `Cache-Control` says. The key of every token that is alive is in it; and so is a key
//! by the time at which it first signs, unless it is the first one of its algorithm, without
//! which nothing could be signed by that.
//!
//! Where a key that signs is revoked, another has to sign at once. So there is always one that
//! waits, and is in the JWKS: the next one of a rotation that is under way, or else one that is
//! prepared. Only where that one is revoked too, or is younger than the copies that people
//! may have, does a key sign that some do not know.
//!
//! The key that signs the audit log goes the same way where somebody asks for it. Who checks
//! the log has no JWKS: from when it is published a key signs besides the one before, and the
//! log, signed by that one, says which key comes next. The first one is not made here.

use time::{Duration, OffsetDateTime};

use super::{Algorithms, KeyState, Purpose, SigningAlgorithm, StoredKey};
use crate::broker::config::{Keys as KeysConfig, MAX_TTL};

/// How long others may keep the published keys at most.
pub const JWKS_MAX_AGE: Duration = Duration::minutes(5);

/// What is allowed for between processes: a change takes a moment from its time stamp
/// until it is committed, and their clocks may differ.
const MARGIN: Duration = Duration::seconds(10);

/// How long a key of the log signs besides the one before at least: whoever looks at the log
/// once a day learns of it by a signature that they know.
const LOG_OVERLAP: Duration = Duration::days(1);

/// How much longer than a token can live its key is published.
const GRACE: Duration = Duration::hours(1);

/// When keys change their states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long a key is published before it signs.
    pub publish_before: Duration,
    /// How long a key signs before another takes its place; `None`: until somebody says
    /// so.
    pub rotate_every: Option<Duration>,
    /// By which algorithms there are keys that sign. Those of others stay as they are.
    pub algorithms: Algorithms,
}

/// What a key signs. Keys that sign the same take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    /// Access tokens, by this algorithm.
    Tokens(SigningAlgorithm),
    /// Checkpoints of the audit log.
    Log,
}

/// All by which tokens can be signed.
#[cfg(test)]
pub(crate) const TOKENS: [Signs; 3] = [
    Signs::Tokens(SigningAlgorithm::Es256),
    Signs::Tokens(SigningAlgorithm::EdDsa),
    Signs::Tokens(SigningAlgorithm::Rs256),
];

impl std::fmt::Display for Signs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tokens(algorithm) => write!(f, "tokens by {}", algorithm.name()),
            Self::Log => f.write_str("the audit log"),
        }
    }
}

/// A change of state of one key. Those that are due at the same time are made together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which key; `None`: one that is made.
    pub kid: Option<String>,
    /// What it signs.
    pub of: Signs,
    /// What becomes of it.
    pub to: KeyState,
    /// Why, for people.
    pub why: String,
}

impl Step {
    fn make(of: Signs, to: KeyState, why: &str) -> Self {
        Self { kid: None, of, to, why: why.into() }
    }
}

impl From<&KeysConfig> for Rules {
    fn from(config: &KeysConfig) -> Self {
        let duration = |duration| Duration::try_from(duration).unwrap_or(Duration::MAX);
        Self {
            publish_before: duration(config.publish_before),
            rotate_every: config.rotate_every.map(duration),
            algorithms: config.algorithms(),
        }
    }
}

impl Rules {
    /// What is to be done by itself at this moment.
    pub fn due(&self, keys: &[StoredKey], now: OffsetDateTime) -> Vec<Step> {
        self.all().flat_map(|of| self.due_of(Series { of, keys }, now)).collect()
    }

    /// All that is signed.
    pub fn all(&self) -> impl Iterator<Item = Signs> {
        self.algorithms.iter().map(Signs::Tokens).chain([Signs::Log])
    }

    /// Whether that is signed.
    pub fn includes(&self, what: Signs) -> bool {
        match what {
            Signs::Tokens(algorithm) => self.algorithms.contains(algorithm),
            Signs::Log => true,
        }
    }

    /// Whether something is to be signed by these keys, and none of them does.
    pub fn lacks(&self, keys: &[StoredKey]) -> bool {
        let mut tokens = self.all().filter(|of| *of != Signs::Log);
        tokens.any(|of| Series { of, keys }.oldest(KeyState::Active).is_none())
    }

    fn due_of(&self, series: Series<'_>, now: OffsetDateTime) -> Vec<Step> {
        let next = series.oldest(KeyState::Published);
        let spare = series.oldest(KeyState::Prepared);
        let Some(active) = series.oldest(KeyState::Active) else {
            // A log whose key is gone is not to get another one unasked.
            return match series.of {
                Signs::Tokens(_) => vec![series.replacement(&[])],
                Signs::Log => Vec::new(),
            };
        };
        match next {
            Some(next) if now >= self.signs_from(next) => vec![
                series.change(active, KeyState::Retired, "another takes its place"),
                series.change(next, KeyState::Active, "it has been published for long enough"),
            ],
            None if series.of != Signs::Log && self.is_old(active, now) => {
                vec![series.publication("the key that signs is old")]
            }
            None if series.of != Signs::Log && spare.is_none() => vec![Step::make(
                series.of,
                KeyState::Prepared,
                "it signs where the one that does is revoked",
            )],
            _ => Vec::new(),
        }
    }

    /// When another key is to sign, of the series where that is first; nothing where no
    /// rotation is under way and none is due by itself. What is due and does not happen keeps
    /// the time at which it should have.
    pub fn next_turn(&self, keys: &[StoredKey]) -> Option<OffsetDateTime> {
        let turn = |of: Signs| {
            let series = Series { of, keys };
            let active = series.oldest(KeyState::Active)?;
            match (series.oldest(KeyState::Published), self.rotate_every) {
                (Some(next), _) => Some(self.signs_from(next)),
                (None, Some(age)) if of != Signs::Log => {
                    Some(active.changed_at.saturating_add(age))
                }
                _ => None,
            }
        };
        self.all().filter_map(turn).min()
    }

    /// What begins a rotation of the keys that sign these; nothing where one is under way.
    pub fn rotation(&self, keys: &[StoredKey], of: &[Signs]) -> Vec<Step> {
        let all = self.all().filter(|one| of.contains(one)).map(|of| Series { of, keys });
        let resting = all.filter(|series| series.oldest(KeyState::Published).is_none());
        resting.map(|series| series.publication("a rotation was asked for")).collect()
    }

    /// What revokes these keys. Where one of them signs, another signs from then on.
    pub fn revocation(&self, keys: &[StoredKey], kids: &[String], why: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        for of in SigningAlgorithm::ALL.map(Signs::Tokens).into_iter().chain([Signs::Log]) {
            let series = Series { of, keys };
            let revoked = series.own().filter(|key| kids.contains(&key.kid));
            let revoked: Vec<_> = revoked.filter(|key| key.state != KeyState::Revoked).collect();
            steps.extend(revoked.iter().map(|key| series.change(key, KeyState::Revoked, why)));
            let signed = revoked.iter().any(|key| key.state == KeyState::Active);
            if signed && self.includes(of) {
                steps.push(series.replacement(kids));
            }
        }
        steps
    }

    /// The moment at which a published key may sign.
    pub fn signs_from(&self, key: &StoredKey) -> OffsetDateTime {
        let before = match key.purpose {
            Purpose::Checkpoint => self.publish_before.max(LOG_OVERLAP),
            _ => self.publish_before,
        };
        key.changed_at.saturating_add(before)
    }

    /// How long others may keep the keys that were read so long ago. Whatever was
    /// published since then does not sign before they look again.
    pub fn max_age(&self, age: Duration) -> std::time::Duration {
        let left = self.publish_before - MARGIN - age;
        left.clamp(Duration::ZERO, JWKS_MAX_AGE).unsigned_abs()
    }

    fn is_old(&self, active: &StoredKey, now: OffsetDateTime) -> bool {
        self.rotate_every
            .is_some_and(|age| now >= active.changed_at.saturating_add(age - self.publish_before))
    }
}

/// The keys that sign one thing, which take turns.
#[derive(Clone, Copy)]
struct Series<'a> {
    of: Signs,
    keys: &'a [StoredKey],
}

impl<'a> Series<'a> {
    /// The keys that sign it, or did, or may.
    fn own(self) -> impl Iterator<Item = &'a StoredKey> {
        self.keys.iter().filter(move |key| key.is_for(self.of))
    }

    fn oldest(self, state: KeyState) -> Option<&'a StoredKey> {
        self.own().filter(|key| key.state == state).min_by_key(|key| key.changed_at)
    }

    fn change(self, key: &StoredKey, to: KeyState, why: &str) -> Step {
        Step { kid: Some(key.kid.clone()), of: self.of, to, why: why.into() }
    }

    fn publication(self, why: &str) -> Step {
        match self.oldest(KeyState::Prepared) {
            Some(prepared) => self.change(prepared, KeyState::Published, why),
            None => Step::make(self.of, KeyState::Published, why),
        }
    }

    /// What signs where nothing does: the one that most people know.
    fn replacement(self, without: &[String]) -> Step {
        let known = self.own().filter(|key| !without.contains(&key.kid));
        let known =
            known.filter(|key| matches!(key.state, KeyState::Prepared | KeyState::Published));
        let why = "no other key signs";
        match known.min_by_key(|key| key.created_at) {
            Some(next) => self.change(next, KeyState::Active, why),
            None => Step::make(self.of, KeyState::Active, why),
        }
    }
}

/// Whether a key is in the JWKS: those that sign, those that will or may have to, and those
/// whose tokens may still be about.
pub(in crate::broker) fn is_shown(key: &StoredKey, now: OffsetDateTime) -> bool {
    key.purpose == Purpose::AccessToken
        && key.state.is_public()
        && shown_until(key).is_none_or(|end| now < end)
}

/// The moment from which no token can be about that a retired key signed.
pub(super) fn shown_until(key: &StoredKey) -> Option<OffsetDateTime> {
    let lives = Duration::try_from(MAX_TTL).unwrap_or(Duration::MAX);
    (key.state == KeyState::Retired).then(|| key.changed_at.saturating_add(lives + GRACE))
}

#[cfg(test)]
mod tests;
