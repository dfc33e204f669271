//! What keeps connections from being had. The pool tries again and again, and then only says
//! that it took too long; so somebody looks meanwhile.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::AnyPool;
use tokio::time::Instant;

use crate::error::{Error, Result};

/// How long an answer holds. One look serves all who wait meanwhile.
const HOLDS_FOR: Duration = Duration::from_secs(1);

/// How a server lets this process in.
#[async_trait]
pub(in crate::broker::store) trait Access: Send + Sync {
    /// The number of the password that is shown.
    fn shown(&self) -> u64;

    /// Has the pool show another password from now on, where there is one. Returns whether it
    /// is another than the one with this number.
    async fn renew(&self, pool: &AnyPool, shown: u64) -> bool;

    /// Looks whether a new connection can be had, for so long at most.
    ///
    /// # Errors
    /// Why not.
    async fn look(&self, pool: &AnyPool, within: Duration) -> Result<()>;
}

/// Looks what keeps connections from being had, for those who wait for one.
pub(in crate::broker::store) struct Lookout {
    access: Arc<dyn Access>,
    /// How long is waited before somebody looks, and for twice as long as a look takes.
    after: Duration,
    /// Whoever looks: nobody else does meanwhile.
    looking: tokio::sync::Mutex<()>,
    last: Mutex<Option<(Instant, Result<()>)>>,
}

impl Lookout {
    /// Looks at this server, for those who wait for so long at most.
    pub(in crate::broker::store) fn new(access: Arc<dyn Access>, patience: Duration) -> Self {
        let (looking, last) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { access, after: patience / 2, looking, last }
    }

    /// How this server is got at.
    pub(super) fn access(&self) -> &dyn Access {
        self.access.as_ref()
    }

    /// Looks once, as soon as somebody has waited for long, and early enough for them to be told.
    /// It has no end of its own: whoever waits ends it.
    pub(super) async fn watch(&self, pool: &AnyPool) -> Infallible {
        tokio::time::sleep(self.after).await;
        // Those that are idle tell nothing: they may be lost.
        self.look(pool).await;
        std::future::pending().await
    }

    async fn look(&self, pool: &AnyPool) {
        let _looking = self.looking.lock().await;
        if self.answer().is_some_and(|(at, _)| at.elapsed() < HOLDS_FOR) {
            return;
        }
        let answer = self.access.look(pool, self.after / 2).await;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), answer));
    }

    /// What somebody who has waited since then is told besides.
    pub(super) fn explain(&self, error: Error, since: Instant) -> Error {
        match self.answer() {
            // A look a moment before served them, too.
            Some((at, Err(why))) if at + HOLDS_FOR >= since => {
                let error = error.because_of(why.message());
                let error = why.causes().iter().cloned().fold(error, Error::because_of);
                why.hints().iter().cloned().fold(error, Error::hint)
            }
            _ => error,
        }
    }

    fn answer(&self) -> Option<(Instant, Result<()>)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use sqlx::any::AnyPoolOptions;

    use super::*;
    use crate::error::ErrorKind;

    /// One that counts who looks, and lets nobody in.
    #[derive(Default)]
    struct Shut(AtomicUsize);

    #[async_trait]
    impl Access for Shut {
        fn shown(&self) -> u64 {
            0
        }

        async fn renew(&self, _: &AnyPool, _: u64) -> bool {
            false
        }

        async fn look(&self, _: &AnyPool, within: Duration) -> Result<()> {
            let looks = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            tokio::time::sleep(within).await;
            Err(Error::new(ErrorKind::Unreachable, format!("look {looks}")).hint("wait"))
        }
    }

    #[tokio::test]
    async fn one_look_serves_all_who_wait_and_nobody_who_came_later() {
        sqlx::any::install_default_drivers();
        let pool = AnyPoolOptions::new().connect_lazy("postgres://127.0.0.1:1/x").unwrap();
        let shut = Arc::new(Shut::default());
        let lookout = Lookout::new(shut.clone(), Duration::from_millis(40));
        let looks = || shut.0.load(Ordering::Relaxed);
        let (since, late) = (Instant::now(), || Error::new(ErrorKind::Io, "too late"));
        assert!(lookout.watch(&pool).now_or_never().is_none());
        assert_eq!((looks(), lookout.explain(late(), since)), (0, late()));
        let looked = async {
            while lookout.answer().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            never = lookout.watch(&pool) => match never {},
            () = looked => {}
        }
        // However long this has taken: it was just now.
        let answer = lookout.answer().map(|(_, answer)| (Instant::now(), answer));
        *lookout.last.lock().unwrap() = answer;
        tokio::join!(lookout.look(&pool), lookout.look(&pool));
        assert_eq!(looks(), 1);
        let told = lookout.explain(late(), since);
        assert_eq!(told, late().because_of("look 1").hint("wait"));
        // What was so then is not what keeps somebody else.
        let later = Instant::now() + HOLDS_FOR + HOLDS_FOR;
        assert_eq!(lookout.explain(late(), later), late());
        let (at, answer) = lookout.answer().unwrap();
        *lookout.last.lock().unwrap() = Some((at.checked_sub(HOLDS_FOR).unwrap(), answer));
        tokio::join!(lookout.look(&pool), lookout.look(&pool));
        assert_eq!(looks(), 2);
    }
}
