//! How what goes on beside a command reaches it.

#[cfg(unix)]
use std::sync::Condvar;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// The way to a command, for as long as it runs. A number that the system may have
/// given to somebody else meanwhile is never used.
#[derive(Debug, Default)]
pub struct Reach {
    state: Mutex<State>,
    #[cfg(unix)]
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    #[cfg(unix)]
    command: Option<Command>,
    /// How often a command was started.
    #[cfg(unix)]
    starts: u64,
    /// Somebody wants the command to end.
    asked_to_end: bool,
}

#[cfg(unix)]
#[derive(Clone, Copy, Debug)]
struct Command {
    pid: Pid,
    own_group: bool,
}

impl Reach {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody has asked the command to end since it was started.
    pub fn is_asked_to_end(&self) -> bool {
        self.lock().asked_to_end
    }

    /// Somebody asks the command to end.
    #[cfg(unix)]
    pub(super) fn ask_to_end(&self) {
        self.lock().asked_to_end = true;
    }
}

#[cfg(unix)]
impl Reach {
    /// The command runs. Its number is its own until `look` has seen its end.
    pub(super) fn started(&self, pid: Pid, own_group: bool) {
        let mut state = self.lock();
        let starts = state.starts + 1;
        *state = State { command: Some(Command { pid, own_group }), starts, asked_to_end: false };
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
        let state = self.lock();
        let Some(command) = state.command.filter(|command| !command.has_ended()) else {
            return false;
        };
        first();
        command.signal(Signal::TERM);
        // A command that is stopped could not act upon it.
        command.signal(Signal::CONT);
        // Another may have been started before this thread goes on.
        let start = state.starts;
        let runs = |state: &mut State| state.command.is_some() && state.starts == start;
        let waited = self.ended.wait_timeout_while(state, patience, runs);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if runs(&mut state) {
            command.signal(Signal::KILL);
        }
        true
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

    /// Does nothing.
    pub fn end(&self, _: Duration, _: impl FnOnce()) -> bool {
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
        reach.ask_to_end();
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
