//! Handing text with secrets to whoever reads our output.

use std::io::{self, Write};

use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// What became of printed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Printed {
    /// All of it was handed over.
    Whole,
    /// Whoever was to read it has closed the pipe. That is theirs to do and no
    /// error; other programs end quietly then, of SIGPIPE where there is one.
    ReaderGone,
}

/// Writes the text in one piece, and makes sure that it is gone.
///
/// # Errors
///
/// Any failure to write but a closed pipe: a full disk, for one.
pub fn print(text: &Secret<String>, out: &mut impl Write) -> Result<Printed> {
    match out.write_all(text.expose().as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Printed::Whole),
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::ReaderGone),
        Err(cause) => Err(Error::new(ErrorKind::Io, "cannot write the output").because(cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        // As a buffered writer does: it fails late.
        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
        let text = Secret::new(String::from("canary\n"));
        let mut out = Vec::new();
        assert_eq!(print(&text, &mut out).unwrap(), Printed::Whole);
        assert_eq!(out, b"canary\n");
        let gone = print(&text, &mut Failing(io::ErrorKind::BrokenPipe)).unwrap();
        assert_eq!(gone, Printed::ReaderGone);
        let error = print(&text, &mut Failing(io::ErrorKind::StorageFull)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(!format!("{error:?}").contains("canary"));
    }

    #[cfg(unix)]
    #[test]
    fn a_real_pipe_without_a_reader_is_found_out() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        let text = Secret::new(String::from("x\n"));
        assert_eq!(print(&text, &mut writer).unwrap(), Printed::ReaderGone);
    }
}
