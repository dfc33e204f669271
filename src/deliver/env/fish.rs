//! The shell fish.

use super::{Changes, Dialect, check_name};
use crate::deliver::text::Text;
use crate::error::Result;

pub(super) struct Fish;

impl Dialect for Fish {
    fn name(&self) -> &'static str {
        "fish"
    }

    fn about(&self) -> &'static str {
        "fish: tmpcred env PROFILE --format fish | source"
    }

    /// Inside single quotes only `\'` and `\\` are special (fish manual, «Quotes»).
    fn write(&self, changes: &Changes, out: &mut Text) -> Result<()> {
        for name in &changes.unset {
            check_name(self, name)?;
            out.push_str("set -e ");
            out.push_str(name);
            out.push_str(";\n");
        }
        for variable in &changes.set {
            check_name(self, &variable.name)?;
            out.push_str("set -gx ");
            out.push_str(&variable.name);
            out.push_str(" '");
            for piece in variable.value.expose().split_inclusive(['\'', '\\']) {
                match piece.strip_suffix(['\'', '\\']) {
                    Some(plain) => {
                        out.push_str(plain);
                        out.push('\\');
                        out.push_str(&piece[plain.len()..]);
                    }
                    None => out.push_str(piece),
                }
            }
            out.push_str("';\n");
        }
        Ok(())
    }
}
