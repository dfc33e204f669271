//! `tmpcred console`

use crate::cli::App;
use crate::cli::args::Console;
use crate::cli::hide::{Hiding, hide_these};
use crate::cli::prepare::configured;
use crate::config;
use crate::deliver::console::{self, Place};
use crate::deliver::credential_process::not_aws;
use crate::error::{Error, ErrorKind, Result};
use crate::host::browser::{Browser, OwnProfile};
use crate::host::process;
use crate::secret::Secret;

pub(super) fn run(app: &App, args: &Console) -> Result<()> {
    let prepared = configured(app, &args.wanted)?;
    // Nobody logs in for what cannot be used.
    if !prepared.plan.target.yields_aws() {
        return Err(not_aws(console::OF_AWS));
    }
    let settings = config::load(&app.host)?.console;
    let host = &prepared.host;
    if !args.url && !host.interact.may_browse() {
        return Err(Error::new(ErrorKind::Usage, "no browser may be opened here")
            .hint("`--url` prints the link instead"));
    }
    let browser: Option<OwnProfile> = match &settings.browser {
        Some(program) if !args.url => {
            Some(OwnProfile::new(program, &prepared.plan.profile, &host.dirs.state)?)
        }
        _ => None,
    };
    let credential = prepared.credential(&args.fresh)?;
    let place = Place {
        service: args.service.clone(),
        region: args.region.clone(),
        partition: prepared.plan.target.partition(),
        endpoint_url: settings.endpoint_url.as_ref().map(ToString::to_string),
    };
    let runtime = process::runtime()?;
    let link = runtime.block_on(console::link(host, &credential, &place))?;
    if args.url {
        hide_these(app, || Ok(link.secrets()), Hiding::Printed)?;
        return app.ui.secret(&Secret::new(format!("{}\n", link.url().expose())));
    }
    let browser: &dyn Browser = match &browser {
        Some(own) => own,
        None => host.browser.as_ref(),
    };
    let _waiting = host.interact.waiting("waiting for the browser");
    runtime.block_on(console::open(host, browser, link.url()))
}
