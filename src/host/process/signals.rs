//! What this process does about signals: actions and masks.
//!
//! Everything here is async-signal-safe, and so may be called between `fork`
//! and `execve`.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

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
    // default, none, or one that was in force before, whose handler therefore exists.
    match unsafe { libc::sigaction(signal, new, &raw mut old.0) } {
        0 => Ok(old),
        _ => Err(io::Error::last_os_error()),
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
