//! What this process does about signals: actions and masks.
//!
//! Everything here but [`Told`] is async-signal-safe, and so may be called between `fork`
//! and `execve`.

use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// What happens when a signal arrives.
#[derive(Clone, Copy)]
pub struct Action(libc::sigaction);

impl Default for Action {
    /// The system's default for that signal.
    fn default() -> Self {
        #[expect(unsafe_code, reason = "a C structure that the system defines as starting at zero")]
        // SAFETY: integers, an integer set and an optional pointer: all zeroes
        // are valid, and mean the default action, no flags and an empty mask.
        Self(unsafe { MaybeUninit::zeroed().assume_init() })
    }
}

impl Action {
    /// The signal has no effect.
    pub fn ignoring() -> Self {
        let mut action = Self::default();
        action.0.sa_sigaction = libc::SIG_IGN;
        action
    }

    /// The signal is told of, see [`Told`].
    fn telling() -> Self {
        let mut action = Self::default();
        action.0.sa_sigaction = tell as *const () as libc::sighandler_t;
        action
    }

    /// The action that is in force.
    pub fn of(signal: i32) -> io::Result<Self> {
        exchange(signal, None)
    }

    /// Puts this action in force and yields the one that was.
    pub fn install(self, signal: i32) -> io::Result<Self> {
        exchange(signal, Some(&self))
    }

    /// Whether it is the system's default.
    pub fn is_default(&self) -> bool {
        self.0.sa_sigaction == libc::SIG_DFL
    }

    /// Whether the signal has no effect.
    pub fn is_ignored(&self) -> bool {
        self.0.sa_sigaction == libc::SIG_IGN
    }
}

#[expect(unsafe_code, reason = "no safe wrapper can restore or ask for an action")]
fn exchange(signal: i32, new: Option<&Action>) -> io::Result<Action> {
    let mut old = Action::default();
    let new = new.map_or(ptr::null(), |action| ptr::from_ref(&action.0));
    // SAFETY: both pointers are valid for the call or null. A new action is the
    // default, none, one that was in force before, whose handler therefore exists, or `tell`,
    // which takes what a handler gets and does nothing that a handler may not do.
    match unsafe { libc::sigaction(signal, new, &raw mut old.0) } {
        0 => Ok(old),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where signals are told of: read at the one end, written at the other. It stays for as long
/// as the process does, so that a handler that is late finds it.
static TOLD: OnceLock<(UnixStream, UnixStream)> = OnceLock::new();

/// A handler, which may do little: it writes the signal's number, without waiting.
extern "C" fn tell(signal: i32) {
    if let (Some((_, write)), Ok(signal)) = (TOLD.get(), u8::try_from(signal)) {
        // Where so many wait that there is no room, whoever reads has enough to do.
        let _ = rustix::io::write(write, &[signal]);
    }
}

/// Signals that are told of in place of having an effect, whichever thread takes them, until
/// this is dropped. For one who has to put something in order before a signal has its effect,
/// and then [raises](signal_hook::low_level::raise) it.
///
/// (Not by `signal_hook`, which takes a signal for good: what it puts in place of the default
/// action is in force ever after.)
pub struct Told {
    before: Vec<(i32, Action)>,
    // One at a time: what is told is told once.
    _alone: MutexGuard<'static, ()>,
}

impl Told {
    /// From now on, but for those that have no effect.
    pub fn of(signals: &[i32]) -> io::Result<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        if TOLD.get().is_none() {
            let pair = UnixStream::pair()?;
            pair.0.set_nonblocking(true)?;
            pair.1.set_nonblocking(true)?;
            let _ = TOLD.set(pair);
        }
        let mut told = Self { before: Vec::new(), _alone: alone };
        for &signal in signals {
            let before = Action::of(signal)?;
            if !before.is_ignored() {
                Action::telling().install(signal)?;
                told.before.push((signal, before));
            }
        }
        Ok(told)
    }

    /// Can be read from when a signal has come.
    pub fn alarm(&self) -> BorrowedFd<'_> {
        pair().0.as_fd()
    }

    /// Signals have their effect again. Yields those that have come until then, in no order: the
    /// system may have handlers begin one amid another. What another thread tells even later, the
    /// next one is told.
    pub fn end(mut self) -> Vec<i32> {
        self.put_back();
        std::iter::from_fn(arrived).collect()
    }

    fn put_back(&mut self) {
        for (signal, before) in self.before.drain(..) {
            // Cannot fail: the action was one before.
            let _ = before.install(signal);
        }
    }
}

/// The next signal that has come, without waiting.
fn arrived() -> Option<i32> {
    let mut signal = [0];
    let count = (&pair().0).read(&mut signal).ok()?;
    (count == 1).then(|| i32::from(signal[0]))
}

#[expect(clippy::expect_used, reason = "`Told::of` has made it, and nothing takes it away")]
fn pair() -> &'static (UnixStream, UnixStream) {
    TOLD.get().expect("somebody is told")
}

impl Drop for Told {
    fn drop(&mut self) {
        self.put_back();
    }
}

/// A set of signals that a thread does not take for now.
#[derive(Clone, Copy)]
pub struct Mask(libc::sigset_t);

impl Mask {
    /// Takes every signal.
    pub fn empty() -> Self {
        Self::made_by(|set| {
            #[expect(unsafe_code, reason = "fills a C structure")]
            // SAFETY: the pointer is valid; the call sets the whole structure.
            unsafe {
                libc::sigemptyset(set);
            }
        })
    }

    /// Takes none, but for those that cannot be refused.
    pub fn full() -> Self {
        Self::made_by(|set| {
            #[expect(unsafe_code, reason = "fills a C structure")]
            // SAFETY: the pointer is valid; the call sets the whole structure.
            unsafe {
                libc::sigfillset(set);
            }
        })
    }

    /// Does not take this signal either.
    fn without(mut self, signal: i32) -> Self {
        #[expect(unsafe_code, reason = "changes a C structure")]
        // SAFETY: the pointer is valid, and the set was initialized.
        unsafe {
            libc::sigaddset(&raw mut self.0, signal);
        }
        self
    }

    fn made_by(fill: impl FnOnce(*mut libc::sigset_t)) -> Self {
        let mut set = MaybeUninit::zeroed();
        fill(set.as_mut_ptr());
        #[expect(unsafe_code, reason = "a C structure of integers")]
        // SAFETY: it consists of integers, was zeroed and then filled.
        Self(unsafe { set.assume_init() })
    }

    /// Makes this the mask of the calling thread, and yields the one that was.
    pub fn install(self) -> io::Result<Self> {
        let mut old = Self::empty();
        #[expect(unsafe_code, reason = "no safe wrapper at hand")]
        // SAFETY: both pointers are valid for the call.
        match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, &raw mut old.0) }
        {
            0 => Ok(old),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// Keeps all signals away from the calling thread until it is dropped. What
/// arrives meanwhile is not lost: another thread takes it, or this one later.
pub struct Undisturbed {
    before: Mask,
    // A mask belongs to its thread.
    _here: std::marker::PhantomData<*const ()>,
}

impl Undisturbed {
    /// From now on.
    pub fn begin() -> io::Result<Self> {
        let before = Mask::full().install()?;
        Ok(Self { before, _here: std::marker::PhantomData })
    }

    /// From now on by these signals, and goes on to take others.
    pub fn by(signals: &[i32]) -> io::Result<Self> {
        let undisturbed = Self::begin()?;
        signals.iter().fold(undisturbed.before, |mask, signal| mask.without(*signal)).install()?;
        Ok(undisturbed)
    }

    /// The mask that was, and will be again.
    pub fn before(&self) -> Mask {
        self.before
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        // Cannot fail: the mask was one before.
        let _ = self.before.install();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_can_be_asked_for_and_put_back() {
        // No test uses this signal.
        let signal = libc::SIGURG;
        assert!(Action::of(signal).unwrap().is_default());
        let before = Action::default().install(signal).unwrap();
        assert!(before.is_default() && !before.is_ignored());
        // Rust ignores SIGPIPE from the start.
        assert!(Action::of(libc::SIGPIPE).unwrap().is_ignored());
        assert!(Action::default().install(libc::SIGKILL).is_err());
    }

    #[test]
    fn signals_that_are_told_of_have_no_effect_until_that_is_over() {
        // No other test uses these. The second one is ignored, and stays so.
        let [one, other] = [libc::SIGXCPU, libc::SIGXFSZ];
        Action::ignoring().install(other).unwrap();
        let told = Told::of(&[one, other]).unwrap();
        signal_hook::low_level::raise(one).unwrap();
        signal_hook::low_level::raise(other).unwrap();
        std::thread::spawn(move || signal_hook::low_level::raise(one).unwrap()).join().unwrap();
        assert_eq!(told.end(), [one, one]);
        assert!(Action::of(one).unwrap().is_default() && Action::of(other).unwrap().is_ignored());
        // Whoever does not ask leaves what has come to the next.
        let told = Told::of(&[one]).unwrap();
        signal_hook::low_level::raise(one).unwrap();
        drop(told);
        assert!(Action::of(one).unwrap().is_default());
        assert_eq!(Told::of(&[one]).unwrap().end(), [one]);
        assert!(Told::of(&[one]).unwrap().end().is_empty());
        Action::default().install(other).unwrap();
    }

    #[test]
    fn a_thread_can_be_left_undisturbed_for_a_while() {
        let is_blocked = |signal| {
            let now = Mask::empty().install().unwrap();
            now.install().unwrap();
            #[expect(unsafe_code, reason = "asks a C structure")]
            // SAFETY: the pointer is valid for the call.
            let blocked = unsafe { libc::sigismember(&raw const now.0, signal) };
            blocked == 1
        };
        let [one, other] = [libc::SIGUSR1, libc::SIGUSR2];
        assert!(!is_blocked(one));
        let undisturbed = Undisturbed::begin().unwrap();
        assert!(is_blocked(one) && is_blocked(other));
        drop(undisturbed);
        assert!(!is_blocked(one));
        let outer = Undisturbed::by(&[other]).unwrap();
        let inner = Undisturbed::by(&[one]).unwrap();
        assert!(is_blocked(one) && is_blocked(other));
        drop(inner);
        assert!(!is_blocked(one) && is_blocked(other));
        drop(outer);
        assert!(!is_blocked(other));
    }
}
