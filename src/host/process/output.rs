//! What a command prints, within bounds of time and size.

use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::secret::Secret;

/// How much of what a command says on standard error is kept: what it says last.
const STDERR_KEPT: usize = 4 * 1024;

/// How long what a command left behind may keep its pipes open, and once more when it was
/// killed.
const GRACE: Duration = Duration::from_millis(500);

/// How a command ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Itself {
        /// How.
        status: ExitStatus,
        /// All that it printed; it may hold secrets.
        stdout: Secret<Vec<u8>>,
        /// The last of what it said on standard error.
        stderr: String,
    },
    /// It was killed because it took too long; with the last that it said.
    TooLong(String),
    /// It was killed because it printed too much.
    TooMuch,
}

/// Runs a command without standard input, and takes what it prints: at most `max`
/// bytes, within `limit`. On Unix it is the leader of a process group of its own,
/// all of which is killed where a bound is exceeded, and where this future is
/// dropped. On Linux it dies with the thread that waits for it.
///
/// # Errors
/// Where it cannot be started.
pub async fn output(command: Command, limit: Duration, max: usize) -> std::io::Result<Ended> {
    run(command, None, limit, max).await
}

/// The same with this on standard input.
///
/// # Errors
/// Where it cannot be started.
pub async fn fed(
    command: Command,
    input: &Secret<Vec<u8>>,
    limit: Duration,
    max: usize,
) -> std::io::Result<Ended> {
    run(command, Some(input), limit, max).await
}

async fn run(
    command: Command,
    input: Option<&Secret<Vec<u8>>>,
    limit: Duration,
    max: usize,
) -> std::io::Result<Ended> {
    let mut command = tokio::process::Command::from(command);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    // Whoever ends this process, with Ctrl-C for one, ends the command too.
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        let die_with_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        #[expect(unsafe_code, reason = "there is no safe way to act between fork and exec")]
        // SAFETY: it is one system call, which is safe there.
        unsafe {
            command.pre_exec(die_with_us);
        }
    }
    let mut child = command.spawn()?;
    let mut group = Group::of(&child);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut printed, mut said) = (Printed::of(max), Vec::new());
    let filled = AtomicUsize::new(0);
    let ended = timeout(limit, async {
        let shown = printed.read_all(stdout, &filled);
        let told = async {
            read_last(stderr, &mut said).await;
            Ok(())
        };
        let handed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // It may end without reading all of it.
                let _ = stdin.write_all(input.expose()).await;
            }
            Ok(())
        };
        let reading = async { tokio::try_join!(shown, told, handed).map(|_| ()) };
        tokio::pin!(reading);
        let (read, status) = tokio::select! {
            // Whoever prints without end is not waited for.
            read = &mut reading => match read {
                Err(TooMuch) => return Ok(None),
                Ok(()) => (Ok(()), child.wait().await),
            },
            status = child.wait() => match timeout(GRACE, &mut reading).await {
                Ok(read) => (read, status),
                Err(_) => {
                    group.kill();
                    let so_far = filled.load(Ordering::Relaxed);
                    match timeout(GRACE, &mut reading).await {
                        Ok(read) => (read, status),
                        // What has a session of its own is in no group, and keeps the pipes: a
                        // daemon. All that the command itself printed has been read.
                        Err(_) if so_far > 0 && so_far == filled.load(Ordering::Relaxed) => {
                            (Ok(()), status)
                        }
                        // It is what has the session that prints, as with `setsid`.
                        Err(_) => (reading.await, status),
                    }
                }
            },
        };
        status.map(|status| read.ok().map(|()| status))
    })
    .await;
    let text = || String::from_utf8_lossy(&said).trim().to_string();
    match ended {
        Ok(Ok(Some(status))) => {
            group.leave();
            let stdout = printed.taken(filled.into_inner());
            Ok(Ended::Itself { status, stdout, stderr: text() })
        }
        Ok(Ok(None)) => Ok(Ended::TooMuch),
        Ok(Err(cause)) => Err(cause),
        Err(_) => Ok(Ended::TooLong(text())),
    }
}

/// More was printed than there is space for.
struct TooMuch;

/// What was printed so far.
struct Printed {
    /// One more than there may be. Never grown, so that no copy stays behind.
    bytes: Secret<Vec<u8>>,
}

impl Printed {
    /// Nothing yet, and at most `max` bytes.
    fn of(max: usize) -> Self {
        Self { bytes: Secret::new(vec![0; max.saturating_add(1)]) }
    }

    /// Takes all that comes, and says in `filled` how much that is so far. What has come stays
    /// where this ends before.
    async fn read_all(
        &mut self,
        from: Option<impl AsyncRead + Unpin>,
        filled: &AtomicUsize,
    ) -> Result<(), TooMuch> {
        let Some(mut from) = from else { return Ok(()) };
        let space = self.bytes.expose_mut();
        let mut end = 0;
        while end < space.len() {
            match from.read(&mut space[end..]).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(n) => end += n,
            }
            filled.store(end, Ordering::Relaxed);
        }
        Err(TooMuch)
    }

    /// What is in the first of these bytes.
    fn taken(mut self, filled: usize) -> Secret<Vec<u8>> {
        self.bytes.expose_mut().truncate(filled);
        self.bytes
    }
}

/// Reads to the end, and keeps the last of it.
async fn read_last(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut chunk = [0; 1024];
    while let Ok(n) = from.read(&mut chunk).await {
        if n == 0 {
            return;
        }
        kept.extend_from_slice(&chunk[..n]);
        let surplus = kept.len().saturating_sub(STDERR_KEPT);
        kept.drain(..surplus);
    }
}

/// The command's process group. Dropping it kills what is still in it.
struct Group(Option<u32>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        Self(child.id())
    }

    fn kill(&mut self) {
        let id = self.0.take();
        #[cfg(unix)]
        if let Some(pid) =
            id.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
        {
            // It may be gone already.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        // Elsewhere tokio kills the child itself.
        #[cfg(not(unix))]
        let _ = id;
    }

    /// What is still in it may stay: it has let go of the pipes.
    fn leave(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests;
