//! Programs that run beside a test, and end with it.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::wait::wait_until;

/// How long a peer may take to start, on a machine that is busy.
pub(crate) const READY: Duration = Duration::from_secs(60);

/// Finds a program that the tests need.
///
/// # Panics
/// Where it is missing: it names `tests/setup`.
#[track_caller]
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: run tests/setup, it installs it"))
}

/// A script below `tests/peers`, whose npm packages are installed.
///
/// # Panics
/// Where they are not: it names `tests/setup`.
#[track_caller]
pub(crate) fn node_script(name: &str) -> PathBuf {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
    assert!(
        peers.join("node_modules/.installed").exists(),
        "the npm packages of tests/peers are missing: run tests/setup, it installs them"
    );
    peers.join(name)
}

/// Becomes the command; a watcher beside it kills the whole process group as
/// soon as the pipe on standard input ends, as it does when the test is gone.
const SUPERVISE: &str = r#"
    input=$1; shift
    exec 3<&0 <"$input"
    (cat <&3 >/dev/null; kill -KILL 0) &
    exec "$@" 3<&-
"#;

/// `program` under that watcher, with the file `input` as its standard input
/// and an environment that is empty but for PATH. Arguments may be added.
pub(crate) fn supervised(program: &Path, input: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", SUPERVISE, "sh"]).arg(input).arg(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// A program that runs beside a test. Dropping it kills it and its process
/// group, also when the test panics; and should the test itself be killed, the
/// end of the pipe that the two share does.
pub(crate) struct Peer {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Peer {
    /// Starts `command`, which must end when the pipe on its standard input does.
    /// What it says on standard error goes to the file `log`.
    #[track_caller]
    pub(crate) fn start(name: &str, mut command: Command, log: PathBuf) -> Self {
        let child = command
            .stdin(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|cause| panic!("{name} cannot be started: {cause}"));
        Self { child, name: name.into(), log }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The pipe to its standard input.
    pub(crate) fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().unwrap()
    }

    /// Takes the pipe from its standard output, where its command made one.
    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// Closes the pipe to its standard input, as the end of the test process does.
    pub(crate) fn abandon(&mut self) {
        self.child.stdin = None;
    }

    /// Stops it as it is: it holds its sockets, and answers nothing.
    pub(crate) fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    /// Kills it.
    #[cfg(feature = "broker")]
    pub(crate) fn kill(&self) {
        kill_process(self.pid(), Signal::KILL).unwrap();
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// What it said on standard error.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until `look` finds something.
    ///
    /// # Panics
    /// When that takes too long, or the program ends meanwhile: with what it said.
    #[track_caller]
    pub(crate) fn until_ready<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> T {
        let what = format!("{} to be ready", self.name);
        wait_until(&what, READY, || {
            let runs = self.runs();
            let found = look();
            assert!(found.is_some() || runs, "{} ended at once: {}", self.name, self.said());
            found
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }
}
