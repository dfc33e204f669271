//! That a database was filled from a backup, on record in it: whoever reads the log sees where
//! something may be missing. And what counts in it that may have been ended since.

use std::path::Path;

use super::audit::{Author, Decision, Record, leaf};
use super::config::Config;
use super::elevation::Access;
use super::keys::{CheckpointKeys, Kek};
use super::store::sql::Copied;
use super::store::{self, Enrollment, EnrollmentState, Store, Unit, transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::clock::Clock;

/// The action of these records.
pub const ACTION: &str = "restore";

/// Fills the database from a backup, and puts that on record in it, where the key-encryption key
/// is at hand. Returns what was restored, and what came of the record.
///
/// # Errors
/// As with [`transfer::restore`].
pub async fn restore(
    config: &Config,
    host: &Host,
    file: &Path,
    kek: Option<&Kek>,
) -> Result<(Copied, Result<()>)> {
    let record = async |store: &dyn Store, records: u64| match kek {
        Some(kek) => put_on_record(store, config, host, kek, records).await,
        None => Err(Error::new(ErrorKind::Config, "that takes the key-encryption key, too")),
    };
    transfer::restore(&config.store, &host.env, file, kek, &config.issuer, record).await
}

/// Puts on record that this database was filled from a backup whose log has so many records.
async fn put_on_record(
    store: &dyn Store,
    config: &Config,
    host: &Host,
    kek: &Kek,
    records: u64,
) -> Result<()> {
    let keys = CheckpointKeys::of_broker(store, kek, &config.issuer).await?;
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

/// What counts in a database that was filled from a backup, though it may have been ended after
/// that was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// Grants that are had.
    pub grants: u64,
    /// Requests that were approved, or wait for it.
    pub requests: u64,
    /// Enrolled keys that were approved and have not lapsed.
    pub enrolled_keys: u64,
}

/// Looks what counts in it at this moment.
///
/// # Errors
/// Where it cannot be read.
pub async fn in_force(config: &Config, host: &Host) -> Result<InForce> {
    let store = store::open_existing(&config.store, &host.env).await?;
    let counted = in_force_in(&store, host.clock.as_ref()).await;
    store.close().await;
    counted
}

pub(super) async fn in_force_in(store: &dyn Store, clock: &dyn Clock) -> Result<InForce> {
    let now = store.now().await?.unwrap_or_else(|| clock.now());
    let elevations = store.count_elevations(now, &[]).await?;
    let many = |states: [Access; 2]| {
        let of = elevations.iter().filter(|one| states.iter().any(|s| s.as_str() == one.state));
        of.map(|one| one.count).sum()
    };
    let enrolled = store.enrollments().await?;
    let counts =
        |key: &&Enrollment| key.state == EnrollmentState::Approved && key.lapses_at() > now;
    Ok(InForce {
        grants: many([Access::Active, Access::EmergencyActive]),
        requests: many([Access::Pending, Access::Approved]),
        enrolled_keys: enrolled.iter().filter(counts).count() as u64,
    })
}
