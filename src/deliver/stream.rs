//! One way of what the command writes, through the mask.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::{Errno, ioctl_fionread};
use rustix::termios::isatty;

use super::mask::{Mask, Patterns};

/// A pipe with room takes this much at once, and so nobody has to wait.
const AT_ONCE: usize = libc::PIPE_BUF;

/// More than a terminal keeps of what nobody has read.
const IN_TERMINAL: usize = 128 * 1024;

/// From the command to one of our own streams.
pub(super) struct Stream {
    /// Until the command's side has ended, or ours.
    pub(super) from: Option<OwnedFd>,
    to: OwnedFd,
    /// So long nothing may come before a little of what is held back is passed on.
    quiet: Duration,
    /// Whether somebody at the other end may be slow, or gone.
    has_reader: bool,
    mask: Mask,
    /// What is to be written, from `written` on.
    out: Vec<u8>,
    written: usize,
    /// When something was read last.
    heard: Instant,
    /// What was in the pipe when the command ended, and has not been read.
    left: usize,
    failure: Option<io::Error>,
}

impl Stream {
    pub(super) fn new(
        from: impl Into<OwnedFd>,
        to: OwnedFd,
        quiet: Duration,
        patterns: &Arc<Patterns>,
    ) -> io::Result<Self> {
        let from = from.into();
        // Nobody else has this end.
        fcntl_setfl(&from, fcntl_getfl(&from)? | OFlags::NONBLOCK)?;
        let kind = FileType::from_raw_mode(fstat(&to)?.st_mode);
        let patterns = Arc::clone(patterns);
        let mask = if isatty(&to) { Mask::of_terminal(patterns) } else { Mask::new(patterns) };
        Ok(Self {
            from: Some(from),
            to,
            quiet,
            has_reader: matches!(kind, FileType::Fifo | FileType::Socket),
            mask,
            out: Vec::new(),
            written: 0,
            heard: Instant::now(),
            left: 0,
            failure: None,
        })
    }

    pub(super) fn is_done(&self) -> bool {
        self.from.is_none() && self.out.is_empty()
    }

    pub(super) fn pauses_at(&self) -> Option<Instant> {
        let pauses = self.from.is_some() && self.out.is_empty() && self.mask.is_waiting();
        pauses.then(|| self.heard + self.quiet)
    }

    pub(super) fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if !self.out.is_empty() {
            fds.push(PollFd::new(&self.to, PollFlags::OUT));
        } else if let Some(from) = &self.from {
            fds.push(PollFd::new(from, PollFlags::IN));
            if self.has_reader {
                // That it is gone is told unasked.
                fds.push(PollFd::new(&self.to, PollFlags::empty()));
            }
        }
    }

    /// Does what there is to do by then, even if it takes a while.
    pub(super) fn flush(&mut self, buffer: &mut [u8], until: Instant) -> io::Result<()> {
        while self.has_more()? && Instant::now() < until {
            if !self.out.is_empty() {
                self.has_room(until)?;
            }
            self.act(buffer)?;
        }
        self.mask.pause(&mut self.out);
        while !self.out.is_empty() && Instant::now() < until {
            self.has_room(until)?;
            self.write()?;
        }
        Ok(())
    }

    /// The command has ended: what it has left is to be passed on.
    pub(super) fn is_left(&mut self) {
        self.left = self.from.as_ref().map_or(0, waiting_in);
    }

    /// Why something could not be written, if that is so.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Whether there is anything to pass on, now.
    fn has_more(&self) -> io::Result<bool> {
        let Some(from) = self.from.as_ref().filter(|_| self.out.is_empty()) else {
            return Ok(!self.out.is_empty());
        };
        let mut fds = [PollFd::new(from, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Waits until something can be written, or until then.
    fn has_room(&self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&self.to, PollFlags::OUT)];
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Does what can be done without waiting.
    pub(super) fn act(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.is_done() {
            return Ok(());
        }
        if self.out.is_empty() && self.pauses_at().is_some_and(|at| at <= Instant::now()) {
            self.mask.pause(&mut self.out);
        }
        self.write()?;
        if self.out.is_empty() {
            self.read(buffer)?;
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let Some(from) = &self.from else { return Ok(()) };
        match rustix::io::read(from, &mut *buffer) {
            // A terminal that nobody has any more says so by an error.
            Ok(0) | Err(Errno::IO) => self.end(),
            Ok(count) => {
                self.heard = Instant::now();
                self.left = self.left.saturating_sub(count);
                self.mask.feed(&buffer[..count], &mut self.out);
            }
            Err(Errno::AGAIN) => self.left = 0,
            Err(Errno::INTR) => {}
            Err(cause) => return Err(cause.into()),
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let mut at_once = usize::MAX;
        if self.has_reader {
            // Asked for each stream anew: both may be the same pipe.
            let mut fds = [PollFd::new(&self.to, PollFlags::OUT)];
            match poll(&mut fds, Some(&Timespec::default())) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
            let state = fds[0].revents();
            if state.intersects(PollFlags::ERR | PollFlags::HUP) {
                self.give_up();
            }
            at_once = if state.contains(PollFlags::OUT) { AT_ONCE } else { 0 };
        }
        let rest = &self.out[self.written..];
        let rest = &rest[..rest.len().min(at_once)];
        if !rest.is_empty() {
            match rustix::io::write(&self.to, rest) {
                Ok(count) => self.written += count,
                Err(Errno::PIPE) => self.give_up(),
                // A terminal of which the other end is gone.
                Err(Errno::IO) if isatty(&self.to) => self.give_up(),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(cause) => {
                    self.failure = Some(cause.into());
                    self.give_up();
                }
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        Ok(())
    }

    /// Nobody takes it any more.
    pub(super) fn give_up(&mut self) {
        self.from = None;
        self.out.clear();
        self.written = 0;
    }

    fn end(&mut self) {
        self.from = None;
        self.mask.finish(&mut self.out);
    }

    /// Does not wait for others who have the pipe.
    pub(super) fn only_what_is_left(&mut self) {
        if self.left == 0 && self.out.is_empty() && self.from.is_some() {
            self.end();
        }
    }
}

/// What can be read at once. A terminal tells less than there is.
fn waiting_in(from: &OwnedFd) -> usize {
    if isatty(from) {
        return IN_TERMINAL;
    }
    ioctl_fionread(from).ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}
