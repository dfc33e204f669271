//! `tmpcred env`

use crate::cli::App;
use crate::cli::args::Env;
use crate::cli::misuse;
use crate::cli::prepare::prepare;
use crate::deliver::env::Format;
use crate::error::Result;

pub(super) fn run(app: &App, args: &Env) -> Result<()> {
    // Nothing is minted for a shell that is not known.
    let format = match &args.format {
        Some(name) => {
            Format::named(name).ok_or_else(|| misuse(format!("there is no format '{name}'")))?
        }
        None => Format::from_shell(&app.host.env)?,
    };
    let prepared = prepare(app, &args.wanted)?;
    let credential = prepared.credential(&args.fresh)?;
    app.ui.secret(&format.render(&prepared.handout(&credential))?)
}
