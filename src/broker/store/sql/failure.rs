//! Why work in the database came to nothing, and whether it may be done again.

use crate::error::{Error, ErrorKind};

/// Why a transaction, or one statement, came to nothing.
pub(super) enum Failure {
    /// The database failed, and nothing was kept: it was not told to commit.
    Undone(sqlx::Error),
    /// It failed while it committed, so that nobody can tell what was kept.
    Unknown(sqlx::Error),
    /// Something else is wrong; nothing was kept.
    Other(Error),
}

impl From<sqlx::Error> for Failure {
    fn from(cause: sqlx::Error) -> Self {
        Self::Undone(cause)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Failure {
    /// Whether the same work may go well, and cannot be done twice, when it is begun anew.
    pub(super) fn may_be_repeated(&self) -> bool {
        match self {
            Self::Undone(cause) => is_conflict(cause) || is_lost(cause),
            // Where it conflicts with another, the database says that it did nothing.
            Self::Unknown(cause) => is_conflict(cause),
            Self::Other(_) => false,
        }
    }

    /// Whether the server did not let this process in, so that nothing was begun.
    pub(super) fn is_turned_away(&self) -> bool {
        matches!(self, Self::Undone(cause) if is_turned_away(cause))
    }

    /// Whether no connection could be had, and the pool does not say why.
    pub(super) fn had_no_connection(&self) -> bool {
        matches!(self, Self::Undone(sqlx::Error::PoolTimedOut))
    }

    /// What is told of it.
    pub(super) fn into_error(self, what: &str) -> Error {
        match self {
            Self::Undone(cause) | Self::Unknown(cause) => fault(what, cause),
            Self::Other(error) => error,
        }
    }
}

/// An error of the store. What the database says holds no parameter's value.
pub(in crate::broker::store) fn fault(what: &str, cause: sqlx::Error) -> Error {
    let error = Error::new(ErrorKind::Io, what.to_string());
    let error = match remedy(&cause) {
        Some(hint) => error.hint(hint),
        None => error,
    };
    match cause {
        sqlx::Error::Database(cause) => error.because_of(cause.message().to_string()),
        sqlx::Error::PoolTimedOut => error.because_of("no connection to it could be had in time"),
        other => error.because(other),
    }
}

/// What to do about a server that does not let this process in.
pub(in crate::broker::store) const TURNED_AWAY: &str = "check the password that password_file or password_env names, pg_hba.conf at the server, and whom a pooler in between lets in (auth_file of PgBouncer)";

/// What to do about a file that SQLite cannot open, or a pooler in between that the broker cannot
/// work through.
pub(super) fn remedy(cause: &sqlx::Error) -> Option<&'static str> {
    match code(cause)?.as_str() {
        // SQLITE_CANTOPEN, and SQLITE_READONLY with its kin: the number is in the lowest byte.
        code if code.len() < 5 && is_out_of_reach(code) => Some(
            "the user who runs this needs to read and write the file, `-wal` and `-shm` beside it, and their directory, which has to exist",
        ),
        // duplicate_prepared_statement, invalid_sql_statement_name: somebody else's, or on
        // another connection.
        "42P05" | "26000" => Some(
            "a pooler that gives each transaction a connection has to know prepared statements: PgBouncer from 1.21 on, \
             with `max_prepared_statements`; or let it give each session one, with `pool_mode = session`",
        ),
        _ if is_turned_away(cause) => Some(TURNED_AWAY),
        // protocol_violation, as PgBouncer has it.
        "08P01" if cause.to_string().contains("extra_float_digits") => Some(
            "have the pooler in between ignore it: in PgBouncer, `ignore_startup_parameters = extra_float_digits`",
        ),
        _ => None,
    }
}

fn is_out_of_reach(code: &str) -> bool {
    code.parse().is_ok_and(|code: u32| [8, 14].contains(&(code & 0xff)))
}

/// What the database answers by its code (SQLSTATE), where it has answered.
pub(in crate::broker::store) fn code(cause: &sqlx::Error) -> Option<String> {
    cause.as_database_error()?.code().map(|code| code.into_owned())
}

/// Whether another transaction was in the way: engines that lock nothing say so, and
/// expect to be asked again for the whole.
pub(in crate::broker::store) fn is_conflict(cause: &sqlx::Error) -> bool {
    // serialization_failure, deadlock_detected
    code(cause).is_some_and(|code| ["40001", "40P01"].contains(&code.as_str()))
}

/// Whether the server does not take who comes, or their password.
pub(in crate::broker::store) fn is_turned_away(cause: &sqlx::Error) -> bool {
    code(cause).is_some_and(|code| match code.as_str() {
        // invalid_authorization_specification, invalid_password
        "28000" | "28P01" => true,
        // protocol_violation: PgBouncer has it also where it does not take a password, or the
        // server behind it does not take its own.
        "08P01" => cause.to_string().contains("authentication failed"),
        _ => false,
    })
}

/// Whether the connection was lost; another one may be had.
fn is_lost(cause: &sqlx::Error) -> bool {
    match cause {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        // connection_exception and its kin; admin_shutdown, crash_shutdown and
        // cannot_connect_now.
        other => code(other).is_some_and(|code| {
            code.starts_with("08") || ["57P01", "57P02", "57P03"].contains(&code.as_str())
        }),
    }
}
