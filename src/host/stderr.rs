//! Where standard error leads to, and whether it has been read.

use std::time::Duration;

/// Who gets what is written to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A terminal, or what poses as one.
    Terminal,
    /// Another program, through a pipe or a socket.
    Program,
    /// A file, or nobody.
    Nobody,
}

/// Who reads standard error, of which the caller knows whether it is a terminal.
pub fn reader(is_terminal: bool) -> Reader {
    if is_terminal {
        return Reader::Terminal;
    }
    #[cfg(unix)]
    {
        use rustix::fs::FileType;
        let kind = rustix::fs::fstat(rustix::stdio::stderr())
            .map(|stat| FileType::from_raw_mode(stat.st_mode));
        match kind {
            Ok(FileType::Fifo | FileType::Socket) => Reader::Program,
            _ => Reader::Nobody,
        }
    }
    #[cfg(not(unix))]
    Reader::Program
}

/// Waits until all that was written to standard error has been read, where the
/// system can tell, and at most so long.
pub fn wait_until_read(limit: Duration) {
    #[cfg(target_os = "linux")]
    {
        const PAUSE: Duration = Duration::from_millis(1);
        let mut left = limit;
        while unread() > 0 && !left.is_zero() {
            let pause = PAUSE.min(left);
            std::thread::sleep(pause);
            left = left.saturating_sub(pause);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = limit;
}

/// How many bytes nobody has read yet, as pipe(7) and unix(7) have it: `FIONREAD`
/// of a pipe, from either end, and `SIOCOUTQ` of a socket (which is `TIOCOUTQ`).
#[cfg(target_os = "linux")]
fn unread() -> i32 {
    use std::os::fd::AsRawFd;
    let stderr = rustix::stdio::stderr();
    let request = match rustix::fs::fstat(stderr).map(|stat| stat.st_mode) {
        Ok(mode) if rustix::fs::FileType::from_raw_mode(mode).is_fifo() => libc::FIONREAD,
        _ => libc::TIOCOUTQ,
    };
    let mut bytes: i32 = 0;
    #[expect(unsafe_code, reason = "rustix does not have SIOCOUTQ")]
    // SAFETY: both requests write one int to the address that is given.
    let asked = unsafe { libc::ioctl(stderr.as_raw_fd(), request, &raw mut bytes) };
    if asked == 0 { bytes } else { 0 }
}
