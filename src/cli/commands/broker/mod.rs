//! `tmpcred broker`

mod audit;
mod keys;
mod policy;
mod revoke;
mod store;

use crate::broker;
use crate::cli::App;
use crate::cli::args::{Broker, BrokerCommand};
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::Issuer;
use crate::telemetry;

/// The issuer whose endpoints are described. A broker that runs describes its own.
const EXAMPLE: &str = "https://broker.example.com";

pub(super) fn run(app: &App, args: &Broker) -> Result<()> {
    match &args.command {
        BrokerCommand::Serve { file } => {
            telemetry::start_server(&app.host.env);
            broker::serve(&app.host, file)
        }
        BrokerCommand::Dev { port } => {
            telemetry::start_server(&app.host.env);
            dev(app, *port)
        }
        BrokerCommand::Revoke(args) => revoke::run(app, args),
        BrokerCommand::Audit(args) => audit::run(app, &args.command),
        BrokerCommand::Keys(command) => keys::run(app, command),
        BrokerCommand::Policy(args) => policy::run(app, &args.command),
        BrokerCommand::Openapi { admin } => openapi(app, *admin),
        BrokerCommand::Backup(args) => store::backup(app, args),
        BrokerCommand::Restore(args) => store::restore(app, args),
        BrokerCommand::Move(args) => store::move_in(app, args),
    }
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
