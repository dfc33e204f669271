//! The way out of `exec` where something has to happen beside the command or
//! after it: the command runs as a child, and this process stays with it until
//! it ends.
//!
//! For the command, the shell and whoever sends signals it is to make no
//! difference. How that is done depends on where we run:
//!
//! - *No terminal* (CI, a service): the command gets a process group of its own,
//!   and signals that reach us are passed on to that group.
//! - *A terminal, and we are a job of our own* in a shell: the same, and while we
//!   are in the foreground the command's group is put there in our place. So it
//!   gets Ctrl-C, Ctrl-\, Ctrl-Z and changes of the window size from the
//!   terminal, once, and we do not. When it stops, so do we, for the shell to see
//!   it; when we are continued, so is it.
//! - *A terminal, and others are in our process group* (a pipeline, a script):
//!   taking the terminal for the command would take it from them. So the command
//!   stays in the group, where the terminal reaches it by itself; only what a
//!   process sends to us is passed on, and to the command alone, as it would be
//!   without us.
//! - *Output that is to be masked goes to a terminal*: the command gets a terminal
//!   of its own, and so a session and a group. We stay in the foreground of ours
//!   and pass on what is typed there, signals, stops and the size of the window.

#[cfg(unix)]
use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::exec::Prepared;
use super::mask::Patterns;
use super::reach::Reach;
use super::{Handout, Outcome};
use crate::credential::Credential;
use crate::error::Result;
use crate::host::process::CoreLimit;

/// What happens once the command has ended, however it ended, and where it could
/// not even be started. Signals that arrive meanwhile do not end this process, so
/// it must not take long.
#[derive(Default)]
pub struct AtEnd<'a> {
    what: Option<Box<dyn FnOnce() + 'a>>,
    /// Dropped after that was done.
    #[cfg(unix)]
    attention: Option<unix::Attention>,
}

impl<'a> AtEnd<'a> {
    /// This happens, once.
    pub fn doing(what: impl FnOnce() + 'a) -> Self {
        Self {
            what: Some(Box::new(what)),
            #[cfg(unix)]
            attention: None,
        }
    }

    /// The same, also where a signal arrives before the command runs: from now on that
    /// ends this process no more, and the command is not started.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io)
    pub fn heeding(what: impl FnOnce() + 'a) -> Result<Self> {
        // It is to happen in any case.
        let mut at_end = Self::doing(what);
        at_end.heed()?;
        Ok(at_end)
    }

    /// From now on signals are heeded, as with [`AtEnd::heeding`].
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io)
    pub fn heed(&mut self) -> Result<()> {
        #[cfg(unix)]
        if self.attention.is_none() {
            self.attention = Some(unix::Attention::begin()?);
        }
        Ok(())
    }

    /// Does something before the command runs, which may take long. A signal by which this
    /// process is to end is heeded at once: nobody waits for what is done any more, unless that
    /// happens at the end, and it ends with this process.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) where it cannot be waited for.
    pub fn meanwhile<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Meanwhile<T>> {
        #[cfg(unix)]
        if let Some(attention) = &mut self.attention {
            return attention.meanwhile(work);
        }
        Ok(Meanwhile::Done(work()))
    }
}

/// Keeps signals from ending this process while something begins that has to be ended with it.
#[derive(Default)]
pub struct Beginning {
    #[cfg(unix)]
    attention: RefCell<Option<unix::Attention>>,
}

impl Beginning {
    /// It begins: from now on a signal ends this process no more, and waits.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io)
    pub fn enter(&self) -> Result<()> {
        #[cfg(unix)]
        {
            let mut attention = self.attention.borrow_mut();
            if attention.is_none() {
                *attention = Some(unix::Attention::begin()?);
            }
        }
        Ok(())
    }

    /// Nothing has begun: a signal ends this process as ever, and so does one that has waited.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io)
    pub fn leave(&self) -> Result<()> {
        #[cfg(unix)]
        if let Some(attention) = self.attention.borrow_mut().take() {
            attention.resign()?;
        }
        Ok(())
    }

    /// It has begun, or never will: from now on this happens at the end. Signals that have waited
    /// are heeded then.
    pub fn ending<'a>(self, what: impl FnOnce() + 'a) -> AtEnd<'a> {
        AtEnd {
            what: Some(Box::new(what)),
            #[cfg(unix)]
            attention: self.attention.into_inner(),
        }
    }
}

impl fmt::Debug for Beginning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Beginning")
    }
}

/// What came of something that was done before the command.
#[derive(Debug)]
pub enum Meanwhile<T> {
    /// It was done.
    Done(T),
    /// This process is to end, like this.
    ToldToEnd(Outcome),
}

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        if let Some(what) = self.what.take() {
            what();
        }
    }
}

impl fmt::Debug for AtEnd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.what.is_some() { "AtEnd(something)" } else { "AtEnd(nothing)" })
    }
}

/// What goes on beside the command.
pub trait Beside: Sync {
    /// How the command is reached.
    fn reach(&self) -> &Reach;

    /// The command has ended. Where it was to be started again, with which credential.
    fn again(&self) -> Option<Credential>;
}

/// What is masked in the command's output.
#[derive(Clone, Debug)]
pub struct Masking {
    /// What is replaced.
    pub patterns: Arc<Patterns>,
    /// How long is read on after the command's end, from what it has left behind with its output.
    pub afterwards: Duration,
}

impl Masking {
    /// This is replaced. What is left behind is waited for half a second.
    pub fn of(patterns: Arc<Patterns>) -> Self {
        Self { patterns, afterwards: Duration::from_millis(500) }
    }
}

/// Runs the command and waits until it has ended. Blocks the calling thread; it
/// needs no runtime, and one may run in other threads.
///
/// The command is found and started as by [`exec::replace`](super::exec::replace).
/// On Linux it gets `SIGTERM` if this process is killed. The system takes the end
/// of the calling thread for that, but the thread is in here until the command
/// has ended.
///
/// What `masked` describes is replaced in the command's standard output and error,
/// where there are pipes, terminals and signals of Unix. What others write to them after the command's end, such as what it has
/// left in the background, is waited for as long as that says and no longer.
///
/// # Errors
///
/// Those of [`exec::replace`](super::exec::replace). However the command itself
/// ends, that is an [`Outcome`].
pub fn run(
    handout: &Handout<'_>,
    command: &[OsString],
    core: CoreLimit,
    masked: Option<Masking>,
    at_end: AtEnd<'_>,
    beside: Option<&dyn Beside>,
) -> Result<Outcome> {
    let prepared = Prepared::new(handout, command)?;
    #[cfg(unix)]
    {
        let again =
            |credential: &Credential| Prepared::new(&Handout { credential, ..*handout }, command);
        unix::run(prepared, core, masked, at_end, beside, &again)
    }
    #[cfg(not(unix))]
    {
        let _ = (core, masked, beside);
        let mut prepared = prepared;
        let outcome = prepared.run();
        drop(at_end);
        outcome
    }
}

#[cfg(unix)]
mod unix;

#[cfg(test)]
#[cfg(unix)]
mod tests;
