//! `tmpcred broker check`

use serde::Serialize;
use serde_json::json;

use crate::broker::check::{Look, Verdict, check};
use crate::broker::config;
use crate::cli::App;
use crate::cli::args::Checked;
use crate::cli::show::{count, printable};
use crate::error::{Error, ErrorKind, Result};
use crate::host::process;

pub(super) fn run(app: &App, args: &Checked, online: bool) -> Result<()> {
    let config = config::load(&args.file)?;
    let looks = {
        let _waiting = app.host.interact.waiting("looking at all that the broker needs");
        process::runtime()?.block_on(check(&config, &app.host, online))
    };
    let told: Vec<_> = looks.iter().map(Told::of).collect();
    let number = |result| told.iter().filter(|told| told.result == result).count();
    let (errors, warnings) = (number("error"), number("warning"));
    if args.json {
        app.ui.json(&json!({ "errors": errors, "warnings": warnings, "checks": told }))?;
    } else {
        let shown: String = told.iter().map(Told::shown).collect();
        app.ui.line(shown.trim_end())?;
    }
    if errors == 0 && !(args.strict && warnings > 0) {
        return Ok(());
    }
    let counted = format!(
        "{} and {}",
        count(errors, "error", "errors"),
        count(warnings, "warning", "warnings")
    );
    let said = match errors {
        0 => format!("there are warnings: {counted}"),
        _ => format!("not all is there that the broker needs: {counted}"),
    };
    Err(Error::new(ErrorKind::Config, said))
}

/// What is told of one thing that was looked at.
#[derive(Serialize)]
struct Told<'a> {
    check: &'static str,
    result: &'static str,
    message: &'a str,
    causes: &'a [String],
    hints: &'a [String],
}

impl<'a> Told<'a> {
    fn of(look: &'a Look) -> Self {
        let check = look.subject.name();
        let (result, error) = match &look.verdict {
            Verdict::Good(message) => {
                return Self { check, result: "ok", message, causes: &[], hints: &[] };
            }
            Verdict::Warning(error) => ("warning", error),
            Verdict::Wrong(error) => ("error", error),
        };
        let (message, causes, hints) = (error.message(), error.causes(), error.hints());
        Self { check, result, message, causes, hints }
    }

    /// As the linter of policies tells what it finds.
    fn shown(&self) -> String {
        let lines = self.causes.iter().flat_map(|cause| {
            let leads = ["  why: "].into_iter().chain(std::iter::repeat("       "));
            leads.zip(cause.lines())
        });
        let causes = lines.map(|(lead, why)| format!("{lead}{}\n", printable(why)));
        let hints = self.hints.iter().map(|hint| format!("  do:  {}\n", printable(hint)));
        let head = format!("{}[{}]: {}\n", self.result, self.check, printable(self.message));
        [head].into_iter().chain(causes).chain(hints).collect()
    }
}
