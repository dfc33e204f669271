//! This process itself, and those it starts.

#[cfg(unix)]
mod detached;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod entry;
#[cfg(unix)]
pub mod groups;
#[cfg(unix)]
pub mod orphans;
pub mod output;
pub mod printed;
#[cfg(unix)]
pub mod signals;
#[cfg(unix)]
mod streams;

use std::ffi::OsStr;
use std::process::Command;

use crate::error::{Error, ErrorKind, Result};

/// Whether this process was started with its standard output closed, where that can be
/// told.
pub fn stdout_was_closed() -> bool {
    #[cfg(unix)]
    {
        streams::stdout_was_closed()
    }
    #[cfg(not(unix))]
    false
}

/// The limit on core dumps that was in force before [`forbid_core_dumps`].
#[derive(Clone, Copy, Debug)]
pub struct CoreLimit {
    #[cfg(unix)]
    was: rustix::process::Rlimit,
}

/// Turns core dumps of this process off, and keeps debuggers of the same user
/// out where the system can (Linux). Call it before a secret is read; hand the
/// result to the child with [`CoreLimit::restore`].
pub fn forbid_core_dumps() -> CoreLimit {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let was = getrlimit(Resource::Core);
        // Lowering the soft limit cannot fail; the hard one stays, so that the child can get it back.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: was.maximum });
        #[cfg(target_os = "linux")]
        let _ =
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
        CoreLimit { was }
    }
    #[cfg(not(unix))]
    CoreLimit {}
}

impl CoreLimit {
    /// Puts the limit back, in the child or just before `execve`. An `execve`
    /// makes the process dumpable again by itself.
    pub fn restore(self) -> std::io::Result<()> {
        #[cfg(unix)]
        rustix::process::setrlimit(rustix::process::Resource::Core, self.was)?;
        Ok(())
    }
}

/// Lets this process have so many files open, as far as it may decide that, and tells
/// how many it may have.
pub fn allow_open_files(wanted: u64) -> u64 {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
        if current.is_some_and(|current| current < raised) {
            // Where it fails, the limit says so below.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum });
        }
        getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
    }
    #[cfg(not(unix))]
    wanted
}

/// The file that this program was started from.
///
/// # Errors
/// Where the system does not tell.
#[expect(clippy::disallowed_methods, reason = "this is the port to other processes")]
pub fn own_program() -> Result<std::path::PathBuf> {
    std::env::current_exe().map_err(|cause| {
        Error::new(ErrorKind::Io, "it cannot be told where tmpcred itself is").because(cause)
    })
}

/// A command to be started. It inherits nothing that is not said of it but the
/// standard streams, the working directory and the environment.
#[expect(clippy::disallowed_methods, reason = "this is the port to other processes")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Starts a command that goes on by itself, whatever becomes of this process: with no
/// terminal, none of the files that are open here, and nobody who waits for it.
///
/// # Errors
/// Where it cannot be started.
pub fn detach(mut command: Command) -> std::io::Result<()> {
    use std::process::Stdio;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    #[cfg(unix)]
    return detached::start(command);
    #[cfg(windows)]
    {
        use std::os::windows::process::CommandExt;
        /// [`DETACHED_PROCESS`](https://learn.microsoft.com/windows/win32/procthread/process-creation-flags)
        /// and `CREATE_NEW_PROCESS_GROUP`.
        const FLAGS: u32 = 0x0000_0008 | 0x0000_0200;
        command.creation_flags(FLAGS).spawn().map(|_| ())
    }
}

/// Ends this process the way signal `signal` ends a process, so that whoever
/// waits for it sees the same as if it had waited for the child that died of
/// it. No core is left behind, whatever the signal.
///
/// `main` calls it, when nothing is left to be done. It returns where the
/// system will not let us die of that signal (as the first process of a
/// container, for one): `main` then ends with the code that it yields.
pub fn die_of(signal: i32) -> u8 {
    #[cfg(unix)]
    {
        forbid_core_dumps();
        if signals::Action::default().install(signal).is_ok()
            // SIGKILL cannot be given an action, and needs none.
            || signal == rustix::process::Signal::KILL.as_raw()
        {
            let _ = signals::Mask::empty().install();
            let _ = signal_hook::low_level::raise(signal);
        }
    }
    signal_exit_code(signal)
}

/// The end of this process, put off until this is dropped.
pub struct Postponed {
    #[cfg(unix)]
    _undisturbed: Option<signals::Undisturbed>,
}

/// Puts off the end of this process by Ctrl-C, by whoever terminates it, and by a terminal
/// that is closed: for something by which much would be lost, and which ends soon by itself.
/// `SIGQUIT` (Ctrl-\) ends it all the same, and so does a signal that another thread takes.
pub fn postpone_end() -> Postponed {
    Postponed {
        #[cfg(unix)]
        _undisturbed: signals::Undisturbed::by(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP]).ok(),
    }
}

/// The exit code that stands for the death by signal `signal`: `128 + n`.
pub fn signal_exit_code(signal: i32) -> u8 {
    u8::try_from(signal).ok().and_then(|n| n.checked_add(128)).unwrap_or(u8::MAX)
}

/// The terminal that controls this process, if there is one.
#[cfg(unix)]
pub fn controlling_terminal() -> Option<std::os::fd::OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()
}

/// The number that identifies this user to the system; 0 where there is none.
pub fn user_id() -> u32 {
    #[cfg(unix)]
    {
        rustix::process::geteuid().as_raw()
    }
    #[cfg(not(unix))]
    {
        0
    }
}

/// The name that this user logged in with, as the session has it; else the number
/// that the system knows them by.
#[cfg(feature = "broker")]
pub fn user_name(env: &super::env::Env) -> String {
    let name = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| env.get(name));
    name.map_or_else(|| user_id().to_string(), str::to_string)
}

/// Runs this on a thread whose stack is known to have room for policies, which are evaluated
/// and parsed by recursion. That of the process itself grows as it is used, up to a limit that
/// may be low (`ulimit -s`); and musl tells only of the part that is there already, which who
/// looks before going deeper takes for all of it.
///
/// # Errors
/// Where the system allows no further thread.
#[cfg(feature = "broker")]
pub fn with_room<T: Send>(what: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("tmpcred".into()).stack_size(ROOM);
        let running = thread.spawn_scoped(scope, what).map_err(|cause| {
            Error::new(ErrorKind::Io, "cannot start the thread that does the work").because(cause)
        })?;
        Ok(running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// The stack of [`with_room`], in bytes: what a process has at most where nobody set it.
#[cfg(feature = "broker")]
const ROOM: usize = 8 << 20;

/// Makes the runtime on which everything that waits for the network runs.
/// Only a cold path calls it: a cache hit needs none.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|cause| {
        Error::new(ErrorKind::Io, "cannot start what waits for the network").because(cause)
    })
}
