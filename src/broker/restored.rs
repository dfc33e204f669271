//! That a database was filled from a backup, on record in it: whoever reads the log sees where
//! something may be missing.

use super::audit::{Author, Decision, Record, leaf};
use super::config::Config;
use super::keys::{CheckpointKeys, Kek};
use super::store::{self, Ledger as _, Store as _, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;

/// The action of these records.
pub const ACTION: &str = "restore";

/// Puts on record that the database was filled from a backup whose log has so many records.
///
/// # Errors
/// Where the key-encryption key does not open it, or it cannot be written.
pub async fn put_on_record(config: &Config, host: &Host, kek: &Kek, records: u64) -> Result<()> {
    let store = store::open_existing(&config.store, &host.env).await?;
    let done = async {
        let keys = CheckpointKeys::of_broker(&store, kek, &config.issuer).await?;
        store.seal_with(keys.root_key().seal_of_log()).await?;
        let author = Author::operator(&config.issuer);
        let reason = format!(
            "{} restored a backup whose log has {records} records: what happened after it is not in this one",
            author.said()
        );
        let now = host.clock.now();
        let record = Record { reason, ..author.record(now, ACTION, Decision::Changed) };
        leaf::check(&record)?;
        match store.commit(&[Unit::of(record)]).await?.iter().all(|one| one.is_committed()) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Other, "the database did not take the record")),
        }
    }
    .await;
    store.close().await;
    done
}
