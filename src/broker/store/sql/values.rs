//! How statements with many values are written, which engines take in different ways.

/// What the places of values look like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Values {
    /// With a number each.
    Numbered,
    /// As SQLite takes them without one. It has a name for each that has a number, and goes
    /// through all of the names before it to look that up.
    Unnumbered,
}

impl Values {
    /// So many rows of so many values each, the first of which has this number: `(?, ?), (?, ?)`.
    /// They are to be bound in this order, and behind what stands before them.
    pub(super) fn rows(self, first: usize, rows: usize, columns: usize) -> String {
        let row = |row: usize| {
            let first = first + row * columns;
            let values: Vec<_> = (first..first + columns).map(|number| self.one(number)).collect();
            format!("({})", values.join(", "))
        };
        (0..rows).map(row).collect::<Vec<_>>().join(", ")
    }

    /// What a statement begins with that inserts rows, in a transaction that ends with the first
    /// failure. SQLite would else keep what it needs to take back the rows before the one that
    /// failed.
    pub(super) fn insert(self) -> &'static str {
        match self {
            Self::Numbered => "insert into",
            Self::Unnumbered => "insert or fail into",
        }
    }

    /// The place of the value with this number.
    pub(super) fn one(self, number: usize) -> String {
        match self {
            Self::Numbered => format!("${number}"),
            Self::Unnumbered => "?".into(),
        }
    }
}
