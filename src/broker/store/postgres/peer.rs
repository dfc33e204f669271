//! A real PostgreSQL for tests: one server for each process that tests, which ends with
//! it, and a database of its own for each test.
#![expect(clippy::disallowed_methods, reason = "a test starts its peer itself")]

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};

use crate::broker::config::{Place, Postgres, Store};
use crate::broker::store::sql::SqlStore;
use crate::host::env::Env;

/// Becomes the server; a watcher beside it ends the server and removes its files as soon
/// as the pipe on standard input ends, as it does when the test is gone.
const SUPERVISE: &str = r#"
    dir=$1; shift
    exec 3<&0 </dev/null
    (
        cat <&3 >/dev/null
        kill -QUIT $$
        for _ in $(seq 100); do kill -0 $$ 2>/dev/null || break; sleep 0.05; done
        rm -rf "$dir"
        kill -KILL 0
    ) &
    exec sh "$@" 3<&-
"#;

/// How long it may take to start, on a machine that is busy.
const READY: Duration = Duration::from_secs(60);

struct Server {
    dir: String,
    /// Its standard input says that this process lives.
    _child: Child,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        assert!(
            std::fs::read_dir("/usr/lib/postgresql").is_ok(),
            "PostgreSQL is missing: run tests/setup, it installs it"
        );
        let dir = tempfile::tempdir().unwrap().keep().to_str().unwrap().to_string();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/postgres.sh");
        let child = Command::new("sh")
            .args(["-c", SUPERVISE, "sh", &dir])
            .arg(script)
            .args([&dir, "5432", "listen_addresses="])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(format!("{dir}/log")).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        Server { dir, _child: child }
    })
}

/// A database of a test's own.
pub(crate) struct Database {
    pub(crate) config: Postgres,
}

impl Database {
    /// Makes an empty one.
    pub(crate) async fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let end = Instant::now() + READY;
        while let Err(cause) = at("postgres").execute(&format!("create database {name}")).await {
            assert!(Instant::now() < end, "PostgreSQL does not start: {cause}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        at(&name)
    }

    /// Opens it as a broker does.
    pub(crate) async fn open(&self) -> SqlStore {
        super::open(&self.config, &Env::default()).await.unwrap()
    }

    /// Opens it as it is, also where it has no tables.
    pub(crate) async fn bare(&self) -> SqlStore {
        super::connect(&self.config, &Env::default(), super::For::Writing).await.unwrap()
    }

    /// Does something in it that no broker would.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), sqlx::Error> {
        sqlx::any::install_default_drivers();
        let address = self.config.address().unwrap();
        let options = super::options(&address, &None, None, None).unwrap();
        let mut connection = AnyConnection::connect_with(&options).await?;
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_string()))).await?;
        connection.close().await
    }
}

fn at(database: &str) -> Database {
    let dir = server().dir.replace('/', "%2F");
    let toml =
        format!("[postgres]\nurl = \"postgres://tmpcred@{dir}/{database}\"\nmax_connections = 4");
    let store: Store = toml::from_str(&toml).unwrap();
    let Ok(Place::Postgres(config)) = store.place() else { panic!("{store:?}") };
    Database { config: config.clone() }
}
