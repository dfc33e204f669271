//! Between the command and our standard output and error, where what the command
//! writes is masked on its way.
//!
//! The command gets a pipe for each of the two that is not our terminal, and a
//! terminal of its own ([`Screen`]) for those that are. Only as
//! much is read as has found a taker, so a slow reader slows the command as it
//! would without us. When the reader is gone, so is the command's pipe, and its
//! next write fails as it would without us. The order within each stream is kept;
//! that between two pipes cannot be.

use std::io;
use std::os::fd::BorrowedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdout};
use zeroize::Zeroizing;

use super::forward::Signals;
use super::screen::Screen;
use super::stream::Stream;
use super::supervisor::Masking;

/// So long nothing may come before a little of what is held back is passed on.
const QUIET: Duration = Duration::from_millis(50);

/// The streams of one command. There may be none.
#[derive(Default)]
pub(super) struct Relay {
    pipes: Vec<Stream>,
    screen: Option<Screen>,
    buffer: Zeroizing<Vec<u8>>,
    afterwards: Duration,
}

impl Relay {
    /// Gives the command other streams in place of ours.
    pub(super) fn between(command: &mut Command, masked: &Masking) -> io::Result<Self> {
        let Masking { patterns, afterwards } = masked;
        let screen = Screen::between(command, patterns)?;
        let [_, out, err] = screen.as_ref().map_or([false; 3], Screen::streams);
        let mut pipes = Vec::new();
        if !out {
            let (from, to) = io::pipe()?;
            command.stdout(to);
            pipes.push(Stream::new(from, stdout().try_clone_to_owned()?, QUIET, patterns)?);
        }
        if !err {
            let (from, to) = io::pipe()?;
            command.stderr(to);
            pipes.push(Stream::new(from, stderr().try_clone_to_owned()?, QUIET, patterns)?);
        }
        let buffer = Zeroizing::new(vec![0; 64 * 1024]);
        Ok(Self { pipes, screen, buffer, afterwards: *afterwards })
    }

    /// The terminal that the command has in place of ours.
    pub(super) fn screen(&mut self) -> Option<&mut Screen> {
        self.screen.as_mut()
    }

    fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.pipes.iter().chain(self.screen.as_ref().map(|screen| &screen.stream))
    }

    fn streams_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.pipes.iter_mut().chain(self.screen.as_mut().map(|screen| &mut screen.stream))
    }

    /// Waits until one of these can be read from, and passes on what comes
    /// meanwhile. May return without.
    pub(super) fn turn(&mut self, alarms: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.turn_until(alarms, None)
    }

    /// Passes on what the command has written to its terminal so far, even if that
    /// takes a while, because somebody else is to have ours.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(screen) = &mut self.screen else { return Ok(()) };
        screen.stream.flush(&mut self.buffer, Instant::now() + self.afterwards)
    }

    /// The command has ended. Passes on what it has left in the pipes, and what
    /// others write to them within the time for that. A signal that asks us to end cuts
    /// that short, and is there still for whoever asks [`Signals::told_to_end`].
    ///
    /// # Errors
    ///
    /// Something could not be written, and not because nobody wants it.
    pub(super) fn drain(mut self, signals: &mut Signals) -> io::Result<()> {
        self.streams_mut().for_each(Stream::is_left);
        let until = Instant::now() + self.afterwards;
        loop {
            let late = Instant::now() >= until;
            self.streams_mut().filter(|_| late).for_each(Stream::only_what_is_left);
            if self.streams().all(Stream::is_done) {
                break;
            }
            self.turn_until(&[signals.alarm()], (!late).then_some(until))?;
            if signals.told_to_end().is_some() {
                return Ok(());
            }
        }
        self.streams_mut().filter_map(Stream::take_failure).try_for_each(Err)
    }

    fn turn_until(&mut self, alarms: &[BorrowedFd<'_>], until: Option<Instant>) -> io::Result<()> {
        if let Some(screen) = &mut self.screen {
            screen.keep();
        }
        let next = self.streams().filter_map(Stream::pauses_at).chain(until).min();
        let timeout = next.map(|next| next.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let alarms = alarms.iter().map(|alarm| PollFd::from_borrowed_fd(*alarm, PollFlags::IN));
        let mut fds: Vec<_> = alarms.collect();
        for stream in self.streams() {
            stream.wait_for(&mut fds);
        }
        if let Some(screen) = &self.screen {
            screen.wait_for(&mut fds);
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(cause) => return Err(cause.into()),
        }
        drop(fds);
        if let Some(screen) = &mut self.screen {
            screen.act(&mut self.buffer);
            screen.stream.act(&mut self.buffer)?;
        }
        for stream in &mut self.pipes {
            stream.act(&mut self.buffer)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
