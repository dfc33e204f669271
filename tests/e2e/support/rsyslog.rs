//! rsyslog, on loopback.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::peer::{Peer, program, supervised};
use super::tls::{Authority, ServerCertificate};
use super::wait::free_port;

/// A syslog server. Dropping it kills it.
pub(crate) struct Rsyslog {
    peer: Option<Peer>,
    files: TempDir,
    port: u16,
    tls: bool,
}

impl Rsyslog {
    /// Starts one that takes messages over TCP, or over TLS with this certificate.
    #[track_caller]
    pub(crate) fn start(tls: Option<(&Authority, &ServerCertificate)>) -> Self {
        let (files, port) = (tempfile::tempdir().unwrap(), free_port());
        std::fs::write(files.path().join("rsyslog.conf"), configuration(files.path(), port, tls))
            .unwrap();
        let mut server = Self { peer: None, files, port, tls: tls.is_some() };
        server.begin();
        server
    }

    /// Starts it, again where it was ended, and waits until it listens.
    #[track_caller]
    pub(crate) fn begin(&mut self) {
        let files = self.files.path();
        let mut command = supervised(&program("rsyslogd"), Path::new("/dev/null"));
        command
            .arg("-n")
            .arg("-f")
            .arg(files.join("rsyslog.conf"))
            .arg("-i")
            .arg(files.join("pid"));
        let mut peer = Peer::start("rsyslog", command, files.join("log"));
        peer.until_ready(|| std::net::TcpStream::connect(("127.0.0.1", self.port)).ok());
        self.peer = Some(peer);
    }

    /// Ends it.
    pub(crate) fn end(&mut self) {
        self.peer = None;
    }

    /// The process.
    pub(crate) fn peer(&self) -> &Peer {
        self.peer.as_ref().unwrap()
    }

    /// What the broker calls it.
    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.tls { "tls" } else { "tcp" }, self.port)
    }

    /// The messages that it has written down, each as priority, time, host, program, id of
    /// the kind and text, with spaces in between.
    pub(crate) fn messages(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.written()).unwrap_or_default();
        text.lines().map(String::from).collect()
    }

    fn written(&self) -> PathBuf {
        self.files.path().join("messages")
    }
}

fn configuration(files: &Path, port: u16, tls: Option<(&Authority, &ServerCertificate)>) -> String {
    let shown = files.display();
    let (globals, driver) = match tls {
        None => (String::new(), ""),
        Some((authority, certificate)) => (
            format!(
                "global(defaultNetstreamDriver=\"ossl\"\n  defaultNetstreamDriverCAFile=\"{}\"\n  \
                 defaultNetstreamDriverCertFile=\"{}\"\n  defaultNetstreamDriverKeyFile=\"{}\")",
                authority.pem().display(),
                certificate.certificate.display(),
                certificate.key.display()
            ),
            "streamDriver.name=\"ossl\" streamDriver.mode=\"1\" streamDriver.authMode=\"anon\"",
        ),
    };
    format!(
        r#"
{globals}
global(workDirectory="{shown}" maxMessageSize="128k")
module(load="imtcp" {driver})
input(type="imtcp" address="127.0.0.1" port="{port}")
template(name="parts" type="string"
    string="%pri% %timereported:::date-rfc3339% %hostname% %app-name% %msgid% %msg%\n")
if $app-name == "tmpcred" then action(type="omfile" file="{shown}/messages" template="parts")
"#
    )
}
