//! `tmpcred broker`

mod audit;
mod check;
mod kek;
mod keys;
mod notify;
mod policy;
mod revoke;
mod store;

use std::path::Path;

use crate::broker;
use crate::cli::args::{Broker, BrokerCommand};
use crate::cli::{App, misuse};
use crate::deliver::Outcome;
use crate::error::{Error, ErrorKind, Result, exit_code};
use crate::oidc::Issuer;
use crate::telemetry::{self, Format, Looks, ServerLog};

/// The issuer whose endpoints are described. A broker that runs describes its own.
const EXAMPLE: &str = "https://broker.example.com";

pub(super) fn run(app: &App, args: &Broker) -> Result<Outcome> {
    match &args.command {
        BrokerCommand::Serve { file } => return serve(app, file),
        BrokerCommand::Dev { port } => {
            let _log = log(app, Format::Text);
            dev(app, *port)
        }
        BrokerCommand::Check { what, online } => check::run(app, what, *online),
        BrokerCommand::Revoke(args) => revoke::run(app, args),
        BrokerCommand::Audit(args) => audit::run(app, &args.command),
        BrokerCommand::Keys(command) => keys::run(app, command),
        BrokerCommand::Kek(command) => kek::run(app, command),
        BrokerCommand::Policy(args) => policy::run(app, &args.command),
        BrokerCommand::Notify(args) => notify::run(app, &args.command),
        BrokerCommand::Openapi { admin } => openapi(app, *admin),
        BrokerCommand::Backup(args) => store::backup(app, args),
        BrokerCommand::Restore(args) => store::restore(app, args),
        BrokerCommand::Move(args) => store::move_in(app, args),
    }
    .map(|()| Outcome::Exited(exit_code::OK))
}

/// Refuses a reason that is not to go on record, as a broker that is asked does.
fn check_reason(reason: &str) -> Result<()> {
    match broker::audit::reason(reason) {
        Ok(_) => Ok(()),
        Err(why) => Err(misuse(format!("--reason {why}"))),
    }
}

fn serve(app: &App, file: &Path) -> Result<Outcome> {
    let config = broker::config::load(file)?;
    let format = config.log.format;
    let log = log(app, format);
    match (broker::serve(&app.host, config, log.counts()), format) {
        (Ok(()), _) => Ok(Outcome::Exited(exit_code::OK)),
        (Err(error), Format::Text) => Err(error),
        // Whoever reads the log reads nothing else.
        (Err(error), Format::Json) => {
            let (causes, hints) = (error.causes().join(": "), error.hints().join("; "));
            tracing::error!(%error, causes, hints, "the broker cannot go on");
            Ok(Outcome::Exited(error.kind().exit_code()))
        }
    }
}

/// Begins the log of a server.
fn log(app: &App, format: Format) -> ServerLog {
    let looks = Looks { format, colours: app.ui.stderr_has_colours() };
    let log = telemetry::start_server(app.verbosity, &app.host.env, looks);
    match (log.wrong(), format) {
        (None, _) => {}
        (Some(wrong), Format::Text) => app.host.interact.warn(wrong),
        (Some(wrong), Format::Json) => tracing::warn!("{wrong}"),
    }
    log
}

fn openapi(app: &App, admin: bool) -> Result<()> {
    let example = || Issuer::parse(EXAMPLE).map_err(|why| Error::new(ErrorKind::Other, why));
    let description = match admin {
        true => broker::http::admin::description(),
        false => broker::http::description(&example()?),
    };
    app.ui.line(format!("{description:#}"))
}

fn dev(app: &App, port: Option<u16>) -> Result<()> {
    let options = broker::dev::DevOptions { port, auto_approve: false };
    let running = broker::dev::start(&app.host, options)?;
    app.host.interact.note(&format!(
        "Development broker and identity provider on {}.\n\
         For this machine only, and gone when you press Ctrl-C. To use it, save this as a file\n\
         and name the file in TMPCRED_CONFIG:\n",
        running.issuer()
    ));
    app.ui.line(running.configuration().trim_end())?;
    running.wait()
}
