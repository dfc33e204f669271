//! The signals that the supervisor takes on behalf of the command.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::process::{Pid, Signal};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::exfiltrator::origin::Origin;
use signal_hook::low_level::siginfo::{Cause, Process};

use crate::host::process::signals::{Action, Undisturbed};

/// What is passed on to the command.
const FORWARDED: &[Signal] = &[
    Signal::INT,
    Signal::TERM,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::TSTP,
    Signal::CONT,
];

/// Nobody supervises: each signal that was taken has its default effect again.
///
/// Actions belong to the process, and a handler that was once installed stays;
/// so does this.
fn nobody_supervises() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

/// Receives signals for as long as it lives. Those that were ignored when it
/// began stay ignored, here and in the command: whoever started us wanted that,
/// as `nohup` does.
pub(super) struct Signals {
    queue: SignalDelivery<UnixStream, WithOrigin>,
    /// What the command must find: the actions as they were.
    before: Vec<(i32, Action)>,
    /// What arrived before there was a command.
    early: Vec<Received>,
}

/// A signal that arrived.
pub(super) struct Received {
    pub(super) signal: Signal,
    /// The process that sent it; `None` where the kernel did, as it does for the
    /// keys of a terminal.
    pub(super) sender: Option<Sender>,
}

/// Who sent a signal. A process outside of our container has no number here.
pub(super) struct Sender(pub(super) Option<Pid>);

impl Signals {
    /// Begins to receive. Done before the command is started, so that nothing is
    /// lost in between.
    pub(super) fn listen() -> io::Result<Self> {
        let mut before = Vec::new();
        let mut defaults = Vec::new();
        for signal in FORWARDED.iter().map(|signal| signal.as_raw()) {
            let action = Action::of(signal)?;
            if action.is_ignored() {
                continue;
            }
            if action.is_default() {
                defaults.push(signal);
            }
            before.push((signal, Action::default()));
        }
        let child = Signal::CHILD.as_raw();
        let action = Action::of(child)?;
        before.push((child, if action.is_ignored() { action } else { Action::default() }));
        let (read, write) = UnixStream::pair()?;
        let all = before.iter().map(|(signal, _)| *signal);
        let queue = SignalDelivery::with_pipe(read, write, WithOrigin::default(), all)?;
        let idle = nobody_supervises();
        idle.store(false, Ordering::SeqCst);
        for signal in defaults {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(idle))?;
        }
        Ok(Self { queue, before, early: Vec::new() })
    }

    /// What the command must find.
    pub(super) fn before(&self) -> Vec<(i32, Action)> {
        self.before.clone()
    }

    /// Can be read from when something has arrived.
    pub(super) fn alarm(&self) -> BorrowedFd<'_> {
        self.queue.get_read().as_fd()
    }

    /// What has arrived, without waiting.
    pub(super) fn arrived(&mut self) -> Vec<Received> {
        self.queue.pending().filter_map(received).collect()
    }

    /// What arrived before there was a command, once.
    pub(super) fn early(&mut self) -> Vec<Received> {
        std::mem::take(&mut self.early)
    }

    /// The signal by which somebody wants this process to end, before there is a command.
    pub(super) fn told_to_end(&mut self) -> Option<Signal> {
        const ENDS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
        let arrived = self.arrived();
        self.early.extend(arrived);
        self.early.iter().map(|received| received.signal).find(|signal| ENDS.contains(signal))
    }

    /// Receives no more. The signal by which somebody wanted this process to end meanwhile.
    pub(super) fn resign(mut self) -> Option<Signal> {
        // What comes from here on has its effect by itself.
        nobody_supervises().store(true, Ordering::SeqCst);
        self.told_to_end()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // What was sent while somebody supervised may still wait for another thread to take
        // it: whoever lets signals in again takes what waits.
        drop(Undisturbed::begin());
        nobody_supervises().store(true, Ordering::SeqCst);
    }
}

fn received(origin: Origin) -> Option<Received> {
    let signal = Signal::from_named_raw(origin.signal)?;
    let pid = origin.process.and_then(|Process { pid, .. }| Pid::from_raw(pid));
    // Some systems say who, others how.
    let sent = pid.is_some() || matches!(origin.cause, Cause::Sent(_));
    Some(Received { signal, sender: sent.then_some(Sender(pid)) })
}
