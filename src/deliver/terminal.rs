//! The terminal that controls this process, and whose turn it is.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, getpid, test_kill_process_group};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{isatty, tcgetpgrp, tcsetpgrp};

use crate::host::process::{controlling_terminal, groups::own_group, signals::Undisturbed};

/// A terminal. One process group at a time is in its foreground: it alone may
/// read, and gets the signals of the keys.
pub(super) struct Terminal {
    device: OwnedFd,
    ours: Pid,
}

impl Terminal {
    /// The terminal that controls this process, if there is one. One that belongs to
    /// a group of another PID namespace is not ours to hand on.
    pub(super) fn controlling() -> Option<Self> {
        Some(Self { device: controlling_terminal()?, ours: own_group()? })
    }

    /// Whether a shell with job control started us as a command of its own: then
    /// nobody else is in our process group, who would lose the terminal when it
    /// is handed on. In a script the group is the script's; in a pipeline one
    /// of our streams is a pipe.
    pub(super) fn is_for_us_alone(&self) -> bool {
        self.ours == getpid() && [stdin(), stdout(), stderr()].iter().all(isatty)
    }

    /// Another handle of it, to go along with a new process.
    pub(super) fn handle(&self) -> io::Result<OwnedFd> {
        self.device.try_clone()
    }

    /// Whether we are in the foreground.
    pub(super) fn is_ours(&self) -> bool {
        tcgetpgrp(&self.device) == Ok(self.ours)
    }

    /// Puts `group` into the foreground in our place, if we are there. Failing is
    /// no error: the terminal is gone then, or the group is.
    pub(super) fn give(&self, group: Pid) {
        if self.is_ours() {
            self.put(group);
        }
    }

    /// Puts us into the foreground again if `group` is there, or one that exists
    /// no longer. Whoever else is there took the terminal in their own right: the
    /// shell that put us into the background, for one.
    pub(super) fn take_back(&self, group: Option<Pid>) {
        let Ok(now) = tcgetpgrp(&self.device) else { return };
        if Some(now) == group || test_kill_process_group(now) == Err(Errno::SRCH) {
            self.put(self.ours);
        }
    }

    fn put(&self, group: Pid) {
        // Whoever does this from the background is stopped by SIGTTOU, unless it
        // is kept away.
        if let Ok(_undisturbed) = Undisturbed::begin() {
            let _ = tcsetpgrp(&self.device, group);
        }
    }
}
