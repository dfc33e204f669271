//! PostgreSQL, as a server of its own. It starts in about a second, keeps what it has
//! when it is restarted, and can be asked behind the broker's back.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::home::Home;
use super::peer::{Peer, program, supervised};
use super::run::Run;
use super::tls::ServerCertificate;
use super::wait::{free_port, wait_until};

/// The password of its user.
pub(crate) const PASSWORD: &str = "tmpcred-password";

/// A server with an empty database `broker`, whose owner is the user `tmpcred`.
pub(crate) struct Postgres {
    peer: Mutex<Option<Peer>>,
    port: u16,
    settings: Vec<String>,
    home: Home,
    files: TempDir,
}

impl Postgres {
    /// Starts one that is durable.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with settings such as `fsync=off`.
    #[track_caller]
    pub(crate) fn with(settings: &[&str]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let settings = settings.iter().map(ToString::to_string).collect();
        let (peer, home) = (Mutex::new(None), Home::new());
        let server = Self { peer, port: free_port(), settings, home, files };
        server.begin();
        server.ask("postgres", "create database broker");
        server
    }

    /// Starts it again on what it left.
    #[track_caller]
    pub(crate) fn begin(&self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/postgres.sh");
        let mut command = supervised(&program("sh"), Path::new("/dev/null"));
        command.arg(script).arg(self.files.path()).arg(self.port.to_string());
        command.args(&self.settings).current_dir(self.files.path());
        let mut peer = Peer::start("PostgreSQL", command, self.files.path().join("log"));
        let ready = || self.psql("postgres", "select 1").run();
        peer.until_ready(|| (ready().code == Some(0)).then_some(()));
        *self.peer.lock().unwrap() = Some(peer);
    }

    /// Ends it without a word to those who are connected, as a crash would.
    pub(crate) fn end(&self) {
        let Some(mut peer) = self.peer.lock().unwrap().take() else { return };
        kill_process(peer.pid(), Signal::QUIT).unwrap();
        wait_until("PostgreSQL to end", super::peer::READY, || (!peer.runs()).then_some(()));
    }

    /// Lets it speak TLS from its next start on.
    pub(crate) fn speak_tls(&mut self, certificate: &ServerCertificate) {
        let owner = self.files.path().metadata().unwrap();
        for (from, name) in [(&certificate.key, "key.pem"), (&certificate.certificate, "cert.pem")]
        {
            let to = self.files.path().join(name);
            std::fs::copy(from, &to).unwrap();
            std::os::unix::fs::chown(&to, Some(owner.uid()), None).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&to, mode).unwrap();
            let setting = if name == "key.pem" { "ssl_key_file" } else { "ssl_cert_file" };
            self.settings.push(format!("{setting}={}", to.display()));
        }
        self.settings.push("ssl=on".into());
    }

    /// Where its database `broker` is, by a name.
    pub(crate) fn url(&self) -> String {
        format!("postgres://tmpcred@localhost:{}/broker", self.port)
    }

    /// The port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What a broker is told of it, with the password in `password-file` of this home.
    pub(crate) fn table(&self, home: &Home) -> String {
        let path = password_file(home, PASSWORD);
        format!("[store.postgres]\nurl = \"{}\"\npassword_file = {path:?}\n", self.url())
    }

    /// Asks the database `broker`, and yields what it answers, a line for each row.
    #[track_caller]
    pub(crate) fn query(&self, sql: &str) -> Vec<String> {
        self.ask("broker", sql)
    }

    #[track_caller]
    fn ask(&self, database: &str, sql: &str) -> Vec<String> {
        let answer = self.psql(database, sql).run().ok().stdout;
        answer.lines().map(String::from).collect()
    }

    fn psql(&self, database: &str, sql: &str) -> Run {
        let run = self.home.command(newest("psql"));
        run.args(["-X", "-q", "-t", "-A", "-U", "tmpcred", "-p", &self.port.to_string(), "-h"])
            .args([self.files.path().as_os_str()])
            .args(["-d", database, "-c", sql])
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Killed, it would leave a piece of shared memory behind.
        self.end();
    }
}

/// A password in a file that only its owner can read.
pub(crate) fn password_file(home: &Home, password: &str) -> PathBuf {
    let path = home.write("password-file", password);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).unwrap();
    path
}

/// A program of the newest PostgreSQL that is installed.
#[track_caller]
fn newest(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let programs =
        versions.into_iter().flatten().flatten().map(|v| v.path().join("bin").join(name));
    programs
        .filter(|program| program.is_file())
        .max()
        .unwrap_or_else(|| panic!("PostgreSQL is missing: run tests/setup, it installs it"))
}
