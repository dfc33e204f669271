//! Process groups, which may be out of sight: whoever was started from outside into a
//! PID namespace (`docker exec`, `nsenter`, `unshare`) can be of a group that has no
//! number there. The system then answers 0, which rustix takes for impossible.

use rustix::process::Pid;

/// The group of this process; `None` where it has no number in this PID namespace
/// (see `pid_namespaces(7)`).
#[must_use]
pub fn own_group() -> Option<Pid> {
    #[expect(unsafe_code, reason = "the safe wrapper asserts that the answer is no 0")]
    // SAFETY: it reads a number of this process, and cannot fail.
    Pid::from_raw(unsafe { libc::getpgrp() })
}

/// The group of another process; `None` also where there is no such process.
#[must_use]
pub fn group_of(process: Pid) -> Option<Pid> {
    #[expect(unsafe_code, reason = "the safe wrapper asserts that the answer is no 0")]
    // SAFETY: it reads a number of that process.
    match unsafe { libc::getpgid(process.as_raw_nonzero().get()) } {
        ..1 => None,
        group => Pid::from_raw(group),
    }
}

#[cfg(test)]
mod tests {
    use super::{Pid, group_of, own_group};
    use rustix::process::getpid;

    #[test]
    fn a_group_is_told() {
        assert_eq!(own_group(), group_of(getpid()));
        assert_eq!(group_of(Pid::from_raw(i32::MAX).unwrap()), None);
    }
}
