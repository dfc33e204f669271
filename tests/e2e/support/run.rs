//! Running a program to its end, or in the background, with a hard time limit.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::peer::program;
use super::wait::wait_until;

/// How long a program may take unless a test says otherwise. What waits for a login waits
/// for a browser, whose pages have a minute each on a machine that is busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A program that is about to run. It gets an empty environment but for what it
/// is given, no standard input unless there is some, and a process group of its
/// own. It dies with the thread that started it.
pub(crate) struct Run {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    directory: PathBuf,
    uid: Option<u32>,
    new_keyring: bool,
    stdin: Vec<u8>,
    limit: Duration,
}

impl Run {
    /// `program`, found through PATH where it is a bare name, in `directory`.
    pub(crate) fn new(program: impl AsRef<OsStr>, directory: impl Into<PathBuf>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            directory: directory.into(),
            uid: None,
            new_keyring: false,
            stdin: Vec::new(),
            limit: LIMIT,
        }
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Unsets a variable that the home sets.
    pub(crate) fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), None));
        self
    }

    /// Where it starts.
    pub(crate) fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// What it reads from its standard input.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// How long it may take.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it as another user. Only root may.
    pub(crate) fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Gives it a session keyring of its own, as a login or a container does:
    /// keys that are linked into the user's keyring only cannot be read there
    /// unless the program links that keyring first.
    pub(crate) fn new_session_keyring(mut self) -> Self {
        self.new_keyring = true;
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it takes too long; it is killed then.
    #[track_caller]
    pub(crate) fn run(self) -> Output {
        self.spawn().wait()
    }

    /// Starts it and goes on.
    #[track_caller]
    pub(crate) fn spawn(mut self) -> Running {
        let what = format!("{:?} {:?}", self.program, self.args);
        let stdin = std::mem::take(&mut self.stdin);
        let limit = self.limit;
        let mut child = self
            .command()
            .stdin(if stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|cause| panic!("{what} cannot be started: {cause}"));
        if let Some(mut pipe) = child.stdin.take() {
            // The program may end without reading: no failure of the test's.
            std::thread::spawn(move || drop(pipe.write_all(&stdin)));
        }
        let stdout = Captured::start(child.stdout.take().unwrap());
        let stderr = Captured::start(child.stderr.take().unwrap());
        Running { child, ended: false, what, end: Instant::now() + limit, limit, stdout, stderr }
    }

    fn command(self) -> Command {
        let mut command = Command::new(program("setpriv"));
        command.args(["--pdeathsig", "KILL"]);
        if let Some(uid) = self.uid {
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}"));
            command.arg("--clear-groups");
        }
        command.arg("--");
        if self.new_keyring {
            // keyctl says on stderr what it did; that is not the program's word.
            command.args(["sh", "-c", NEW_SESSION_KEYRING, "sh"]);
        }
        command.arg(self.program).args(self.args).current_dir(self.directory).process_group(0);
        command.env_clear();
        for (name, value) in self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }
}

const NEW_SESSION_KEYRING: &str =
    r#"exec 3>&2 2>/dev/null keyctl session - sh -c 'exec "$@" 2>&3 3>&-' sh "$@""#;

/// A program that runs. Dropping it before its end kills it and its process group.
pub(crate) struct Running {
    child: Child,
    ended: bool,
    what: String,
    limit: Duration,
    end: Instant,
    stdout: Captured,
    stderr: Captured,
}

impl Running {
    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it has written to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits for a line on standard output that contains `part`, and returns it.
    #[track_caller]
    pub(crate) fn line_on_stdout(&self, part: &str) -> String {
        self.line(part, &self.stdout, "standard output")
    }

    /// The same for standard error.
    #[track_caller]
    pub(crate) fn line_on_stderr(&self, part: &str) -> String {
        self.line(part, &self.stderr, "standard error")
    }

    #[track_caller]
    fn line(&self, part: &str, from: &Captured, name: &str) -> String {
        let left = self.end.saturating_duration_since(Instant::now());
        wait_until(&format!("{part:?} on the {name} of {}", self.what), left, || {
            let text = from.text();
            let whole_lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let found = whole_lines.map(str::trim_end).find(|line| line.contains(part));
            let found = found.map(String::from);
            assert!(
                found.is_some() || !from.ended(),
                "{} ended without {part:?} on its {name}\n{}",
                self.what,
                self.said()
            );
            found
        })
    }

    /// Sends it a signal: to it alone, not to what it started.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it takes too long; it is killed then.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Output {
        let status = self.until_end(|running| running.child.try_wait().unwrap());
        // What it started may still hold the other end of its output.
        self.until_end(|running| (running.stdout.ended() && running.stderr.ended()).then_some(()));
        // What it left behind may go on, such as a browser that writes down where it
        // was. It ends with its home.
        self.ended = true;
        Output::new(status, self.stdout(), self.stderr())
    }

    #[track_caller]
    fn until_end<T>(&mut self, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            if Instant::now() > self.end {
                self.kill();
                panic!("{} did not end within {:?}\n{}", self.what, self.limit, self.said());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn said(&self) -> String {
        format!("stdout: {}\nstderr: {}", self.stdout(), self.stderr())
    }

    /// Whether it has ended by now.
    #[cfg(feature = "broker")]
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Kills it. Tells how it ended: as it wanted to, where that was before.
    pub(crate) fn kill(&mut self) -> Option<ExitStatus> {
        // The group outlives its leader where the leader left something behind.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        self.child.wait().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its exit code, or `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
}

impl Output {
    fn new(status: ExitStatus, stdout: String, stderr: String) -> Self {
        Self { code: status.code(), signal: status.signal(), stdout, stderr }
    }

    /// This output, of a run that must have gone well.
    ///
    /// # Panics
    /// Where it did not.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.ended_with(0)
    }

    /// This output, of a run that must have ended with `code`.
    ///
    /// # Panics
    /// Where it did not.
    #[track_caller]
    pub(crate) fn ended_with(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "signal: {:?}\nstdout: {}\nstderr: {}",
            self.signal,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// Where it is not.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|cause| panic!("no JSON: {cause}\n{}", self.stdout))
    }
}

/// One stream of a program, as far as it has been read.
struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Captured {
    fn start(mut pipe: impl std::io::Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(n) = pipe.read(&mut chunk) {
                if n == 0 {
                    return;
                }
                into.lock().unwrap().extend_from_slice(&chunk[..n]);
            }
        });
        Self { bytes, reader }
    }

    fn ended(&self) -> bool {
        self.reader.is_finished()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }
}
