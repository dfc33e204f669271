//! A whole store, from one database into another: all of it, or nothing.
//!
//! One transaction sees the one database as it is at one moment, and ends as soon as all of it was
//! read: for as long as it lasts, a server keeps all versions of each row, and commits get slower.
//! Another one fills the other database, reads what it has written, and is committed only where
//! that is the same. Keys go
//! over as they are sealed; nothing is unsealed for it.

use futures_util::TryStreamExt as _;
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row, Transaction};

use super::failure::{Failure, fault};
use super::rows::damaged;
use super::{SqlStore, head, tree};
use crate::broker::audit::leaf::stored;
use crate::broker::audit::seal::{Seal, SealedEnd};
use crate::broker::audit::tree::{Frontier, Hash};
use crate::broker::store::gone;
use crate::error::{Error, ErrorKind, Result};

/// How many rows are written at a time.
const BATCH: usize = 250;

/// What a column holds.
#[derive(Clone, Copy)]
enum Holds {
    Text,
    Number,
    Bytes,
}

use Holds::{Bytes, Number, Text};

/// A table, and what its columns hold. `audit_head` is its own case, `probe` has
/// nothing to keep, and keys of issuers are fetched again.
struct Table {
    name: &'static str,
    columns: &'static [(&'static str, Holds)],
}

const TABLES: [Table; 15] = [
    Table {
        name: "root_key",
        columns: &[("slot", Number), ("kek_id", Text), ("sealed", Bytes), ("added_at", Number)],
    },
    Table {
        name: "signing_key",
        columns: &[
            ("kid", Text),
            ("purpose", Text),
            ("algorithm", Text),
            ("state", Text),
            ("sealed", Bytes),
            ("kek_id", Text),
            ("created_at", Number),
            ("changed_at", Number),
        ],
    },
    Table {
        name: "consumed",
        columns: &[("kind", Text), ("id", Text), ("consumed_at", Number), ("keep_until", Number)],
    },
    Table {
        name: "revocation_cutoff",
        columns: &[
            ("kind", Text),
            ("id", Text),
            ("before", Number),
            ("made_at", Number),
            ("keep_until", Number),
        ],
    },
    Table {
        name: "opaque_token",
        columns: &[("hash", Text), ("claims", Text), ("seal", Bytes), ("keep_until", Number)],
    },
    Table {
        name: "elevation",
        columns: &[
            ("id", Text),
            ("version", Number),
            ("path", Text),
            ("access", Text),
            ("review", Text),
            ("role", Text),
            ("owner", Text),
            ("asked_at", Number),
            ("next_at", Number),
            ("ended_at", Number),
            ("document", Text),
            ("seal", Bytes),
            ("drill", Number),
            ("question", Text),
            ("acted", Number),
            ("asker", Text),
        ],
    },
    Table {
        name: "elevation_use",
        columns: &[("elevation", Text), ("version", Number), ("document", Text), ("seal", Bytes)],
    },
    Table { name: "elevation_use_event", columns: &[("elevation", Text), ("id", Text)] },
    Table {
        name: "enrolled_key",
        columns: &[
            ("fingerprint", Text),
            ("id", Text),
            ("public_key", Text),
            ("person", Text),
            ("issuer", Text),
            ("subject", Text),
            ("label", Text),
            ("state", Text),
            ("enrolled_at", Number),
            ("approver", Text),
            ("approved_at", Number),
            ("seen_at", Number),
            ("counted", Number),
            ("seal", Bytes),
        ],
    },
    Table {
        name: "audit_record",
        columns: &[
            ("sequence", Number),
            ("at", Number),
            ("request_id", Text),
            ("action", Text),
            ("decision", Text),
            ("reason", Text),
            ("issuer", Text),
            ("subject", Text),
            ("client", Text),
            ("source", Text),
            ("role", Text),
            ("audience", Text),
            ("scope", Text),
            ("ttl", Number),
            ("jti", Text),
            ("policy_id", Text),
            ("policy_hash", Text),
            ("parent", Text),
            ("count", Number),
            ("leaf_version", Number),
            ("salt", Bytes),
            ("erased", Bytes),
            ("actor", Text),
            ("trace_id", Text),
            ("elevation", Text),
            ("claims", Text),
        ],
    },
    Table {
        name: "audit_tile",
        columns: &[("level", Number), ("number", Number), ("hashes", Bytes)],
    },
    Table {
        name: "audit_checkpoint",
        columns: &[("size", Number), ("at", Number), ("note", Text)],
    },
    // Whose turn it is is for those who use the store to say.
    Table { name: "audit_sink", columns: &[("name", Text), ("delivered", Number)] },
    Table {
        name: "notify_message",
        columns: &[
            ("key", Text),
            ("body", Text),
            ("at", Number),
            ("keep_until", Number),
            ("spread", Number),
        ],
    },
    Table {
        name: "notify_delivery",
        columns: &[
            ("message", Text),
            ("channel", Text),
            ("addressee", Text),
            ("state", Text),
            ("hurry", Number),
            ("at", Number),
            ("due_at", Number),
            ("attempts", Number),
            ("turn", Number),
            ("why", Text),
        ],
    },
];

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// How many records the audit log has.
    pub records: u64,
    /// How many keys there are.
    pub keys: u64,
    /// Under how many key-encryption keys the root key is sealed.
    pub key_encryption_keys: u64,
    /// How many used-up things, such as revocations.
    pub consumed: u64,
    /// How many keys people enrolled, be they removed again.
    pub enrolled_keys: u64,
    /// How many times tokens were revoked together.
    pub cutoffs: u64,
    /// How many tokens that can only be introspected.
    pub opaque_tokens: u64,
    /// How many checkpoints.
    pub checkpoints: u64,
    /// How many messages to people.
    pub messages: u64,
    /// The root of the tree over the records.
    pub root: Hash,
    /// Whether the log ends as it was sealed by the key, which was at hand.
    pub seal_checked: bool,
    /// Whether an earlier version made what was copied, and the copy is as that version has it.
    pub earlier: bool,
}

impl Copied {
    fn is_nothing(&self) -> bool {
        let Self {
            records,
            keys,
            key_encryption_keys,
            consumed,
            enrolled_keys,
            cutoffs,
            opaque_tokens,
            checkpoints,
            messages,
            root: _,
            seal_checked: _,
            earlier: _,
        } = self;
        let of_keys = [keys, key_encryption_keys, enrolled_keys];
        let others = [records, consumed, cutoffs, opaque_tokens, checkpoints, messages];
        of_keys.iter().chain(&others).all(|n| **n == 0)
    }
}

impl SqlStore {
    /// Copies everything into an empty store. Where the other one has the same already,
    /// there is nothing to do. The end of the log is as it was sealed: by `seal`, where that
    /// is at hand, otherwise with the tree that there is.
    ///
    /// # Errors
    /// Where the other one has anything else, or one of the two is damaged: then it is as
    /// it was.
    pub(in crate::broker::store) async fn copy_to(
        &self,
        to: &Self,
        seal: Option<&Seal>,
    ) -> Result<Copied> {
        let reading = |failure: Failure| failure.into_error("it cannot be read");
        let writing = |failure: Failure| failure.into_error("the copy cannot be written");
        let began = |cause| writing(Failure::Undone(cause));
        let mut from = self.engine.begin_long(false).await.map_err(|e| reading(e.into()))?;
        let wanted = counted(&mut from).await.map_err(reading)?;
        let end = sealed(&mut from).await.map_err(reading)?;
        let seal_checked = check_end(end.as_ref(), &wanted, seal)?;
        let mut into = to.engine.begin_long(true).await.map_err(began)?;
        // Writing comes first: whoever uses that store waits until this is over.
        sqlx::query("update audit_head set last_sequence = last_sequence where id = 1")
            .execute(&mut *into)
            .await
            .map_err(began)?;
        let found = counted(&mut into).await.map_err(writing)?;
        if found == wanted && sealed(&mut into).await.map_err(writing)? == end {
            return Ok(Copied { seal_checked, ..wanted });
        }
        if !found.is_nothing() {
            return Err(Error::new(ErrorKind::Usage, "the other store is not empty")
                .because_of(format!(
                    "it has {} records and {} keys",
                    found.records,
                    found.keys + found.key_encryption_keys
                ))
                .hint("nothing is overwritten: name an empty database"));
        }
        copy_tables(from, &mut into).await?;
        let (frontier, seal) = end.clone().map(|end| (end.frontier, end.seal)).unzip();
        sqlx::query(
            "update audit_head set last_sequence = $1, tree_size = $1, frontier = $2, seal = $3
             where id = 1",
        )
        .bind(stored(wanted.records))
        .bind(frontier)
        .bind(seal)
        .execute(&mut *into)
        .await
        .map_err(began)?;
        let copied = counted(&mut into).await.map_err(writing)?;
        let root = tree::root_of_records(&mut into, copied.records).await.map_err(writing)?;
        let kept = sealed(&mut into).await.map_err(writing)?;
        if copied != wanted || root != wanted.root || kept != end {
            return Err(Error::new(ErrorKind::Verification, "the copy is not the same")
                .because_of("its records, or what else there is, are not what they were")
                .hint("nothing was kept of it; look at `tmpcred broker audit verify`"));
        }
        into.commit().await.map_err(|cause| {
            fault("whether the copy was kept cannot be told", cause)
                .hint("do it again: what is the same already is left as it is")
        })?;
        Ok(Copied { seal_checked, ..copied })
    }

    /// Looks whether records, tree and the seal of the end agree, and counts what there is.
    ///
    /// # Errors
    /// Where they do not.
    pub(in crate::broker::store) async fn check(&self, seal: Option<&Seal>) -> Result<Copied> {
        let read = async {
            let mut transaction = self.engine.begin_long(false).await?;
            let found = counted(&mut transaction).await?;
            let root = tree::root_of_records(&mut transaction, found.records).await?;
            Ok((found, root, sealed(&mut transaction).await?))
        };
        let (found, root, end) =
            read.await.map_err(|f: Failure| f.into_error("it cannot be read"))?;
        if root != found.root {
            return Err(Error::new(ErrorKind::Verification, "its audit log is damaged")
                .because_of("the records are not what the tree over them says")
                .hint("`tmpcred broker audit verify` says which"));
        }
        let seal_checked = check_end(end.as_ref(), &found, seal)?;
        Ok(Copied { seal_checked, ..found })
    }
}

/// Copies all tables, and is done with where they are from.
async fn copy_tables(
    mut from: Transaction<'_, Any>,
    into: &mut Transaction<'_, Any>,
) -> Result<()> {
    for table in &TABLES {
        table.copy(&mut from, into).await?;
    }
    from.rollback().await.map_err(|cause| fault("it cannot be read", cause))
}

/// Refuses an end of the log that is not as somebody with the key left it; without the key at
/// hand, one that is sealed over another tree. Returns whether a seal was opened by the key.
fn check_end(end: Option<&SealedEnd>, found: &Copied, seal: Option<&Seal>) -> Result<bool> {
    let tree = match (end, seal) {
        (Some(end), Some(seal)) => seal.open(end),
        (Some(end), None) => Frontier::of(end.size, &end.frontier),
        (None, Some(_)) if found.records > 0 => None,
        // Whoever made it had no key either, or nothing was ever appended.
        (None, _) => return Ok(false),
    };
    match tree {
        Some(tree) if tree.size() == found.records && tree.root() == found.root => {
            Ok(seal.is_some())
        }
        _ => Err(Error::new(
            ErrorKind::Verification,
            "its audit log does not end where the broker left it",
        )
        .because_of("the seal of its end is not one over its records by this key-encryption key")
        .hint("`tmpcred broker audit verify` says more; nothing was copied")),
    }
}

/// What there is, as a transaction sees it.
async fn counted(transaction: &mut Transaction<'_, Any>) -> Result<Copied, Failure> {
    let row = sqlx::query("select last_sequence, tree_size from audit_head where id = 1")
        .fetch_one(&mut **transaction)
        .await?;
    let (last, in_tree) = tree::head_from(&row)?;
    let records = count(transaction, "audit_record").await?;
    if last != in_tree || records > last {
        return Err(damaged("audit_head.last_sequence").into());
    }
    if records < last {
        let why = format!("{} of the {last} that were appended are not there", last - records);
        return Err(gone(why).into());
    }
    Ok(Copied {
        records,
        keys: count(transaction, "signing_key").await?,
        key_encryption_keys: count(transaction, "root_key").await?,
        consumed: count(transaction, "consumed").await?,
        cutoffs: count(transaction, "revocation_cutoff").await?,
        opaque_tokens: count(transaction, "opaque_token").await?,
        enrolled_keys: count(transaction, "enrolled_key").await?,
        checkpoints: count(transaction, "audit_checkpoint").await?,
        messages: count(transaction, "notify_message").await?,
        root: tree::root_within(transaction, in_tree).await?,
        seal_checked: false,
        earlier: false,
    })
}

/// The end of the log as it was sealed, where it was.
async fn sealed(transaction: &mut Transaction<'_, Any>) -> Result<Option<SealedEnd>, Failure> {
    let row = sqlx::query("select tree_size, frontier, seal, last_sequence from audit_head")
        .fetch_one(&mut **transaction)
        .await?;
    Ok(head::sealed_end(&row, tree::head_from(&row)?.1)?)
}

async fn count(transaction: &mut Transaction<'_, Any>, table: &str) -> Result<u64, Failure> {
    let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}")))
        .fetch_one(&mut **transaction)
        .await?;
    Ok(u64::try_from(count).map_err(|_| damaged(table))?)
}

impl Table {
    async fn copy(
        &self,
        from: &mut Transaction<'_, Any>,
        into: &mut Transaction<'_, Any>,
    ) -> Result<()> {
        let unreadable = |cause| fault(&format!("the table {} cannot be read", self.name), cause);
        let statement = format!("select {} from {}", self.names(), self.name);
        let mut rows = sqlx::query(AssertSqlSafe(statement)).fetch(&mut **from);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let row = rows.try_next().await.map_err(unreadable)?;
            let ended = row.is_none();
            batch.extend(row);
            if batch.len() == BATCH || ended && !batch.is_empty() {
                self.insert(&batch, into).await.map_err(|cause| {
                    fault(&format!("the table {} cannot be written", self.name), cause)
                })?;
                batch.clear();
            }
            if ended {
                return Ok(());
            }
        }
    }

    async fn insert(
        &self,
        rows: &[AnyRow],
        into: &mut Transaction<'_, Any>,
    ) -> Result<(), sqlx::Error> {
        let width = self.columns.len();
        let places: Vec<String> = (0..rows.len())
            .map(|row| {
                let first = row * width + 1;
                let places: Vec<_> = (first..first + width).map(|n| format!("${n}")).collect();
                format!("({})", places.join(", "))
            })
            .collect();
        let (name, columns) = (self.name, self.names());
        let statement = format!("insert into {name} ({columns}) values {}", places.join(", "));
        let mut query = sqlx::query(AssertSqlSafe(statement)).persistent(false);
        for row in rows {
            for (column, holds) in self.columns {
                query = match holds {
                    Text => query.bind(row.try_get::<Option<String>, _>(*column)?),
                    Number => query.bind(row.try_get::<Option<i64>, _>(*column)?),
                    Bytes => query.bind(row.try_get::<Option<Vec<u8>>, _>(*column)?),
                };
            }
        }
        query.execute(&mut **into).await?;
        Ok(())
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests;
