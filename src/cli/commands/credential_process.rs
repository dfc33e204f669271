//! `tmpcred credential-process`

use crate::cli::App;
use crate::cli::args::CredentialProcess;
use crate::cli::hide::{Hiding, hide};
use crate::cli::prepare::prepare;
use crate::deliver::credential_process::{ASKED_AGAIN, answer, not_aws};
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::ASKED_FOR;

pub(super) fn run(app: &App, args: &CredentialProcess) -> Result<()> {
    let mut prepared = prepare(app, &args.wanted)?;
    // Nobody logs in for what cannot be handed out.
    if !prepared.plan.target.yields_aws() {
        return Err(not_aws());
    }
    let profile = &prepared.plan.profile;
    let asked_for = app.host.env.get(ASKED_FOR).unwrap_or_default();
    if asked_for.split(' ').any(|name| name == profile) {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "to get credentials for the profile {profile}, credentials for it are asked for"
            ),
        )
        .because_of(format!("{ASKED_FOR} tells that this program is being asked for them already"))
        .hint("what the profile's identity runs must not use an AWS profile that asks tmpcred"));
    }
    let env = app.host.env.clone().with(ASKED_FOR, format!("{asked_for} {profile}"));
    prepared.host.env = env;
    let credential = prepared.credential_for(&args.fresh, Some(ASKED_AGAIN))?;
    let answer = answer(&credential)?;
    hide(app, &prepared.handout(&credential), Hiding::Program)?;
    app.ui.secret(&answer)
}
