//! Receivers of traces on loopback that are other people's: OtelTap, which says what it got
//! (`tests/peers/otlp.py`), and Rotel, a collector.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::aws::python_program;
use super::peer::{Peer, supervised};
use super::wait::{free_port, wait_until};

/// How long spans may take to arrive.
const SOON: Duration = Duration::from_secs(60);

/// A receiver. Dropping it kills it.
pub(crate) struct Otlp {
    peer: Peer,
    files: TempDir,
    port: u16,
}

impl Otlp {
    /// Starts one, and waits until it listens.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let (files, port) = (tempfile::tempdir().unwrap(), free_port());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/otlp.py");
        let mut command = supervised(&python_program("python"), Path::new("/dev/null"));
        command.arg(script).arg(port.to_string()).arg(files.path().join("spans"));
        command.stdout(std::process::Stdio::null());
        let mut peer = Peer::start("OtelTap", command, files.path().join("log"));
        peer.until_ready(|| std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { peer, files, port }
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Stops it as it is: it holds its port, and answers nobody.
    pub(crate) fn freeze(&self) {
        self.peer.freeze();
    }

    /// The spans so far.
    pub(crate) fn spans(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        // The last line may still be on its way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for a span of this name in this trace.
    #[track_caller]
    pub(crate) fn span(&self, name: &str, trace: &str) -> Value {
        wait_until(&format!("the span '{name}' of {trace}"), SOON, || {
            self.spans().into_iter().find(|span| span["name"] == name && span["trace"] == trace)
        })
    }

    /// All bytes of all spans, as they came.
    pub(crate) fn raw(&self) -> Vec<u8> {
        let bytes = |hex: &str| {
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            (0..hex.len()).step_by(2).map(byte).collect::<Vec<_>>()
        };
        self.spans().iter().flat_map(|span| bytes(span["raw"].as_str().unwrap())).collect()
    }

    fn file(&self) -> PathBuf {
        self.files.path().join("spans")
    }
}

/// A collector, which says what it got. Dropping it kills it.
pub(crate) struct Rotel {
    _peer: Peer,
    files: TempDir,
    port: u16,
}

impl Rotel {
    /// Starts one, and waits until it listens.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let (files, port, other) = (tempfile::tempdir().unwrap(), free_port(), free_port());
        let python = python_program("python");
        let libraries = python.parent().unwrap().parent().unwrap().join("lib");
        let libraries = std::fs::read_dir(libraries).unwrap().next().unwrap().unwrap().path();
        let agent = libraries.join("site-packages/rotel/rotel-agent");
        let mut command = supervised(&agent, Path::new("/dev/null"));
        command.current_dir(files.path()).args(["start", "--exporter", "blackhole"]);
        command.args(["--debug-log", "traces", "--debug-log-verbosity", "detailed"]);
        command.arg("--otlp-http-endpoint").arg(format!("127.0.0.1:{port}"));
        command.arg("--otlp-grpc-endpoint").arg(format!("127.0.0.1:{other}"));
        command.stdout(std::fs::File::create(files.path().join("said")).unwrap());
        let mut peer = Peer::start("Rotel", command, files.path().join("log"));
        peer.until_ready(|| std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { _peer: peer, files, port }
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it got.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.files.path().join("said")).unwrap()
    }
}
