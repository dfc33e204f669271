//! Signatures that were verified before: the same token is shown again and again, to the broker
//! with each request that a proxy holds up, and twice where it is looked at by two.
//!
//! Whether a key has signed something never changes, so that can be kept in mind. All else is
//! looked at each time: whether the key still counts, the times, what was revoked.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use lru::LruCache;

/// How many are kept in mind: some 80 bytes for each. Whoever is not in there is verified.
const MOST: usize = 16 * 1024;

/// Names a token and the key that signed it, without telling either.
pub(super) type Name = [u8; 32];

/// Tokens that were found to be signed by a key. Those that were not leave nothing here, so
/// nobody fills it who has no token that is good.
pub struct Seen(Mutex<LruCache<Name, ()>>);

impl Default for Seen {
    fn default() -> Self {
        // Not made with all its room at once: most never need it.
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seen({})", self.names().len())
    }
}

impl Seen {
    /// The name of a token and the key by which it is to be signed. The algorithm is the one that
    /// the token names.
    pub(super) fn name(thumbprint: &str, token: &str) -> Name {
        let mut context = Context::new(&SHA256);
        for part in [thumbprint, token] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut name = [0; 32];
        name.copy_from_slice(context.finish().as_ref());
        name
    }

    /// Whether this was found to be signed.
    pub(super) fn has(&self, name: &Name) -> bool {
        self.names().get(name).is_some()
    }

    /// Keeps in mind that it is signed.
    pub(super) fn keep(&self, name: Name) {
        let mut names = self.names();
        names.put(name, ());
        if names.len() > MOST {
            names.pop_lru();
        }
    }

    fn names(&self) -> MutexGuard<'_, LruCache<Name, ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_kept_as_there_may_be_and_those_that_are_asked_for_stay() {
        let seen = Seen::default();
        let name = |n: usize| Seen::name("key", &n.to_string());
        for n in 0..3 * MOST {
            assert!(!seen.has(&name(n)));
            seen.keep(name(n));
            assert!(seen.has(&name(0)), "{n}");
        }
        assert_eq!(seen.names().len(), MOST);
        assert!(seen.has(&name(3 * MOST - 1)) && !seen.has(&name(1)));
    }

    #[test]
    fn another_key_or_token_has_another_name() {
        let one = Seen::name("ab", "c");
        for (thumbprint, token) in [("a", "bc"), ("ab", "d"), ("b", "c"), ("", "abc"), ("abc", "")]
        {
            assert_ne!(Seen::name(thumbprint, token), one, "{thumbprint} {token}");
        }
    }
}
