//! Elevations of which one may be there that cannot be read: it is passed over and told of, so
//! that it counts for nothing, and keeps nobody from the others.

use super::Elevation;
use crate::broker::Broker;
use crate::broker::store::{ElevationFilter, SealedElevation};
use crate::error::Result;

/// How many are looked at, where none of them can be read.
const MOST: usize = 5000;

impl Broker {
    /// Those that match and can be read, the newest first: of so many that are looked at together,
    /// and where none of those can be, of older ones.
    pub(super) async fn legible_of(
        &self,
        mut filter: ElevationFilter,
        limit: u32,
    ) -> Result<Vec<Elevation>> {
        let mut looked_at = 0;
        loop {
            let part = self.store.elevations(&filter, limit).await?;
            let read: Vec<_> = part.iter().filter_map(|one| self.legible(&one.sealed)).collect();
            looked_at += part.len();
            let is_last = part.len() < limit as usize || looked_at >= MOST;
            let (Some(last), true, false) = (part.last(), read.is_empty(), is_last) else {
                return Ok(read);
            };
            filter.below = Some((last.asked_at, last.id));
        }
    }

    /// The elevation, where it can be read.
    pub(super) fn legible(&self, sealed: &SealedElevation) -> Option<Elevation> {
        let opened = self.elevations.open(sealed);
        opened
            .inspect_err(|error| {
                let causes = error.causes().join(": ");
                tracing::error!(%error, causes, "an elevation is passed over that cannot be read");
            })
            .ok()
    }
}
