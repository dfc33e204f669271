//! Processes that nobody waits for.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getpid, kill_process};

/// Starts a command in a session of its own, as nobody's child: what replaces this
/// process by `execve` would be told of the end of a child that it never had.
pub(super) fn start(mut command: Command) -> io::Result<()> {
    #[expect(unsafe_code, reason = "there is no safe way to act between fork and exec")]
    // SAFETY: it does nothing but system calls, which are safe there.
    unsafe {
        command.pre_exec(step_aside);
    }
    // It has ended by now: its child is the command.
    command.spawn()?.wait().map(|_| ())
}

/// Leaves the session of this process and, in a child, its parent. What others have
/// left open here, such as a lock of the script that started it, is closed by `execve`.
fn step_aside() -> io::Result<()> {
    rustix::process::setsid()?;
    close_on_exec(3);
    #[expect(unsafe_code, reason = "there is no safe way to be two processes")]
    // SAFETY: both go on with system calls only.
    match unsafe { libc::fork() } {
        ..0 => Err(io::Error::last_os_error()),
        0 => Ok(()),
        // Nothing of what is to happen at the end of a process is ours to do.
        _ => loop {
            let _ = kill_process(getpid(), Signal::KILL);
        },
    }
}

/// Has `execve` close all files from this number on.
fn close_on_exec(first: i32) {
    #[cfg(target_os = "linux")]
    {
        #[expect(unsafe_code, reason = "no safe wrapper at hand")]
        // SAFETY: it changes what happens to files at an `execve`, and no more.
        let marked = unsafe {
            libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
        };
        if marked == 0 {
            return;
        }
    }
    /// Where there are more, they are of no script.
    const MOST: i32 = 1024;
    for file in first..MOST {
        #[expect(unsafe_code, reason = "no safe wrapper can mark what it does not own")]
        // SAFETY: as above; a number that is of no file is an error, which is let be.
        unsafe {
            libc::fcntl(file, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, WaitOptions, waitpid};

    use super::super::{command, detach};
    use crate::host::files::read_text;

    #[test]
    fn it_is_nobodys_child_and_has_nothing_of_ours() {
        let root = tempfile::tempdir().unwrap();
        let (told, done) = (root.path().join("told"), root.path().join("done"));
        // A file that a script would have left open.
        let open = tempfile::tempfile().unwrap();
        let kept = rustix::io::fcntl_dupfd_cloexec(&open, 100).unwrap();
        rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty()).unwrap();
        let mut shell = command("/bin/sh");
        shell.arg("-c").arg(
            r#"printf '%s %s %s' "$$" "$(cut -d' ' -f6 /proc/$$/stat)" \
                "$(readlink /proc/$$/fd/"$KEPT" || echo closed)" >"$TOLD"; mv "$TOLD" "$DONE""#,
        );
        shell.env("TOLD", &told).env("DONE", &done);
        shell.env("KEPT", kept.as_raw_fd().to_string());
        detach(shell).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while !done.exists() {
            assert!(Instant::now() < until, "it never ran");
            std::thread::yield_now();
        }
        let said = read_text(&done, 1024).unwrap().unwrap();
        let [process, session, file] = said.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{said}")
        };
        let process = Pid::from_raw(process.parse().unwrap()).unwrap();
        // That of the test may be out of sight, and have the number 0 (see `groups`).
        let stat = read_text("/proc/self/stat".as_ref(), 1024).unwrap().unwrap();
        let (_, after_name) = stat.rsplit_once(')').unwrap();
        let ours = after_name.split_whitespace().nth(3).unwrap();
        assert!(ours.parse::<u32>().is_ok(), "{stat}");
        assert_ne!(session, ours);
        assert_eq!(file, "closed");
        let waited = waitpid(Some(process), WaitOptions::NOHANG);
        assert_eq!(waited.unwrap_err(), rustix::io::Errno::CHILD, "it is a child of ours");
    }

    #[test]
    fn what_cannot_be_started_is_an_error() {
        let error = detach(command("/nonexistent/program")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}
