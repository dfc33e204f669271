//! A mail server on loopback: aiosmtpd, which is other people's, as `tests/peers/mail-server.py` has
//! it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::aws::python_program;
use super::peer::{Peer, supervised};
use super::tls::ServerCertificate;
use super::wait::free_port;

/// How whoever sends logs in.
pub(crate) const USER: &str = "tmpcred";
pub(crate) const PASSWORD: &str = "s3cret";

/// A server. Dropping it kills it.
pub(crate) struct MailServer {
    peer: Option<Peer>,
    files: TempDir,
    how: String,
    certificate: Option<ServerCertificate>,
    pub(crate) port: u16,
}

impl MailServer {
    /// Starts one that is spoken to like this: `starttls`, `wrapped` or `clear`.
    #[track_caller]
    pub(crate) fn start(how: &str, certificate: Option<ServerCertificate>) -> Self {
        let (files, port, how) = (tempfile::tempdir().unwrap(), free_port(), how.into());
        let mut server = Self { peer: None, files, how, certificate, port };
        server.begin();
        server
    }

    /// Starts it, again where it was ended, and waits until it listens.
    #[track_caller]
    pub(crate) fn begin(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/mail-server.py");
        let mut command = supervised(&python_program("python"), Path::new("/dev/null"));
        command.arg(script).arg(self.port.to_string()).arg(self.file()).arg(&self.how);
        if let Some(certificate) = &self.certificate {
            command.arg(&certificate.certificate).arg(&certificate.key);
        }
        let mut peer = Peer::start("the mail server", command, self.files.path().join("log"));
        peer.until_ready(|| std::net::TcpStream::connect(("127.0.0.1", self.port)).ok());
        self.peer = Some(peer);
    }

    /// Ends it.
    pub(crate) fn end(&mut self) {
        self.peer = None;
    }

    /// From now on it answers this to each mail; nothing: it takes it.
    pub(crate) fn behave(&self, mode: &str) {
        let (path, draft) = (self.files.path().join("got.mode"), self.files.path().join("draft"));
        std::fs::write(&draft, mode).unwrap();
        std::fs::rename(draft, path).unwrap();
    }

    /// All mails so far.
    pub(crate) fn mails(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        // The last line may still be on its way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn file(&self) -> PathBuf {
        self.files.path().join("got")
    }
}
