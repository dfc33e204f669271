//! Text with secrets in it, while it is being written.

use std::io;

use zeroize::{Zeroize, Zeroizing};

use crate::secret::Secret;

/// A string that grows without leaving copies of itself behind, as a plain
/// `String` does each time it moves to a larger place.
#[derive(Default)]
pub(super) struct Text(Zeroizing<String>);

impl Text {
    pub(super) fn push_str(&mut self, more: &str) {
        self.make_room(more.len());
        self.0.push_str(more);
    }

    pub(super) fn push(&mut self, more: char) {
        self.push_str(more.encode_utf8(&mut [0; 4]));
    }

    fn make_room(&mut self, more: usize) {
        let needed = self.0.len().saturating_add(more);
        if needed > self.0.capacity() {
            let mut larger = String::with_capacity(needed.saturating_mul(2).max(256));
            larger.push_str(&self.0);
            self.0.zeroize();
            *self.0 = larger;
        }
    }

    /// The finished text.
    pub(super) fn into_secret(mut self) -> Secret<String> {
        Secret::new(std::mem::take(&mut *self.0))
    }
}

/// For writers that are generic, such as JSON's. They write whole characters.
impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        self.push_str(text);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_in_growing() {
        let mut text = Text::default();
        let mut expected = String::new();
        for n in 0..2000 {
            let piece = format!("{n}é");
            text.push_str(&piece);
            text.push('|');
            expected += &piece;
            expected.push('|');
        }
        assert_eq!(text.into_secret().expose(), &expected);
    }
}
