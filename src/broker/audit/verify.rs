//! Checking the log: the records against the tree, and the tree against what was
//! signed, here and elsewhere.
//!
//! The records and the tree are folded side by side. Whatever checkpoint comes along
//! says which of the two is as it was signed: where it is the tree, each record that
//! differs from it is one that was changed; where it is the records, the tree is
//! damaged; where it is neither, the place lies between this checkpoint and the one
//! before. A broker may be appending meanwhile.

mod ends;
mod signed;
mod told;

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
pub use signed::Signed;
use time::OffsetDateTime;
use told::Told;

use super::erase::Spans;
use super::leaf::Leaf;
use super::note::{Checkpoint, VerifierKey};
use super::seal::{Seal, SealedEnd};
use super::tree::{Frontier, Hash, LEVELS, TILE, hashes_of, tile_root, tiles_at};
use crate::broker::store::{LogStore, Noted};
use crate::error::Result;

/// How many rows are read at a time.
const PAGE: u32 = 1000;

/// How many findings are told. What was done to more is no longer a matter of places.
const MOST_FINDINGS: usize = 1000;

/// What a log is checked by.
pub struct Proofs<'a> {
    /// The keys that may have signed checkpoints. Where the key-encryption key is not at hand,
    /// the log says which keys came after those.
    pub keys: &'a [VerifierKey],
    /// Those whose signatures are good no more.
    pub revoked: &'a [VerifierKey],
    /// What its end is sealed with, where that is at hand.
    pub seal: Option<&'a Seal>,
    /// Checkpoints from elsewhere, whose signatures are good.
    pub elsewhere: &'a [Elsewhere],
    /// What time it is.
    pub now: OffsetDateTime,
}

/// A checkpoint that was kept elsewhere.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// Who has signed it.
    pub by: Vec<VerifierKey>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How many records the log has.
    pub records: u64,
    /// How many of them, from the first on, are as a signature says.
    pub signed: u64,
    /// How many of them, from the first on, are as the seal of the log's end says; `None`
    /// where the key-encryption key is not at hand, or something is wrong with them.
    pub sealed: Option<u64>,
    /// How many good checkpoints the log has.
    pub checkpoints: u64,
    /// Which keys have signed them.
    pub keys: Vec<Signed>,
    /// How many records the checkpoints from elsewhere cover, the furthest of them.
    pub off_host: Option<u64>,
    /// How many records were erased, which leaves their places in the tree as they were.
    pub erased: u64,
    /// What is wrong. Nothing, where it is empty.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub omitted: u64,
}

/// Something that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The first record that it is about.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// What it is, for people.
    pub text: String,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Records are not what they were.
    Changed,
    /// Records are gone.
    Missing,
    /// There are records that were never appended.
    Extra,
    /// Neither records nor tree are what was signed.
    Rewritten,
    /// The records are what they were, and the tree is damaged.
    Tree,
    /// A checkpoint is none of this broker's, or there is none.
    Checkpoint,
    /// The end of the log is not where the broker left it.
    Seal,
    /// Nothing says of records that the broker appended them, though it would have signed
    /// them long ago.
    Unsigned,
    /// Something was erased, and no record says so.
    Erased,
}

impl Kind {
    fn text(self, first: u64, last: u64) -> String {
        let (records, are, were) = match first == last {
            true => (format!("record {first}"), "is", "was"),
            false => (format!("records {first} to {last}"), "are", "were"),
        };
        match self {
            Self::Changed => format!("{records} {are} not what {were} appended"),
            Self::Missing => format!("{records} {are} missing"),
            Self::Extra => format!("{records} {were} never appended"),
            Self::Rewritten => {
                format!(
                    "{records}: one at least is not what was signed; what follows cannot be told"
                )
            }
            Self::Tree => format!("the tree over {records} is damaged"),
            Self::Checkpoint => format!("the checkpoint at record {last} is not good"),
            Self::Seal => format!(
                "the seal of the log's end, at record {last}, is broken: somebody else has written it"
            ),
            Self::Unsigned => {
                format!(
                    "{records} {were} not signed, though a broker does so within seconds, as far as the clock here is right"
                )
            }
            Self::Erased => format!("{records} {were} erased, and no record says so"),
        }
    }
}

/// Checks a log.
///
/// # Errors
/// Whatever keeps the log from being read.
pub async fn verify(store: &dyn LogStore, proofs: &Proofs<'_>) -> Result<Report> {
    // First: what is signed or sealed after this may be of records that come after this.
    let latest = store.latest_note().await?;
    let end = store.sealed_end().await?;
    let ends = store.ends().await?;
    let mut check = Check {
        store,
        keys: proofs.keys.to_vec(),
        revoked: proofs.revoked.to_vec(),
        follows: proofs.seal.is_none(),
        announced: Vec::new(),
        unread: Vec::new(),
        by_key: BTreeMap::new(),
        elsewhere: proofs.elsewhere.iter().map(|one| (one, false)).collect(),
        sealed: None,
        proven: 0,
        report: Report {
            records: ends.promised,
            signed: 0,
            sealed: None,
            checkpoints: 0,
            keys: Vec::new(),
            off_host: proofs.elsewhere.iter().map(|one| one.checkpoint.size).max(),
            erased: 0,
            findings: Vec::new(),
            omitted: 0,
        },
        records: Frontier::default(),
        tree: Frontier::default(),
        differing: Vec::new(),
        lost: false,
        erased: Spans::default(),
        told: Spans::default(),
        doubted: Vec::new(),
    };
    if let Some(seal) = proofs.seal {
        check.read_seal(seal, end.as_ref(), ends.promised);
    }
    let reach = check.fold(ends.promised).await?;
    check.read_again().await?;
    check.weigh();
    check.tiles_above(reach).await?;
    check.ends(ends, latest.as_ref()).await?;
    check.tail(proofs.now).await?;
    check.signed_at_all(proofs.now).await?;
    check.erasures().await?;
    Ok(check.report)
}

struct Check<'a> {
    store: &'a dyn LogStore,
    keys: Vec<VerifierKey>,
    revoked: Vec<VerifierKey>,
    /// Whether the log says which keys came after those.
    follows: bool,
    /// The keys of which it does, and where, that nobody has signed yet.
    announced: Vec<(u64, VerifierKey)>,
    /// Checkpoints that nobody has signed of whom it is known yet.
    unread: Vec<u64>,
    /// What each key has signed, and up to where the records are as it did.
    by_key: BTreeMap<VerifierKey, (Signed, u64)>,
    /// The checkpoints from elsewhere, and whether the records are as each says.
    elsewhere: Vec<(&'a Elsewhere, bool)>,
    /// The tree up to the sealed end, where the seal is good.
    sealed: Option<Frontier>,
    /// Up to where the records are good, by whatever says so.
    proven: u64,
    report: Report,
    /// The tree over the records.
    records: Frontier,
    /// The tree over the hashes that the tree has of them.
    tree: Frontier,
    /// Where the two differ since the last checkpoint.
    differing: Vec<(Kind, u64, u64)>,
    /// Neither of the two is what was signed.
    lost: bool,
    /// The records that were erased, and those of which the log says so.
    erased: Spans,
    told: Spans,
    /// What records say of the log that differ from the tree, since the last checkpoint.
    doubted: Vec<Told>,
}

impl Check<'_> {
    /// Goes through all records. Returns up to where there are any, or hashes of them, without a
    /// gap that is wider than a tile.
    async fn fold(&mut self, size: u64) -> Result<u64> {
        let mut leaves: VecDeque<Leaf> = VecDeque::new();
        let mut notes: VecDeque<Noted> = VecDeque::new();
        let mut tile = Vec::new();
        let mut more_notes = true;
        let (mut place, mut reach, mut last) = (1, size, 0);
        while place <= size {
            let at = ((place - 1) % TILE as u64) as usize;
            if at == 0 {
                let stored = self.store.tile(0, (place - 1) / TILE as u64).await?;
                tile = stored.as_deref().and_then(hashes_of).unwrap_or_default();
            }
            if leaves.is_empty() {
                leaves = self.store.leaves(place - 1, PAGE).await?.into();
            }
            if notes.is_empty() && more_notes {
                notes = self.store.notes(place - 1, PAGE).await?.into();
                more_notes = !notes.is_empty();
            }
            let gap = leaves.front().map_or(size, |leaf| last_before(leaf.sequence).min(size));
            if at == 0 && tile.is_empty() && place <= gap {
                // All at once: whoever writes the database can say that it has more records than
                // anybody could go through. No root is right from here on.
                self.differ(Kind::Missing, place, gap);
                reach = reach.min(last);
                self.judge_within(place, gap).await?;
                notes.clear();
                (place, more_notes) = (gap + 1, true);
                continue;
            }
            let leaf = leaves.pop_front_if(|leaf| leaf.sequence == place);
            let stored = tile.get(at).copied();
            if leaf.is_some() || stored.is_some() {
                last = place;
            }
            self.add(place, leaf.as_ref(), stored);
            self.compare_elsewhere(place);
            while let Some(noted) = notes.pop_front_if(|noted| noted.size == place) {
                self.read_note(&noted);
            }
            if let Some(root) = self.sealed.as_ref().filter(|end| end.size() == place) {
                let root = root.root();
                self.report.sealed = self.judge(place, &root).then_some(place);
            }
            place += 1;
        }
        // Of what nobody has signed yet the tree is all that tells.
        self.settle();
        Ok(reach)
    }

    /// Judges all that was signed or sealed of records up to one of these, of which there is none.
    async fn judge_within(&mut self, first: u64, last: u64) -> Result<()> {
        let mut after = first - 1;
        while let notes = self.store.notes(after, PAGE).await?
            && let Some(newest) = notes.last().map(|noted| noted.size)
            && after < last
        {
            notes.iter().filter(|noted| noted.size <= last).for_each(|noted| self.read_note(noted));
            after = newest;
        }
        let sealed = self.sealed.as_ref().map(|end| (end.size(), end.root()));
        let elsewhere = self.elsewhere.iter().map(|(one, _)| one);
        let elsewhere = elsewhere.map(|one| (one.checkpoint.size, one.checkpoint.root));
        let all: Vec<_> = elsewhere.chain(sealed).collect();
        for (place, root) in all.into_iter().filter(|(place, _)| (first..=last).contains(place)) {
            self.judge(place, &root);
        }
        Ok(())
    }

    fn add(&mut self, place: u64, leaf: Option<&Leaf>, stored: Option<Hash>) {
        let hash = leaf.and_then(Leaf::hash);
        if let Some(leaf) = leaf {
            if leaf.erased.is_some() {
                self.report.erased += 1;
                self.erased.add(place, place);
            }
            // Where the tree has nothing, it is what the record says.
            self.listen(place, leaf, hash.is_some() && (stored.is_none() || stored == hash));
        }
        match (leaf, hash, stored) {
            (None, ..) => self.differs(Kind::Missing, place),
            (_, None, _) => self.differs(Kind::Changed, place),
            // What is appended is in the tree by the same commit.
            (_, Some(_), None) if self.sealed.as_ref().is_some_and(|end| place > end.size()) => {
                self.differs(Kind::Extra, place);
            }
            (_, Some(_), None) => self.differs(Kind::Tree, place),
            (_, Some(hash), Some(stored)) if hash != stored => self.differs(Kind::Changed, place),
            _ => {}
        }
        let unknown = [0; 32];
        self.records.push(hash.or(stored).unwrap_or(unknown));
        self.tree.push(stored.or(hash).unwrap_or(unknown));
    }

    fn differs(&mut self, kind: Kind, place: u64) {
        self.differ(kind, place, place);
    }

    /// The same of all from the one to the other.
    fn differ(&mut self, kind: Kind, first: u64, last: u64) {
        match self.differing.last_mut() {
            Some((known, _, end)) if *known == kind && *end + 1 == first => *end = last,
            _ => self.differing.push((kind, first, last)),
        }
    }

    /// Looks at the seal of the end.
    fn read_seal(&mut self, seal: &Seal, end: Option<&SealedEnd>, promised: u64) {
        self.sealed = match end {
            Some(end) => seal.open(end),
            None => (promised == 0).then(Frontier::default),
        };
        if self.sealed.is_none() {
            let at = end.map_or(promised, |end| end.size);
            self.found(Kind::Seal, at, at);
        }
    }

    /// Compares the records up to this place with the checkpoints from elsewhere that are of them.
    fn compare_elsewhere(&mut self, place: u64) {
        for at in 0..self.elsewhere.len() {
            let (one, _) = self.elsewhere[at];
            if one.checkpoint.size == place {
                self.elsewhere[at].1 = self.judge(place, &one.checkpoint.root);
            }
        }
    }

    /// Says what is to be thought of the records up to this place, whose root was
    /// signed or sealed: whether they are good.
    fn judge(&mut self, place: u64, root: &Hash) -> bool {
        if self.tree.root() == *root {
            self.settle();
            self.records = self.tree.clone();
        } else if self.records.root() == *root {
            for (kind, first, last) in std::mem::take(&mut self.differing) {
                // Where there is no record, it was the tree's hash that made it good.
                let kind = if kind == Kind::Changed { Kind::Tree } else { kind };
                self.found(kind, first, last);
            }
            self.tree = self.records.clone();
            self.believe_doubted();
        } else {
            if !self.lost {
                // Another one of the same size may have said that all is well up to here.
                self.found(Kind::Rewritten, (self.proven + 1).min(place), place);
            }
            self.lost = true;
            self.settle();
            return false;
        }
        self.proven = place;
        true
    }

    /// Finds the records changed that differ from the tree: nobody heeds what they say.
    fn settle(&mut self) {
        self.doubted.clear();
        for (kind, first, last) in std::mem::take(&mut self.differing) {
            self.found(kind, first, last);
        }
    }

    fn found(&mut self, kind: Kind, first: u64, last: u64) {
        // What goes on behind a checkpoint is the same finding.
        if matches!(kind, Kind::Changed | Kind::Missing | Kind::Tree)
            && let Some(before) = self.report.findings.last_mut()
            && before.kind == kind
            && before.last + 1 == first
        {
            before.last = last;
            before.text = kind.text(before.first, last);
            return;
        }
        self.tell(kind, first, last, kind.text(first, last));
    }

    fn tell(&mut self, kind: Kind, first: u64, last: u64, text: String) {
        match self.report.findings.len() < MOST_FINDINGS {
            true => self.report.findings.push(Finding { kind, first, last, text }),
            false => self.report.omitted += 1,
        }
    }

    /// Checks the tiles above the leaves against those below them.
    async fn tiles_above(&mut self, size: u64) -> Result<()> {
        for level in 1..LEVELS {
            let (whole, rest) = tiles_at(size, level);
            if whole == 0 && rest == 0 {
                break;
            }
            let records = (TILE as u64).saturating_pow(level);
            for number in 0..=whole {
                let count = if number == whole { rest } else { TILE };
                let tile = self.store.tile(level, number).await?;
                let hashes = tile.as_deref().and_then(hashes_of).unwrap_or_default();
                for at in 0..count as u64 {
                    let child = number * TILE as u64 + at;
                    let below = self.store.tile(level - 1, child).await?;
                    let below = below.as_deref().and_then(hashes_of).unwrap_or_default();
                    let good =
                        below.len() == TILE && hashes.get(at as usize) == Some(&tile_root(&below));
                    if !good {
                        self.found(Kind::Tree, child * records + 1, (child + 1) * records);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The last place of a tile that is before the one that this place is in.
fn last_before(place: u64) -> u64 {
    let tile = TILE as u64;
    place.saturating_sub(1) / tile * tile
}

#[cfg(test)]
mod tests;
