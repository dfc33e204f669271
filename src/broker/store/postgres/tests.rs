use sqlx::Executor as _;

use super::peer::Database;
use super::*;
use crate::broker::config::PASSWORD_VARIABLE;
use crate::broker::private_text;
use crate::broker::store::sql::Access as _;
use crate::broker::store::sql::tests::{append, record};
use crate::broker::store::{ErasureStore, Ledger, LogStore, Revocable, Store, TokenStore, Traces};
use crate::host::files;

async fn refused(database: &Database) -> String {
    open(&database.config, &Env::default()).await.err().unwrap().to_string()
}

#[tokio::test]
async fn the_audit_log_only_grows() {
    let database = Database::new().await;
    let store = database.open().await;
    append(&store, &[record("one")]).await.unwrap();
    for change in [
        "update audit_record set reason = 'another'",
        "update audit_record set erased = 'x', salt = null, role = 'another'",
        "update audit_record set erased = 'x'",
        "delete from audit_record",
        "truncate audit_record",
    ] {
        let error = database.execute(change).await.unwrap_err().to_string();
        assert!(error.contains("append-only"), "{change}: {error}");
    }
    assert_eq!(store.records(0, 9).await.unwrap(), [(1, record("one"))]);
}

#[tokio::test]
async fn what_would_not_keep_what_it_is_given_is_refused() {
    let database = Database::new().await;
    let name = database.config.address().unwrap().database;
    database.open().await.close().await;
    // A session's own settings count for nothing.
    let set = async |what: &str| {
        let set = format!("alter database {name} {what}");
        database.execute(&set).await.unwrap();
    };
    set("set synchronous_commit = off").await;
    let store = database.open().await;
    append(&store, &[record("one")]).await.unwrap();
    set("set default_transaction_read_only = on").await;
    assert!(refused(&database).await.contains("it is read-only"), "{}", refused(&database).await);
    let read = open_to_read(&database.config, &Env::default()).await.unwrap();
    assert_eq!(read.ends().await.unwrap().in_tree, 1);
    assert!(append(&read, &[record("two")]).await.is_err());
}

#[tokio::test]
async fn databases_of_others_and_of_other_versions_are_refused() {
    let empty = Database::new().await;
    for outcome in [
        open_to_read(&empty.config, &Env::default()).await,
        open_existing(&empty.config, &Env::default()).await,
    ] {
        let error = outcome.err().unwrap().to_string();
        assert!(error.contains("of no broker of this version"), "{error}");
    }
    let newer = Database::new().await;
    newer.open().await.close().await;
    let row = "insert into _sqlx_migrations values (9999, 'later', now(), true, '', 0)";
    newer.execute(row).await.unwrap();
    let error = refused(&newer).await;
    assert!(error.contains("a newer version of tmpcred made it"), "{error}");

    let latin = Database::new().await;
    let make = "create database latin encoding LATIN1 template template0";
    latin.execute(make).await.unwrap();
    let mut config = latin.config.clone();
    let name = config.address().unwrap().database;
    config.url = config.url.replace(&name, "latin");
    let error = open(&config, &Env::default()).await.err().unwrap().to_string();
    assert!(error.contains("its encoding is not UTF8"), "{error}");
    config.url = config.url.replace("latin", "nowhere");
    let error = open(&config, &Env::default()).await.err().unwrap();
    assert!(error.to_string().contains("there is no database 'nowhere'"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn work_that_conflicts_with_another_s_is_begun_anew() {
    let database = Database::new().await;
    let name = database.config.address().unwrap().database;
    // As engines are that lock nothing: who is second is told to begin anew.
    let set = format!("alter database {name} set default_transaction_isolation = serializable");
    database.execute(&set).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let store = database.open().await;
        tasks.spawn(async move {
            let mut firsts = Vec::new();
            for _ in 0..20 {
                firsts.push(append(&store, &[record("x")]).await.unwrap());
            }
            firsts
        });
    }
    let mut firsts = tasks.join_all().await.concat();
    firsts.sort_unstable();
    assert_eq!(firsts, (1..=60).collect::<Vec<u64>>());
}

#[tokio::test]
async fn who_is_cut_off_keeps_nobody_waiting_and_a_lost_connection_is_replaced() {
    let database = Database::new().await;
    let mut config = database.config.clone();
    config.answer_within = Duration::from_secs(5);
    let store = open(&config, &Env::default()).await.unwrap();
    append(&store, &[record("one")]).await.unwrap();
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
        where pid <> pg_backend_pid() and datname = current_database()";
    database.execute(end).await.unwrap();
    append(&store, &[record("two")]).await.unwrap();
    assert_eq!(store.ends().await.unwrap().promised, 2);
    // Somebody holds the end of the log, and does not let go.
    let address = database.config.address().unwrap();
    let mut other =
        AnyConnection::connect_with(&options(&address, &None, None, None).unwrap()).await.unwrap();
    let mut held = other.begin().await.unwrap();
    held.execute("update audit_head set last_sequence = last_sequence").await.unwrap();
    let error = append(&store, &[record("three")]).await.unwrap_err().to_string();
    assert!(error.contains("did not answer within 5s") || error.contains("timeout"), "{error}");
    held.rollback().await.unwrap();
    assert_eq!(append(&store, &[record("four")]).await.unwrap(), 3);
}

#[tokio::test]
async fn who_finds_no_connection_is_told_what_keeps_them_from_one() {
    let database = Database::new().await;
    let name = database.config.address().unwrap().database;
    let mut config = database.config.clone();
    // The connection ends the wait, not the work that it is for.
    config.answer_within = Duration::from_secs(30);
    let store = open(&config, &Env::default()).await.unwrap();
    append(&store, &[record("one")]).await.unwrap();
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
        where pid <> pg_backend_pid() and datname = current_database()";
    let set = format!("alter database {name} set default_transaction_read_only = on; {end}");
    database.execute(&set).await.unwrap();
    let error = append(&store, &[record("two")]).await.unwrap_err();
    let why = ["no connection to it could be had in time", "it is read-only: a standby, or set so"];
    assert_eq!(error.causes(), why);
    assert_eq!(error.hints(), ["name the server that takes writes"]);
    let set = format!("begin read write; alter database {name} reset all; commit");
    database.execute(&set).await.unwrap();
    append(&store, &[record("three")]).await.unwrap();
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a server that hangs, as no real one does at will")]
async fn a_look_at_a_server_that_hangs_comes_to_an_end() {
    sqlx::any::install_default_drivers();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let look = async |port: u16, within: u64| {
        let toml = format!("url = \"postgres://a@127.0.0.1:{port}/b\"");
        let config: Postgres = toml::from_str(&toml).unwrap();
        let entry = Entry::new(&config, &Env::default(), For::Writing).await.unwrap();
        let pool = AnyPoolOptions::new().connect_lazy_with(entry.options().await.unwrap());
        entry.look(&pool, Duration::from_millis(within)).await.unwrap_err().to_string()
    };
    assert_eq!(look(port, 50).await, "it did not answer within 50ms");
    // Nobody listens there, and no other test is given it.
    let why = look(9, 60_000).await;
    assert!(why.starts_with("nobody answers there: "), "{why}");
}

#[tokio::test]
async fn what_looks_at_the_whole_log_takes_as_long_as_it_takes() {
    let database = Database::new().await;
    let store = database.open().await;
    append(&store, &[record("one")]).await.unwrap();
    let mut config = database.config.clone();
    config.answer_within = Duration::from_secs(2);
    let hasty = open(&config, &Env::default()).await.unwrap();
    let address = database.config.address().unwrap();
    let mut other =
        AnyConnection::connect_with(&options(&address, &None, None, None).unwrap()).await.unwrap();
    let mut held = other.begin().await.unwrap();
    held.execute("lock table audit_record in access exclusive mode").await.unwrap();
    let alice = Traces {
        callers: vec![record("one").principal],
        actors: vec!["https://i.example#alice".into()],
    };
    let long = async { tokio::join!(hasty.ends(), hasty.of_person(&alice, 0, 9)) };
    let short = async {
        // Whoever has a limit gives up, and again: so those without have waited for longer.
        assert!(hasty.page(0, 9).await.is_err());
        assert!(hasty.page(0, 9).await.is_err());
        assert_eq!(store.size().await.unwrap(), 1, "for that nobody waits");
        held.rollback().await.unwrap();
    };
    let ((ends, found), ()) = tokio::join!(long, short);
    assert_eq!((ends.unwrap().last_record, found.unwrap().records), (1, vec![1]));
}

#[test]
fn beyond_this_machine_the_certificate_is_verified_and_no_password_shows() {
    let config = |url: &str, more: &str| -> Postgres {
        toml::from_str(&format!("url = \"{url}\"\n{more}")).unwrap()
    };
    let reached = |config: &Postgres| {
        let password = Secret::new("hunter2&x=y".to_string());
        let address = config.address().unwrap();
        let trusted = config.ca_file.as_deref().map(|path| authorities(path).unwrap());
        let options = options(&address, &None, Some(&password), trusted).unwrap();
        let pairs = options.database_url.query_pairs().into_owned();
        pairs.collect::<std::collections::BTreeMap<_, _>>()
    };
    let far = reached(&config("postgres://a@db.example.com/b", ""));
    assert_eq!((&far["sslmode"][..], &far["password"][..]), ("verify-full", "hunter2&x=y"));
    let near = reached(&config("postgres://a@127.0.0.1/b", ""));
    assert_eq!((&near["sslmode"][..], &near["hostaddr"][..]), ("disable", "127.0.0.1"));
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let pem = format!("{}\nMII=\n{}", PEM[0], PEM[1]);
    files::write_public(&ca, format!("Somebody's CA\n{pem}\n\n").as_bytes()).unwrap();
    let asked = reached(&config("postgres://a@127.0.0.1/b", &format!("ca_file = {ca:?}")));
    assert_eq!(asked["sslmode"], "verify-full");
    assert_eq!(asked["sslrootcert"], ca.to_str().unwrap());

    let env = Env::from_pairs([("PW", "hunter2"), (PASSWORD_VARIABLE, "usual")]);
    let read = |more: &str| {
        let place = entry::place(&config("postgres://a@h/b", more), &env);
        place.map(|place| private_text::read(&place, "password", &env)).transpose()
    };
    assert_eq!(read("").unwrap().unwrap().expose(), "usual");
    assert_eq!(read("password_env = \"PW\"").unwrap().unwrap().expose(), "hunter2");
    assert!(read("password_env = \"NONE\"").unwrap_err().to_string().contains("NONE"));
    let file = dir.path().join("password");
    let named = format!("password_file = {file:?}");
    assert!(read(&named).unwrap_err().to_string().contains("does not exist"));
    files::write_private(&file, b"from a file\n").unwrap();
    assert_eq!(read(&named).unwrap().unwrap().expose(), "from a file");
    files::write_public(&file, b"x").unwrap();
    assert!(read(&named).unwrap_err().to_string().contains("is not private"));
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test of who may write the file")]
async fn whom_others_can_name_vouches_for_no_server() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    // Nobody is asked: it is found out before.
    let toml = format!("url = \"postgres://a@127.0.0.1:1/b\"\nca_file = {ca:?}");
    let config: Postgres = toml::from_str(&toml).unwrap();
    let refused = async || open(&config, &Env::default()).await.err().unwrap().to_string();
    assert!(refused().await.contains("no such file"), "{}", refused().await);
    files::write_public(&ca, b"-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----").unwrap();
    assert!(refused().await.contains("holds no certificate"), "{}", refused().await);
    std::fs::set_permissions(&ca, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(refused().await.contains("other users can write to it"), "{}", refused().await);
}

#[tokio::test]
async fn what_a_broker_would_open_is_looked_at_and_left_as_it_is() {
    let database = Database::new().await;
    let look = async |config: &Postgres| find(config, &Env::default()).await;
    assert!(matches!(look(&database.config).await.unwrap(), Found::Nothing));
    let bare = database.bare().await;
    assert_eq!(bare.found().await.unwrap(), Made::Never);

    // Whoever may not make tables is told, as long as there are none.
    let name = database.config.address().unwrap().database;
    let user = format!("reader_{name}");
    let made = format!("create role {user} login; grant connect on database {name} to {user}");
    database.execute(&made).await.unwrap();
    let mut reader = database.config.clone();
    reader.url = reader.url.replace("tmpcred@", &format!("{user}@"));
    let error = look(&reader).await.err().unwrap().to_string();
    assert!(error.contains("this user can make no tables there"), "{error}");

    database.open().await.close().await;
    let Found::Ready(store) = look(&database.config).await.unwrap() else { panic!() };
    assert!(store.now().await.unwrap().is_some());
    database.execute("delete from _sqlx_migrations where version > 19").await.unwrap();
    assert!(matches!(look(&database.config).await.unwrap(), Found::Earlier));
    let set = format!("alter database {name} set default_transaction_read_only = on");
    database.execute(&set).await.unwrap();
    let error = look(&database.config).await.err().unwrap().to_string();
    assert!(error.contains("it is read-only"), "{error}");
}

#[tokio::test]
async fn a_transaction_that_nobody_knows_of_is_nobody_elses() {
    let database = Database::new().await;
    let mut config = database.config.clone();
    config.max_connections = 1;
    let store = open(&config, &Env::default()).await.unwrap();
    let pool = store.pool_for_tests();
    let backend = async || {
        let mut connection = pool.acquire().await.unwrap();
        let ask = "select pg_backend_pid()::bigint";
        sqlx::query_scalar::<_, i64>(ask).fetch_one(&mut *connection).await.unwrap()
    };
    let first = backend().await;
    assert_eq!(backend().await, first, "it is used again");
    for begun in ["begin", "begin isolation level repeatable read; select 1"] {
        let before = backend().await;
        // As one that was given up before the server said that it is begun.
        let mut connection = pool.acquire().await.unwrap();
        connection.execute(sqlx::raw_sql(begun)).await.unwrap();
        drop(connection);
        assert_ne!(backend().await, before, "{begun}");
    }
    append(&store, &[record("one")]).await.unwrap();
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_ends_at_the_server() {
    let database = Database::new().await;
    let store = database.open().await;
    let mut connection = store.pool_for_tests().acquire().await.unwrap();
    let limit = sqlx::query_scalar::<_, String>("select current_setting('statement_timeout')");
    let limit = limit.fetch_one(&mut *connection).await.unwrap();
    let within = humantime::parse_duration(&limit).unwrap();
    assert_eq!(within, 2 * database.config.answer_within, "{limit}");
}

#[tokio::test]
async fn who_brings_it_up_to_date_holds_up_nobody_while_somebody_reads_it() {
    let database = Database::new().await;
    let store = database.open().await;
    append(&store, &[record("one")]).await.unwrap();
    // As it was before the last migration, which drops an index.
    let earlier = "create index consumed_keep_until on consumed (keep_until);
        delete from _sqlx_migrations where version = 23";
    database.execute(earlier).await.unwrap();
    let address = database.config.address().unwrap();
    let mut other =
        AnyConnection::connect_with(&options(&address, &None, None, None).unwrap()).await.unwrap();
    let mut backup = other.begin().await.unwrap();
    backup.execute("select count(*) from consumed").await.unwrap();
    let newer = database.bare().await;
    let migrating = newer.migrate(&APPEND_ONLY);
    let serving = async {
        let waits =
            "select count(*) from pg_locks where not granted and mode = 'AccessExclusiveLock'";
        let mut tries = 0;
        // Until it has been in the way once, and is no more.
        for awaited in [1_i64, 0] {
            loop {
                let ask = sqlx::query_scalar::<_, i64>(waits).fetch_one(store.pool_for_tests());
                if ask.await.unwrap().min(1) == awaited {
                    break;
                }
                tries += 1;
                assert!(tries < 6_000, "it was never {awaited}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let nobody = Revocable { tokens: vec!["1".into()], ..Revocable::default() };
        assert!(!store.any_revoked(nobody).await.unwrap());
        append(&store, &[record("two")]).await.unwrap();
        backup.rollback().await.unwrap();
    };
    let (migrated, ()) = tokio::join!(migrating, serving);
    migrated.unwrap();
    newer.require_this_version("").await.unwrap();
}

#[tokio::test]
async fn nobody_goes_by_a_server_that_keeps_nothing_any_more() {
    let database = Database::new().await;
    let mut config = database.config.clone();
    config.answer_within = Duration::from_secs(2);
    let store = open(&config, &Env::default()).await.unwrap();
    append(&store, &[record("one")]).await.unwrap();
    let nobody = || Revocable { tokens: vec!["1".into()], ..Revocable::default() };
    assert!(!store.any_revoked(nobody()).await.unwrap());
    let until = async |is_good: bool| {
        let end = tokio::time::Instant::now() + Duration::from_secs(60);
        while store.any_revoked(nobody()).await.is_ok() != is_good {
            assert!(tokio::time::Instant::now() < end, "it is never {is_good}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // One that waits for a standby that has gone to others confirms nothing, and can be read.
    database.execute("alter system set synchronous_standby_names = 'nobody'").await.unwrap();
    database.execute("select pg_reload_conf()").await.unwrap();
    until(false).await;
    assert_eq!(store.size().await.unwrap(), 1);
    let error = store.any_revoked(nobody()).await.unwrap_err().to_string();
    assert!(error.contains("the one that is written to cannot be told"), "{error}");
    database.execute("alter system reset synchronous_standby_names").await.unwrap();
    database.execute("select pg_reload_conf()").await.unwrap();
    until(true).await;
}
