//! The log of a server, written by a thread of its own: whoever reads it slowly, or not at all,
//! holds up nobody who is served.

use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// How many lines may wait to be written; more are lost.
const WAITING: usize = 8192;

/// How long what waits may take to be written when the server ends.
const PATIENCE: Duration = Duration::from_secs(2);

/// The log while it is written. When this is dropped what waits is written, as far as somebody
/// takes it.
pub struct ServerLog {
    counts: LogCounts,
    /// What is wrong with the filter of the environment, where something is.
    wrong: Option<String>,
    writer: Option<WorkerGuard>,
}

impl ServerLog {
    /// One to this place, and what lines are given to for it.
    pub(super) fn to(place: impl Write + Send + 'static) -> (Self, NonBlocking) {
        let unwritten = Arc::new(AtomicU64::new(0));
        let lines = Lines { place: BufWriter::new(place), unwritten: unwritten.clone() };
        let queue = NonBlockingBuilder::default().buffered_lines_limit(WAITING).thread_name("log");
        let (queue, writer) = queue.finish(lines);
        let counts = LogCounts {
            full: Some(queue.error_counter()),
            unwritten,
            panics: Arc::new(AtomicU64::new(0)),
        };
        (Self { counts, wrong: None, writer: Some(writer) }, queue)
    }

    pub(super) fn with(mut self, wrong: Option<String>) -> Self {
        self.wrong = wrong;
        self
    }

    /// What is wrong with the filter of the environment, where something is: it does not count then.
    pub fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    /// What is counted.
    pub fn counts(&self) -> LogCounts {
        self.counts.clone()
    }

    /// Counts panics as well, from now on.
    pub(super) fn count_panics(&self) {
        let (panics, before) = (self.counts.panics.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            panics.fetch_add(1, Ordering::Relaxed);
            before(panic);
        }));
    }
}

impl Drop for ServerLog {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        // Where nobody takes what waits, the library says so on the standard output, which nobody
        // may take either.
        let (done, ended) = mpsc::channel();
        std::thread::spawn(move || {
            drop(writer);
            let _ = done.send(());
        });
        let _ = ended.recv_timeout(PATIENCE);
    }
}

/// What is counted of a log, and of what is told in it.
#[derive(Clone, Debug, Default)]
pub struct LogCounts {
    full: Option<ErrorCounter>,
    unwritten: Arc<AtomicU64>,
    panics: Arc<AtomicU64>,
}

impl LogCounts {
    /// Lines that were lost: too many waited already, or they could not be written.
    pub fn lost(&self) -> u64 {
        let full = self.full.as_ref().map_or(0, |full| full.dropped_lines() as u64);
        full.saturating_add(self.unwritten.load(Ordering::Relaxed))
    }

    /// Threads and tasks that panicked.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

/// Where lines go, as many at once as there are. One that cannot be written is counted, and
/// nothing else comes of it.
struct Lines<W: Write> {
    place: BufWriter<W>,
    unwritten: Arc<AtomicU64>,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.place.write_all(line).is_err() {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // What is left is tried again with the next line.
        let _ = self.place.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Takes nothing until it is let.
    #[derive(Clone, Default)]
    struct Gate {
        taken: Arc<Mutex<Vec<u8>>>,
        fails: Arc<Mutex<bool>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if *self.fails.lock().unwrap() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.taken.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Gate {
        fn lines(&self) -> Vec<String> {
            let taken = self.taken.lock().unwrap();
            String::from_utf8_lossy(&taken).lines().map(String::from).collect()
        }
    }

    #[test]
    fn who_logs_waits_for_nobody_and_what_is_too_much_is_counted() {
        let gate = Gate::default();
        let (log, mut queue) = ServerLog::to(gate.clone());
        let counts = log.counts();
        let closed = gate.taken.lock().unwrap();
        // One is held by the thread that waits at the gate, and those that were with it.
        let total = 3 * WAITING;
        for line in 0..total {
            queue.write_all(format!("line {line} {:0>200}\n", "").as_bytes()).unwrap();
        }
        let lost = counts.lost();
        assert!(lost > 0 && lost < total as u64, "{lost}");
        drop(closed);
        drop(log);
        let lines = gate.lines();
        assert_eq!(lines.len() as u64 + counts.lost(), total as u64);
        assert!(lines[0].starts_with("line 0 "), "{}", lines[0]);
    }

    #[test]
    fn a_log_that_nobody_takes_holds_up_no_end() {
        let gate = Gate::default();
        let (log, mut queue) = ServerLog::to(gate.clone());
        let closed = gate.taken.lock().unwrap();
        for _ in 0..2 * WAITING {
            queue.write_all(b"line\n").unwrap();
        }
        drop(log);
        drop(closed);
    }

    #[test]
    fn what_could_not_be_written_is_counted_and_what_comes_after_it_is_not_lost() {
        let gate = Gate::default();
        *gate.fails.lock().unwrap() = true;
        let unwritten = Arc::new(AtomicU64::new(0));
        let place = BufWriter::with_capacity(16, gate.clone());
        let mut lines = Lines { place, unwritten: unwritten.clone() };
        for line in ["one of more than that\n", "two\n", "three\n", "four of more than that\n"] {
            lines.write_all(line.as_bytes()).unwrap();
            lines.flush().unwrap();
        }
        assert_eq!(unwritten.load(Ordering::Relaxed), 2);
        *gate.fails.lock().unwrap() = false;
        lines.write_all(b"five\n").unwrap();
        lines.flush().unwrap();
        assert_eq!(gate.lines(), ["two", "three", "five"]);
    }
}
