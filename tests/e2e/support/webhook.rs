//! A receiver of webhooks on loopback, written for the tests (`tests/peers/webhook.py`). What
//! checks the signatures there is a library of other people's.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::aws::python_program;
use super::peer::{Peer, supervised};
use super::tls::ServerCertificate;
use super::wait::free_port;

/// 32 bytes that protect nothing.
pub(crate) const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A receiver. Dropping it kills it.
pub(crate) struct Webhook {
    peer: Option<Peer>,
    files: TempDir,
    port: u16,
    certificate: Option<ServerCertificate>,
}

impl Webhook {
    /// Starts one; with a certificate it speaks TLS.
    #[track_caller]
    pub(crate) fn start(certificate: Option<ServerCertificate>) -> Self {
        let (files, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut receiver = Self { peer: None, files, port, certificate };
        receiver.behave("ok");
        receiver.begin();
        receiver
    }

    /// Starts it, again where it was ended, and waits until it listens.
    #[track_caller]
    pub(crate) fn begin(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/webhook.py");
        let mut command = supervised(&python_program("python"), Path::new("/dev/null"));
        command.arg(script).arg(self.port.to_string()).arg(self.file()).arg(SECRET);
        if let Some(certificate) = &self.certificate {
            command.arg(&certificate.certificate).arg(&certificate.key);
        }
        let mut peer = Peer::start("the receiver", command, self.files.path().join("log"));
        peer.until_ready(|| std::net::TcpStream::connect(("127.0.0.1", self.port)).ok());
        self.peer = Some(peer);
    }

    /// Ends it.
    pub(crate) fn end(&mut self) {
        self.peer = None;
    }

    /// From now on it does this.
    pub(crate) fn behave(&self, mode: &str) {
        let (path, draft) = (self.files.path().join("got.mode"), self.files.path().join("draft"));
        std::fs::write(&draft, mode).unwrap();
        std::fs::rename(draft, path).unwrap();
    }

    /// The table of the configuration that names it `hook`; `more` are further keys.
    pub(crate) fn table(&self, more: &str) -> String {
        let secret = self.files.path().join("secret");
        std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secret, private).unwrap();
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!(
            "\n[audit.webhook.hook]\nurl = \"{scheme}://127.0.0.1:{}/audit\"\n\
             secret_file = {secret:?}\n{more}\n",
            self.port
        )
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        // The last line may still be on its way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The numbers of all records that it has taken, in the order in which they came.
    pub(crate) fn taken(&self) -> Vec<u64> {
        let taken = self.requests().into_iter().filter(|request| request["mode"] == "ok");
        let numbers = |request: Value| request["records"].as_array().unwrap().clone();
        taken.flat_map(numbers).map(|number| number.as_u64().unwrap()).collect()
    }

    fn file(&self) -> PathBuf {
        self.files.path().join("got")
    }
}
