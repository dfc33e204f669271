//! The end of the audit log: who may go on from it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::engine::Engine;
use super::failure::Failure;
use super::rows::damaged;
use super::tree;
use crate::broker::audit::leaf::stored;
use crate::broker::audit::seal::{Seal, SealedEnd};
use crate::broker::audit::tree::{Frontier, Hash};
use crate::error::{Error, ErrorKind, Result};

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::Verification, "the audit log does not end where the broker left it")
        .because_of(why)
        .hint("`tmpcred broker audit verify` says more; keep the database, and restore a backup")
}

fn shorter() -> Error {
    refused("it is shorter than it was")
}

/// What the ends of the log are sealed with, once somebody has said so, and the last one
/// that this process has seen.
#[derive(Default)]
pub(super) struct Guard {
    seal: OnceLock<Seal>,
    seen: AtomicU64,
}

/// The end as it was before a commit.
pub(super) struct End {
    /// How many numbers were given.
    pub(super) size: i64,
    tree: Option<Frontier>,
}

impl Guard {
    /// Seals with this from now on, if the end is good.
    pub(super) async fn begin(&self, engine: &Engine, seal: Seal) -> Result<()> {
        let ask = || {
            sqlx::query(
                "select last_sequence, tree_size, frontier, seal from audit_head where id = 1",
            )
            .fetch_one(&engine.pool)
        };
        let row = engine.read("the audit log cannot be read", ask).await?;
        self.check(&row, tree::head_from(&row)?, Some(&seal))?;
        // Where it is there already, it is the same: others are broken.
        self.seal.get_or_init(|| seal);
        Ok(())
    }

    /// Moves the end by so many records, and returns where it was, if that is as the seal
    /// says. Writing comes first: so the lock is taken before anything is read.
    pub(super) async fn advance(
        &self,
        transaction: &mut Transaction<'_, Any>,
        by: i64,
    ) -> Result<End, Failure> {
        let row = sqlx::query(
            "update audit_head set last_sequence = last_sequence + $1 where id = 1
             returning last_sequence, tree_size, frontier, seal",
        )
        .bind(by)
        .fetch_one(&mut **transaction)
        .await?;
        let (last, in_tree) = tree::head_from(&row)?;
        let size = stored(last) - by;
        let before = u64::try_from(size).map_err(|_| damaged("audit_head.last_sequence"))?;
        let tree = self.check(&row, (before, in_tree), self.seal.get())?;
        Ok(End { size, tree })
    }

    /// The tree up to an end, where it is sealed.
    fn check(
        &self,
        row: &AnyRow,
        (last, in_tree): (u64, u64),
        seal: Option<&Seal>,
    ) -> Result<Option<Frontier>> {
        // Whatever is behind the tree, no commit has put it there.
        if in_tree != last {
            return Err(refused("it has records that were never appended"));
        }
        match (sealed_end(row, last)?, seal) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(refused("it is sealed, and the key is not at hand")),
            (None, Some(_)) if last == 0 => Ok(Some(Frontier::default())),
            (None, Some(_)) => Err(refused("its seal is gone")),
            (Some(end), Some(seal)) => {
                let tree = seal.open(&end).ok_or_else(|| refused("its seal is broken"))?;
                if last < self.seen() {
                    return Err(shorter());
                }
                self.saw(last);
                Ok(Some(tree))
            }
        }
    }

    /// Adds leaves to the tree behind an end, and seals the new one.
    pub(super) async fn extend(
        &self,
        transaction: &mut Transaction<'_, Any>,
        end: End,
        leaves: Vec<Hash>,
    ) -> Result<u64, Failure> {
        let size = u64::try_from(end.size).map_err(|_| damaged("audit_head.last_sequence"))?;
        let grown = size + leaves.len() as u64;
        let tree = end.tree.map(|mut tree| {
            leaves.iter().for_each(|leaf| tree.push(*leaf));
            tree
        });
        tree::extend(transaction, size, leaves).await?;
        match (tree, self.seal.get()) {
            (Some(tree), Some(seal)) => sqlx::query(
                "update audit_head set tree_size = $1, frontier = $2, seal = $3 where id = 1",
            )
            .bind(stored(grown))
            .bind(tree.bytes())
            .bind(seal.over(&tree)),
            _ => {
                sqlx::query("update audit_head set tree_size = $1 where id = 1").bind(stored(grown))
            }
        }
        .execute(&mut **transaction)
        .await?;
        Ok(grown)
    }

    /// How long the log was at least when this process last looked, before it is read.
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Notes an end that was read without a lock: whoever appends nothing looks at it too.
    pub(super) fn note(&self, end: &SealedEnd, seen: u64) -> Result<()> {
        if self.seal.get().is_none_or(|seal| seal.open(end).is_none()) {
            return Ok(());
        }
        if end.size < seen {
            return Err(shorter());
        }
        self.saw(end.size);
        Ok(())
    }

    /// The log has been this long.
    pub(super) fn saw(&self, size: u64) {
        self.seen.fetch_max(size, Ordering::AcqRel);
    }
}

/// The seal of this row, where it has one.
pub(super) fn sealed_end(row: &AnyRow, size: u64) -> Result<Option<SealedEnd>> {
    let bytes = |column: &str| {
        row.try_get::<Option<Vec<u8>>, _>(column)
            .map_err(|_| damaged(&format!("audit_head.{column}")))
    };
    Ok(match (bytes("frontier")?, bytes("seal")?) {
        (None, None) => None,
        (frontier, seal) => Some(SealedEnd {
            size,
            frontier: frontier.unwrap_or_default(),
            seal: seal.unwrap_or_default(),
        }),
    })
}
