//! From SQLite's log of changes into the database itself, beside those who write.
//!
//! SQLite leaves that to the commit that makes the log too long, and whoever waits for that
//! commit waits for all of it. While somebody else does it, commits go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sqlx::AnyPool;

/// After how many changes the log is worth the work: it is ten MiB long then or so. The pages that
/// each commit changes are moved once for all of these.
const CHANGES: usize = 2048;

/// Moves what was committed, every so often.
#[derive(Clone, Default)]
pub(super) struct Backfill(Arc<State>);

#[derive(Default)]
struct State {
    /// How many changes were committed since it was done last.
    changes: AtomicUsize,
    under_way: AtomicBool,
}

impl Backfill {
    /// Notes that so many changes were committed. Where it is time, the work begins, on one of
    /// these connections; nobody waits for it.
    pub(super) fn committed(&self, changes: usize, pool: &AnyPool) {
        let State { changes: since, under_way } = &*self.0;
        if since.fetch_add(changes, Ordering::Relaxed) + changes < CHANGES
            || under_way.swap(true, Ordering::Relaxed)
        {
            return;
        }
        since.store(0, Ordering::Relaxed);
        let (state, pool) = (self.0.clone(), pool.clone());
        tokio::spawn(async move {
            // A log of which more is left than can be moved now grows on, until a commit
            // finds it too long and does the rest.
            let done = sqlx::query("pragma wal_checkpoint(passive)").execute(&pool).await;
            if let Err(error) = done {
                tracing::debug!(%error, "what was committed stays in the log for now");
            }
            state.under_way.store(false, Ordering::Relaxed);
        });
    }
}
