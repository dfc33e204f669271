//! PostgreSQL, and engines that are wire-compatible with it: how it is reached, and what
//! is asked of it before anything is kept there.

mod entry;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor as _, Row};
use url::Url;
use zeroize::Zeroizing;

use super::open::{Found, Made};
use super::sql::{
    Engine, Lookout, Own, RUN_BY_EARLIER, SqlStore, TURNED_AWAY, code, fault, is_turned_away,
};
use crate::broker::config::{Address, Host, Postgres};
use crate::broker::trusted_file;
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::secret::Secret;
use entry::Entry;

/// How long a connection may be idle before it is closed: what is in between may
/// forget it.
const IDLE: Duration = Duration::from_secs(5 * 60);

/// How long a connection lives: after a change of the server's name all go to the new
/// one.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// What is personal may be erased. Keeps slips of the hand and of the pen out, not somebody who means to forge: who owns
/// the table may drop a trigger.
const APPEND_ONLY: Own = Own {
    is_there: "select 1 from information_schema.triggers
        where trigger_name = 'audit_record_append_only'
            and event_object_schema = current_schema()
            and exists (select 1 from information_schema.routines
                where routine_name = 'audit_record_append_only'
                    and routine_schema = current_schema()
                    and routine_definition like '%''claims''%')",
    add: "create or replace function audit_record_append_only() returns trigger as $$
        declare
            erased constant text[] :=
                array['reason', 'subject', 'client', 'source', 'actor', 'claims', 'salt', 'erased'];
        begin
            if tg_op = 'UPDATE' then
                if old.erased is null and new.erased is not null and new.salt is null
                    and to_jsonb(new) - erased = to_jsonb(old) - erased then
                    return new;
                end if;
            end if;
            raise exception 'the audit log is append-only';
        end;
        $$ language plpgsql;
        drop trigger if exists audit_record_append_only on audit_record;
        drop trigger if exists audit_record_no_truncate on audit_record;
        create trigger audit_record_append_only before update or delete on audit_record
            for each row execute function audit_record_append_only();
        create trigger audit_record_no_truncate before truncate on audit_record
            for each statement execute function audit_record_append_only();",
};

/// What a server is asked before it is trusted with anything. Not all engines know
/// `fsync`; those that do not have no way to turn it off.
const SETTINGS: &str = "select current_setting('server_encoding') as encoding,
    current_setting('transaction_read_only') as read_only,
    coalesce(current_setting('fsync', true), 'on') as fsync";

/// Whether a connection is in no transaction, in which whoever comes next would see the database as
/// it was when that was begun. Who is given up while it begins one may be in it all the same, which
/// nobody on this side knows.
const IS_BETWEEN: &str = "select transaction_timestamp() = statement_timestamp()";

/// How large a file with authorities may be, in bytes.
const MAX_PEM: u64 = 1 << 20;

/// How a certificate begins and ends in PEM (RFC 7468).
const PEM: [&str; 2] = ["-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"];

/// What is done with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Reading,
    Writing,
}

/// Opens a database, and makes the tables where there are none.
///
/// # Errors
/// [`ErrorKind::Unreachable`] where nobody answers; [`ErrorKind::Config`] where it is not
/// let in, or the database is none that keeps what it is given, or one of a newer version.
pub async fn open(config: &Postgres, env: &Env) -> Result<SqlStore> {
    let named = named(config)?;
    let store = connect(config, env, For::Writing).await.map_err(&named)?;
    store.migrate(&APPEND_ONLY).await.map_err(&named)?;
    Ok(store)
}

/// Opens a database that brokers use already.
///
/// # Errors
/// As with [`open`]; also where no broker of this version has made the tables.
pub async fn open_existing(config: &Postgres, env: &Env) -> Result<SqlStore> {
    let named = named(config)?;
    let store = connect(config, env, For::Writing).await.map_err(&named)?;
    store.require_this_version(RUN_BY_EARLIER).await.map_err(&named)?;
    store.migrate(&APPEND_ONLY).await.map_err(&named)?;
    Ok(store)
}

/// Opens a database to read it; brokers may be writing to it.
///
/// # Errors
/// As with [`open_existing`].
pub async fn open_to_read(config: &Postgres, env: &Env) -> Result<SqlStore> {
    let named = named(config)?;
    let store = connect(config, env, For::Reading).await.map_err(&named)?;
    store.require_this_version(RUN_BY_EARLIER).await.map_err(&named)?;
    Ok(store)
}

/// Looks what a broker would open, and changes nothing.
///
/// # Errors
/// As with [`open`]; also where this user could not make the tables.
pub async fn find(config: &Postgres, env: &Env) -> Result<Found> {
    let named = named(config)?;
    let store = connect(config, env, For::Writing).await.map_err(&named)?;
    let found = store.found().await.map_err(&named)?;
    if found != Made::Now {
        store.require_room().await.map_err(&named)?;
    }
    Ok(Found::of(found, store))
}

fn named(config: &Postgres) -> Result<impl Fn(Error) -> Error> {
    let address = config.address()?;
    Ok(move |error: Error| {
        let Address { database, .. } = &address;
        error.context(format!("the broker's database {database} at {address} cannot be used"))
    })
}

async fn connect(config: &Postgres, env: &Env, purpose: For) -> Result<SqlStore> {
    sqlx::any::install_default_drivers();
    let entry = Arc::new(Entry::new(config, env, purpose).await?);
    let options = entry.options().await?;
    // The pool would try again and again, and then only say that it took too long. Twice: where
    // a pooler in between mixes up prepared statements, who comes next meets those of the first.
    for _ in 0..2 {
        look(&options, entry.address(), config.connect_within, purpose).await?;
    }
    let answer_within = config.answer_within;
    let way = Arc::clone(&entry);
    let pool = AnyPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(config.connect_within)
        .idle_timeout(IDLE)
        .max_lifetime(LIFETIME)
        // It may be another server by now, or the same with other settings.
        .after_connect(move |connection, _| {
            // It is there for as long as there are connections.
            let _ = &way;
            Box::pin(async move {
                if let Some(error) = unfit(connection, purpose).await? {
                    return Err(sqlx::Error::Configuration(error.to_string().into()));
                }
                // Where nobody waits for an answer any more, a server goes on all the same.
                let limit = 2 * answer_within.as_millis();
                let limit = format!("set statement_timeout = {limit}");
                connection.execute(sqlx::raw_sql(AssertSqlSafe(limit))).await?;
                Ok(())
            })
        })
        // Who was given up while it was asked something may never answer again. It would
        // keep its place for as long as it is waited for.
        .after_release(move |connection, _| {
            Box::pin(async move {
                // Not prepared: that is more than one statement to a server.
                let asked = sqlx::raw_sql(IS_BETWEEN).fetch_one(connection);
                match tokio::time::timeout(answer_within, asked).await {
                    Ok(is_between) => is_between?.try_get(0),
                    Err(_) => Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())),
                }
            })
        })
        .connect_lazy_with(options);
    let lookout = Lookout::new(entry, config.connect_within.min(answer_within));
    let engine = Engine::postgres(pool, answer_within, purpose == For::Writing, Some(lookout));
    let store = SqlStore::new(engine);
    if purpose == For::Writing {
        store.require_sync().await?;
    }
    Ok(store)
}

/// Looks at a server by a connection of its own, for so long at most.
async fn look(
    options: &AnyConnectOptions,
    address: &Address,
    limit: Duration,
    purpose: For,
) -> Result<()> {
    let looked = async {
        let mut connection = AnyConnection::connect_with(options).await?;
        let unfit = unfit(&mut connection, purpose).await?;
        Ok((connection, unfit))
    };
    let (connection, unfit) = tokio::time::timeout(limit, looked)
        .await
        .map_err(|_| late(limit))?
        .map_err(|cause| refused(cause, address))?;
    if let Some(error) = unfit {
        return Err(error);
    }
    // All was said. A server hangs up as soon as it is told that this is the end, and then
    // nobody is there to take what TLS says last.
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the server was gone before the connection was ended");
    }
    Ok(())
}

/// Says why nothing may be kept there, if so.
async fn unfit(connection: &mut AnyConnection, purpose: For) -> Result<Option<Error>, sqlx::Error> {
    let row = sqlx::query(SETTINGS).fetch_one(connection).await?;
    let setting = |name: &str| row.try_get::<String, _>(name);
    let wrong = |why: &str| Error::new(ErrorKind::Config, why.to_string());
    if !setting("encoding")?.eq_ignore_ascii_case("utf8") {
        let error = wrong("its encoding is not UTF8, so it cannot keep every name");
        return Ok(Some(error.hint("create the database with `encoding UTF8`")));
    }
    if purpose == For::Reading {
        return Ok(None);
    }
    if setting("read_only")? != "off" {
        let error = wrong("it is read-only: a standby, or set so");
        return Ok(Some(error.hint("name the server that takes writes")));
    }
    if setting("fsync")? != "on" {
        let error = wrong("it does not keep what it is given: its setting fsync is off");
        return Ok(Some(error.hint("turn fsync on at the server")));
    }
    Ok(None)
}

/// How a server is reached by its name.
#[cfg(target_os = "linux")]
type Way = Option<crate::host::relay::Relay>;
#[cfg(not(target_os = "linux"))]
type Way = Option<std::convert::Infallible>;

/// A way to the server where it has a name, and a look whether somebody is there.
#[cfg(target_os = "linux")]
async fn way_to(address: &Address, limit: Duration) -> Result<Way> {
    let Host::Name(name) = &address.host else { return Ok(None) };
    let socket = format!(".s.PGSQL.{}", address.port);
    let relay = crate::host::relay::Relay::start(&socket, name, address.port)?;
    let hint = "is the server running, and does it listen there?";
    match tokio::time::timeout(limit, relay.reach()).await {
        Ok(reached) => reached.map_err(|error| error.hint(hint))?,
        Err(_) => return Err(late(limit)),
    }
    Ok(Some(relay))
}

/// Elsewhere the C library may be asked.
#[cfg(not(target_os = "linux"))]
async fn way_to(_: &Address, _: Duration) -> Result<Way> {
    Ok(None)
}

/// Where the driver finds the socket that leads there.
#[cfg(target_os = "linux")]
fn socket_dir(way: &Way) -> Option<&Path> {
    way.as_ref().map(crate::host::relay::Relay::dir)
}

#[cfg(not(target_os = "linux"))]
fn socket_dir(_: &Way) -> Option<&Path> {
    None
}

fn late(limit: Duration) -> Error {
    let limit = humantime::format_duration(limit);
    Error::new(ErrorKind::Unreachable, format!("it did not answer within {limit}"))
}

/// As what the database is reached by. Whatever is not said here the driver would take
/// from the environment.
fn options(
    address: &Address,
    way: &Way,
    password: Option<&Secret<String>>,
    authorities: Option<&str>,
) -> Result<AnyConnectOptions> {
    let impossible = |_| Error::new(ErrorKind::Config, "[store.postgres] has an impossible url");
    let mut url = Url::parse("postgres://localhost/").map_err(|_| impossible(()))?;
    url.set_port(Some(address.port)).map_err(impossible)?;
    {
        let mut query = url.query_pairs_mut();
        // A name besides is what the certificate has to be for.
        if let Some(directory) = socket_dir(way) {
            let directory = directory.to_str().ok_or_else(|| {
                Error::new(ErrorKind::Config, "the path of TMPDIR is not valid Unicode")
            })?;
            query.append_pair("host", directory);
        }
        match &address.host {
            Host::Name(name) => query.append_pair("host", name),
            Host::Ip(ip) => query.append_pair("hostaddr", &ip.to_string()),
            Host::Socket(directory) => query.append_pair("host", directory),
        };
        query.append_pair("user", &address.user);
        query.append_pair("dbname", &address.database);
        query.append_pair("password", password.map_or("", |password| password.expose()));
        query.append_pair("application_name", "tmpcred broker");
        // Where nobody on the way can listen there is often no certificate.
        let verify = !address.host.is_here() || authorities.is_some();
        query.append_pair("sslmode", if verify { "verify-full" } else { "disable" });
        if let Some(authorities) = authorities {
            query.append_pair("sslrootcert", authorities);
        }
    }
    let url = Zeroizing::new(String::from(url));
    url.parse().map_err(|_| impossible(()))
}

/// The path of a file with certificates that nobody else can write: whoever can says who the
/// server is.
fn authorities(path: &Path) -> Result<&str> {
    let text = String::from_utf8_lossy(&trusted_file::read(path, MAX_PEM)?).into_owned();
    let unusable =
        |why: &str| Error::new(ErrorKind::Config, format!("the ca_file {} {why}", path.display()));
    let [begin, end] = PEM.map(|mark| (text.find(mark), text.rfind(mark)));
    match (begin.0, end.1) {
        (Some(from), Some(to)) if from < to => {
            path.to_str().ok_or_else(|| unusable("has a path that is not valid Unicode"))
        }
        _ => Err(unusable("holds no certificate")),
    }
}

/// Why a server could not be talked to, for people.
fn refused(cause: sqlx::Error, address: &Address) -> Error {
    let wrong = |kind: ErrorKind, why: String| Error::new(kind, why);
    let untrusted = || {
        Error::new(ErrorKind::Config, "its certificate cannot be trusted").hint(
            "name the authority that signed it by ca_file; the name in url must be in the certificate",
        )
    };
    match &cause {
        // So TLS tells the one who reads what came.
        sqlx::Error::Io(why) if why.get_ref().is_some_and(|why| why.is::<rustls::Error>()) => {
            untrusted().because(cause)
        }
        sqlx::Error::Io(_) => {
            let error = wrong(ErrorKind::Unreachable, "nobody answers there".into());
            error.because(cause).hint("is the server running, and does it listen there?")
        }
        sqlx::Error::Tls(why) if why.to_string().contains("does not support TLS") => {
            let error = wrong(ErrorKind::Config, "the server speaks no TLS".into());
            error
                .hint("turn `ssl` on at the server: nothing is sent in the clear to other machines")
        }
        sqlx::Error::Tls(_) => untrusted().because(cause),
        _ => {
            let (user, database) = (&address.user, &address.database);
            let (what, hint) = match code(&cause).as_deref() {
                _ if is_turned_away(&cause) => {
                    (format!("it does not let the user '{user}' in"), TURNED_AWAY)
                }
                // invalid_catalog_name
                Some("3D000") => (
                    format!("there is no database '{database}'"),
                    "create it, owned by that user, with `encoding UTF8`",
                ),
                // insufficient_privilege
                Some("42501") => (
                    format!("the user '{user}' may not do what a broker has to"),
                    "let that user own the database",
                ),
                // too_many_connections
                Some("53300") => (
                    "it has no connection to spare".into(),
                    "raise max_connections at the server, or lower it in [store.postgres]",
                ),
                _ => return fault("it cannot be opened", cause),
            };
            let said = cause.into_database_error().map(|cause| cause.message().to_string());
            let error = wrong(ErrorKind::Config, what).hint(hint);
            said.into_iter().fold(error, Error::because_of)
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod conflicts;
#[cfg(test)]
#[cfg(unix)]
pub(crate) mod peer;
#[cfg(test)]
#[cfg(unix)]
mod tests;
