//! Processes that become children of this one because their parents have ended: those of the
//! first process of a container, and of one that has asked for them
//! (`PR_SET_CHILD_SUBREAPER`). Until somebody waits for them they stay after their end, and
//! each has a number of which there are not many.

use rustix::process::Pid;

/// Whether this process gets such children.
pub fn come_here() -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{child_subreaper, getpid};
        getpid() == Pid::INIT || child_subreaper().is_ok_and(|is_one| is_one.is_some())
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Waits for those that have ended, and for none of `ours`. Where one of those has ended, the
/// others may have to wait until somebody has seen to that.
///
/// The system makes them children of this process's first thread, to which this has to be
/// called: what other threads have started is theirs to wait for, and is let be. What the
/// calling thread has started must be among `ours`, or nobody's to wait for.
#[cfg(target_os = "linux")]
pub fn reap(ours: &[Pid]) {
    use rustix::process::{WaitOptions, waitpid};
    while let Some(ended) = ended_child() {
        let is_gone = || matches!(waitpid(Some(ended), WaitOptions::NOHANG), Ok(Some(_)));
        if ours.contains(&ended) || !is_gone() {
            return;
        }
    }
}

/// Elsewhere none come here.
#[cfg(not(target_os = "linux"))]
pub fn reap(_: &[Pid]) {}

/// A child of the calling thread that has ended, which can be waited for still. (That of rustix
/// does not tell which one.)
#[cfg(target_os = "linux")]
fn ended_child() -> Option<Pid> {
    const OPTIONS: i32 = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WNOTHREAD;
    let mut told = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    #[expect(unsafe_code, reason = "no safe wrapper at hand")]
    // SAFETY: it writes what it tells there, or nothing; all zeroes, which are there before, are
    // a valid value of that structure of integers and pointers, and mean no process.
    let pid = unsafe {
        if libc::waitid(libc::P_ALL, 0, told.as_mut_ptr(), OPTIONS) != 0 {
            return None;
        }
        told.assume_init().si_pid()
    };
    Pid::from_raw(pid)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::host::process;

    /// A child that has ended, which nobody has waited for.
    fn ended() -> (std::process::Child, Pid) {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let child = process::command("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        (child, pid)
    }

    #[test]
    fn ours_and_those_of_other_threads_are_left_to_who_waits_for_them() {
        let (tell, told) = mpsc::channel();
        let (go, goes) = mpsc::channel::<()>();
        let elsewhere = std::thread::spawn(move || {
            let (mut child, _) = ended();
            tell.send(()).unwrap();
            goes.recv().unwrap();
            child.wait().unwrap().success()
        });
        told.recv().unwrap();
        let (mut ours, pid) = ended();
        reap(&[pid]);
        assert!(ours.wait().unwrap().success());
        let (mut orphans, _): (Vec<_>, Vec<_>) = (0..3).map(|_| ended()).unzip();
        reap(&[pid]);
        assert!(orphans.iter_mut().all(|orphan| orphan.wait().is_err()));
        go.send(()).unwrap();
        assert!(elsewhere.join().unwrap());
    }
}
