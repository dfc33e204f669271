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

/// How wide help is at most.
pub(super) const WIDTH: usize = 100;

/// What `--help` says last, as wide as the terminal.
pub(super) fn after_help() -> String {
    let terminal = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    after_help_within(terminal.map_or(WIDTH, |terminal| terminal.min(WIDTH)))
}

fn after_help_within(width: usize) -> String {
    let list = |heading: &str, entries: &[(&str, &str)]| {
        let names = entries.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 4;
        let lines: String = entries.iter().map(|entry| row(*entry, names, width)).collect();
        format!("{HEADING}{heading}:{HEADING:#}\n{lines}\n")
    };
    let codes = list("Exit codes", EXIT_CODES);
    let environment = list("Environment", ENVIRONMENT);
    format!("{codes}{EXEC_EXIT_CODES}\n\n{environment}{}", list("Files", FILES).trim_end())
}

/// A name, and beside it what it means. Where there is little room, what it means is below.
fn row((name, what): (&str, &str), names: usize, width: usize) -> String {
    const LEAST: usize = 24;
    let (lead, indent) = match names + LEAST <= width {
        true => (format!("  {name:beside$}", beside = names - 2), " ".repeat(names)),
        false => (format!("  {name}\n          "), " ".repeat(10)),
    };
    let room = width.saturating_sub(indent.len()).max(1);
    // Paths and addresses are not torn apart.
    let options = textwrap::Options::new(room).break_words(false);
    let lines = textwrap::wrap(what, options.word_splitter(textwrap::WordSplitter::NoHyphenation));
    format!("{lead}{}\n", lines.join(format!("\n{indent}").as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_means_stays_beside_it() {
        let entry = ("NAME", "what it means, in several words");
        assert_eq!(row(entry, 8, 100), "  NAME  what it means, in several words\n");
        assert_eq!(row(entry, 8, 32), "  NAME  what it means, in\n        several words\n");
        assert_eq!(
            row(entry, 8, 30),
            "  NAME\n          what it means, in\n          several words\n"
        );
        for width in [40, 60, 80, 100] {
            let text = anstream::adapter::strip_str(&after_help_within(width)).to_string();
            // The paragraph is clap's to wrap.
            let mut lines = text.lines().filter(|line| line.starts_with(' '));
            assert!(lines.all(|line| line.chars().count() <= width), "{width}: {text}");
        }
    }
}
