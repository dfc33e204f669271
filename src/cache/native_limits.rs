//! What the keyrings of macOS and Windows are held to: how much they take and how long.
//! It is here so that it is tested where they are not.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

/// What Windows takes in one item, in bytes (`CRED_MAX_CREDENTIAL_BLOB_SIZE`).
const WINDOWS_LIMIT: usize = 2560;

/// Whether an item of so many bytes has room. Keychain knows no limit of that kind.
pub(super) fn has_room(windows: bool, bytes: usize) -> bool {
    !windows || bytes <= WINDOWS_LIMIT
}

/// Runs a call on a thread of its own, so that nothing in it can keep this one. `None`
/// where it does not end in time: it is left to itself, and ends with this program.
///
/// # Errors
/// Where there can be no thread.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (answer, inbox) = mpsc::channel();
    std::thread::Builder::new().name("keyring".to_string()).spawn(move || {
        // Whoever waited may have given up.
        let _ = answer.send(call());
    })?;
    Ok(inbox.recv_timeout(limit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_takes_so_much_and_no_more() {
        for (bytes, on_windows) in [(0, true), (2560, true), (2561, false)] {
            assert_eq!(has_room(true, bytes), on_windows, "{bytes}");
            assert!(has_room(false, bytes), "{bytes}");
        }
    }

    #[test]
    fn a_call_that_does_not_end_is_given_up() {
        let long = Duration::from_secs(60);
        assert_eq!(within(long, || 7).unwrap(), Some(7));
        // It waits for what comes only at the end of the test.
        let (end, ended) = mpsc::channel::<()>();
        let waits = move || ended.recv().is_ok();
        assert_eq!(within(Duration::from_millis(1), waits).unwrap(), None);
        drop(end);
    }
}
