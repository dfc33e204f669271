//! The command interpreter of Windows, cmd.exe.

use super::{Changes, Dialect, cannot_say, check_name, check_one_line};
use crate::deliver::text::Text;
use crate::error::Result;

pub(super) struct Cmd;

/// The longest command line of cmd.exe, in UTF-16 units (Microsoft's «Command
/// prompt line string limitation»).
const LINE_MAX: usize = 8191;

impl Dialect for Cmd {
    fn name(&self) -> &'static str {
        "cmd"
    }

    fn about(&self) -> &'static str {
        "cmd.exe: for /f \"delims=\" %v in ('tmpcred env PROFILE --format cmd') do @%v"
    }

    /// With `set "NAME=value"` the value runs to the last quote, and `& | < > ^ ( )`
    /// are plain inside the quotes.
    ///
    /// People load the lines with `for /f`, or save them in a batch file and
    /// call that. The two disagree about a percent sign, and about a special
    /// character after a quote: the one wants them escaped, the other takes the
    /// escapes literally. Such values are refused, as nothing would be right in
    /// both.
    fn write(&self, changes: &Changes, out: &mut Text) -> Result<()> {
        for name in &changes.unset {
            check_name(self, name)?;
            out.push_str("set \"");
            out.push_str(name);
            out.push_str("=\"\r\n");
        }
        for variable in &changes.set {
            let name = &variable.name;
            check_name(self, name)?;
            check_one_line(self, variable)?;
            let value = variable.value.expose();
            if value.contains('%') {
                return Err(cannot_say(self, name, "its value has a percent sign"));
            }
            if value.contains('"') && value.contains(['&', '|', '<', '>', '^']) {
                return Err(cannot_say(self, name, "its value has a quote and one of & | < > ^"));
            }
            let units = value.encode_utf16().count() + name.len() + "set \"=\"".len();
            if units > LINE_MAX {
                return Err(cannot_say(self, name, "its value is too long for a command line"));
            }
            out.push_str("set \"");
            out.push_str(name);
            out.push('=');
            out.push_str(value);
            out.push_str("\"\r\n");
        }
        Ok(())
    }
}
