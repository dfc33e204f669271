//! Where there are process groups, signals and terminals.

use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_current_process_group, kill_process,
    kill_process_group, waitpid,
};

use super::super::exec::Prepared;
use super::super::forward::{Received, Signals};
use super::super::monitor::{Entrance, Monitor, News, die_with, dismiss};
use super::super::reach::Reach;
use super::super::relay::Relay;
use super::super::terminal::Terminal;
use super::{AtEnd, Beside, Masking, Meanwhile, Outcome};
use crate::credential::Credential;
use crate::error::{Error, ErrorKind, Result};
use crate::host::process::CoreLimit;
use crate::host::process::groups::group_of;
use crate::host::process::orphans;
use crate::host::process::signals::{Action, Undisturbed};

/// Signals and the terminal belong to the whole process, so there is one
/// supervisor at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// This process is about to supervise a command: signals do not end it, and wait.
pub(super) struct Attention {
    // Dropped before somebody else's turn.
    signals: Signals,
    _one: MutexGuard<'static, ()>,
}

impl Attention {
    pub(super) fn begin() -> Result<Self> {
        let one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Self { signals: Signals::listen().map_err(failed)?, _one: one })
    }

    /// Supervises nothing after all. What somebody sent meanwhile, for this process to end, has its
    /// effect.
    pub(super) fn resign(self) -> Result<()> {
        let Self { signals, _one: one } = self;
        let told = signals.resign();
        drop(one);
        told.map_or(Ok(()), |signal| kill_process(getpid(), signal).map_err(failed))
    }

    /// Does something until it is done, or somebody wants this process to end.
    pub(super) fn meanwhile<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Meanwhile<T>> {
        // It is not begun in vain: it may ask somebody for something.
        if let Some(signal) = self.signals.told_to_end() {
            return Ok(Meanwhile::ToldToEnd(Outcome::Signalled(signal.as_raw())));
        }
        let (here, there) = UnixStream::pair().map_err(failed)?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            // Nobody may wait for it any more.
            let _ = sender.send(work());
            drop(there);
        });
        loop {
            if let Some(signal) = self.signals.told_to_end() {
                return Ok(Meanwhile::ToldToEnd(Outcome::Signalled(signal.as_raw())));
            }
            match receiver.try_recv() {
                Ok(done) => return Ok(Meanwhile::Done(done)),
                Err(mpsc::TryRecvError::Empty) => {}
                Err(cause @ mpsc::TryRecvError::Disconnected) => return Err(failed(cause)),
            }
            let alarm = self.signals.alarm();
            let mut arrives =
                [PollFd::new(&alarm, PollFlags::IN), PollFd::new(&here, PollFlags::IN)];
            match poll(&mut arrives, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(cause) => return Err(failed(cause)),
            }
        }
    }
}

pub(super) fn run(
    mut prepared: Prepared,
    core: CoreLimit,
    masked: Option<Masking>,
    mut at_end: AtEnd<'_>,
    beside: Option<&dyn Beside>,
    again: &dyn Fn(&Credential) -> Result<Prepared>,
) -> Result<Outcome> {
    let mut attention = match at_end.attention.take() {
        Some(attention) => attention,
        None => Attention::begin()?,
    };
    // Dropped before the signals have their effect again.
    let _at_end = at_end;
    let signals = &mut attention.signals;
    if let Some(signal) = signals.told_to_end() {
        return Ok(Outcome::Signalled(signal.as_raw()));
    }
    loop {
        let mut relay = match &masked {
            Some(masked) => Relay::between(&mut prepared.command, masked).map_err(failed)?,
            None => Relay::default(),
        };
        let place = if relay.screen().is_some() { Place::Apart } else { Place::here() };
        let reach = beside.map(Beside::reach);
        let child = Child::start(prepared, &place, signals, &mut relay, core, reach)?;
        let outcome = child.attend(signals, &mut relay)?;
        relay.drain(signals).map_err(|cause| {
            Error::new(ErrorKind::Io, "cannot write the command's output").because(cause)
        })?;
        // Whoever told us to end since the command did wants no other one.
        let goes_on = signals.told_to_end().is_none();
        match beside.filter(|_| goes_on).and_then(Beside::again) {
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
    /// In a session of its own, with another terminal.
    Apart,
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
            Self::Among | Self::Apart => None,
        }
    }
}

/// The running command. Its process, and the group of that number, exist
/// until [`Child::attend`] has seen its end. (Where it is apart, the end is told
/// when it has been seen; the number does not come up again that soon.)
struct Child<'a> {
    pid: Pid,
    place: &'a Place,
    reach: Option<&'a Reach>,
    /// Our own child, where the command is not.
    monitor: Option<(Pid, Monitor)>,
}

impl<'a> Child<'a> {
    fn start(
        mut prepared: Prepared,
        place: &'a Place,
        signals: &Signals,
        relay: &mut Relay,
        core: CoreLimit,
        reach: Option<&'a Reach>,
    ) -> Result<Self> {
        let foreground = match place.terminal() {
            Some(terminal) if terminal.is_ours() => Some(terminal),
            _ => None,
        };
        if matches!(place, Place::OwnGroup(_)) {
            prepared.command.process_group(0);
        }
        let (entrance, monitor) = entrance(relay).map_err(failed)?.unzip();
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
            match &entrance {
                Some(entrance) => entrance.enter()?,
                None => die_with(parent, Signal::TERM)?,
            }
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
        let started = match started {
            Ok(child) => Pid::from_child(&child),
            Err(cause) => {
                // The terminal was handed to a group that died at once.
                if let Some(terminal) = foreground {
                    terminal.take_back(None);
                }
                return Err(prepared.cannot_start(cause));
            }
        };
        let mut child = Self { pid: started, place, reach, monitor: None };
        let Some(mut monitor) = monitor else {
            child.is_reachable();
            return Ok(child);
        };
        child.pid = monitor.command().map_err(failed)?;
        if let Some(screen) = relay.screen() {
            screen.shows(child.pid);
        }
        child.monitor = Some((started, monitor));
        child.is_reachable();
        Ok(child)
    }

    /// What goes on beside the command may reach it from now on.
    fn is_reachable(&self) {
        if let Some(reach) = self.reach {
            reach.started(self.pid, matches!(self.place, Place::OwnGroup(_) | Place::Apart));
        }
    }

    /// Passes signals on until the command has ended.
    fn attend(mut self, signals: &mut Signals, relay: &mut Relay) -> Result<Outcome> {
        for received in signals.early() {
            self.pass_on(&received, relay);
        }
        let adopts = orphans::come_here();
        loop {
            let line = self.monitor.as_ref().map(|(_, monitor)| monitor.line());
            let alarms: Vec<_> = [signals.alarm()].into_iter().chain(line).collect();
            relay.turn(&alarms).map_err(failed)?;
            for received in signals.arrived() {
                self.pass_on(&received, relay);
            }
            while let Some(news) = self.news()? {
                match news {
                    News::Ended(outcome) => {
                        self.end(relay)?;
                        return Ok(outcome);
                    }
                    News::Stopped(signal) => self.stopped(signal, signals, relay)?,
                }
            }
            if adopts {
                let monitor = self.monitor.as_ref().map_or(self.pid, |(monitor, _)| *monitor);
                orphans::reap(&[self.pid, monitor]);
            }
        }
    }

    /// What has become of the command since it was last asked for.
    fn news(&mut self) -> Result<Option<News>> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        let monitor = self.monitor.as_mut();
        let mut look = || match monitor {
            Some((_, monitor)) => monitor.news().map_err(failed),
            None => {
                let news = waitpid(Some(self.pid), options).map_err(failed)?;
                Ok(news.and_then(|(_, status)| news_of(status)))
            }
        };
        match self.reach {
            Some(reach) => reach.look(look, |news| matches!(news, Ok(Some(News::Ended(_))))),
            None => look(),
        }
    }

    fn end(&self, relay: &mut Relay) -> Result<()> {
        self.take_terminal();
        relay.flush().map_err(failed)?;
        if let Some(screen) = relay.screen() {
            screen.let_go();
        }
        Ok(())
    }

    fn pass_on(&mut self, received: &Received, relay: &mut Relay) {
        let signal = received.signal;
        if signal == Signal::CHILD {
            return;
        }
        if signal == Signal::CONT {
            if let Some(screen) = relay.screen() {
                screen.was_away();
            }
            return self.resume(relay);
        }
        if let Some(reach) = self.reach
            && matches!(signal, Signal::INT | Signal::TERM | Signal::HUP | Signal::QUIT)
        {
            reach.ask_to_end(signal);
        }
        let sender = received.sender.as_ref().map(|sender| sender.0);
        if signal == Signal::WINCH
            && let Some(screen) = relay.screen()
        {
            screen.resize();
            if sender.is_none() && screen.reaches(self.pid) {
                return;
            }
        }
        match self.place {
            Place::OwnGroup(_) | Place::Apart => {
                let sender = sender.flatten();
                // What it sent to us, it could have sent to itself.
                let group = sender.and_then(group_of);
                // Ours have come to it by its terminal.
                if group != Some(self.pid) && sender != Some(getpid()) {
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
    fn stopped(&mut self, signal: Signal, signals: &mut Signals, relay: &mut Relay) -> Result<()> {
        let by_terminal = signal == Signal::TTIN || signal == Signal::TTOU;
        let ours = match relay.screen() {
            Some(screen) => by_terminal && screen.must_ask() && screen.is_ours(),
            None => self.place.terminal().is_some_and(Terminal::is_ours),
        };
        if by_terminal && ours {
            // The shell brought us to the foreground while we were running,
            // of which nobody tells.
            self.resume(relay);
            return Ok(());
        }
        relay.flush().map_err(failed)?;
        if let Some(screen) = relay.screen() {
            screen.let_go();
        }
        if self.catch_up(signals, relay) {
            self.resume(relay);
            return Ok(());
        }
        self.take_terminal();
        if by_terminal && matches!(self.place, Place::Apart) {
            stop_others_by(signal);
        }
        stop_as_if_by(signal);
        // After a stop for the terminal's sake, only a signal says to go on:
        // where nobody could send it, the system has not stopped us, and the
        // command would only stop again.
        if self.catch_up(signals, relay) || !by_terminal {
            self.resume(relay);
        }
        Ok(())
    }

    /// Passes on what has arrived so far, and tells whether a continuation
    /// was among it, which is left to the caller.
    fn catch_up(&mut self, signals: &mut Signals, relay: &mut Relay) -> bool {
        let (continuations, others): (Vec<_>, Vec<_>) =
            signals.arrived().into_iter().partition(|it| it.signal == Signal::CONT);
        for received in &others {
            self.pass_on(received, relay);
        }
        !continuations.is_empty()
    }

    fn resume(&mut self, relay: &mut Relay) {
        if let Some(terminal) = self.place.terminal() {
            terminal.give(self.pid);
        }
        match (&mut self.monitor, relay.screen()) {
            (Some((_, monitor)), Some(screen)) if monitor.waits() => {
                monitor.goes_on(screen.ground());
            }
            _ => self.signal(Signal::CONT),
        }
    }

    fn take_terminal(&self) {
        if let Some(terminal) = self.place.terminal() {
            terminal.take_back(Some(self.pid));
        }
    }

    /// Failing means that it has ended, which we are about to see.
    fn signal(&self, signal: Signal) {
        let _ = match self.place {
            Place::OwnGroup(_) | Place::Apart => kill_process_group(self.pid, signal),
            Place::Among => kill_process(self.pid, signal),
        };
    }
}

impl Drop for Child<'_> {
    fn drop(&mut self) {
        if let Some((monitor, _)) = self.monitor {
            dismiss(monitor);
        }
    }
}

/// How the command comes into its own terminal, where it gets one.
fn entrance(relay: &mut Relay) -> io::Result<Option<(Entrance, Monitor)>> {
    let Some(screen) = relay.screen() else { return Ok(None) };
    let inner = screen.take_inner()?;
    Monitor::of(inner, screen.ground()).map(Some)
}

fn news_of(status: WaitStatus) -> Option<News> {
    if let Some(signal) = status.terminating_signal() {
        return Some(News::Ended(Outcome::Signalled(signal)));
    }
    if let Some(signal) = status.stopping_signal() {
        return Signal::from_named_raw(signal).map(News::Stopped);
    }
    // The system keeps eight bits of it.
    let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
    code.map(|code| News::Ended(Outcome::Exited(code)))
}

/// The system would have stopped all who are in our group.
fn stop_others_by(signal: Signal) {
    if let Ok(before) = Action::ignoring().install(signal.as_raw()) {
        let _ = kill_current_process_group(signal);
        let _ = before.install(signal.as_raw());
    }
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
