//! A session for the command: a terminal of its own, and a process that keeps it.
//!
//! A terminal belongs to a session, and we stay in the one of our shell. So the
//! command gets another one. It must not lead it: a process group whose parent is
//! not in its session cannot be stopped by Ctrl-Z (POSIX calls it orphaned), and
//! when a leader ends, what it has left in the background is hung up. So a process
//! stands in between, the *monitor*: it leads the session, is the parent of the
//! command, and tells us of its stops and of its end. It runs no program and
//! ignores all signals; what is sent to us, we send to the command by ourselves.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, ioctl_tiocsctty, kill_process, kill_process_group,
    setpgid, setsid, waitpid,
};
use rustix::stdio::{dup2_stdin, dup2_stdout, stdin, stdout};
use rustix::termios::tcsetpgrp;

use super::Outcome;
use crate::host::process::signals::Mask;

/// What has become of the command.
pub(super) enum News {
    /// This signal has stopped it.
    Stopped(Signal),
    /// It has ended.
    Ended(Outcome),
}

/// What the command goes through between `fork` and `execve`.
pub(super) struct Entrance {
    terminal: OwnedFd,
    line: UnixStream,
    foreground: bool,
    parent: Pid,
}

/// The monitor, as its parent sees it.
pub(super) struct Monitor {
    line: UnixStream,
    /// The command is stopped, and it waits to be told where it goes on.
    waits: bool,
}

/// In which place of its terminal the command goes on after a stop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    Fore,
    Back,
}

impl Monitor {
    /// What a process takes that is to have this terminal, and its way to tell us.
    pub(super) fn of(terminal: OwnedFd, ground: Ground) -> io::Result<(Entrance, Self)> {
        let (ours, theirs) = UnixStream::pair()?;
        let foreground = ground == Ground::Fore;
        let entrance = Entrance { terminal, line: theirs, foreground, parent: getpid() };
        Ok((entrance, Self { line: ours, waits: false }))
    }

    /// The command, which has been started.
    pub(super) fn command(&mut self) -> io::Result<Pid> {
        let mut report = [0; REPORT];
        self.line.read_exact(&mut report)?;
        self.line.set_nonblocking(true)?;
        match parsed(report) {
            (STARTED, pid) => Pid::from_raw(pid).ok_or_else(lost),
            _ => Err(lost()),
        }
    }

    /// Can be read from when there is news.
    pub(super) fn line(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    /// What has become of the command since it was last asked for.
    pub(super) fn news(&mut self) -> io::Result<Option<News>> {
        let mut report = [0; REPORT];
        match self.line.read_exact(&mut report) {
            Ok(()) => {}
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(_) => return Err(lost()),
        }
        match parsed(report) {
            (STOPPED, signal) => {
                self.waits = true;
                Ok(Signal::from_named_raw(signal).or(Some(Signal::STOP)).map(News::Stopped))
            }
            (EXITED, code) => {
                let code = u8::try_from(code).unwrap_or(u8::MAX);
                Ok(Some(News::Ended(Outcome::Exited(code))))
            }
            (KILLED, signal) => Ok(Some(News::Ended(Outcome::Signalled(signal)))),
            _ => Err(lost()),
        }
    }

    /// Whether it is the one to continue the command.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// Continues the command.
    pub(super) fn goes_on(&mut self, ground: Ground) {
        self.waits = false;
        let word = if ground == Ground::Fore { FORE } else { BACK };
        // Failing means that it is gone, which we are about to see.
        let _ = self.line.write_all(&[word]);
    }
}

fn lost() -> io::Error {
    io::Error::other("the process that keeps the command's terminal is gone")
}

/// Ends the monitor, which has nothing left to do.
pub(super) fn dismiss(monitor: Pid) {
    let _ = kill_process(monitor, Signal::KILL);
    while matches!(waitpid(Some(monitor), WaitOptions::empty()), Err(Errno::INTR)) {}
}

const FORE: u8 = b'f';
const BACK: u8 = b'b';

/// A kind and a number. So little is written at once or not at all.
const REPORT: usize = 5;
const STARTED: u8 = b'1';
const STOPPED: u8 = b's';
const EXITED: u8 = b'e';
const KILLED: u8 = b'k';

fn parsed([kind, number @ ..]: [u8; REPORT]) -> (u8, i32) {
    (kind, i32::from_ne_bytes(number))
}

impl Entrance {
    /// Turns the calling process into the monitor, and returns in a child of it
    /// that is to become the command. Of all that happens here, nothing but system
    /// calls: it is called between `fork` and `execve`. All signals stay blocked.
    pub(super) fn enter(&self) -> io::Result<()> {
        Mask::full().install()?;
        // With it goes its child, by the same means.
        die_with(self.parent, Signal::KILL)?;
        // In another process namespace than its parent it would tell it numbers that
        // mean other processes there.
        getppid().ok_or(Errno::SRCH)?;
        setsid()?;
        ioctl_tiocsctty(&self.terminal)?;
        let monitor = getpid();
        #[expect(unsafe_code, reason = "there is no safe way to be two processes")]
        // SAFETY: the calling process has one thread, and both go on with system
        // calls only.
        let forked = unsafe { libc::fork() };
        match forked {
            ..0 => Err(io::Error::last_os_error()),
            0 => {
                setpgid(None, None)?;
                if self.foreground {
                    tcsetpgrp(&self.terminal, getpid())?;
                }
                die_with(monitor, Signal::TERM)
            }
            command => {
                // Where something fails, there is nobody to tell but by the end.
                let _ = self.watch(command);
                // Nothing of what is to happen at the end of a process is ours to do.
                loop {
                    let _ = kill_process(monitor, Signal::KILL);
                }
            }
        }
    }

    fn watch(&self, command: i32) -> io::Result<()> {
        dup2_stdin(&self.line)?;
        dup2_stdout(&self.terminal)?;
        // The others are not ours; somebody waits for the end of some.
        close_from(2);
        report(STARTED, command)?;
        let command = Pid::from_raw(command).ok_or(Errno::SRCH)?;
        loop {
            let status = match waitpid(Some(command), WaitOptions::UNTRACED) {
                Ok(Some((_, status))) => status,
                Ok(None) | Err(Errno::INTR) => continue,
                Err(cause) => return Err(cause.into()),
            };
            if let Some(signal) = status.stopping_signal() {
                report(STOPPED, signal)?;
                let _ = match hear()? {
                    FORE => tcsetpgrp(stdout(), command),
                    _ => tcsetpgrp(stdout(), getpid()),
                };
                // Not before that, or it would find itself where it was.
                let _ = kill_process_group(command, Signal::CONT);
                continue;
            }
            // What it has left in the background is not hung up when we end.
            let _ = tcsetpgrp(stdout(), getpid());
            // Lets go of the terminal.
            dup2_stdout(stdin())?;
            return match (status.terminating_signal(), status.exit_status()) {
                (Some(signal), _) => report(KILLED, signal),
                (None, code) => report(EXITED, code.unwrap_or(-1)),
            };
        }
    }
}

fn report(kind: u8, number: i32) -> io::Result<()> {
    let [a, b, c, d] = number.to_ne_bytes();
    rustix::io::write(stdin(), &[kind, a, b, c, d])?;
    Ok(())
}

fn hear() -> io::Result<u8> {
    let mut word = [0];
    match rustix::io::read(stdin(), &mut word)? {
        0 => Err(Errno::PIPE.into()),
        _ => Ok(word[0]),
    }
}

/// Has the system send this signal to the calling process when its parent dies
/// without having seen to it.
#[cfg(target_os = "linux")]
pub(super) fn die_with(parent: Pid, by: Signal) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(by))?;
    // It may have died before that. (It has no number where `unshare` put its
    // children into another process namespace.)
    match getppid() {
        Some(now) if now != parent => Err(Errno::SRCH.into()),
        _ => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn die_with(_: Pid, _: Signal) -> io::Result<()> {
    Ok(())
}

/// Closes all files from this number on.
fn close_from(first: i32) {
    #[cfg(target_os = "linux")]
    {
        #[expect(unsafe_code, reason = "no safe wrapper at hand")]
        // SAFETY: nothing in this process uses these files any more.
        if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } == 0 {
            return;
        }
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| i32::try_from(limit).ok()).unwrap_or(i32::MAX);
    for file in first..limit.min(1 << 20) {
        #[expect(unsafe_code, reason = "no safe wrapper can close what it does not own")]
        // SAFETY: nothing in this process uses these files any more.
        unsafe {
            libc::close(file);
        }
    }
}
