//! What is logged while a test runs.

use std::sync::{Arc, Mutex};

use tracing::subscriber::{DefaultGuard, set_default};

/// What this thread logs while it lives, as a text.
pub(crate) struct Logged {
    text: Text,
    _for_this_thread: DefaultGuard,
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Logged {
    /// From now on it is read along.
    pub(crate) fn start() -> Self {
        let text = Text::default();
        let writer = text.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        Self { text, _for_this_thread: set_default(log) }
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
