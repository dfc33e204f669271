//! A command that must not outlive what it was started for: it is warned, and then ended.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;

use super::reach::Reach;
use super::supervisor::Beside;
use crate::credential::Credential;
use crate::host::clock::Clock;

/// How long the command may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// When it is said that little time is left; the last one is the end.
const STEPS: [Duration; 4] = [
    Duration::from_secs(15 * 60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(60),
    Duration::ZERO,
];

/// How long is slept at most: the clock may be set, and machines sleep.
const NAP: Duration = Duration::from_secs(5);

/// What happens at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// The command goes on, and somebody is told.
    Warn,
    /// The command is ended.
    #[default]
    Term,
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// So much is left.
    Left(Duration),
    /// It is over, and the command is ended.
    Ending,
    /// It is over, and the command goes on without.
    Over,
}

/// The end of what a command was started for.
pub struct Deadline<'a> {
    until: OffsetDateTime,
    on_expiry: OnExpiry,
    clock: Arc<dyn Clock>,
    /// What else goes on beside the command.
    inner: Option<&'a dyn Beside>,
    own: Reach,
    done: Mutex<bool>,
    changed: Condvar,
}

impl<'a> Deadline<'a> {
    /// The end, by this machine's clock, for a command beside which this goes on.
    pub fn new(
        until: OffsetDateTime,
        on_expiry: OnExpiry,
        clock: Arc<dyn Clock>,
        inner: Option<&'a dyn Beside>,
    ) -> Self {
        let (own, done, changed) = Default::default();
        Self { until, on_expiry, clock, inner, own, done, changed }
    }

    /// Waits for the end, tells when it comes near, and ends the command, until
    /// [`Self::close`].
    pub fn watch(&self, tell: impl Fn(Told)) {
        let begun = self.left();
        // What was past at the beginning need not be told.
        for step in STEPS.into_iter().filter(|step| *step < begun || step.is_zero()) {
            if !self.comes_to(step) {
                return;
            }
            match (step.is_zero(), self.on_expiry) {
                (false, _) => tell(Told::Left(self.left())),
                (true, OnExpiry::Warn) => tell(Told::Over),
                (true, OnExpiry::Term) => {
                    self.reach().end(PATIENCE, || tell(Told::Ending));
                }
            }
        }
    }

    /// Waits until no more than this is left; whether it came to that.
    fn comes_to(&self, step: Duration) -> bool {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        while !*done {
            let left = self.left();
            if left <= step {
                return true;
            }
            let waited = self.changed.wait_timeout(done, (left - step).min(NAP));
            (done, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        false
    }

    /// The command has ended.
    pub fn close(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn left(&self) -> Duration {
        (self.until - self.clock.now()).try_into().unwrap_or_default()
    }
}

impl Beside for Deadline<'_> {
    fn reach(&self) -> &Reach {
        self.inner.map_or(&self.own, Beside::reach)
    }

    fn again(&self) -> Option<Credential> {
        self.inner.filter(|_| !self.left().is_zero()).and_then(Beside::again)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    /// A clock that goes on by a second each time somebody looks.
    #[derive(Default)]
    struct Ticking(AtomicI64);

    impl Clock for Ticking {
        fn now(&self) -> OffsetDateTime {
            let seconds = self.0.fetch_add(1, Ordering::Relaxed);
            OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds * 60)
        }
    }

    fn told(minutes: i64, on_expiry: OnExpiry) -> Vec<Told> {
        let until = OffsetDateTime::UNIX_EPOCH + time::Duration::minutes(minutes);
        let deadline = Deadline::new(until, on_expiry, Arc::new(Ticking::default()), None);
        // Nobody waits in a test: somebody has closed it unless the clock is there already.
        let told = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| deadline.watch(|what| told.lock().unwrap().push(what)));
            while !told.lock().unwrap().contains(&Told::Over) && on_expiry == OnExpiry::Warn {
                deadline.changed.notify_all();
                std::thread::yield_now();
            }
            deadline.close();
        });
        told.into_inner().unwrap()
    }

    #[test]
    fn it_is_told_when_little_is_left_and_when_it_is_over() {
        let told = told(30, OnExpiry::Warn);
        let left: Vec<_> = told.iter().filter(|one| matches!(one, Told::Left(_))).collect();
        assert_eq!((left.len(), told.last()), (3, Some(&Told::Over)), "{told:?}");
        for (told, most) in left.into_iter().zip(STEPS) {
            assert!(matches!(told, Told::Left(left) if *left <= most), "{told:?}");
        }
    }

    #[test]
    fn what_was_past_at_the_beginning_is_not_told() {
        let told = told(3, OnExpiry::Warn);
        assert_eq!(told.iter().filter(|one| matches!(one, Told::Left(_))).count(), 1, "{told:?}");
    }

    #[test]
    fn nobody_is_told_once_the_command_has_ended() {
        let until = OffsetDateTime::UNIX_EPOCH + time::Duration::days(365);
        let clock = Arc::new(Ticking::default());
        let deadline = Deadline::new(until, OnExpiry::Term, clock, None);
        deadline.close();
        deadline.watch(|told| panic!("{told:?}"));
    }
}
