//! The tree of the audit log, in tiles.

use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::engine::Engine;
use super::failure::Failure;
use super::head;
use super::rows::{damaged, leaf_from};
use crate::broker::audit::leaf::{COLUMNS, Leaf, stored};
use crate::broker::audit::tree::{
    Edge, Frontier, Hash, LEVELS, TILE, hashes_of, tile_root, tiles_at,
};
use crate::error::Result;

/// How many records are put into the tree at a time where they were not with it.
const CATCH_UP: u64 = 4096;

const SELECT_TILE: &str = "select hashes from audit_tile where level = $1 and number = $2";

const UNREADABLE: &str = "the audit log cannot be read";

/// Holds for rows that have a number. SQLite takes in anything else as well.
pub(super) const NUMBERED: &str = "sequence = cast(sequence as bigint)";

/// The statement that reads leaves.
fn select_leaves() -> String {
    format!(
        "select {}, leaf_version, salt, erased from audit_record where sequence > $1 and {NUMBERED}
         order by sequence limit $2",
        COLUMNS.join(", ")
    )
}

/// The leaves after this sequence number.
pub(super) async fn leaves(engine: &Engine, after: u64, limit: u32) -> Result<Vec<Leaf>> {
    // Somebody may have put something into a row that cannot be read: the others can.
    match engine.read(UNREADABLE, || page(engine, after, limit)).await? {
        Some(rows) => rows.iter().map(leaf_from).collect(),
        None => leaves_one_by_one(engine, after, limit).await,
    }
}

async fn leaves_one_by_one(engine: &Engine, after: u64, limit: u32) -> Result<Vec<Leaf>> {
    let statement = format!(
        "select sequence from audit_record where sequence > $1 and {NUMBERED}
         order by sequence limit $2"
    );
    let numbers: Vec<i64> = engine
        .read(UNREADABLE, || {
            sqlx::query_scalar(sqlx::AssertSqlSafe(statement.clone()))
                .bind(stored(after))
                .bind(i64::from(limit))
                .fetch_all(&engine.pool)
        })
        .await?;
    let mut leaves = Vec::with_capacity(numbers.len());
    for number in numbers {
        let sequence = u64::try_from(number).map_err(|_| damaged("audit_record.sequence"))?;
        let before = sequence.saturating_sub(1);
        match engine.read(UNREADABLE, || page(engine, before, 1)).await? {
            Some(rows) => leaves.extend(rows.iter().map(leaf_from).collect::<Result<Vec<_>>>()?),
            None => {
                leaves.push(Leaf { sequence, version: 0, salt: None, erased: None, values: None })
            }
        }
    }
    Ok(leaves)
}

/// Rows; `None` where one cannot be read for what is in it.
async fn page(engine: &Engine, after: u64, limit: u32) -> Result<Option<Vec<AnyRow>>, sqlx::Error> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(select_leaves()))
        .bind(stored(after))
        .bind(i64::from(limit))
        .fetch_all(&engine.pool)
        .await;
    match rows {
        Err(cause) if is_damage(&cause) => Ok(None),
        rows => rows.map(Some),
    }
}

/// Whether it is what is in a row that cannot be read.
pub(super) fn is_damage(cause: &sqlx::Error) -> bool {
    matches!(cause, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })
}

/// A tile; `None` where there is none, or it is no bytes.
pub(super) async fn tile(engine: &Engine, level: u32, number: u64) -> Result<Option<Vec<u8>>> {
    let find = || async {
        let found = sqlx::query_scalar(SELECT_TILE)
            .bind(i64::from(level))
            .bind(stored(number))
            .fetch_optional(&engine.pool)
            .await;
        match found {
            Err(cause) if is_damage(&cause) => Ok(None),
            found => found,
        }
    };
    engine.read(UNREADABLE, find).await
}

/// The root of the tree when it had this size.
pub(super) async fn root_at(engine: &Engine, size: u64) -> Result<Hash> {
    let mut edge = Edge::default();
    for level in 0..LEVELS {
        let (number, count) = tiles_at(size, level);
        let hashes = match count {
            0 => Vec::new(),
            _ => part(tile(engine, level, number).await?.as_deref(), count)?,
        };
        edge.add_level(&hashes);
    }
    Ok(edge.root())
}

/// The root of the tree when it had this size, as this transaction sees it.
pub(super) async fn root_within(
    transaction: &mut Transaction<'_, Any>,
    size: u64,
) -> Result<Hash, Failure> {
    let mut edge = Edge::default();
    for level in 0..LEVELS {
        let (number, count) = tiles_at(size, level);
        let hashes = match count {
            0 => Vec::new(),
            _ => part(tile_within(transaction, level, number).await?.as_deref(), count)?,
        };
        edge.add_level(&hashes);
    }
    Ok(edge.root())
}

/// The root over the records from the first to this one, computed anew.
pub(super) async fn root_of_records(
    transaction: &mut Transaction<'_, Any>,
    size: u64,
) -> Result<Hash, Failure> {
    let mut tree = Frontier::default();
    while tree.size() < size {
        let limit = CATCH_UP.min(size - tree.size());
        let rows = sqlx::query(sqlx::AssertSqlSafe(select_leaves()))
            .bind(stored(tree.size()))
            .bind(stored(limit))
            .fetch_all(&mut **transaction)
            .await?;
        if rows.len() as u64 != limit {
            return Err(damaged("audit_head.tree_size").into());
        }
        for row in &rows {
            let leaf = leaf_from(row)?;
            let hash = leaf.hash().filter(|_| leaf.sequence == tree.size() + 1);
            tree.push(hash.ok_or_else(|| damaged("audit_record"))?);
        }
    }
    Ok(tree.root())
}

/// Puts the records into the tree that are not: those that an earlier version wrote.
/// Returns whether there may be more. Where the log is sealed, there are none: whatever
/// is behind its end was put there by somebody else.
pub(super) async fn catch_up(engine: &Engine) -> Result<bool> {
    engine.work("it cannot be brought up to date", || catch_up_some(engine)).await
}

async fn catch_up_some(engine: &Engine) -> Result<bool, Failure> {
    let mut transaction = engine.begin().await?;
    // Writing comes first: so the lock is taken before anything is read.
    let row = sqlx::query(
        "update audit_head set last_sequence = last_sequence where id = 1
         returning last_sequence, tree_size, frontier, seal",
    )
    .fetch_one(&mut *transaction)
    .await?;
    let (last, size) = head_from(&row)?;
    if head::sealed_end(&row, size)?.is_some() {
        return Ok(false);
    }
    let until = last.min(size.saturating_add(CATCH_UP));
    if until > size {
        fill(&mut transaction, size, until).await?;
        // Whatever became of it is found out the next time.
        transaction.commit().await?;
    }
    Ok(until < last)
}

/// Puts the records behind `size` up to `until` into the tree.
async fn fill(
    transaction: &mut Transaction<'_, Any>,
    size: u64,
    until: u64,
) -> Result<(), Failure> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(select_leaves()))
        .bind(stored(size))
        .bind(stored(until - size))
        .fetch_all(&mut **transaction)
        .await?;
    let mut hashes = Vec::with_capacity(rows.len());
    for (row, expected) in rows.iter().zip(size + 1..) {
        let leaf = leaf_from(row)?;
        let hash = leaf.hash().filter(|_| leaf.sequence == expected);
        hashes.push(hash.ok_or_else(|| damaged("audit_record"))?);
    }
    if hashes.len() as u64 != until - size {
        return Err(damaged("audit_head.last_sequence").into());
    }
    extend(transaction, size, hashes, None).await?;
    sqlx::query("update audit_head set tree_size = $1 where id = 1")
        .bind(stored(until))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Adds leaves to a tree of this size; whoever asks writes down how large it is then. `tail` are
/// the leaves of its last tile, where they are known. Returns those of the last one then.
pub(super) async fn extend(
    transaction: &mut Transaction<'_, Any>,
    size: u64,
    leaves: Vec<Hash>,
    mut tail: Option<Vec<Hash>>,
) -> Result<Vec<Hash>, Failure> {
    let mut added = leaves;
    let mut last = Vec::new();
    for level in 0..LEVELS {
        if added.is_empty() {
            break;
        }
        let (first, kept) = tiles_at(size, level);
        let mut hashes = match (kept, tail.take()) {
            (0, _) => Vec::new(),
            (_, Some(known)) if known.len() == kept => known,
            _ => part(tile_within(transaction, level, first).await?.as_deref(), kept)?,
        };
        hashes.append(&mut added);
        for (number, tile) in (first..).zip(hashes.chunks(TILE)) {
            put(transaction, level, number, tile).await?;
            if tile.len() == TILE {
                added.push(tile_root(tile));
            }
        }
        if level == 0 {
            last = hashes.split_off(hashes.len() / TILE * TILE);
        }
    }
    Ok(last)
}

async fn tile_within(
    transaction: &mut Transaction<'_, Any>,
    level: u32,
    number: u64,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar(SELECT_TILE)
        .bind(i64::from(level))
        .bind(stored(number))
        .fetch_optional(&mut **transaction)
        .await
}

async fn put(
    transaction: &mut Transaction<'_, Any>,
    level: u32,
    number: u64,
    hashes: &[Hash],
) -> Result<(), Failure> {
    sqlx::query(
        "insert into audit_tile (level, number, hashes) values ($1, $2, $3)
         on conflict (level, number) do update set hashes = excluded.hashes",
    )
    .bind(i64::from(level))
    .bind(stored(number))
    .bind(hashes.as_flattened())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// The first hashes of a tile, which may have grown since.
fn part(tile: Option<&[u8]>, count: usize) -> Result<Vec<Hash>> {
    let mut hashes = tile.and_then(hashes_of).unwrap_or_default();
    if hashes.len() < count {
        return Err(damaged("audit_tile.hashes"));
    }
    hashes.truncate(count);
    Ok(hashes)
}

/// How many records there are, and how many of them are in the tree.
pub(super) fn head_from(row: &AnyRow) -> Result<(u64, u64)> {
    let number = |column: &str| {
        let number: i64 = row.try_get(column).map_err(|_| damaged(column))?;
        u64::try_from(number).map_err(|_| damaged(column))
    };
    let (last, size) = (number("last_sequence")?, number("tree_size")?);
    if size > last { Err(damaged("audit_head.tree_size")) } else { Ok((last, size)) }
}
