//! `tmpcred credential-process`

use crate::cli::App;
use crate::cli::args::CredentialProcess;
use crate::cli::hide::{Hiding, hide};
use crate::cli::prepare::configured;
use crate::deliver::credential_process::{ASKED_AGAIN, OF_AWS, answer, not_aws};
use crate::error::Result;

pub(super) fn run(app: &App, args: &CredentialProcess) -> Result<()> {
    let prepared = configured(app, &args.wanted)?;
    // Nobody logs in for what cannot be handed out.
    if !prepared.plan.target.yields_aws() {
        return Err(not_aws(OF_AWS));
    }
    let credential = prepared.credential_for(&args.fresh, Some(ASKED_AGAIN))?;
    let answer = answer(&credential)?;
    hide(app, &prepared.handout(&credential), Hiding::Program)?;
    app.ui.secret(&answer)
}
