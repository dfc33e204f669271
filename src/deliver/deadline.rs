//! A command that must not outlive what it was started for: it is warned, and then ended.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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

/// How often it is looked for a command that has not started yet.
const SOON: Duration = Duration::from_millis(100);

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// So much is left.
    Left(Duration),
    /// It is over, and the command is ended. Why, where it is so before its time.
    Ending(Option<String>),
    /// The same, and the command goes on without.
    Over(Option<String>),
}

/// By which a deadline is told that its end has come before its time.
#[derive(Clone, Debug, Default)]
pub struct Recall(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The command has ended.
    done: bool,
    /// It is being looked whether the end has come.
    busy: bool,
    /// Why the end has come.
    why: Option<String>,
}

impl Recall {
    /// The end has come. It makes no difference any more once the command has ended.
    pub fn come(&self, why: String) {
        let mut state = self.lock();
        if !state.done {
            state.why = Some(why);
            self.0.changed.notify_all();
        }
    }

    /// Whether it has come.
    pub fn has_come(&self) -> bool {
        self.lock().why.is_some()
    }

    /// Waits for so long. Whether the command still runs, and the end has not come.
    pub fn rest(&self, nap: Duration) -> bool {
        let goes_on = |state: &mut State| !state.done && state.why.is_none();
        let waited = self.0.changed.wait_timeout_while(self.lock(), nap, goes_on);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        goes_on(&mut state)
    }

    /// Looks whether it has come, which is not cut short where it is but a moment.
    pub fn busy<T>(&self, look: impl FnOnce() -> T) -> T {
        self.lock().busy = true;
        let looked = look();
        self.lock().busy = false;
        self.0.changed.notify_all();
        looked
    }

    /// The command has ended. A look that is under way is waited for as long as this: what it
    /// renews on its way is to be kept.
    pub fn close(&self, patience: Duration) {
        let mut state = self.lock();
        state.done = true;
        self.0.changed.notify_all();
        // Whether it was in time, nobody could do anything about.
        drop(self.0.changed.wait_timeout_while(state, patience, |state| state.busy));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has come.
enum Come {
    /// So little is left as was waited for.
    Step,
    /// The end, before its time.
    Early(String),
    /// The command has ended.
    Done,
}

/// The end of what a command was started for.
pub struct Deadline<'a> {
    until: OffsetDateTime,
    on_expiry: OnExpiry,
    clock: Arc<dyn Clock>,
    /// What else goes on beside the command.
    inner: Option<&'a dyn Beside>,
    own: Reach,
    recall: Recall,
}

impl<'a> Deadline<'a> {
    /// The end, by this machine's clock, for a command beside which this goes on.
    pub fn new(
        until: OffsetDateTime,
        on_expiry: OnExpiry,
        clock: Arc<dyn Clock>,
        inner: Option<&'a dyn Beside>,
    ) -> Self {
        let (own, recall) = Default::default();
        Self { until, on_expiry, clock, inner, own, recall }
    }

    /// The same, which may be told by this that it comes before its time.
    #[must_use]
    pub fn recalled_by(self, recall: &Recall) -> Self {
        Self { recall: recall.clone(), ..self }
    }

    /// Waits for the end, tells when it comes near, and ends the command, until
    /// [`Self::close`].
    pub fn watch(&self, tell: impl Fn(Told)) {
        let begun = self.left();
        // What was past at the beginning need not be told.
        for step in STEPS.into_iter().filter(|step| *step < begun || step.is_zero()) {
            match self.comes_to(step) {
                Come::Done => return,
                Come::Step if step.is_zero() => return self.end(None, tell),
                Come::Step => tell(Told::Left(self.left())),
                Come::Early(why) => return self.end(Some(why), tell),
            }
        }
    }

    /// Waits until no more than this is left, or it is over anyway.
    fn comes_to(&self, step: Duration) -> Come {
        let mut state = self.recall.lock();
        while !state.done {
            if let Some(why) = &state.why {
                return Come::Early(why.clone());
            }
            let left = self.left();
            if left <= step {
                return Come::Step;
            }
            let waited = self.recall.0.changed.wait_timeout(state, (left - step).min(NAP));
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        Come::Done
    }

    fn end(&self, why: Option<String>, tell: impl Fn(Told)) {
        match self.on_expiry {
            OnExpiry::Warn => tell(Told::Over(why)),
            OnExpiry::Term => {
                // It may be about to start.
                while !self.reach().end(PATIENCE, || tell(Told::Ending(why.clone()))) && self.nap()
                {
                }
            }
        }
    }

    /// Waits for a moment. Whether the command still runs, or may start.
    fn nap(&self) -> bool {
        let goes_on = |state: &mut State| !state.done;
        let shared = &self.recall.0;
        let waited = shared.changed.wait_timeout_while(self.recall.lock(), SOON, goes_on);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        goes_on(&mut state)
    }

    /// The command has ended.
    pub fn close(&self) {
        self.recall.close(Duration::ZERO);
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
        let is_over = self.left().is_zero() || self.recall.has_come();
        self.inner.filter(|_| !is_over).and_then(Beside::again)
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
            let over = Told::Over(None);
            while !told.lock().unwrap().contains(&over) && on_expiry == OnExpiry::Warn {
                deadline.recall.0.changed.notify_all();
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
        assert_eq!((left.len(), told.last()), (3, Some(&Told::Over(None))), "{told:?}");
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
    fn what_ends_before_its_time_is_told_at_once_and_why() {
        let until = OffsetDateTime::UNIX_EPOCH + time::Duration::days(365);
        let recall = Recall::default();
        let deadline = Deadline::new(until, OnExpiry::Warn, Arc::new(Ticking::default()), None);
        let deadline = deadline.recalled_by(&recall);
        assert!(recall.rest(Duration::ZERO));
        recall.come("somebody revoked it".into());
        let told = Mutex::new(Vec::new());
        deadline.watch(|what| told.lock().unwrap().push(what));
        let why = Some("somebody revoked it".to_string());
        assert_eq!(told.into_inner().unwrap(), [Told::Over(why)]);
        assert!(recall.has_come() && !recall.rest(Duration::from_secs(60)));
        // After the command's end nothing is news.
        let late = Recall::default();
        late.close(Duration::ZERO);
        late.come("too late".into());
        assert!(!late.has_come() && !late.rest(Duration::from_secs(60)));
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
