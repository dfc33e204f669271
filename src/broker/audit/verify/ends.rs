//! Where the log ends: whether that is where it should, and what is to be thought of what nobody
//! has signed.

use time::{Duration, OffsetDateTime};

use super::{Check, Kind};
use crate::broker::audit::micros;
use crate::broker::audit::note::Checkpoint;
use crate::broker::audit::tree::{Frontier, hashes_of, tiles_at};
use crate::broker::store::{LogEnds, Noted};
use crate::error::Result;

/// How old a record may be that no checkpoint covers: a broker signs within seconds.
const UNSIGNED: Duration = Duration::minutes(1);

impl Check<'_> {
    /// Checks that the log ends where it should.
    pub(super) async fn ends(&mut self, ends: LogEnds, latest: Option<&Noted>) -> Result<()> {
        let size = ends.promised;
        if ends.first_record < 1 {
            let text = format!("record {}: there are none before the first", ends.first_record);
            self.tell(Kind::Extra, 0, 0, text);
        }
        if ends.without_number > 0 {
            let text = format!(
                "{} of the log's rows have no number: they were never appended",
                ends.without_number
            );
            self.tell(Kind::Extra, 0, 0, text);
        }
        if ends.last_record > size {
            self.found(Kind::Extra, size + 1, ends.last_record);
        }
        // The furthest that anything tells of.
        let mut known = (ends.in_tree, "by the size of the tree");
        if let Some(noted) = latest.filter(|noted| noted.size > known.0) {
            match Checkpoint::open(&noted.note, &self.keys) {
                Ok(checkpoint) if checkpoint.size == noted.size => {
                    known = (checkpoint.size, "by the newest checkpoint in the store")
                }
                _ => self.found(Kind::Checkpoint, noted.size, noted.size),
            }
        }
        if let Some(further) = self.report.off_host.filter(|size| *size > known.0) {
            known = (further, "by the checkpoint from elsewhere");
        }
        let (last, rest) = tiles_at(size, 0);
        let tile = self.store.tile(0, last).await?;
        let hashes = tile.as_deref().and_then(hashes_of).unwrap_or_default();
        let in_tiles = size + (hashes.len().saturating_sub(rest)) as u64;
        // Unless somebody is appending, which is no damage.
        if in_tiles > known.0 && self.store.ends().await? == ends {
            known = (in_tiles, "by the tiles of the tree");
        }
        if known.0 > size {
            let text = format!("{}, {}", Kind::Missing.text(size + 1, known.0), known.1);
            self.tell(Kind::Missing, size + 1, known.0, text);
        }
        let newest = latest.map_or(0, |noted| noted.size);
        if let Some(further) = self.report.off_host.filter(|further| *further > newest)
            && self.report.findings.is_empty()
        {
            // It was kept here before it was anywhere else.
            let text = format!(
                "the checkpoint from elsewhere is of {further} records, and the newest in the database of {newest}: those in between were removed"
            );
            self.tell(Kind::Checkpoint, newest + 1, further, text);
        }
        if size > 0 && self.proven == 0 && self.report.findings.is_empty() {
            let text = "no checkpoint covers any record".to_string();
            self.tell(Kind::Checkpoint, 1, size, text);
        }
        Ok(())
    }

    /// Looks at what is behind all that is signed or sealed.
    pub(super) async fn tail(&mut self, now: OffsetDateTime) -> Result<()> {
        let (proven, last) = (self.proven, self.report.records);
        if self.lost || proven >= last || !self.report.findings.is_empty() {
            return Ok(());
        }
        if let Some(sealed) = self.sealed.as_ref().map(Frontier::size) {
            // Unless somebody was appending meanwhile.
            let now = self.store.sealed_end().await?.map_or(0, |end| end.size);
            if now < last {
                self.found(Kind::Extra, sealed.max(now) + 1, last);
            }
            return Ok(());
        }
        if self.is_old(proven, now).await? {
            self.found(Kind::Unsigned, proven + 1, last);
        }
        Ok(())
    }

    /// Looks whether anybody has signed anything, where the seal alone says that all is well.
    pub(super) async fn signed_at_all(&mut self, now: OffsetDateTime) -> Result<()> {
        let last = self.report.records;
        let nobody = self.report.keys.is_empty() && self.report.signed == 0;
        if last > 0 && nobody && self.report.findings.is_empty() && self.is_old(0, now).await? {
            let text = "no checkpoint covers any record, though a broker signs within seconds";
            self.tell(Kind::Checkpoint, 1, last, text.into());
        }
        Ok(())
    }

    /// Whether the record behind this one is so old that a checkpoint should cover it. One from the
    /// future, by more than clocks may differ, would else be too new for ever.
    async fn is_old(&self, place: u64, now: OffsetDateTime) -> Result<bool> {
        let first = self.store.leaves(place, 1).await?.into_iter().next();
        let at = first.and_then(|leaf| leaf.values).and_then(|[_, at, ..]| at?.parse().ok());
        let new = micros(now - UNSIGNED)..=micros(now + UNSIGNED);
        Ok(at.is_none_or(|at: i64| !new.contains(&at)))
    }
}
