//! Who may wait for an issuer: no more than a few, because anybody can name one.
//!
//! A token has to be there, not to be good, before its issuer's keys are fetched. An
//! issuer that does not answer would otherwise keep as many requests as there may be
//! at once, and with them the callers of all others.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::Semaphore;

/// How many requests may wait for the keys of one issuer.
const FOR_ONE: usize = 32;

/// How many may wait for keys at all: a quarter of those that are worked on at once.
const FOR_ALL: usize = 128;

/// The places of all who wait, for whichever issuer.
#[derive(Clone)]
pub(super) struct Everybody(Arc<Semaphore>);

impl Default for Everybody {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(FOR_ALL)))
    }
}

/// The places of those who wait for one issuer.
pub(super) struct Waiting {
    here: Semaphore,
    everybody: Everybody,
}

impl Waiting {
    /// Places for another issuer.
    pub(super) fn among(everybody: &Everybody) -> Self {
        Self { here: Semaphore::new(FOR_ONE), everybody: everybody.clone() }
    }

    /// Does what may have to wait for the issuer. `None` where it would have to, and
    /// there is no place left. What need not wait takes none.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let begun = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
        if let Poll::Ready(done) = begun {
            return Some(done);
        }
        let _here = self.here.try_acquire().ok()?;
        let _everywhere = self.everybody.0.try_acquire().ok()?;
        Some(work.await)
    }
}
