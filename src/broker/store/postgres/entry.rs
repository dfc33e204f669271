//! How a server lets this process in: where it is, as whom one comes, and by which password,
//! which may be another one tomorrow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::AnyPool;
use sqlx::any::AnyConnectOptions;
use tokio::sync::Mutex;

use super::{For, Way, authorities, late, look, options, way_to};
use crate::broker::config::{Address, PASSWORD_VARIABLE, Postgres};
use crate::broker::private_text::{self, Place};
use crate::broker::store::sql::Access;
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::secret::Secret;

/// How one gets in there.
pub(super) struct Entry {
    address: Address,
    /// It is there for as long as this is.
    way: Way,
    authorities: Option<String>,
    /// Where the password is; `None` where there is none.
    place: Option<Place>,
    env: Env,
    purpose: For,
    password: Mutex<Password>,
    /// How often it became another one.
    shown: AtomicU64,
}

/// The password that is shown.
struct Password {
    text: Option<Secret<String>>,
    /// Why it cannot be read again, where it was told so.
    told: Option<String>,
}

impl Entry {
    /// Reads what it takes to get in there, and looks whether somebody is there.
    ///
    /// # Errors
    /// Where nobody is, or a file cannot be used.
    pub(super) async fn new(config: &Postgres, env: &Env, purpose: For) -> Result<Self> {
        let address = config.address()?;
        let place = place(config, env);
        let text = place.as_ref().map(|place| private_text::read(place, "password", env));
        let password = Password { text: text.transpose()?, told: None };
        let way = way_to(&address, config.connect_within).await?;
        let authorities = config.ca_file.as_deref().map(authorities).transpose()?;
        Ok(Self {
            address,
            way,
            authorities: authorities.map(String::from),
            place,
            env: env.clone(),
            purpose,
            password: Mutex::new(password),
            shown: AtomicU64::default(),
        })
    }

    /// Who listens there, and what is asked for.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// As what the database is reached by, with the password that is shown now.
    ///
    /// # Errors
    /// Where that cannot be said.
    pub(super) async fn options(&self) -> Result<AnyConnectOptions> {
        self.options_with(self.password.lock().await.text.as_ref())
    }

    fn options_with(&self, password: Option<&Secret<String>>) -> Result<AnyConnectOptions> {
        options(&self.address, &self.way, password, self.authorities.as_deref())
    }

    /// Reads the password again, where it is in a file: what else there is does not change.
    async fn read_again(&self) -> Option<Result<Secret<String>>> {
        let place @ Place::File(_) = self.place.clone()? else { return None };
        let env = self.env.clone();
        let read = move || private_text::read(&place, "password", &env);
        let read = tokio::task::spawn_blocking(read).await;
        Some(read.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Other, "whoever read the password ended abnormally"))
        }))
    }
}

#[async_trait]
impl Access for Entry {
    fn shown(&self) -> u64 {
        self.shown.load(Ordering::Acquire)
    }

    async fn renew(&self, pool: &AnyPool, shown: u64) -> bool {
        // Who comes second finds what the first one did.
        let mut password = self.password.lock().await;
        if self.shown() != shown {
            return true;
        }
        let read = match self.read_again().await {
            None => return false,
            Some(read) => read.and_then(|text| Ok((self.options_with(Some(&text))?, text))),
        };
        match read {
            Ok((options, text)) => {
                password.told = None;
                if password.text.as_ref().is_some_and(|old| old.expose() == text.expose()) {
                    return false;
                }
                pool.set_connect_options(options);
                password.text = Some(text);
                self.shown.fetch_add(1, Ordering::Release);
                tracing::info!(
                    address = %self.address,
                    "the database did not take the password; its file has another one, which is shown from now on"
                );
                true
            }
            Err(error) => {
                let why = error.to_string();
                if password.told.as_ref() != Some(&why) {
                    tracing::warn!(
                        address = %self.address,
                        why,
                        "the database does not take the password, and its file cannot be read again; the old one stays"
                    );
                    password.told = Some(why);
                }
                false
            }
        }
    }

    async fn look(&self, pool: &AnyPool, within: Duration) -> Result<()> {
        let options = pool.connect_options();
        let looked = async {
            match look(&options, &self.address, within, self.purpose).await {
                // What leads there by a name is always there itself.
                Err(error) if error.kind() == ErrorKind::Unreachable => {
                    self.reach().await?;
                    Err(error)
                }
                looked => looked,
            }
        };
        tokio::time::timeout(within, looked).await.unwrap_or_else(|_| Err(late(within)))
    }
}

impl Entry {
    /// Looks whether somebody is there, where it has a name.
    #[cfg(target_os = "linux")]
    async fn reach(&self) -> Result<()> {
        match &self.way {
            Some(relay) => relay.reach().await,
            None => Ok(()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    async fn reach(&self) -> Result<()> {
        Ok(())
    }
}

/// Where the password is, where there is one: a server may know who asks by other means.
pub(super) fn place(config: &Postgres, env: &Env) -> Option<Place> {
    match (&config.password_file, &config.password_env) {
        (Some(path), _) => Some(Place::File(path.clone())),
        (None, Some(variable)) => Some(Place::Variable(variable.clone())),
        (None, None) => {
            env.get(PASSWORD_VARIABLE).map(|_| Place::Variable(PASSWORD_VARIABLE.into()))
        }
    }
}
