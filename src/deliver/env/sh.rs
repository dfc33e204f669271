//! POSIX shells: sh, bash, dash, zsh, ksh.

use super::{Changes, Dialect, check_name};
use crate::deliver::text::Text;
use crate::error::Result;

pub(super) struct Sh;

impl Dialect for Sh {
    fn name(&self) -> &'static str {
        "sh"
    }

    fn about(&self) -> &'static str {
        "sh, bash, dash, zsh, ksh: eval \"$(tmpcred env PROFILE --format sh)\""
    }

    /// Inside single quotes every character stands for itself, but for the
    /// single quote (POSIX.1-2024, XCU 2.2.2). The semicolons are for those who
    /// forget the double quotes around `$(…)` and so get it all in one line.
    fn write(&self, changes: &Changes, out: &mut Text) -> Result<()> {
        for name in &changes.unset {
            check_name(self, name)?;
            out.push_str("unset ");
            out.push_str(name);
            out.push_str(";\n");
        }
        for variable in &changes.set {
            check_name(self, &variable.name)?;
            out.push_str("export ");
            out.push_str(&variable.name);
            out.push_str("='");
            for (n, piece) in variable.value.expose().split('\'').enumerate() {
                if n > 0 {
                    out.push_str(r"'\''");
                }
                out.push_str(piece);
            }
            out.push_str("';\n");
        }
        Ok(())
    }
}
