//! JSON, for programs.

use serde::ser::{SerializeMap, Serializer};

use super::{Changes, Dialect};
use crate::deliver::text::Text;
use crate::error::{Error, ErrorKind, Result};

pub(super) struct Json;

impl Dialect for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn about(&self) -> &'static str {
        "programs: one object, names to values"
    }

    /// One object of strings, in the order of the variables. What is to be
    /// removed is not in it: readers of a map of strings would trip over a null.
    fn write(&self, changes: &Changes, out: &mut Text) -> Result<()> {
        let mut json = serde_json::Serializer::pretty(&mut *out);
        let written = json.serialize_map(Some(changes.set.len())).and_then(|mut map| {
            for variable in &changes.set {
                map.serialize_entry(&variable.name, variable.value.expose())?;
            }
            map.end()
        });
        // Of strings into memory this cannot fail, and its text would be ours.
        written.map_err(|_| Error::new(ErrorKind::Other, "the variables have no JSON form"))?;
        out.push('\n');
        Ok(())
    }
}
