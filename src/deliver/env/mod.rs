//! The way out `env`: the variables, written down for a shell or a program.
//!
//! To add a format, write a file with a `Dialect` and add its line to `LIST`.

mod cmd;
mod dotenv;
mod fish;
mod github;
mod json;
mod powershell;
mod sh;

use super::text::Text;
use super::{Handout, Variable};
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::secret::Secret;

/// All formats, in the order in which help shows them.
static LIST: &[&dyn Dialect] = &[
    &sh::Sh,
    &fish::Fish,
    &powershell::PowerShell,
    &cmd::Cmd,
    &dotenv::Dotenv,
    &json::Json,
    &github::Github,
];

/// A way to write variables down.
trait Dialect: Sync {
    /// What it is called on the command line.
    fn name(&self) -> &'static str;

    /// Who reads it, and how it is loaded: one line for help.
    fn about(&self) -> &'static str;

    /// Writes the whole of it. Whatever cannot be said exactly is an error that
    /// [`cannot_say`] makes: no reader ever sees another value than was meant.
    fn write(&self, changes: &Changes, out: &mut Text) -> Result<()>;
}

/// What is to become of the reader's environment.
struct Changes {
    /// What is to be removed.
    unset: Vec<String>,
    /// What is to be set, in this order.
    set: Vec<Variable>,
}

/// A way to write variables down for a shell or a program.
#[derive(Clone, Copy)]
pub struct Format(&'static dyn Dialect);

impl Format {
    /// All formats, in the order in which to show them.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        LIST.iter().map(|dialect| Self(*dialect))
    }

    /// The format of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|format| format.name() == name)
    }

    /// The format that the person's shell reads: that of `SHELL`, and on Windows,
    /// where nothing sets it, PowerShell inside of PowerShell and cmd elsewhere.
    ///
    /// # Errors
    ///
    /// A shell that no format is for; the person has to choose one.
    pub fn from_shell(env: &Env) -> Result<Self> {
        let Some(shell) = env.get("SHELL") else {
            return Ok(Self(match () {
                () if !cfg!(windows) => &sh::Sh,
                () if env.get_os("PSModulePath").is_some() => &powershell::PowerShell,
                () => &cmd::Cmd,
            }));
        };
        let file = shell.rsplit(['/', '\\']).next().unwrap_or(shell);
        let name = file.strip_suffix(".exe").unwrap_or(file);
        Ok(Self(match name {
            "sh" | "bash" | "dash" | "ash" | "zsh" | "ksh" | "mksh" | "rbash" | "busybox" => {
                &sh::Sh
            }
            "fish" => &fish::Fish,
            "pwsh" | "powershell" => &powershell::PowerShell,
            "cmd" => &cmd::Cmd,
            _ => {
                let names: Vec<_> = Self::all().map(Self::name).collect();
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!("there is no format for the shell {name}"),
                )
                .hint(format!("choose one with --format: {}", names.join(", "))));
            }
        }))
    }

    /// What it is called on the command line.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Who reads it, and how it is loaded: one line for help.
    pub fn about(self) -> &'static str {
        self.0.about()
    }

    /// The variable that names the file which this is for, where it is not for whoever
    /// reads the output.
    pub fn file(self) -> Option<&'static str> {
        (self.name() == github::Github.name()).then_some("GITHUB_ENV")
    }

    /// Writes the variables down, ready to be [printed](super::print()).
    ///
    /// # Errors
    ///
    /// Those of [`Handout::variables`], and a name or a value that this format
    /// cannot say so that every reader understands the same.
    pub fn render(self, handout: &Handout<'_>) -> Result<Secret<String>> {
        self.write(&Changes { unset: handout.stale()?, set: handout.variables()? })
    }

    fn write(self, changes: &Changes) -> Result<Secret<String>> {
        let mut out = Text::default();
        self.0.write(changes, &mut out)?;
        Ok(out.into_secret())
    }
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Format {}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Format").field(&self.name()).finish()
    }
}

/// The error for what a format cannot say. `why` never holds the value.
fn cannot_say(dialect: &dyn Dialect, variable: &str, why: &str) -> Error {
    let name = dialect.name();
    Error::new(ErrorKind::Usage, format!("the variable {variable:?} cannot be written as {name}"))
        .because_of(why)
        .hint("use `tmpcred exec`, which can hand out any variable, or `--format json`")
}

/// Refuses names that shells take for something else than a variable.
fn check_name(dialect: &dyn Dialect, name: &str) -> Result<()> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain && name.starts_with(|c: char| !c.is_ascii_digit()) {
        return Ok(());
    }
    Err(cannot_say(dialect, name, "its name has more than letters, digits and underscores"))
}

/// Refuses values that are more than one line, or would tell a line-by-line
/// reader or a terminal something else.
fn check_one_line(dialect: &dyn Dialect, variable: &Variable) -> Result<()> {
    if variable.value.expose().chars().any(char::is_control) {
        let why = "its value has a line break or another control character";
        return Err(cannot_say(dialect, &variable.name, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
