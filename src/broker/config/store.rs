//! The table `[store]`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use url::Url;

use crate::error::{Error, ErrorKind, Result, lasting};

/// The variable that holds the password where `[store.postgres]` names nothing else.
pub const PASSWORD_VARIABLE: &str = "TMPCRED_BROKER_STORE_PASSWORD";

/// The port of PostgreSQL.
const PORT: u16 = 5432;

/// The bounds of the time limits.
const LIMITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// The bounds of how many connections there may be: one writes, others read meanwhile.
const CONNECTIONS: [u32; 2] = [2, 100];

/// The table `[store]`: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The SQLite database. Made on first start, private to the user who runs the broker.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// A PostgreSQL database, which several processes on several machines may share.
    #[serde(default)]
    pub postgres: Option<Postgres>,
}

/// The table `[store.postgres]`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// Where it is, without a password: `postgres://USER@HOST:PORT/DATABASE`. A host such
    /// as `%2Frun%2Fpostgresql` is the directory of a Unix socket.
    pub url: String,
    /// A file that holds the password, private to the user who runs the broker.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The environment variable that holds it; `TMPCRED_BROKER_STORE_PASSWORD` where
    /// neither is given.
    #[serde(default)]
    pub password_env: Option<String>,
    /// Refused: this file is no place for it.
    #[serde(default)]
    #[schemars(skip)]
    pub password: Option<IgnoredAny>,
    /// A PEM file with certificate authorities to trust besides the public ones. The
    /// server's certificate is verified unless it is on this machine.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How many connections this process opens at most; 2 to 100.
    #[serde(default = "default_max_connections")]
    pub max_connections: u32,
    /// How long a connection is waited for; 1 to 30 seconds.
    #[serde(default = "default_limit", deserialize_with = "super::duration")]
    #[schemars(with = "String")]
    pub connect_within: Duration,
    /// How long one piece of work there may take, with all its statements; 1 to 30 seconds.
    #[serde(default = "default_limit", deserialize_with = "super::duration")]
    #[schemars(with = "String")]
    pub answer_within: Duration,
}

fn default_max_connections() -> u32 {
    8
}

fn default_limit() -> Duration {
    Duration::from_secs(5)
}

/// Where things are kept.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In a SQLite database, in this file.
    File(&'a Path),
    /// In a PostgreSQL database.
    Postgres(&'a Postgres),
}

impl Store {
    /// A SQLite database in this file.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), postgres: None }
    }

    /// Where things are kept.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where none or both are named.
    pub fn place(&self) -> Result<Place<'_>> {
        match (&self.path, &self.postgres) {
            (Some(path), None) => Ok(Place::File(path)),
            (None, Some(postgres)) => Ok(Place::Postgres(postgres)),
            (Some(_), Some(_)) => {
                let why = "[store] names both a path and [store.postgres]";
                Err(Error::new(ErrorKind::Config, why))
            }
            (None, None) => Err(Error::new(
                ErrorKind::Config,
                "[store] names neither a path nor [store.postgres]",
            )),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.place()? {
            Place::File(_) => Ok(()),
            Place::Postgres(postgres) => postgres.check(),
        }
    }
}

/// Who listens there, and what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Who listens.
    pub host: Host,
    /// The port, or that of the socket's name.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The database.
    pub database: String,
}

/// Who listens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name.
    Name(String),
    /// An address.
    Ip(IpAddr),
    /// A Unix socket in this directory.
    Socket(String),
}

impl Host {
    /// Whether nobody on the way can listen.
    pub fn is_here(&self) -> bool {
        match self {
            Self::Name(name) => name.eq_ignore_ascii_case("localhost"),
            Self::Ip(ip) => ip.is_loopback(),
            Self::Socket(_) => true,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Host::Ip(ip) => write!(f, "{ip}:{}", self.port),
            Host::Socket(directory) => write!(f, "{directory}/.s.PGSQL.{}", self.port),
        }
    }
}

impl Postgres {
    /// What `url` says.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where that is not all, or too much. It does not say what
    /// stands there: that may be a password.
    pub fn address(&self) -> Result<Address> {
        let wrong = |why: &str| {
            Error::new(ErrorKind::Config, format!("[store.postgres] has a url {why}"))
                .hint("such as \"postgres://tmpcred@db.example.com/tmpcred\"")
        };
        let url = Url::parse(&self.url).map_err(|_| wrong("that is none"))?;
        if !["postgres", "postgresql"].contains(&url.scheme()) {
            return Err(wrong("that does not begin with postgres://"));
        }
        if url.password().is_some() {
            return Err(wrong("with a password in it").hint(elsewhere()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("with something behind the name of the database"));
        }
        let text = |encoded: &str| -> Result<String> {
            let text = percent_decode_str(encoded).decode_utf8();
            Ok(text.map_err(|_| wrong("that is no text"))?.into_owned())
        };
        let (user, database) = (text(url.username())?, text(url.path().trim_start_matches('/'))?);
        if user.is_empty() || database.is_empty() {
            return Err(wrong("that names no user, or no database"));
        }
        let host = text(url.host_str().unwrap_or_default())?;
        let host = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => Host::Ip(ip),
            Err(_) if host.starts_with('/') => Host::Socket(host),
            Err(_) if host.is_empty() => return Err(wrong("that names no host")),
            Err(_) => Host::Name(host),
        };
        Ok(Address { host, port: url.port().unwrap_or(PORT), user, database })
    }

    fn check(&self) -> Result<()> {
        let wrong =
            |why: String| Err(Error::new(ErrorKind::Config, format!("[store.postgres] {why}")));
        self.address()?;
        if self.password.is_some() {
            let error = Error::new(ErrorKind::Config, "[store.postgres] has a password");
            return Err(error.hint(elsewhere()));
        }
        if self.password_file.is_some() && self.password_env.is_some() {
            return wrong("names both password_file and password_env".into());
        }
        let [least, most] = CONNECTIONS;
        if !(least..=most).contains(&self.max_connections) {
            return wrong(format!(
                "has max_connections = {}; possible are {least} to {most}",
                self.max_connections
            ));
        }
        let [least, most] = LIMITS;
        for (name, limit) in
            [("connect_within", self.connect_within), ("answer_within", self.answer_within)]
        {
            if limit < least || limit > most {
                return wrong(format!(
                    "has {name} = \"{}\"; it must be at least {} and at most {}",
                    lasting(limit),
                    lasting(least),
                    lasting(most)
                ));
            }
        }
        Ok(())
    }
}

/// Where a password belongs.
fn elsewhere() -> String {
    format!(
        "put it into a file that is named by password_file, or into the variable {PASSWORD_VARIABLE}"
    )
}
