//! The end of the audit log: who may go on from it.

use std::sync::{Mutex, OnceLock, PoisonError};

use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row, Transaction};
use time::OffsetDateTime;

use super::engine::Engine;
use super::failure::Failure;
use super::rows::{damaged, moment};
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

fn another(size: u64) -> Error {
    refused("it is another one than it was").because_of(format!(
        "its first {size} records are not those that this process has seen: an older copy was put in place, and somebody went on from it"
    ))
}

/// What the ends of the log are sealed with, once somebody has said so, and the last one
/// that this process has seen.
#[derive(Default)]
pub(super) struct Guard {
    seal: OnceLock<Seal>,
    seen: Mutex<Seen>,
    /// The last tile of the tree, as this process has left it: where nobody else has gone on
    /// since, it need not be read to go on from it.
    tail: Mutex<Option<Tail>>,
}

/// The leaves of the last tile of a tree, which is none where all are full.
struct Tail {
    of: Seen,
    leaves: Vec<Hash>,
}

/// What a commit has made of the tree: where it ends, and the leaves of its last tile, where those
/// before it were good.
pub(super) struct Grown {
    of: Seen,
    leaves: Option<Vec<Hash>>,
}

/// Whether these are the leaves of the last tile of this tree.
fn is_tail_of(tree: &Frontier, leaves: &[Hash]) -> bool {
    let mut tail = Frontier::default();
    leaves.iter().for_each(|leaf| tail.push(*leaf));
    // A tile is full where a subtree is: what is kept of the smaller ones is of those behind it.
    tree.bytes().ends_with(&tail.bytes())
}

/// An end of the log.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    size: u64,
    root: Hash,
}

impl Seen {
    fn of(tree: &Frontier) -> Self {
        Self { size: tree.size(), root: tree.root() }
    }

    /// How many of the records up to this end are to be compared by their tree, as it is in
    /// the database: the end itself says how it is where it is no further one.
    fn compared(&self, tree: &Frontier) -> Result<Option<u64>> {
        match tree.size() {
            size if size < self.size => Err(shorter()),
            size if size == self.size && size > 0 && tree.root() != self.root => Err(another(size)),
            size => Ok((self.size > 0 && size > self.size).then_some(self.size)),
        }
    }

    /// Whether the log goes on from here, whose first records have this root.
    fn goes_on(&self, root: &Hash) -> Result<()> {
        if *root == self.root { Ok(()) } else { Err(another(self.size)) }
    }
}

/// The end as it was before a commit.
pub(super) struct End {
    /// How many numbers were given.
    pub(super) size: i64,
    /// What the time is where the database has a clock of its own, by that.
    pub(super) now: Option<OffsetDateTime>,
    tree: Option<Frontier>,
}

impl Guard {
    /// Seals with this from now on, if the end is good.
    pub(super) async fn begin(&self, engine: &Engine, seal: Seal) -> Result<()> {
        self.look(engine, Some(&seal)).await?;
        // Where it is there already, it is the same: others are broken.
        self.seal.get_or_init(|| seal);
        Ok(())
    }

    /// Looks whether somebody could go on from the end as it is, as [`advance`](Self::advance)
    /// does, but without its lock.
    pub(super) async fn require_good(&self, engine: &Engine) -> Result<()> {
        self.look(engine, self.seal.get()).await
    }

    async fn look(&self, engine: &Engine, seal: Option<&Seal>) -> Result<()> {
        let ask = || {
            sqlx::query(
                "select last_sequence, tree_size, frontier, seal from audit_head where id = 1",
            )
            .fetch_one(&engine.pool)
        };
        let seen = self.seen();
        let row = engine.read("the audit log cannot be read", ask).await?;
        match self.check(&row, tree::head_from(&row)?, seal)? {
            Some(tree) => self.compare(engine, seen, &tree).await,
            None => Ok(()),
        }
    }

    /// Moves the end by so many records, and returns where it was, if that is as the seal
    /// says. Writing comes first: so the lock is taken before anything is read.
    pub(super) async fn advance(
        &self,
        engine: &Engine,
        transaction: &mut Transaction<'_, Any>,
        by: i64,
    ) -> Result<End, Failure> {
        let clock = engine.clock().unwrap_or("cast(null as bigint)");
        let statement = format!(
            "update audit_head set last_sequence = last_sequence + $1 where id = 1
             returning last_sequence, tree_size, frontier, seal, {clock} as micros"
        );
        let row =
            sqlx::query(AssertSqlSafe(statement)).bind(by).fetch_one(&mut **transaction).await?;
        let micros: Option<i64> = row.try_get("micros").map_err(|_| damaged("audit_head"))?;
        let (last, in_tree) = tree::head_from(&row)?;
        let size = stored(last) - by;
        let before = u64::try_from(size).map_err(|_| damaged("audit_head.last_sequence"))?;
        let tree = self.check(&row, (before, in_tree), self.seal.get())?;
        if let Some(tree) = &tree {
            let seen = self.seen();
            // Where this process was the last to append, there is nothing to look at.
            if let Some(size) = seen.compared(tree)? {
                seen.goes_on(&tree::root_within(transaction, size).await?)?;
            }
            self.saw(Seen::of(tree));
        }
        Ok(End { size, now: micros.and_then(moment), tree })
    }

    /// Compares an end that was read without a lock with the one that was seen before that.
    async fn compare(&self, engine: &Engine, seen: Seen, tree: &Frontier) -> Result<()> {
        if let Some(size) = seen.compared(tree)? {
            // What is in the tree stays there.
            seen.goes_on(&tree::root_at(engine, size).await?)?;
        }
        self.saw(Seen::of(tree));
        Ok(())
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
                Ok(Some(seal.open(&end).ok_or_else(|| refused("its seal is broken"))?))
            }
        }
    }

    /// Adds leaves to the tree behind an end, and seals the new one; what was sealed is to be told
    /// to [`grew`](Self::grew) once it is committed.
    pub(super) async fn extend(
        &self,
        transaction: &mut Transaction<'_, Any>,
        end: End,
        leaves: Vec<Hash>,
    ) -> Result<Option<Grown>, Failure> {
        let size = u64::try_from(end.size).map_err(|_| damaged("audit_head.last_sequence"))?;
        let grown = size + leaves.len() as u64;
        let tail = end.tree.as_ref().and_then(|tree| self.take_tail(Seen::of(tree)));
        let was_known = tail.is_some();
        let tree = end.tree.map(|mut tree| {
            leaves.iter().for_each(|leaf| tree.push(*leaf));
            tree
        });
        let leaves = tree::extend(transaction, size, leaves, tail).await?;
        let outcome = tree.as_ref().map(|tree| {
            // What somebody else has written is not gone on from for longer than it stands there.
            let is_good = was_known || is_tail_of(tree, &leaves);
            Grown { of: Seen::of(tree), leaves: Some(leaves).filter(|_| is_good) }
        });
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
        Ok(outcome)
    }

    /// The last tile of the tree with this end, where it is known.
    fn take_tail(&self, of: Seen) -> Option<Vec<Hash>> {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner).take();
        tail.filter(|tail| tail.of == of).map(|tail| tail.leaves)
    }

    /// The tree has grown like this.
    pub(super) fn grew(&self, Grown { of, leaves }: Grown) {
        self.saw(of);
        let tail = leaves.map(|leaves| Tail { of, leaves });
        *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = tail;
    }

    /// The end that this process has seen last, before another one is read.
    pub(super) fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an end that was read without a lock: whoever appends nothing looks at it too.
    pub(super) async fn note(&self, engine: &Engine, end: &SealedEnd, seen: Seen) -> Result<()> {
        match self.seal.get().and_then(|seal| seal.open(end)) {
            Some(tree) => self.compare(engine, seen, &tree).await,
            None => Ok(()),
        }
    }

    /// The log has been this long, and like this.
    pub(super) fn saw(&self, end: Seen) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if end.size > seen.size {
            *seen = end;
        }
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

#[cfg(test)]
mod tests;
