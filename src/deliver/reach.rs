//! How what goes on beside a command reaches it.

#[cfg(unix)]
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
#[cfg(unix)]
use std::time::Instant;

#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// The way to a command, for as long as it runs. A number that the system may have
/// given to somebody else meanwhile is never used.
#[derive(Debug, Default)]
pub struct Reach {
    #[cfg(unix)]
    state: Mutex<State>,
    #[cfg(unix)]
    ended: Condvar,
}

#[cfg(unix)]
#[derive(Debug, Default)]
struct State {
    command: Option<Command>,
    /// How often a command was started.
    starts: u64,
    /// Somebody wants the command to end.
    asked: Option<Asked>,
}

/// That somebody has sent the command a signal by which commands end.
#[cfg(unix)]
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// It was `SIGTERM`, which means nothing else. Of the other ones many commands make
    /// something of their own, and live on.
    for_good: bool,
    at: Instant,
}

#[cfg(unix)]
#[derive(Clone, Copy, Debug)]
struct Command {
    pid: Pid,
    own_group: bool,
}

#[cfg(unix)]
impl Reach {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The command runs. Its number is its own until `look` has seen its end.
    pub(super) fn started(&self, pid: Pid, own_group: bool) {
        let mut state = self.lock();
        let starts = state.starts + 1;
        *state = State { command: Some(Command { pid, own_group }), starts, asked: None };
    }

    /// Somebody asks the command to end, by this signal.
    pub(super) fn ask_to_end(&self, by: Signal) {
        let mut state = self.lock();
        let for_good = by == Signal::TERM || state.is_asked_for_good();
        state.asked = Some(Asked { for_good, at: Instant::now() });
    }

    /// Whether somebody has asked the command to end since it was started, and it has not
    /// lived on as [`Self::end_for_another`] says.
    pub fn is_asked_to_end(&self) -> bool {
        self.lock().asked.is_some()
    }

    /// Looks for news of the command. After its end nobody reaches it any more.
    pub(super) fn look<T>(
        &self,
        look: impl FnOnce() -> T,
        has_ended: impl FnOnce(&T) -> bool,
    ) -> T {
        let mut state = self.lock();
        let news = look();
        if has_ended(&news) {
            state.command = None;
            self.ended.notify_all();
        }
        news
    }

    /// Sends a signal to the command alone, not to what it has started.
    pub fn signal(&self, number: i32) {
        let state = self.lock();
        if let (Some(command), Some(signal)) = (state.command, Signal::from_named_raw(number)) {
            // It may have ended just now.
            let _ = kill_process(command.pid, signal);
        }
    }

    /// Asks the command to end, with all that it has started in its own process
    /// group, and makes it end when it has not after this time. Tells whether it ran;
    /// if so, `first` happens before.
    pub fn end(&self, patience: Duration, first: impl FnOnce()) -> bool {
        self.end_now(self.lock(), patience, first)
    }

    /// The same for a command that is to be started again, where nobody has asked it to end.
    /// One that was sent `SIGTERM` is left to end as it does. Another signal counts where it
    /// then ends: it may take as long as this before, and has lived on after that.
    pub fn end_for_another(&self, patience: Duration, first: impl FnOnce()) -> bool {
        let mut state = self.lock();
        let start = state.starts;
        // Another signal may come meanwhile, of which it may end as well.
        while let Some(asked) = state.asked.filter(|asked| !asked.for_good)
            && state.runs(start)
            && let left = patience.saturating_sub(asked.at.elapsed())
            && !left.is_zero()
        {
            let runs = |state: &mut State| state.runs(start);
            let waited = self.ended.wait_timeout_while(state, left, runs);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_asked_for_good() {
            return false;
        }
        if state.runs(start) {
            // It has lived on. Of what comes from here on, it ends.
            state.asked = None;
        }
        self.end_now(state, patience, first)
    }

    fn end_now(
        &self,
        state: MutexGuard<'_, State>,
        patience: Duration,
        first: impl FnOnce(),
    ) -> bool {
        let Some(command) = state.command.filter(|command| !command.has_ended()) else {
            return false;
        };
        first();
        command.signal(Signal::TERM);
        // A command that is stopped could not act upon it.
        command.signal(Signal::CONT);
        // Another may have been started before this thread goes on.
        let start = state.starts;
        let runs = |state: &mut State| state.runs(start);
        let waited = self.ended.wait_timeout_while(state, patience, runs);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.runs(start) {
            command.signal(Signal::KILL);
        }
        true
    }
}

#[cfg(unix)]
impl State {
    /// Whether the command runs that was the last one after so many starts.
    fn runs(&self, starts: u64) -> bool {
        self.command.is_some() && self.starts == starts
    }

    fn is_asked_for_good(&self) -> bool {
        self.asked.is_some_and(|asked| asked.for_good)
    }
}

#[cfg(unix)]
impl Command {
    /// Whether it has ended, which is not taken from whoever waits for it.
    fn has_ended(self) -> bool {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        waitid(WaitId::Pid(self.pid), options).is_ok_and(|status| status.is_some())
    }

    fn signal(self, signal: Signal) {
        let _ = match self.own_group {
            true => kill_process_group(self.pid, signal),
            false => kill_process(self.pid, signal),
        };
    }
}

/// Elsewhere there are no signals, and nobody is reached.
#[cfg(not(unix))]
impl Reach {
    /// Does nothing.
    pub fn signal(&self, _: i32) {}

    /// Nobody could.
    pub fn is_asked_to_end(&self) -> bool {
        false
    }

    /// Does nothing.
    pub fn end(&self, _: Duration, _: impl FnOnce()) -> bool {
        false
    }

    /// Does nothing.
    pub fn end_for_another(&self, _: Duration, _: impl FnOnce()) -> bool {
        false
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Stdio};
    use std::time::Instant;

    use super::*;
    use crate::host::process;

    /// A command that says so once it has set its traps.
    fn start(script: &str) -> Child {
        let script = format!("{script}; echo up; while :; do sleep 0.02; done");
        let mut command = process::command("sh");
        let mut child = command.args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        child
    }

    /// What a supervisor does until the command has ended.
    fn attend(reach: &Reach, child: &mut Child) -> std::process::ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let news = reach.look(|| child.try_wait().unwrap(), Option::is_some);
            if let Some(status) = news {
                return status;
            }
            assert!(Instant::now() < deadline);
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    fn ended(script: &str, patience: Duration) -> std::process::ExitStatus {
        let reach = Reach::default();
        let mut child = start(script);
        reach.started(Pid::from_child(&child), false);
        std::thread::scope(|scope| {
            let ends = scope.spawn(|| reach.end(patience, || {}));
            let status = attend(&reach, &mut child);
            assert!(ends.join().unwrap());
            assert!(!reach.end(patience, || panic!("it has ended")));
            status
        })
    }

    #[test]
    fn a_command_is_asked_to_end_and_then_made_to() {
        use std::os::unix::process::ExitStatusExt;
        let long = Duration::from_secs(60);
        assert_eq!(ended("trap 'exit 3' TERM", long).code(), Some(3));
        assert_eq!(ended("trap '' TERM", Duration::from_millis(50)).signal(), Some(9));
    }

    #[test]
    fn a_command_that_has_lived_on_is_ended_for_another() {
        let reach = Reach::default();
        let mut child = start("trap '' TERM HUP");
        reach.started(Pid::from_child(&child), false);
        for by in [Signal::INT, Signal::HUP, Signal::QUIT] {
            reach.ask_to_end(by);
        }
        assert!(reach.is_asked_to_end());
        std::thread::scope(|scope| {
            let ends = scope.spawn(|| reach.end_for_another(Duration::ZERO, || {}));
            attend(&reach, &mut child);
            assert!(ends.join().unwrap());
        });
        assert!(!reach.is_asked_to_end());
        // Whoever asks while it ends, asks.
        let mut child = start("trap 'exit 3' TERM");
        reach.started(Pid::from_child(&child), false);
        let (begins, begun) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let ends =
                || reach.end_for_another(Duration::from_secs(60), || begins.send(()).unwrap());
            let ends = scope.spawn(ends);
            begun.recv().unwrap();
            reach.ask_to_end(Signal::HUP);
            assert_eq!(attend(&reach, &mut child).code(), Some(3));
            assert!(ends.join().unwrap());
        });
        assert!(reach.is_asked_to_end());
    }

    #[test]
    fn a_command_that_was_asked_to_end_is_not_ended_for_another() {
        let (long, never) = (Duration::from_secs(60), || panic!("it was asked to end"));
        let reach = Reach::default();
        // Slowly.
        let mut child = start("trap 'exit 3' USR1");
        reach.started(Pid::from_child(&child), false);
        reach.ask_to_end(Signal::TERM);
        reach.ask_to_end(Signal::INT);
        assert!(!reach.end_for_another(Duration::ZERO, never));
        assert!(!reach.end_for_another(long, never));
        assert!(reach.is_asked_to_end());
        reach.signal(libc::SIGUSR1);
        assert_eq!(attend(&reach, &mut child).code(), Some(3));
        // It has its time.
        let mut child = start("trap 'exit 4' INT");
        reach.started(Pid::from_child(&child), false);
        reach.ask_to_end(Signal::INT);
        std::thread::scope(|scope| {
            let ends = scope.spawn(|| reach.end_for_another(long, never));
            reach.signal(libc::SIGINT);
            assert_eq!(attend(&reach, &mut child).code(), Some(4));
            assert!(!ends.join().unwrap());
        });
        assert!(reach.is_asked_to_end());
    }

    #[test]
    fn the_next_command_is_left_alone() {
        let reach = Reach::default();
        let mut first = start("trap 'exit 3' TERM");
        let mut second = start("trap 'exit 5' USR1");
        reach.started(Pid::from_child(&first), false);
        std::thread::scope(|scope| {
            let ends = scope.spawn(|| reach.end(Duration::from_millis(500), || {}));
            assert_eq!(attend(&reach, &mut first).code(), Some(3));
            // At once, whether that thread has noticed or not.
            reach.started(Pid::from_child(&second), false);
            assert!(ends.join().unwrap());
        });
        reach.signal(libc::SIGUSR1);
        assert_eq!(attend(&reach, &mut second).code(), Some(5));
    }

    #[test]
    fn nobody_is_reached_before_the_start_and_after_the_end() {
        let reach = Reach::default();
        assert!(!reach.end(Duration::from_secs(60), || {}));
        reach.signal(libc::SIGTERM);
        let mut child = start("trap 'exit 4' USR1");
        reach.ask_to_end(Signal::TERM);
        reach.started(Pid::from_child(&child), false);
        assert!(!reach.is_asked_to_end(), "that was before");
        reach.signal(libc::SIGUSR1);
        // It has ended by itself, although nobody has seen that yet.
        let ended = |reach: &Reach| reach.lock().command.is_some_and(Command::has_ended);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !ended(&reach) {
            assert!(Instant::now() < deadline);
            std::thread::park_timeout(Duration::from_millis(2));
        }
        assert!(!reach.end(Duration::from_secs(60), || panic!("it has ended")));
        assert_eq!(attend(&reach, &mut child).code(), Some(4));
        reach.signal(libc::SIGUSR1);
    }
}
