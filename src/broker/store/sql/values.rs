//! How a statement names the values that are bound to it.

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

    /// The place of the value with this number.
    pub(super) fn one(self, number: usize) -> String {
        match self {
            Self::Numbered => format!("${number}"),
            Self::Unnumbered => "?".into(),
        }
    }
}
