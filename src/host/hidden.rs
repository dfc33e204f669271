//! A line that is typed at the terminal and does not show there.

use std::io;

use crate::secret::Secret;

/// Reads a line from the terminal that controls this process, wherever its standard streams
/// lead. `ask` shows the question, perhaps more than once, and `end` ends the line that it is on.
///
/// Whatever ends or stops this process meanwhile finds the terminal as it was.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`] where a signal came that did not end this process; else where
/// there is no such terminal, or nothing can be read there.
pub fn read_line(ask: &dyn Fn(), end: &dyn Fn()) -> io::Result<Secret<String>> {
    #[cfg(unix)]
    return unix::read_line(ask, end);
    #[cfg(not(unix))]
    {
        ask();
        let typed = rpassword::read_password();
        end();
        typed.map(Secret::new)
    }
}

#[cfg(unix)]
mod unix {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::io::{Errno, retry_on_intr};
    use rustix::process::{Signal, kill_current_process_group};
    use rustix::termios::{
        InputModes, LocalModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr,
        tcgetpgrp, tcsetattr,
    };
    use zeroize::Zeroizing;

    use crate::host::process::controlling_terminal;
    use crate::host::process::groups::own_group;
    use crate::host::process::signals::Told;
    use crate::secret::Secret;

    /// Those that end this process where nothing else was said, or stop it. (By the last one it
    /// goes on: whoever had it stopped in another way may have changed the terminal.)
    const SIGNALS: [Signal; 6] =
        [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::TSTP, Signal::CONT];
    /// Those of them after which the question is asked once more.
    const PAUSES: [Signal; 2] = [Signal::TSTP, Signal::CONT];
    /// Those that keys make. With each of them the terminal itself forgets what was typed before.
    const KEYS: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::TSTP];

    /// How long a line may be, in bytes: a terminal takes no longer one.
    const MAX: usize = 4096;

    pub(super) fn read_line(ask: &dyn Fn(), end: &dyn Fn()) -> io::Result<Secret<String>> {
        let device = controlling_terminal()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no terminal"))?;
        loop {
            if !is_in_foreground(&device) {
                // As the terminal itself would, once its modes are touched; by then it would have
                // told the modes of whoever is in the foreground.
                let _ = kill_current_process_group(Signal::TTOU);
                if !is_in_foreground(&device) {
                    return Err(io::Error::other("another program has the terminal"));
                }
            }
            let told = Told::of(&SIGNALS.map(Signal::as_raw))?;
            let typed = read_once(&device, &told, ask);
            end();
            let came = told.end();
            let is_key = |signal: &i32| KEYS.iter().any(|key| key.as_raw() == *signal);
            if !came.iter().all(is_key) && is_in_foreground(&device) {
                // What was typed of a secret is for nobody else. (What is typed after a key is for
                // who comes next.)
                let _ = tcflush(&device, QueueSelector::IFlush);
            }
            let has_ended = raise(&came)?;
            match typed? {
                Some(line) => return Ok(line),
                None if has_ended => return Err(io::ErrorKind::Interrupted.into()),
                None => {}
            }
        }
    }

    /// Signals that have come have the effect now that they would have had: directed at this very
    /// thread, so that it is over before this returns. Returns whether one was among them that is
    /// no pause. Those go first: who ends a program that is stopped has it go on as well.
    fn raise(came: &[i32]) -> io::Result<bool> {
        let is_pause = |signal: &i32| PAUSES.iter().any(|pause| pause.as_raw() == *signal);
        let (pauses, ends): (Vec<i32>, Vec<i32>) = came.iter().partition(|one| is_pause(one));
        // Who has it go on has it stopped no more.
        let goes_on = pauses.contains(&Signal::CONT.as_raw());
        let pauses = pauses.into_iter().filter(|_| !goes_on);
        for signal in ends.iter().copied().chain(pauses) {
            signal_hook::low_level::raise(signal)?;
        }
        Ok(!ends.is_empty())
    }

    /// Reads a line; `None` where a signal came first.
    fn read_once(
        device: &OwnedFd,
        told: &Told,
        ask: &dyn Fn(),
    ) -> io::Result<Option<Secret<String>>> {
        let _hidden = Hidden::begin(device)?;
        ask();
        let mut line = Zeroizing::new([0_u8; MAX]);
        let mut length = 0;
        loop {
            let mut fds = [
                PollFd::new(device, PollFlags::IN),
                PollFd::from_borrowed_fd(told.alarm(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
            if !fds[1].revents().is_empty() {
                return Ok(None);
            }
            if fds[0].revents().is_empty() {
                continue;
            }
            // (Where `poll` knows no terminals, as on macOS, this is what waits, and what a
            // signal ends.)
            match rustix::io::read(device, &mut line[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(Errno::INTR) => continue,
                Err(cause) => return Err(cause.into()),
            }
            if line[..length].ends_with(b"\n") {
                break;
            }
        }
        let text = std::str::from_utf8(&line[..length])
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "that is no text"))?;
        Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n']).to_string())))
    }

    /// Whether what this process does to the terminal is its own business. Where the group in
    /// the foreground has no number here, nobody else is told to be there.
    fn is_in_foreground(device: &OwnedFd) -> bool {
        tcgetpgrp(device).map_or(true, |group| Some(group) == own_group())
    }

    /// A terminal that does not show what is typed, until this is dropped.
    struct Hidden<'a> {
        device: &'a OwnedFd,
        before: Termios,
    }

    impl<'a> Hidden<'a> {
        /// From now on. Keys go on to make signals, and lines can be edited.
        fn begin(device: &'a OwnedFd) -> io::Result<Self> {
            let before = tcgetattr(device)?;
            let mut modes = before.clone();
            modes.local_modes -= LocalModes::ECHO | LocalModes::ECHONL;
            // Whoever was there before may have left it otherwise.
            modes.local_modes |= LocalModes::ICANON | LocalModes::ISIG;
            modes.input_modes |= InputModes::ICRNL;
            retry_on_intr(|| tcsetattr(device, OptionalActions::Now, &modes))?;
            Ok(Self { device, before })
        }
    }

    impl Drop for Hidden<'_> {
        fn drop(&mut self) {
            // Whoever took it from us has it as they want it.
            if !is_in_foreground(self.device) {
                return;
            }
            // Where it fails, the terminal is gone.
            let _ = retry_on_intr(|| tcsetattr(self.device, OptionalActions::Now, &self.before));
        }
    }
}
