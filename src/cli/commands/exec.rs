//! `tmpcred exec`

use crate::cli::App;
use crate::cli::args::Exec;
use crate::cli::prepare::{freshness, prepare};
use crate::deliver::{self, Handout, Outcome};
use crate::error::Result;
use crate::pipeline;

pub(super) fn run(app: &App, args: &Exec) -> Result<Outcome> {
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
    match prepared.supervised_because() {
        Some(_) => deliver::supervisor::run(&handout, &args.command, app.core),
        None => deliver::exec::replace(&handout, &args.command, app.core),
    }
}
