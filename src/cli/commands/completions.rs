//! `tmpcred completions`

use crate::cli::App;
use crate::cli::args::Completions;
use crate::cli::complete;
use crate::cli::ui::written;
use crate::error::Result;

pub(super) fn run(app: &App, args: &Completions) -> Result<()> {
    written(complete::write_script(&args.shell, &mut app.ui.raw_out()))
}
