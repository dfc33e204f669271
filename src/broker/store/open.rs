//! Opening the store that the configuration names.

use super::sql::SqlStore;
use super::{postgres, sqlite};
use crate::broker::config::{Place, Store as StoreConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;

/// Opens a broker's store, and makes it where there is none.
///
/// # Errors
/// Whatever keeps it from being used; see [`sqlite::open`] and [`postgres::open`].
pub async fn open(config: &StoreConfig, env: &Env) -> Result<SqlStore> {
    match config.place()? {
        Place::File(path) => sqlite::open(path).await,
        Place::Postgres(config) => postgres::open(config, env).await,
    }
}

/// Opens a store that a broker of this version has made.
///
/// # Errors
/// As with [`open`]; also where there is none, or an earlier version made it.
pub async fn open_existing(config: &StoreConfig, env: &Env) -> Result<SqlStore> {
    match config.place()? {
        Place::File(path) if !sqlite::is_there(path)? => {
            let why = format!("there is no database {}", path.display());
            Err(Error::new(ErrorKind::Config, why)
                .hint("the broker makes it, and its first key, when it starts"))
        }
        Place::File(path) => sqlite::open_existing(path).await,
        Place::Postgres(config) => postgres::open_existing(config, env).await,
    }
}

/// What there is where a broker's store is to be.
pub enum Found {
    /// Nothing yet: a broker makes it.
    Nothing,
    /// A store that an earlier version made: a broker brings it up to date.
    Earlier,
    /// One of this version.
    Ready(Box<SqlStore>),
}

/// Which version made a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// None: there is nothing in it.
    Never,
    /// An earlier one.
    Earlier,
    /// This one.
    Now,
}

impl Found {
    pub(super) fn of(made: Made, store: SqlStore) -> Self {
        match made {
            Made::Never => Self::Nothing,
            Made::Earlier => Self::Earlier,
            Made::Now => Self::Ready(Box::new(store)),
        }
    }
}

/// Looks what a broker would open, and changes nothing there.
///
/// # Errors
/// As with [`open`].
pub async fn look(config: &StoreConfig, env: &Env) -> Result<Found> {
    match config.place()? {
        Place::File(path) => sqlite::find(path).await,
        Place::Postgres(config) => postgres::find(config, env).await,
    }
}

/// Opens a store to read it; brokers may be writing to it.
///
/// # Errors
/// As with [`open_existing`]; also where an earlier version made it.
pub async fn open_to_read(config: &StoreConfig, env: &Env) -> Result<SqlStore> {
    match config.place()? {
        Place::File(path) => sqlite::open_to_read(path).await,
        Place::Postgres(config) => postgres::open_to_read(config, env).await,
    }
}
