//! PowerShell: Windows PowerShell 5.1 and PowerShell 7.

use super::{Changes, Dialect, check_name};
use crate::deliver::text::Text;
use crate::error::Result;

pub(super) struct PowerShell;

impl Dialect for PowerShell {
    fn name(&self) -> &'static str {
        "powershell"
    }

    fn about(&self) -> &'static str {
        "PowerShell: tmpcred env PROFILE --format powershell | Invoke-Expression"
    }

    /// Inside single quotes only the quote itself is special, and is doubled
    /// (about_Quoting_Rules). That holds for the typographic quotes too, the
    /// pipeline hands the text over line by line, and Windows PowerShell reads
    /// it in the code page of the console: so whatever is not plain ASCII is
    /// spelled as its UTF-16 numbers, and each statement is one ASCII line.
    fn write(&self, changes: &Changes, out: &mut Text) -> Result<()> {
        for name in &changes.unset {
            check_name(self, name)?;
            out.push_str("$env:");
            out.push_str(name);
            // An empty string would do only before PowerShell 7.5.
            out.push_str(" = $null\n");
        }
        for variable in &changes.set {
            check_name(self, &variable.name)?;
            out.push_str("$env:");
            out.push_str(&variable.name);
            // The first operand makes `+` a concatenation of strings.
            out.push_str(" = '");
            for c in variable.value.expose().chars() {
                match c {
                    '\'' => out.push_str("''"),
                    ' '..='~' => out.push(c),
                    _ => {
                        out.push('\'');
                        for unit in c.encode_utf16(&mut [0; 2]) {
                            out.push_str(" + [char]");
                            out.push_str(&unit.to_string());
                        }
                        out.push_str(" + '");
                    }
                }
            }
            out.push_str("'\n");
        }
        Ok(())
    }
}
