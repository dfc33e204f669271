//! Where our standard output or error is the terminal: another terminal for the
//! command, and everything that goes between the two.
//!
//! While the command has the foreground, the keys go to it as they are, and its
//! own terminal makes of them what the command wants it to: lines, echo, signals.
//! For that ours is *raw* then; whenever we stop or end it is put back as it was.
//!
//! Beside others in a pipeline the command starts in the background of its
//! terminal, because one of them may want the keys. As soon as it reads from its
//! terminal, or sets it up, it is stopped, and then it gets the foreground.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat, open};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_current_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetpgrp,
    tcgetwinsize, tcsetattr, tcsetwinsize, ttyname,
};
use zeroize::Zeroizing;

use super::mask::Patterns;
use super::monitor::Ground;
use super::stream::Stream;
use super::terminal::Terminal;
use crate::host::process::controlling_terminal;
use crate::host::process::signals::Undisturbed;

/// Nobody notices that an echo comes so much later.
const QUIET: Duration = Duration::from_millis(10);

/// Ours and the command's.
pub(super) struct Screen {
    /// What the command writes, masked.
    pub(super) stream: Stream,
    /// The side of the command, until it has been started.
    inner: Option<OwnedFd>,
    outer: Outer,
    /// The command is in the foreground of its terminal, or is to be as soon as we
    /// are in that of ours.
    wants_keys: bool,
    /// It is there.
    has_keys: bool,
    typed: Zeroizing<Vec<u8>>,
    /// The group of the command.
    group: Option<Pid>,
}

/// Our terminal.
struct Outer {
    device: OwnedFd,
    /// `None` where it does not control us: there is no foreground then.
    control: Option<Terminal>,
    /// Which of the three standard streams it is.
    streams: [bool; 3],
    /// How others have it.
    before: Option<Termios>,
    raw: bool,
}

impl Screen {
    /// Gives the command a terminal in place of ours, if that is where its output goes.
    pub(super) fn between(
        command: &mut Command,
        patterns: &Arc<Patterns>,
    ) -> io::Result<Option<Self>> {
        let Some(outer) = Outer::find()? else { return Ok(None) };
        let (master, inner) = pair()?;
        tcsetattr(&inner, OptionalActions::Now, &tcgetattr(&outer.device)?)?;
        let [input, output, errors] = outer.streams;
        if input {
            command.stdin(inner.try_clone()?);
        }
        if output {
            command.stdout(inner.try_clone()?);
        }
        if errors {
            command.stderr(inner.try_clone()?);
        }
        let stream = Stream::new(master, outer.device.try_clone()?, QUIET, patterns)?;
        let wants_keys = outer.streams == [true; 3];
        let typed = Zeroizing::default();
        let inner = Some(inner);
        let screen = Self { stream, inner, outer, wants_keys, has_keys: false, typed, group: None };
        screen.resize();
        Ok(Some(screen))
    }

    /// Which of the three standard streams are this terminal.
    pub(super) fn streams(&self) -> [bool; 3] {
        self.outer.streams
    }

    /// The side of the command, for the one who starts it.
    pub(super) fn take_inner(&mut self) -> io::Result<OwnedFd> {
        self.inner.take().ok_or_else(|| Errno::BADF.into())
    }

    /// The command runs, as the leader of this group.
    pub(super) fn shows(&mut self, group: Pid) {
        self.group = Some(group);
    }

    /// Whether we are in the foreground of our terminal.
    pub(super) fn is_ours(&self) -> bool {
        self.outer.is_ours()
    }

    /// Whether there is a foreground that the command has not got, so that it is
    /// stopped when it reads.
    pub(super) fn must_ask(&mut self) -> bool {
        self.wants_keys = true;
        !self.has_keys
    }

    /// Gives the command the size of our terminal. The system tells it of a change.
    pub(super) fn resize(&self) {
        if let (Some(master), Ok(size)) = (&self.stream.from, tcgetwinsize(&self.outer.device)) {
            let _ = tcsetwinsize(master, size);
        }
    }

    /// The command is about to run, or to go on: where.
    pub(super) fn ground(&mut self) -> Ground {
        self.resize();
        self.has_keys = self.wants_keys && self.outer.is_ours();
        self.keep();
        if self.has_keys { Ground::Fore } else { Ground::Back }
    }

    /// Our terminal is as raw as it is to be; somebody may have had it meanwhile.
    pub(super) fn keep(&mut self) {
        if self.has_keys && !self.outer.raw && self.outer.is_ours() {
            self.outer.make_raw();
        }
    }

    /// Puts our terminal back, because others are to have it.
    pub(super) fn let_go(&mut self) {
        self.has_keys = false;
        self.outer.put_back();
    }

    /// We were stopped without a warning, and somebody had our terminal.
    pub(super) fn was_away(&mut self) {
        self.resize();
        self.outer.raw = false;
    }

    /// Whether the signals of its terminal reach the command.
    pub(super) fn reaches(&self, group: Pid) -> bool {
        self.stream.from.as_ref().is_some_and(|master| tcgetpgrp(master) == Ok(group))
    }

    pub(super) fn wait_for<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let Some(master) = &self.stream.from else { return };
        if !self.typed.is_empty() {
            fds.push(PollFd::new(master, PollFlags::OUT));
        } else if self.outer.raw {
            fds.push(PollFd::new(&self.outer.device, PollFlags::IN));
        }
    }

    /// Passes on what was typed, as far as can be done without waiting.
    pub(super) fn act(&mut self, buffer: &mut [u8]) {
        if self.typed.is_empty() && self.outer.raw && self.outer.has_typed() {
            if !self.outer.is_ours() {
                // The keys are for somebody else, who has set the terminal up.
                self.outer.raw = false;
                return;
            }
            match rustix::io::read(&self.outer.device, &mut buffer[..TYPED_AT_ONCE]) {
                Ok(0) | Err(Errno::IO) => return self.hang_up(),
                Ok(count) => {
                    self.typed.extend_from_slice(&buffer[..count]);
                    buffer[..count].fill(0);
                }
                Err(_) => return,
            }
        }
        let Some(master) = self.stream.from.as_ref().filter(|_| !self.typed.is_empty()) else {
            return;
        };
        let signals = self.signals(master);
        if let Ok(count) = rustix::io::write(master, &self.typed) {
            self.typed.drain(..count);
            // Whoever is in our group would have got them as well: the script that
            // the command is a part of, for one. We get them, too, and know our own.
            for (_, signal) in signals.into_iter().filter(|(at, _)| *at < count) {
                let _ = kill_current_process_group(signal);
            }
        }
    }

    /// What the command's terminal makes signals of, in what was typed.
    fn signals(&self, master: &OwnedFd) -> Vec<(usize, Signal)> {
        const KEYS: [(SpecialCodeIndex, Signal); 3] = [
            (SpecialCodeIndex::VINTR, Signal::INT),
            (SpecialCodeIndex::VQUIT, Signal::QUIT),
            (SpecialCodeIndex::VSUSP, Signal::TSTP),
        ];
        let Some(modes) = self.outer.control.as_ref().and_then(|_| tcgetattr(master).ok()) else {
            return Vec::new();
        };
        let theirs = self.group.is_some_and(|group| self.reaches(group));
        if !theirs || !modes.local_modes.contains(LocalModes::ISIG) {
            return Vec::new();
        }
        let signal_of = |byte: u8| {
            let mut keys = KEYS.iter().filter(|(key, _)| modes.special_codes[*key] == byte);
            // Zero means that there is no such key.
            keys.next().filter(|_| byte != 0).map(|(_, signal)| *signal)
        };
        let typed = self.typed.iter().enumerate();
        typed.filter_map(|(at, byte)| Some((at, signal_of(*byte)?))).collect()
    }

    /// Our terminal is gone, and so is the command's.
    fn hang_up(&mut self) {
        self.outer.raw = false;
        self.has_keys = false;
        self.stream.give_up();
    }
}

/// So much is read of what was typed: as much as a terminal takes in one line.
const TYPED_AT_ONCE: usize = 4096;

impl Drop for Screen {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Outer {
    /// The terminal where our output goes: the one that controls us, or one of
    /// which we are not told by signals.
    fn find() -> io::Result<Option<Self>> {
        let all = [stdin(), stdout(), stderr()];
        let (device, control, streams) = match Terminal::controlling() {
            Some(control) => {
                // Another terminal does not say who is in its foreground.
                let streams = all.map(|stream| tcgetpgrp(stream).is_ok());
                let device = controlling_terminal().ok_or(Errno::NOTTY)?;
                (device, Some(control), streams)
            }
            None => {
                let Some(first) = all[1..].iter().find(|stream| isatty(stream)) else {
                    return Ok(None);
                };
                let number = fstat(first)?.st_rdev;
                let streams = all.map(|stream| {
                    isatty(stream) && fstat(stream).is_ok_and(|it| it.st_rdev == number)
                });
                let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let device = ttyname(first, Vec::new())
                    .and_then(|name| open(name, flags, Mode::empty()))
                    .or_else(|_| rustix::io::fcntl_dupfd_cloexec(first, 3))?;
                (device, None, streams)
            }
        };
        if !streams[1] && !streams[2] {
            return Ok(None);
        }
        if control.is_some() {
            // Nobody else has what we have opened.
            fcntl_setfl(&device, fcntl_getfl(&device)? | OFlags::NONBLOCK)?;
        }
        Ok(Some(Self { device, control, streams, before: None, raw: false }))
    }

    fn is_ours(&self) -> bool {
        self.control.as_ref().is_none_or(Terminal::is_ours)
    }

    /// Whether reading does not wait, be it because it is gone.
    fn has_typed(&self) -> bool {
        let mut fds = [PollFd::new(&self.device, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    fn make_raw(&mut self) {
        let Ok(now) = tcgetattr(&self.device) else { return };
        let mut raw = now.clone();
        raw.make_raw();
        self.raw = self.set(&raw);
        // Nobody has put it back where we were stopped and nobody took our place.
        if self.before.is_none() || now.local_modes.contains(LocalModes::ICANON) {
            self.before = Some(now);
        }
    }

    /// Where somebody else has it, they have set it up.
    fn put_back(&mut self) {
        if std::mem::take(&mut self.raw)
            && self.is_ours()
            && let Some(before) = &self.before
        {
            self.set(before);
        }
    }

    fn set(&self, modes: &Termios) -> bool {
        // Whoever does this from the background is stopped, unless the signal is
        // kept away.
        let undisturbed = Undisturbed::begin();
        undisturbed.is_ok() && tcsetattr(&self.device, OptionalActions::Now, modes).is_ok()
    }
}

/// A new terminal: the side of one who shows it, and the side of those in it.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    fcntl_setfd(&master, FdFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let inner = open(ptsname(&master, Vec::new())?, flags, Mode::empty())?;
    Ok((master, inner))
}

#[cfg(test)]
mod tests;
