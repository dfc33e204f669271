//! What is logged while a test runs.

use std::sync::{Arc, Mutex};

use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, set_default};

/// What this thread logs while it lives, as a text.
pub(crate) struct Logged {
    text: Text,
    _for_this_thread: DefaultGuard,
    /// With one reader alone it is asked once for all threads whether anybody reads what is logged
    /// at a place, and that by the thread that comes there first, for which nobody may.
    _another: Dispatch,
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Logged {
    /// From now on it is read along.
    pub(crate) fn start() -> Self {
        let text = Text::default();
        let writer = text.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let another = Dispatch::new(tracing_subscriber::registry());
        Self { text, _for_this_thread: set_default(log), _another: another }
    }

    /// How many times it says this.
    pub(crate) fn times(&self, part: &str) -> usize {
        let text = self.text.0.lock().unwrap();
        std::str::from_utf8(&text).unwrap().matches(part).count()
    }
}

impl std::io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
