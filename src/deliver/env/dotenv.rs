//! `.env` files.

use super::{Changes, Dialect, cannot_say, check_name, check_one_line};
use crate::deliver::text::Text;
use crate::error::Result;

pub(super) struct Dotenv;

impl Dialect for Dotenv {
    fn name(&self) -> &'static str {
        "dotenv"
    }

    fn about(&self) -> &'static str {
        ".env readers, node --env-file, docker compose: NAME=value"
    }

    /// There is no standard, so this writes only what the readers agree on
    /// (Node.js, the dotenv packages for Python, Ruby and JavaScript, compose):
    /// plain values bare, which `docker run --env-file` reads too; others in
    /// single quotes, in which all is literal, or in double quotes where nothing
    /// special is inside. What remains is refused. The form has no way to
    /// remove a variable.
    fn write(&self, changes: &Changes, out: &mut Text) -> Result<()> {
        for variable in &changes.set {
            let name = &variable.name;
            check_name(self, name)?;
            check_one_line(self, variable)?;
            let value = variable.value.expose();
            let quote = match quote_for(value) {
                Ok(quote) => quote,
                Err(why) => return Err(cannot_say(self, name, why)),
            };
            out.push_str(name);
            out.push('=');
            out.push_str(quote);
            out.push_str(value);
            out.push_str(quote);
            out.push('\n');
        }
        Ok(())
    }
}

fn quote_for(value: &str) -> Result<&'static str, &'static str> {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-./:@+=,".contains(c);
    if !value.is_empty() && value.chars().all(bare) {
        return Ok("");
    }
    // Python fills this in whatever the quotes.
    if value.contains("${") {
        return Err("some readers of .env files fill in ${…}");
    }
    if !value.contains('\'') {
        // Python reads `\\` as one backslash, and `\'` as a quote that does not close.
        return if value.contains(r"\\") || value.ends_with('\\') {
            Err("readers of .env files disagree about its backslashes")
        } else {
            Ok("'")
        };
    }
    // Inside double quotes, expansions and escapes are up to the reader.
    if value.contains(['"', '$', '\\', '`']) {
        Err("readers of .env files disagree about its quotes and special characters")
    } else {
        Ok("\"")
    }
}
