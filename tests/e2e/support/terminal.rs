//! A terminal, with a shell in it: what is on the screen, and keys to press.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::home::{Home, under_test};
use super::wait::wait_until;

/// How long something may take to show.
const SHOWN: Duration = Duration::from_secs(30);

/// What the shell shows when it waits for a command.
const PROMPT: &str = "ready> ";

/// A tmux of its own, in a home; it ends with the home.
pub(crate) struct Terminal<'a> {
    home: &'a Home,
    socket: PathBuf,
    /// How many commands were run.
    runs: Cell<usize>,
}

impl<'a> Terminal<'a> {
    /// A shell that finds `tmpcred`, in a terminal of this size.
    pub(crate) fn start(home: &'a Home, columns: u16, rows: u16) -> Self {
        let program = home.share(under_test());
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", program.parent().unwrap().display());
        // One that has just been ended may still accept who wants another at its socket.
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let socket = home.path(format!("tmux{}", STARTED.fetch_add(1, Ordering::Relaxed)));
        let terminal = Self { home, socket, runs: Cell::new(0) };
        let size = [columns.to_string(), rows.to_string()];
        terminal
            .home
            .command("tmux")
            .args(["-u", "-f", "/dev/null", "-S"])
            .args([&terminal.socket])
            .args(["new-session", "-d", "-x", &size[0], "-y", &size[1], "bash"])
            // Several words: no other shell runs this one, and takes its prompt away.
            .args(["--norc", "--noprofile"])
            .env("PATH", path)
            .env("PS1", PROMPT)
            .env("LC_ALL", "C.UTF-8")
            .run()
            .ok();
        terminal.wait_for(PROMPT.trim_end());
        terminal
    }

    /// Its own file in the home.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Types a command and presses the enter key.
    pub(crate) fn enter(&self, line: &str) {
        self.write(line);
        self.press("Enter");
    }

    /// Answers a question with something that does not show. A program may ask before it
    /// has told the terminal that; no person is as quick.
    #[cfg(feature = "broker")]
    #[track_caller]
    pub(crate) fn answer(&self, question: &str, secret: &str) {
        self.wait_to_hide(question);
        self.enter(secret);
    }

    /// Waits until this is asked, and what is typed does not show.
    #[cfg(feature = "broker")]
    #[track_caller]
    pub(crate) fn wait_to_hide(&self, question: &str) {
        self.wait_for(question);
        let place = self.tmux(&["display-message", "-p", "#{pane_tty}"]);
        wait_until("the terminal shows no keys", SHOWN, || {
            let settings = self.home.command("stty").args(["-a", "-F", place.trim()]).run().ok();
            settings.stdout.split_whitespace().any(|one| one == "-echo").then_some(())
        });
    }

    /// Types something, and no more.
    pub(crate) fn write(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Ends it, whatever runs there.
    pub(crate) fn end(self) {
        self.tmux(&["kill-server"]);
    }

    /// Presses a key, such as `C-c`.
    pub(crate) fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let size = [columns.to_string(), rows.to_string()];
        self.tmux(&["resize-window", "-x", &size[0], "-y", &size[1]]);
    }

    /// What is on the screen now.
    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same with its colours, as a terminal is told of them.
    pub(crate) fn styled(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until this is on the screen, and returns all of it.
    #[track_caller]
    pub(crate) fn wait_for(&self, part: &str) -> String {
        let mut screen = String::new();
        wait_until(&format!("{part:?} on the screen"), SHOWN, || {
            screen = self.screen();
            screen.contains(part).then_some(())
        });
        screen
    }

    /// Runs a command on an empty screen, and returns what it shows.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) -> String {
        self.runs.set(self.runs.get() + 1);
        // The shell joins the two parts, so that the typed line has them apart. The
        // end of an earlier command may still be on the screen.
        let run = self.runs.get();
        self.enter(&format!("clear; {command}; echo EN''D {run}."));
        let end = format!("END {run}.");
        let screen = self.wait_for(&end);
        screen.split_once(&end).unwrap().0.to_string()
    }

    fn tmux(&self, args: &[&str]) -> String {
        self.home
            .command("tmux")
            .args(["-u", "-S"])
            .args([&self.socket])
            .args(args)
            .run()
            .ok()
            .stdout
    }
}
