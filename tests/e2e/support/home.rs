//! A world of its own for each test: a home, an environment, a user.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::kernel;
use super::run::Run;

/// The user `nobody`.
const NOBODY: u32 = 65534;

/// Where the browser of a home writes what it opened, and how that ended.
pub(crate) const BROWSER_LOG: &str = "browser.log";

/// A home directory that exists for one test only, and the environment of the
/// programs that run there.
///
/// The environment holds nothing of the one that the tests were started in but
/// PATH: no proxy, no certificates, no desktop, no CI.
///
/// | variable | directory |
/// |---|---|
/// | `HOME` | [`Home::path`] |
/// | `XDG_CONFIG_HOME`, `XDG_STATE_HOME`, `XDG_CACHE_HOME`, `XDG_DATA_HOME` | as usual below it |
/// | `XDG_RUNTIME_DIR` | `run` |
/// | `TMPDIR` | `tmp` |
///
/// Programs start in `work`.
pub(crate) struct Home {
    root: TempDir,
    /// What [`Home::share`] has copied.
    programs: TempDir,
    env: BTreeMap<OsString, OsString>,
    /// `None`: the user who runs the tests.
    uid: Option<u32>,
    /// Only one test at a time is `nobody`: they would share a kernel keyring.
    _turn: Option<File>,
}

impl Home {
    /// A home of the user who runs the tests.
    pub(crate) fn new() -> Self {
        Self::of(None, None)
    }

    /// A home of the user `nobody`, where root runs the tests; anybody else is
    /// an ordinary user already. Tests that are `nobody` take turns.
    pub(crate) fn nobody() -> Self {
        if !is_root() {
            return Self::new();
        }
        let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("nobody")).unwrap();
        lock.lock().unwrap();
        Self::of(Some(NOBODY), Some(lock))
    }

    /// A home of a user whom no other test has, and whom the machine does not
    /// know by name, where root runs the tests. The kernel gives this user a
    /// keyring and a quota of keys that nothing else uses.
    pub(crate) fn stranger() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !is_root() {
            return Self::new();
        }
        // Test processes run at the same time; each has a range of its own.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(number < 1000, "more strangers than one test process can have");
        let uid = 1_000_000 + std::process::id() * 1000 + number;
        // Another process had that number, and may have been killed.
        kernel::forget_all(uid);
        Self::of(Some(uid), None)
    }

    fn of(uid: Option<u32>, turn: Option<File>) -> Self {
        let root = tempfile::Builder::new().prefix("tmpcred-").tempdir().unwrap();
        let programs = tempfile::Builder::new()
            .prefix("tmpcred-programs-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let mut home = Self { root, programs, env: BTreeMap::new(), uid, _turn: turn };
        home.give(&home.path(""));
        for (name, directory) in [
            ("HOME", ""),
            ("XDG_CONFIG_HOME", ".config"),
            ("XDG_STATE_HOME", ".local/state"),
            ("XDG_CACHE_HOME", ".cache"),
            ("XDG_DATA_HOME", ".local/share"),
            ("XDG_RUNTIME_DIR", "run"),
            ("TMPDIR", "tmp"),
        ] {
            let directory = home.directory(directory);
            home.set(name, directory);
        }
        home.directory("work");
        home.set("PATH", std::env::var_os("PATH").unwrap_or_default());
        home.set("LANG", "C.UTF-8");
        home.set("TZ", "UTC");
        if let Some(uid) = uid {
            kernel::forget_all(uid);
        }
        home
    }

    /// A path below this home.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        let relative = relative.as_ref();
        // `join("")` would add a slash.
        if relative.as_os_str().is_empty() {
            self.root.path().to_path_buf()
        } else {
            self.root.path().join(relative)
        }
    }

    /// Makes a private directory below this home, and those above it.
    pub(crate) fn directory(&self, relative: impl AsRef<Path>) -> PathBuf {
        let mut path = self.path("");
        for part in relative.as_ref() {
            path.push(part);
            if !path.exists() {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
                self.give(&path);
            }
        }
        path
    }

    /// Writes a file below this home, and makes the directories above it.
    pub(crate) fn write(&self, relative: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let relative = relative.as_ref();
        self.directory(relative.parent().unwrap());
        let path = self.path(relative);
        fs::write(&path, text).unwrap();
        self.give(&path);
        path
    }

    /// Writes a program into `bin` below this home, such as a shell script.
    pub(crate) fn write_program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.write(Path::new("bin").join(name), text);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Writes the user's configuration.
    pub(crate) fn config(&self, toml: &str) -> PathBuf {
        self.write(".config/tmpcred/config.toml", toml)
    }

    /// Writes the configuration of the project in `work`.
    pub(crate) fn project(&self, toml: &str) -> PathBuf {
        self.write("work/.tmpcred.toml", toml)
    }

    /// Sets a variable for all programs that run here from now on.
    pub(crate) fn set(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
    }

    /// A program that is about to run here.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Run {
        let run = Run::new(program, self.path("work"));
        let run = self.env.iter().fold(run, |run, (name, value)| run.env(name, value));
        match self.uid {
            Some(uid) => run.uid(uid),
            None => run,
        }
    }

    /// A copy of a file of the project for this home's user, who may not be able
    /// to reach the directory that the project is in. Not below this home, which
    /// may be searched for secrets.
    pub(crate) fn share(&self, file: &Path) -> PathBuf {
        if self.uid.is_none() {
            return file.to_path_buf();
        }
        let copy = self.programs.path().join(file.file_name().unwrap());
        if !copy.exists() {
            // A link is as good where everybody may read the file, and quicker.
            let public = file.metadata().unwrap().permissions().mode() & 0o004 != 0;
            if !public || fs::hard_link(file, &copy).is_err() {
                fs::copy(file, &copy).unwrap();
                fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
            }
        }
        copy
    }

    /// The variables that programs get here.
    pub(crate) fn variables(&self) -> &BTreeMap<OsString, OsString> {
        &self.env
    }

    /// The processes that run here.
    #[cfg(feature = "broker")]
    pub(crate) fn inhabitants(&self) -> Vec<Pid> {
        inhabitants(self.root.path())
    }

    /// Whether the machine knows the user by name.
    pub(crate) fn is_known(&self) -> bool {
        self.uid.is_none_or(|uid| uid == NOBODY)
    }

    /// The user whose home this is, unless it is the one who runs the tests.
    pub(crate) fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// Makes this home's user the owner.
    fn give(&self, path: &Path) {
        if self.uid.is_some() {
            chown(path, self.uid, self.uid).unwrap();
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let browser = fs::read_to_string(self.path(BROWSER_LOG)).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "the browser of this home: {browser:?}");
        }
        kill_inhabitants(self.root.path());
        match self.uid {
            Some(uid) => kernel::forget_all(uid),
            None => kernel::forget_traces(self.root.path()),
        }
    }
}

/// Kills what still runs in a home, such as a browser that nobody waited for:
/// it would write into a directory that is about to be removed.
fn kill_inhabitants(home: &Path) {
    for pid in inhabitants(home) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The processes that run in a home. It has a name of its own, so the variable tells
/// its processes from all others.
fn inhabitants(home: &Path) -> Vec<Pid> {
    let variable = [b"HOME=", home.as_os_str().as_bytes()].concat();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|one| one == variable) {
            found.push(pid);
        }
    }
    found
}

/// The program under test, about to run in `home`.
pub(crate) fn tmpcred(home: &Home) -> Run {
    home.command(home.share(under_test()))
}

/// The program under test: the one that was built with these tests, unless
/// `TMPCRED_UNDER_TEST` names another.
pub(crate) fn under_test() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        std::env::var_os("TMPCRED_UNDER_TEST")
            .map_or_else(|| env!("CARGO_BIN_EXE_tmpcred").into(), PathBuf::from)
    });
    &PROGRAM
}

/// A program of root's own that is to end in the program under test, run by this
/// home's user; `command` makes it of the words that do that.
#[cfg(feature = "broker")]
pub(crate) fn through(
    home: &Home,
    program: &str,
    command: impl FnOnce(Vec<OsString>) -> Vec<OsString>,
) -> Run {
    let mut words: Vec<OsString> = Vec::new();
    if let Some(uid) = home.uid() {
        words.push("setpriv".into());
        words.extend([format!("--reuid={uid}").into(), format!("--regid={uid}").into()]);
        words.extend(["--clear-groups".into(), "--".into()]);
    }
    words.push(home.share(under_test()).into());
    let run = Run::new(program, home.path("work")).args(command(words));
    home.variables().iter().fold(run, |run, (name, value)| run.env(name, value))
}

/// For a test that becomes somebody else, or that makes what is somebody else's.
///
/// # Panics
/// Where the tests do not run as root, who alone can do that.
#[track_caller]
pub(crate) fn assert_root() {
    assert!(is_root(), "this test becomes other users: run the tests as root");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
