//! PgBouncer, a pooler that gives each transaction a connection, before a database.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::home::Home;
use super::peer::{Peer, READY, supervised};
use super::postgres::{PASSWORD, Postgres, password_file};
use super::wait::{free_port, wait_until};

/// How many connections it has to the database, for however many come to it.
pub(crate) const CONNECTIONS: usize = 3;

/// The line of a file of users for one who comes by this password.
fn user_by(password: &str) -> String {
    format!("\"tmpcred\" \"{password}\"\n")
}

/// What a broker wants of it, as `docs/storage.md` prints it.
#[track_caller]
pub(crate) fn on_the_page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/storage.md");
    let page = std::fs::read_to_string(page).unwrap();
    let block = page.split("\n```ini\n[pgbouncer]\n").nth(1).unwrap();
    block.split("```").next().unwrap().into()
}

/// One that runs. Dropping it kills it.
pub(crate) struct PgBouncer {
    peer: Option<Peer>,
    files: TempDir,
    port: u16,
}

impl PgBouncer {
    /// Starts one before this server, with these settings.
    #[track_caller]
    pub(crate) fn start(postgres: &Postgres, settings: &str) -> Self {
        let (files, port) = (tempfile::tempdir().unwrap(), free_port());
        let users = files.path().join("users");
        std::fs::write(&users, user_by(PASSWORD)).unwrap();
        // It refuses to be run by root, and becomes somebody else.
        let user = if rustix::process::getuid().is_root() { "user = postgres\n" } else { "" };
        let text = format!(
            "[databases]\nbroker = host=127.0.0.1 port={} dbname=broker\n\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\n\
             default_pool_size = {CONNECTIONS}\nserver_login_retry = 1\n{user}{settings}",
            postgres.port(),
            users.display()
        );
        std::fs::write(files.path().join("pgbouncer.ini"), text).unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(files.path(), open).unwrap();
        let mut pooler = Self { peer: None, files, port };
        pooler.begin();
        pooler
    }

    /// Starts it again.
    #[track_caller]
    pub(crate) fn begin(&mut self) {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/.pgbouncer");
        let program = home.join("bin/pgbouncer");
        assert!(program.exists(), "PgBouncer is missing: run tests/setup, it makes it");
        let mut command = supervised(&program, Path::new("/dev/null"));
        command.arg(self.files.path().join("pgbouncer.ini")).current_dir(self.files.path());
        let mut peer = Peer::start("PgBouncer", command, self.files.path().join("log"));
        peer.until_ready(|| std::net::TcpStream::connect(("127.0.0.1", self.port)).ok());
        self.peer = Some(peer);
    }

    /// Ends it, without a word to those who are connected.
    pub(crate) fn end(&mut self) {
        let Some(mut peer) = self.peer.take() else { return };
        kill_process(peer.pid(), Signal::KILL).unwrap();
        wait_until("PgBouncer to end", READY, || (!peer.runs()).then_some(()));
    }

    /// Lets the broker in by another password, and shows that to the database.
    #[track_caller]
    pub(crate) fn let_in_by(&self, password: &str) {
        std::fs::write(self.files.path().join("users"), user_by(password)).unwrap();
        kill_process(self.peer.as_ref().unwrap().pid(), Signal::HUP).unwrap();
    }

    /// What a broker is told of it, with the password in `password-file` of this home.
    pub(crate) fn table(&self, home: &Home) -> String {
        let path = password_file(home, PASSWORD);
        let url = format!("postgres://tmpcred@localhost:{}/broker", self.port);
        format!("[store.postgres]\nurl = \"{url}\"\npassword_file = {path:?}\n")
    }
}
