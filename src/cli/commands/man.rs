//! `tmpcred man`

use std::io::Write;

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::App;
use crate::cli::args::{self, Cli};
use crate::cli::ui::written;
use crate::cli::{help, misuse};
use crate::error::Result;
use crate::host::files;

pub(super) fn run(app: &App, args: &args::Man) -> Result<()> {
    let pages = pages()?;
    if let Some(dir) = &args.out {
        for (name, text) in &pages {
            files::write_public(&dir.join(format!("{name}.1")), text)?;
        }
        app.host.interact.note(&format!("{} pages written to {}", pages.len(), dir.display()));
        return Ok(());
    }
    let wanted = match &args.page {
        Some(page) => format!("tmpcred-{}", page.trim_start_matches("tmpcred-").replace(' ', "-")),
        None => "tmpcred".to_string(),
    };
    let (_, text) = pages.iter().find(|(name, _)| *name == wanted).ok_or_else(|| {
        let names: Vec<_> =
            pages.iter().filter_map(|(name, _)| name.strip_prefix("tmpcred-")).collect();
        misuse(format!("there is no manual page '{wanted}'"))
            .hint(format!("there are: {}", names.join(", ")))
    })?;
    written(app.ui.raw_out().write_all(text))
}

/// All pages, as (name, roff): the program's own, and one for each command.
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    render(&command, &[], &mut pages)?;
    Ok(pages)
}

/// Renders the page of a command and those of the commands below it. `above` are
/// the names of the pages above it.
fn render(
    command: &clap::Command,
    above: &[String],
    pages: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let name = match above.last() {
        Some(parent) => format!("{parent}-{}", command.get_name()),
        None => "tmpcred".to_string(),
    };
    let mut text = Vec::new();
    written(page(command, &name, above, &mut text))?;
    let here = [above, std::slice::from_ref(&name)].concat();
    pages.push((name, text));
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        render(below, &here, pages)?;
    }
    Ok(())
}

fn page(
    command: &clap::Command,
    name: &str,
    above: &[String],
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    // The date would make every build differ. The roff writer leaves empty
    // arguments out, and the others would move up.
    let title = name.to_uppercase();
    writeln!(out, r#".TH "{title}" 1 "" "tmpcred {}" "tmpcred""#, env!("CARGO_PKG_VERSION"))?;
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_string();
    let names =
        |command: clap::Command| command.name(name.to_string()).display_name(name.to_string());
    let man = Man::new(names(command.clone()).override_usage(usage));
    let mut sections = Vec::new();
    man.render_name_section(&mut sections)?;
    man.render_synopsis_section(&mut sections)?;
    man.render_description_section(&mut sections)?;
    man.render_options_section(&mut sections)?;
    if command.has_subcommands() {
        let commands = command.clone().subcommand_help_heading("COMMANDS");
        Man::new(names(commands)).render_subcommands_section(&mut sections)?;
    }
    let mut rest = Roff::new();
    exit_status(command.get_name(), &mut rest);
    list("ENVIRONMENT", help::ENVIRONMENT, &mut rest);
    list("FILES", help::FILES, &mut rest);
    see_also(command, name, above, &mut rest);
    rest.to_writer(&mut sections)?;
    compact(&sections, out)
}

fn exit_status(command: &str, page: &mut Roff) {
    if command == "exec" {
        page.control("SH", ["EXIT STATUS"]);
    } else {
        list("EXIT STATUS", help::EXIT_CODES, page);
        page.control("PP", []);
    }
    if matches!(command, "exec" | "tmpcred") {
        page.text([roman(help::EXEC_EXIT_CODES)]);
    }
}

fn list(heading: &str, entries: &[(&str, &str)], page: &mut Roff) {
    page.control("SH", [heading]);
    for (name, what) in entries {
        page.control("TP", []);
        page.text([bold(*name)]);
        page.text([roman(*what)]);
    }
}

/// The pages above and below, and those beside it.
fn see_also(command: &clap::Command, name: &str, above: &[String], page: &mut Roff) {
    let mut others: Vec<_> = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
        .map(|below| format!("{name}-{}", below.get_name()))
        .collect();
    others.extend_from_slice(above);
    others.sort_unstable();
    page.control("SH", ["SEE ALSO"]);
    let mut line = Vec::new();
    for other in others {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend([bold(other), roman("(1)")]);
    }
    page.text(line);
}

/// Joins the sections: what each begins with is said once, and no line is empty,
/// which roff advises against.
fn compact(sections: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    let mut said = Vec::new();
    for line in String::from_utf8_lossy(sections).lines().filter(|line| !line.trim().is_empty()) {
        let definition = line.starts_with(".ie ") || line.starts_with(".el ");
        if definition && said.contains(&line.to_string()) {
            continue;
        }
        if definition {
            said.push(line.to_string());
        }
        writeln!(out, "{line}")?;
    }
    Ok(())
}
