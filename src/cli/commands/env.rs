//! `tmpcred env`

use crate::cli::App;
use crate::cli::args::Env;
use crate::cli::misuse;
use crate::cli::prepare::{freshness, prepare};
use crate::deliver::Handout;
use crate::deliver::env::Format;
use crate::error::Result;
use crate::pipeline;

pub(super) fn run(app: &App, args: &Env) -> Result<()> {
    let prepared = prepare(app, &args.wanted)?;
    let (credential, _) = pipeline::credential(
        &prepared.host,
        &prepared.cache,
        &prepared.plan,
        freshness(&args.fresh),
    )?;
    let handout = Handout {
        credential: &credential,
        profile: &prepared.plan.profile,
        env: &prepared.plan.env,
        environment: &app.host.env,
    };
    let format = match &args.format {
        Some(name) => {
            Format::named(name).ok_or_else(|| misuse(format!("there is no format '{name}'")))?
        }
        None => Format::from_shell(&app.host.env)?,
    };
    app.ui.secret(&format.render(&handout)?)
}
