//! Between the command and our standard output and error, where what the command
//! writes is masked on its way.
//!
//! The command gets a pipe for each of the two that is not a terminal. Only as
//! much is read as has found a taker, so a slow reader slows the command as it
//! would without us. When the reader is gone, so is the command's pipe, and its
//! next write fails as it would without us. The order within each stream is kept;
//! that between the two cannot be.

use std::io::{self, PipeReader, Read};
use std::os::fd::BorrowedFd;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::{Errno, ioctl_fionread};
use rustix::process::Signal;
use rustix::stdio::{stderr, stdout};
use rustix::termios::isatty;
use zeroize::Zeroizing;

use super::forward::Signals;
use super::mask::{Mask, Patterns};

/// So long nothing may come before a little of what is held back is passed on.
const QUIET: Duration = Duration::from_millis(50);

/// So long is read on after the command's end, from what it has left behind with
/// its output.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// A pipe with room takes this much at once, and so nobody has to wait.
const AT_ONCE: usize = libc::PIPE_BUF;

/// The streams of one command. There may be none.
#[derive(Default)]
pub(super) struct Relay {
    streams: Vec<Stream>,
    buffer: Zeroizing<Vec<u8>>,
}

impl Relay {
    /// Gives the command pipes in place of those streams that are not terminals.
    pub(super) fn between(command: &mut Command, patterns: Arc<Patterns>) -> io::Result<Self> {
        let mut streams = Vec::new();
        if !isatty(stdout()) {
            let (from, to) = io::pipe()?;
            command.stdout(to);
            streams.push(Stream::new(from, stdout(), &patterns)?);
        }
        if !isatty(stderr()) {
            let (from, to) = io::pipe()?;
            command.stderr(to);
            streams.push(Stream::new(from, stderr(), &patterns)?);
        }
        Ok(Self { streams, buffer: Zeroizing::new(vec![0; 64 * 1024]) })
    }

    /// Waits until a signal has arrived, and passes on what comes meanwhile. May
    /// return without a signal.
    pub(super) fn turn(&mut self, alarm: BorrowedFd<'_>) -> io::Result<()> {
        self.turn_until(alarm, None)
    }

    /// The command has ended. Passes on what it has left in the pipes, and what
    /// others write to them within a short time. A signal that asks us to end cuts
    /// that short.
    ///
    /// # Errors
    ///
    /// Something could not be written, and not because nobody wants it.
    pub(super) fn drain(mut self, signals: &mut Signals) -> io::Result<()> {
        for stream in &mut self.streams {
            stream.left = stream.from.as_ref().map_or(0, in_pipe);
        }
        let until = Instant::now() + AFTERWARDS;
        loop {
            let late = Instant::now() >= until;
            for stream in self.streams.iter_mut().filter(|_| late) {
                stream.only_what_is_left();
            }
            if self.streams.iter().all(Stream::is_done) {
                break;
            }
            self.turn_until(signals.alarm(), (!late).then_some(until))?;
            let asks_to_end =
                |signal| matches!(signal, Signal::INT | Signal::TERM | Signal::HUP | Signal::QUIT);
            if signals.arrived().iter().any(|received| asks_to_end(received.signal)) {
                return Ok(());
            }
        }
        self.streams.into_iter().filter_map(|stream| stream.failure).try_for_each(Err)
    }

    fn turn_until(&mut self, alarm: BorrowedFd<'_>, until: Option<Instant>) -> io::Result<()> {
        let next = self.streams.iter().filter_map(Stream::pauses_at).chain(until).min();
        let timeout = next.map(|next| next.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = vec![PollFd::from_borrowed_fd(alarm, PollFlags::IN)];
        for stream in &self.streams {
            stream.wait_for(&mut fds);
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(cause) => return Err(cause.into()),
        }
        drop(fds);
        for stream in &mut self.streams {
            stream.act(&mut self.buffer)?;
        }
        Ok(())
    }
}

/// From the command to one of our own streams.
struct Stream {
    /// Until the command's side has ended, or ours.
    from: Option<PipeReader>,
    to: BorrowedFd<'static>,
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
    fn new(
        from: PipeReader,
        to: BorrowedFd<'static>,
        patterns: &Arc<Patterns>,
    ) -> io::Result<Self> {
        // Nobody else has this end.
        fcntl_setfl(&from, fcntl_getfl(&from)? | OFlags::NONBLOCK)?;
        let kind = FileType::from_raw_mode(fstat(to)?.st_mode);
        Ok(Self {
            from: Some(from),
            to,
            has_reader: matches!(kind, FileType::Fifo | FileType::Socket),
            mask: Mask::new(Arc::clone(patterns)),
            out: Vec::new(),
            written: 0,
            heard: Instant::now(),
            left: 0,
            failure: None,
        })
    }

    fn is_done(&self) -> bool {
        self.from.is_none() && self.out.is_empty()
    }

    fn pauses_at(&self) -> Option<Instant> {
        let pauses = self.from.is_some() && self.out.is_empty() && self.mask.is_waiting();
        pauses.then(|| self.heard + QUIET)
    }

    fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if !self.out.is_empty() {
            fds.push(PollFd::from_borrowed_fd(self.to, PollFlags::OUT));
        } else if let Some(from) = &self.from {
            fds.push(PollFd::new(from, PollFlags::IN));
            if self.has_reader {
                // That it is gone is told unasked.
                fds.push(PollFd::from_borrowed_fd(self.to, PollFlags::empty()));
            }
        }
    }

    /// Does what can be done without waiting.
    fn act(&mut self, buffer: &mut [u8]) -> io::Result<()> {
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
        let Some(from) = &mut self.from else { return Ok(()) };
        match from.read(buffer) {
            Ok(0) => self.end(),
            Ok(count) => {
                self.heard = Instant::now();
                self.left = self.left.saturating_sub(count);
                self.mask.feed(&buffer[..count], &mut self.out);
            }
            Err(cause) if is_for_later(&cause) => {}
            Err(cause) => return Err(cause),
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let mut at_once = usize::MAX;
        if self.has_reader {
            // Asked for each stream anew: both may be the same pipe.
            let mut fds = [PollFd::from_borrowed_fd(self.to, PollFlags::OUT)];
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
            match rustix::io::write(self.to, rest) {
                Ok(count) => self.written += count,
                Err(Errno::PIPE) => self.give_up(),
                Err(cause) if is_for_later(&cause.into()) => {}
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
    fn give_up(&mut self) {
        self.from = None;
        self.out.clear();
        self.written = 0;
    }

    fn end(&mut self) {
        self.from = None;
        self.mask.finish(&mut self.out);
    }

    /// Does not wait for others who have the pipe.
    fn only_what_is_left(&mut self) {
        if self.left == 0 && self.out.is_empty() && self.from.is_some() {
            self.end();
        }
    }
}

fn is_for_later(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn in_pipe(from: &PipeReader) -> usize {
    ioctl_fionread(from).ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
