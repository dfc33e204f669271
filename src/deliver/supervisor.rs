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

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

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
pub struct AtEnd<'a>(Option<Box<dyn FnOnce() + 'a>>);

impl<'a> AtEnd<'a> {
    /// This happens, once.
    pub fn doing(what: impl FnOnce() + 'a) -> Self {
        Self(Some(Box::new(what)))
    }
}

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        if let Some(what) = self.0.take() {
            what();
        }
    }
}

impl fmt::Debug for AtEnd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "AtEnd(something)" } else { "AtEnd(nothing)" })
    }
}

/// What goes on beside the command.
pub trait Beside {
    /// How the command is reached.
    fn reach(&self) -> &Reach;

    /// The command has ended. Where it was to be started again, with which credential.
    fn again(&self) -> Option<Credential>;
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
/// as far as these are not terminals and where there are pipes and signals of
/// Unix. What others write to them after the command's end, such as what it has
/// left in the background, is waited for half a second and no longer.
///
/// # Errors
///
/// Those of [`exec::replace`](super::exec::replace). However the command itself
/// ends, that is an [`Outcome`].
pub fn run(
    handout: &Handout<'_>,
    command: &[OsString],
    core: CoreLimit,
    masked: Option<Arc<Patterns>>,
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
mod unix {
    use std::io;
    use std::os::unix::process::CommandExt;
    use std::sync::{Arc, Mutex, PoisonError};

    use rustix::process::{
        Pid, Signal, WaitOptions, WaitStatus, getpgid, getpid, kill_process, kill_process_group,
        waitpid,
    };

    use super::super::exec::Prepared;
    use super::super::forward::{Received, Signals};
    use super::super::mask::Patterns;
    use super::super::reach::Reach;
    use super::super::relay::Relay;
    use super::super::terminal::Terminal;
    use super::{AtEnd, Beside, Outcome};
    use crate::credential::Credential;
    use crate::error::{Error, ErrorKind, Result};
    use crate::host::process::CoreLimit;
    use crate::host::process::signals::{Action, Undisturbed};

    /// Signals and the terminal belong to the whole process, so there is one
    /// supervisor at a time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    pub(super) fn run(
        mut prepared: Prepared,
        core: CoreLimit,
        masked: Option<Arc<Patterns>>,
        at_end: AtEnd<'_>,
        beside: Option<&dyn Beside>,
        again: &dyn Fn(&Credential) -> Result<Prepared>,
    ) -> Result<Outcome> {
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Place::here();
        let mut signals = Signals::listen().map_err(failed)?;
        // Dropped before the signals have their effect again.
        let _at_end = at_end;
        loop {
            let mut relay = match &masked {
                Some(masked) => {
                    Relay::between(&mut prepared.command, Arc::clone(masked)).map_err(failed)?
                }
                None => Relay::default(),
            };
            let reach = beside.map(Beside::reach);
            let child = Child::start(prepared, &place, &signals, core, reach)?;
            let outcome = child.attend(&mut signals, &mut relay)?;
            relay.drain(&mut signals).map_err(|cause| {
                Error::new(ErrorKind::Io, "cannot write the command's output").because(cause)
            })?;
            match beside.and_then(Beside::again) {
                Some(credential) => prepared = again(&credential)?,
                None => return Ok(outcome),
            }
        }
    }

    fn failed(cause: impl std::error::Error) -> Error {
        Error::new(ErrorKind::Io, "cannot supervise the command").because(cause)
    }

    /// Where the command belongs.
    enum Place {
        /// In a process group of its own, and in the foreground of this terminal
        /// whenever we would be.
        OwnGroup(Option<Terminal>),
        /// In our process group, with others.
        Among,
    }

    impl Place {
        fn here() -> Self {
            match Terminal::controlling() {
                Some(terminal) if !terminal.is_for_us_alone() => Self::Among,
                terminal => Self::OwnGroup(terminal),
            }
        }

        fn terminal(&self) -> Option<&Terminal> {
            match self {
                Self::OwnGroup(terminal) => terminal.as_ref(),
                Self::Among => None,
            }
        }
    }

    /// The running command. Its process, and the group of that number, exist
    /// until [`Child::attend`] has seen its end.
    struct Child<'a> {
        pid: Pid,
        place: &'a Place,
        reach: Option<&'a Reach>,
    }

    impl<'a> Child<'a> {
        fn start(
            mut prepared: Prepared,
            place: &'a Place,
            signals: &Signals,
            core: CoreLimit,
            reach: Option<&'a Reach>,
        ) -> Result<Self> {
            let foreground = match place.terminal() {
                Some(terminal) if terminal.is_ours() => Some(terminal),
                _ => None,
            };
            let own_group = matches!(place, Place::OwnGroup(_));
            if own_group {
                prepared.command.process_group(0);
            }
            // Until the command runs, nothing may disturb: a signal that arrives
            // in between is held back, and then has the effect on the command
            // that it has on any other program.
            let undisturbed = Undisturbed::begin().map_err(failed)?;
            let mask = undisturbed.before();
            let actions = signals.before();
            let terminal = foreground.map(Terminal::handle).transpose().map_err(failed)?;
            let parent = getpid();
            let setup = move || {
                // Here, and not in the parent as well: `spawn` returns when the
                // command runs, and by then it may have handed the terminal on.
                if let Some(terminal) = &terminal {
                    let _ = rustix::termios::tcsetpgrp(terminal, getpid());
                }
                die_with(parent)?;
                core.restore()?;
                for (signal, action) in &actions {
                    action.install(*signal)?;
                }
                mask.install()?;
                Ok(())
            };
            #[expect(unsafe_code, reason = "there is no safe way to act between fork and exec")]
            // SAFETY: all that runs in there are system calls on values that were
            // made before; nothing is allocated, locked or freed.
            unsafe {
                prepared.command.pre_exec(setup);
            }
            let started = prepared.command.spawn();
            drop(undisturbed);
            match started {
                Ok(child) => {
                    let pid = Pid::from_child(&child);
                    if let Some(reach) = reach {
                        reach.started(pid, own_group);
                    }
                    Ok(Self { pid, place, reach })
                }
                Err(cause) => {
                    // The terminal was handed to a group that died at once.
                    if let Some(terminal) = foreground {
                        terminal.take_back(None);
                    }
                    Err(prepared.cannot_start(cause))
                }
            }
        }

        /// Passes signals on until the command has ended.
        fn attend(self, signals: &mut Signals, relay: &mut Relay) -> Result<Outcome> {
            loop {
                relay.turn(signals.alarm()).map_err(failed)?;
                for received in signals.arrived() {
                    self.pass_on(&received);
                }
                while let Some(status) = self.news()? {
                    if let Some(outcome) = outcome_of(status) {
                        self.take_terminal();
                        return Ok(outcome);
                    }
                    if let Some(signal) = status.stopping_signal().and_then(Signal::from_named_raw)
                    {
                        self.stopped(signal, signals);
                    }
                }
            }
        }

        /// What has become of the command since it was last asked for.
        fn news(&self) -> Result<Option<WaitStatus>> {
            let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
            let look = || waitpid(Some(self.pid), options).map_err(failed);
            let ended = |status: WaitStatus| outcome_of(status).is_some();
            let news = match self.reach {
                Some(reach) => reach.look(look, |news| {
                    news.as_ref().is_ok_and(|news| news.is_some_and(|(_, status)| ended(status)))
                }),
                None => look(),
            };
            Ok(news?.map(|(_, status)| status))
        }

        fn pass_on(&self, received: &Received) {
            let signal = received.signal;
            if signal == Signal::CHILD {
                return;
            }
            if signal == Signal::CONT {
                return self.resume();
            }
            if let Some(reach) = self.reach
                && matches!(signal, Signal::INT | Signal::TERM | Signal::HUP | Signal::QUIT)
            {
                reach.ask_to_end();
            }
            let sender = received.sender.as_ref().map(|sender| sender.0);
            match self.place {
                Place::OwnGroup(_) => {
                    // What it sent to us, it could have sent to itself.
                    let group = sender.flatten().and_then(|pid| getpgid(Some(pid)).ok());
                    if group != Some(self.pid) {
                        self.signal(signal);
                    }
                }
                // From the kernel it has it already.
                Place::Among => {
                    if sender.is_some_and(|pid| pid != Some(self.pid)) {
                        self.signal(signal);
                    }
                }
            }
        }

        /// The command was stopped: by a key, by touching the terminal from the
        /// background, or by somebody. The same is to happen to us, so that the
        /// shell notices; and when we are continued, so is the command.
        fn stopped(&self, signal: Signal, signals: &mut Signals) {
            let by_terminal = signal == Signal::TTIN || signal == Signal::TTOU;
            if by_terminal && self.place.terminal().is_some_and(Terminal::is_ours) {
                // The shell brought us to the foreground while we were running,
                // of which nobody tells.
                return self.resume();
            }
            if self.catch_up(signals) {
                return self.resume();
            }
            self.take_terminal();
            stop_as_if_by(signal);
            // After a stop for the terminal's sake, only a signal says to go on:
            // where nobody could send it, the system has not stopped us, and the
            // command would only stop again.
            if self.catch_up(signals) || !by_terminal {
                self.resume();
            }
        }

        /// Passes on what has arrived so far, and tells whether a continuation
        /// was among it, which is left to the caller.
        fn catch_up(&self, signals: &mut Signals) -> bool {
            let (continuations, others): (Vec<_>, Vec<_>) =
                signals.arrived().into_iter().partition(|it| it.signal == Signal::CONT);
            for received in &others {
                self.pass_on(received);
            }
            !continuations.is_empty()
        }

        fn resume(&self) {
            if let Some(terminal) = self.place.terminal() {
                terminal.give(self.pid);
            }
            self.signal(Signal::CONT);
        }

        fn take_terminal(&self) {
            if let Some(terminal) = self.place.terminal() {
                terminal.take_back(Some(self.pid));
            }
        }

        /// Failing means that it has ended, which we are about to see.
        fn signal(&self, signal: Signal) {
            let _ = match self.place {
                Place::OwnGroup(_) => kill_process_group(self.pid, signal),
                Place::Among => kill_process(self.pid, signal),
            };
        }
    }

    fn outcome_of(status: WaitStatus) -> Option<Outcome> {
        if let Some(signal) = status.terminating_signal() {
            return Some(Outcome::Signalled(signal));
        }
        // The system keeps eight bits of it.
        status.exit_status().and_then(|code| u8::try_from(code).ok()).map(Outcome::Exited)
    }

    /// Stops this process by the default action of `signal`. Returns when it has
    /// been continued, or at once where the system does not stop it, because
    /// there is nobody who could continue it.
    fn stop_as_if_by(signal: Signal) {
        let number = signal.as_raw();
        // SIGSTOP has no action that could be replaced.
        let ours = Action::of(number).ok().filter(|_| signal != Signal::STOP);
        // Whoever had us ignore it does not want us stopped.
        let ours = ours.filter(|action| !action.is_ignored());
        if ours.is_some() {
            let _ = Action::default().install(number);
        }
        // Directed at this very thread, so that it takes effect before it returns.
        let _ = signal_hook::low_level::raise(number);
        if let Some(ours) = ours {
            let _ = ours.install(number);
        }
    }

    /// Has the system end this process by `SIGTERM` when its parent dies without
    /// having seen to it.
    #[cfg(target_os = "linux")]
    fn die_with(parent: Pid) -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        // It may have died before that. (It has no number where `unshare` put its
        // children into another process namespace.)
        match rustix::process::getppid() {
            Some(now) if now != parent => Err(rustix::io::Errno::SRCH.into()),
            _ => Ok(()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn die_with(_: Pid) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
