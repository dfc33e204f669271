//! `tmpcred login`

use std::collections::BTreeSet;

use serde_json::json;

use crate::cli::App;
use crate::cli::args::{FlowArg, Login};
use crate::cli::misuse;
use crate::cli::prepare::{cache, detected, identity, planned};
use crate::config::{self, Config};
use crate::credential::Proof;
use crate::error::{ErrorKind, Result};
use crate::host::{Host, process};
use crate::identity::{Context, Flow, LoginOptions};

pub(super) fn run(app: &App, args: &Login) -> Result<()> {
    let config = config::load(&app.host)?;
    let identity = identity(&app.host, &config, args.identity.as_deref())?;
    let source = identity.settings.open(&identity.name);
    let session = source
        .session()
        .ok_or_else(|| misuse(format!("the identity '{}' needs no login", identity.name)))?;
    if args.stdin && identity.settings.proof() != Proof::AwsAccessKeys {
        return Err(misuse(format!(
            "the identity '{}' reads nothing from standard input",
            identity.name
        )));
    }
    let interact = if args.stdin {
        app.ui.clone().answered_by_stdin().interact()
    } else {
        app.host.interact.clone()
    };
    let host = Host { interact, ..app.host.clone() };
    let cache = cache(&host, &config)?;
    let options = LoginOptions {
        flow: args.flow.map(|flow| match flow {
            FlowArg::Auto => Flow::Auto,
            FlowArg::Browser => Flow::Browser,
            FlowArg::Device => Flow::Device,
        }),
        force: args.force,
        audiences: audiences(app, &config, &identity.name),
    };
    let cx = Context::new(&host, &cache);
    let principal = process::runtime()?.block_on(session.login(cx, &options)).map_err(|error| {
        match args.stdin && error.kind() == ErrorKind::LoginRequired {
            true => error.hint(
                "with --stdin the access key ID is the first line, and its secret the second",
            ),
            false => error,
        }
    })?;
    if args.json {
        return app.ui.json(&json!({
            "identity": identity.name,
            "issuer": principal.issuer,
            "subject": principal.subject,
        }));
    }
    app.host.interact.note(&format!("logged in to {} as {principal}", identity.name));
    Ok(())
}

/// The audiences for which the profiles with this identity will want assertions.
fn audiences(app: &App, config: &Config, identity: &str) -> Vec<String> {
    let detected = detected(&app.host, config);
    let plans = config.profiles.keys().filter_map(|name| {
        planned(config, &detected, name).ok().filter(|plan| plan.identity.name == identity)
    });
    plans.map(|plan| plan.assertion_audience()).collect::<BTreeSet<_>>().into_iter().collect()
}
