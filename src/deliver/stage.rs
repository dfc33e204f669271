//! For tests: a stand-in for the program, started as a process of its own, and a
//! terminal to run it in.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::mask::Patterns;
use super::reach::Reach;
use super::supervisor::{AtEnd, Beside, Masking};
use super::tests::bearer;
use super::{Handout, Outcome, exec, supervisor};
use crate::credential::Credential;
use crate::host::env::Env;
use crate::host::{files, process};

/// How long a test waits for what must happen. Only failing tests wait that long.
const PATIENCE: Duration = Duration::from_secs(60);

const MODE: &str = "TMPCRED_STAGE_MODE";
const COMMAND: &str = "TMPCRED_STAGE_COMMAND";
const SEPARATOR: u8 = 0x1f;

/// The stand-in itself. As a test it does nothing; [`Stage`] runs it as a
/// program.
#[test]
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it plays main"
)]
fn plays_the_program() {
    let env = Env::of_process();
    let Some(mode) = env.get(MODE) else { return };
    let core = process::forbid_core_dumps();
    let words = env.get_os(COMMAND).map(OsStr::as_bytes);
    let words = words.map(|words| words.split(|byte| *byte == SEPARATOR));
    let command: Vec<OsString> = words
        .into_iter()
        .flatten()
        .map(|word| match word {
            b"TOO-LONG" => "x".repeat(300_000).into(),
            b"NUL" => "a\0b".into(),
            word => OsStr::from_bytes(word).to_owned(),
        })
        .collect();
    let environment =
        Env::from_pairs(env.iter().filter(|(name, _)| *name != MODE && *name != COMMAND));
    let (credential, mapped) =
        (bearer(&format!("token-{mode}")), [("MINE".into(), "Bearer {token}".into())].into());
    let handout = Handout {
        credential: &credential,
        profile: mode,
        env: &mapped,
        environment: &environment,
        outlet: None,
    };
    let result = match mode {
        "replace" => exec::replace(&handout, &command, core),
        _ => {
            busy_elsewhere();
            let at_end = AtEnd::doing(|| {
                if mode == "at-end" {
                    println!("AT END of {}.", thread());
                    let _ = std::io::stdin().read(&mut [0]);
                    println!("DONE");
                }
            });
            let masked = mode.starts_with("mask").then(|| {
                let usual = Masking::of(Arc::new(Patterns::of(&handout.secrets().unwrap())));
                match mode {
                    // Long enough for what is left behind on a busy machine.
                    "mask-patient" => Masking { afterwards: Duration::from_secs(5), ..usual },
                    _ => usual,
                }
            });
            let again = Again::default();
            let beside = mode.ends_with("again").then_some(&again as &dyn Beside);
            supervisor::run(&handout, &command, core, masked, at_end, beside)
        }
    };
    if mode == "linger" {
        println!("ENDED {result:?}");
        let _ = std::io::stdin().read(&mut [0]);
    }
    let code = match result {
        Ok(Outcome::Exited(code)) => code,
        Ok(Outcome::Signalled(signal)) => process::die_of(signal),
        Err(error) => {
            eprintln!("{error} {:?}", error.hints());
            error.kind().exec_exit_code()
        }
    };
    std::process::exit(code.into());
}

/// Has the command started again once.
#[derive(Default)]
struct Again {
    reach: Reach,
    has_been: AtomicBool,
}

impl Beside for Again {
    fn reach(&self) -> &Reach {
        &self.reach
    }

    fn again(&self) -> Option<Credential> {
        let has_been = self.has_been.swap(true, Ordering::Relaxed);
        (!has_been && !self.reach.is_asked_to_end()).then(|| bearer("token-again"))
    }
}

/// The number of this thread, where the system has such.
fn thread() -> i32 {
    #[cfg(target_os = "linux")]
    return rustix::thread::gettid().as_raw_nonzero().get();
    #[cfg(not(target_os = "linux"))]
    0
}

/// What the embedded broker amounts to for a supervisor: other threads, with a
/// runtime that has work to do and children of its own.
#[expect(clippy::disallowed_methods, reason = "a child of somebody else")]
fn busy_elsewhere() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.spawn(async {
        let mut other = tokio::process::Command::new("true").spawn().unwrap();
        other.wait().await.unwrap();
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    std::mem::forget(runtime);
}

/// A directory with the stand-in as the command `play` in it.
pub(super) struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    #[expect(clippy::disallowed_methods, reason = "a test starts itself")]
    pub(super) fn new() -> Self {
        let stage = Self { dir: tempfile::tempdir().unwrap() };
        let this = std::env::current_exe().unwrap();
        stage.script(
            "play",
            &format!(
                "#!/bin/sh\n{MODE}=$1\nshift\nIFS=$(printf '\\037')\n{COMMAND}=\"$*\"\n\
                 export {MODE} {COMMAND}\n\
                 exec '{}' deliver::stage::plays_the_program --exact --nocapture --quiet --test-threads=1\n",
                this.display()
            ),
        );
        stage.script("witness", WITNESS);
        stage
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes an executable file. Another process does it: a file that this one
    /// has open for writing is so in whatever other tests fork meanwhile, and the
    /// system does not run it then.
    pub(super) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let mut writer = process::command("sh")
            .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        path
    }

    /// Writes a file that cannot be executed.
    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        files::write_private(&path, text.as_bytes()).unwrap();
        path
    }

    /// A command in a clean environment in which `play` and `witness` are found.
    pub(super) fn bare(&self, program: impl AsRef<OsStr>) -> Command {
        let host_path = Env::of_process().get("PATH").unwrap_or("/usr/bin:/bin").to_owned();
        let mut command = process::command(program);
        command
            .env_clear()
            .env("PATH", format!("{}:{host_path}", self.dir.path().display()))
            .env("HOME", self.dir.path())
            .env("TERM", "dumb")
            .env("PS1", "$ ")
            .current_dir(self.dir.path());
        command
    }

    /// `play MODE COMMAND…`, without a controlling terminal.
    pub(super) fn play<S: AsRef<OsStr>>(&self, mode: &str, words: &[S]) -> Command {
        let mut command = self.bare(self.path("play"));
        command.arg(mode).args(words).stdin(Stdio::null());
        without_terminal(&mut command);
        command
    }

    /// What `play MODE COMMAND…` puts out.
    pub(super) fn played<S: AsRef<OsStr>>(&self, mode: &str, words: &[S]) -> Output {
        output(&mut self.play(mode, words))
    }
}

/// Removes what the test runner says before it plays the program, the innermost too.
pub(super) fn output(command: &mut Command) -> Output {
    let mut output = command.output().unwrap();
    let header = b"running 1 test\n";
    if let Some(at) = output.stdout.windows(header.len()).rposition(|window| window == header) {
        output.stdout.drain(..at + header.len());
    }
    output
}

pub(super) fn without_terminal(command: &mut Command) {
    #[expect(unsafe_code, reason = "starts a session between fork and exec")]
    // SAFETY: a mere system call.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?));
    }
}

/// Waits until it is so.
pub(super) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// The state of a process as the system shows it: `R`, `S`, `T` for stopped, …;
/// `None` where it is no more.
pub(super) fn state(pid: u32) -> Option<char> {
    let path = format!("/proc/{pid}/stat");
    let stat = files::read_text(path.as_ref(), 4096).ok()??;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The process that started it.
pub(super) fn parent(pid: u32) -> Option<u32> {
    let stat = files::read_text(format!("/proc/{pid}/stat").as_ref(), 4096).ok()??;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Says who it is, what happens to it and what it hears; `poke` has it send
/// SIGUSR1 to its parent, `quit` ends it with code 9. It waits in `select`, with
/// the signals as one of the things to wait for, so that none can fall between
/// looking and waiting; and it counts each delivery, where Python's own handlers
/// would run once for several.
const WITNESS: &str = r#"#!/usr/bin/env python3
import os, select, signal, sys
seen = {}
awake, wake = os.pipe()
os.set_blocking(awake, False)
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)
for name in ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "WINCH", "CONT"]:
    signal.signal(getattr(signal, "SIG" + name), lambda number, frame: None)
os.write(1, b"UP %d of %d in %d.\n" % (os.getpid(), os.getppid(), os.getpgrp()))
heard = b""
while True:
    ready, _, _ = select.select([0, awake], [], [])
    if awake in ready:
        for number in os.read(awake, 4096):
            seen[number] = seen.get(number, 0) + 1
            os.write(1, b"GOT %d\n" % number)
    if 0 in ready:
        more = os.read(0, 4096)
        if not more:
            sys.exit(10)
        heard += more
    while b"\n" in heard:
        line, heard = heard.split(b"\n", 1)
        os.write(1, b"HEARD %s AFTER %s.\n" % (line, str(seen).encode()))
        if line == b"poke":
            os.kill(os.getppid(), signal.SIGUSR1)
        if line == b"quit":
            sys.exit(9)
"#;

/// A process and what it says, read as it comes.
pub(super) struct Talk {
    child: Child,
    ours: OwnedFd,
    said: Vec<u8>,
    heard: usize,
}

impl Talk {
    /// Starts a command whose standard streams are a pair of sockets.
    pub(super) fn start(mut command: Command) -> Self {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let theirs = OwnedFd::from(theirs);
        command.stdin(theirs.try_clone().unwrap()).stdout(theirs);
        Self::with(command, ours.into())
    }

    /// Starts a command as the leader of a session in a terminal of its own.
    pub(super) fn in_terminal(mut command: Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let ours = openpt(flags).unwrap();
        rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let flags =
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let theirs = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        command
            .stdin(theirs.try_clone().unwrap())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs);
        #[expect(unsafe_code, reason = "takes the terminal between fork and exec")]
        // SAFETY: mere system calls.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
            });
        }
        Self::with(command, ours)
    }

    fn with(mut command: Command, ours: OwnedFd) -> Self {
        let child = command.spawn().unwrap();
        // Its ends of the streams must be closed here, or the end is never seen.
        drop(command);
        Self { child, ours, said: Vec::new(), heard: 0 }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process group in the foreground of its terminal.
    pub(super) fn foreground(&self) -> u32 {
        let group = rustix::termios::tcgetpgrp(&self.ours).unwrap();
        u32::try_from(group.as_raw_pid()).unwrap()
    }

    /// Gives its terminal another size.
    pub(super) fn resize(&self, rows: u16, columns: u16) {
        let size =
            rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.ours, size).unwrap();
    }

    /// All that it has said so far.
    pub(super) fn transcript(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    pub(super) fn say(&self, text: &str) {
        let mut file = std::fs::File::from(self.ours.try_clone().unwrap());
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until it says `what`, after what was expected before; yields all
    /// between.
    pub(super) fn expect(&mut self, what: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let unheard = &self.said[self.heard..];
            if let Some(at) = unheard.windows(what.len()).position(|w| w == what.as_bytes()) {
                let between = String::from_utf8_lossy(&unheard[..at]).into_owned();
                self.heard += at + what.len();
                return between;
            }
            assert!(
                Instant::now() < deadline && self.hear(),
                "waited in vain for {what:?} after:\n{}",
                self.transcript()
            );
        }
    }

    /// Says `what` again and again until it says one of `answers`.
    pub(super) fn nudge(&mut self, what: &str, answers: &[&str]) {
        until("an answer", || {
            self.say(what);
            self.hear();
            let unheard = String::from_utf8_lossy(&self.said[self.heard..]);
            answers.iter().any(|answer| unheard.contains(answer))
        });
        self.heard = self.said.len();
    }

    /// Waits for `UP …` of the witness: its process, its parent's, its group.
    pub(super) fn expect_witness(&mut self) -> Witness {
        self.expect("UP ");
        let mut number = |end| self.expect(end).parse().unwrap();
        Witness { pid: number(" of "), parent: number(" in "), group: number(".") }
    }

    /// Reads some more; `false` at the end.
    fn hear(&mut self) -> bool {
        let mut fds = [PollFd::new(&self.ours, PollFlags::IN)];
        let some = Timespec { tv_sec: 1, tv_nsec: 0 };
        if matches!(poll(&mut fds, Some(&some)), Ok(0) | Err(rustix::io::Errno::INTR)) {
            return true;
        }
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.ours, &mut buffer) {
            Ok(0) | Err(rustix::io::Errno::IO | rustix::io::Errno::CONNRESET) => false,
            Ok(n) => {
                self.said.extend_from_slice(&buffer[..n]);
                true
            }
            Err(cause) => panic!("{cause}"),
        }
    }

    /// Takes its terminal away, and waits for the process to end.
    pub(super) fn hang_up(mut self) -> ExitStatus {
        let other = std::os::unix::net::UnixStream::pair().unwrap().0;
        self.ours = other.into();
        self.end()
    }

    /// Waits for the process to end.
    pub(super) fn end(mut self) -> ExitStatus {
        let mut status = None;
        until("the end of the process", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Who a witness says it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Witness {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) group: u32,
}
