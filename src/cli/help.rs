//! What help and manual pages say besides the arguments: how the program ends,
//! and which variables and files it reads.

use clap::builder::styling::{AnsiColor, Style, Styles};

const HEADING: Style = AnsiColor::Green.on_default().bold();

/// The colours of help and of what is said about a command line.
pub(super) const STYLES: Styles = Styles::styled()
    .header(HEADING)
    .usage(HEADING)
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// What the program ends with: an interface that scripts rely on.
pub(crate) const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "success"),
    ("1", "a failure that no other code names"),
    ("2", "the command line could not be understood"),
    ("3", "the configuration is missing or broken"),
    ("4", "login required, and this run may not ask"),
    ("5", "denied by policy"),
    ("6", "approval pending"),
    ("7", "a server could not be reached"),
    ("8", "the keyring is locked or does not answer"),
    ("9", "a token or an answer did not pass verification"),
];

/// How `exec` differs.
pub(crate) const EXEC_EXIT_CODES: &str = "\
`exec` ends as its command does: with the command's own code, or of the same signal \
(128 + n to a shell); with 125 where tmpcred itself failed, 126 where the command cannot \
be run, and 127 where there is no such command.";

/// The variables that are read.
pub(crate) const ENVIRONMENT: &[(&str, &str)] = &[
    ("TMPCRED_PROFILE", "the profile, where none is named"),
    ("TMPCRED_DEFAULT_PROFILE", "sets `default_profile` of the configuration"),
    ("TMPCRED_CONFIG", "the file to read as your configuration"),
    ("TMPCRED_CACHE_STORE", "where secrets rest, as `cache.store` in the configuration"),
    ("TMPCRED_CACHE_KEY", "32 bytes in Base64, under which the cache is sealed into files"),
    ("TMPCRED_NO_INPUT", "as --no-input; CI=true has the same effect"),
    ("TMPCRED_NO_BROWSER", "as --no-browser"),
    ("TMPCRED_LOG", "what to log, such as `info` or `tmpcred=debug`"),
    ("NO_COLOR", "no colours, whatever its value"),
];

/// The files that are read and written.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("~/.config/tmpcred/config.toml", "your configuration; `tmpcred config path` tells where"),
    ("/etc/tmpcred/config.toml", "the machine's configuration"),
    (".tmpcred.toml", "the project's, found from the working directory upwards"),
    ("~/.local/state/tmpcred", "the index without secrets, sealed entries, trusted project files"),
];

/// What `--help` says last.
pub(super) fn after_help() -> String {
    let list = |heading: &str, entries: &[(&str, &str)]| {
        let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 2;
        let lines: String =
            entries.iter().map(|(name, what)| format!("  {name:width$}{what}\n")).collect();
        format!("{HEADING}{heading}:{HEADING:#}\n{lines}\n")
    };
    let codes = list("Exit codes", EXIT_CODES);
    let environment = list("Environment", ENVIRONMENT);
    format!("{codes}{EXEC_EXIT_CODES}\n\n{environment}{}", list("Files", FILES).trim_end())
}
