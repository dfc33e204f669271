//! What a run tells of itself to a receiver of traces: nothing, unless the variables of
//! OpenTelemetry name one.
//!
//! A run that was started with a trace (`TRACEPARENT`) passes it on to the brokers that it
//! asks, and to nobody else, also where it makes no spans of its own. One that was started
//! without, and makes none, sends brokers nothing: they begin a trace for each request, and
//! decide by themselves which to keep. A trace that begins here and is not kept would say
//! that theirs is not to be kept either.

use std::cell::RefCell;
use std::time::Duration;

#[cfg(feature = "broker")]
use super::args::BrokerCommand;
use super::args::Command;
use crate::deliver::Outcome;
use crate::error::Result;
use crate::host::Host;
use crate::host::clock::{Clock, SystemClock};
use crate::host::env::Env;
use crate::host::process;
use crate::telemetry::export::Receiver;
use crate::telemetry::settings;
use crate::trace::w3c::{self, PARENT_VARIABLE, STATE_VARIABLE};
use crate::trace::{Place, Spans, Step, Tracer};

/// The name of the service where nobody says otherwise.
const SERVICE: &str = "tmpcred";

/// How long a run waits at its end for its spans to be taken.
const LIMIT: Duration = Duration::from_secs(1);

/// The trace of a run; most have none.
#[derive(Default)]
pub(crate) struct Traced(RefCell<Option<Run>>);

struct Run {
    step: Step,
    export: Option<(Spans, Receiver)>,
}

impl Traced {
    /// Begins, where there is a receiver, or a trace to pass on.
    pub(crate) fn begin(command: &Command, env: &Env) -> Self {
        // Nothing more for all others: a hit in the cache takes a millisecond.
        let variables = [PARENT_VARIABLE, "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let named = variables.into_iter().chain(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]);
        if !named.into_iter().any(|name| env.get_os(name).is_some()) {
            return Self::default();
        }
        let Some(name) = name(command) else { return Self::default() };
        let came_with = env
            .get(PARENT_VARIABLE)
            .and_then(|parent| w3c::from_variables(parent, env.get(STATE_VARIABLE)));
        let begun = match Self::receiver(env) {
            Ok(begun) => begun,
            Err(error) => {
                // Other programs may understand what these variables say.
                tracing::warn!(%error, "there are no traces");
                None
            }
        };
        let (tracer, export) = match begun {
            None => (Tracer::default(), None),
            Some((tracer, spans, receiver)) => (tracer, Some((spans, receiver))),
        };
        let step = tracer.run(format!("tmpcred {name}"), came_with);
        step.note("process.executable.name", "tmpcred");
        step.note("process.pid", i64::from(std::process::id()));
        Self(RefCell::new(Some(Run { step, export })))
    }

    fn receiver(env: &Env) -> Result<Option<(Tracer, Spans, Receiver)>> {
        if settings::is_off(env) {
            return Ok(None);
        }
        let Some(named) = settings::receiver(env)? else { return Ok(None) };
        let (tracer, spans) = Tracer::new(settings::sampling(env)?);
        let settings::Named { url, headers, timeout, ca } = named;
        let clock: std::sync::Arc<dyn Clock> = std::sync::Arc::new(SystemClock);
        let resource = settings::resource(env, SERVICE)?;
        let headers = Box::new(move || Ok(headers.clone()));
        let receiver = Receiver::new(url, headers, timeout, ca, resource, clock);
        Ok(Some((tracer, spans, receiver)))
    }

    /// Where the run is, for what is done in it.
    pub(crate) fn place(&self) -> Place {
        match &*self.0.borrow() {
            Some(run) => run.step.within(Place::here),
            None => Place::default(),
        }
    }

    /// The world in which the command that is started is a part of the trace.
    pub(crate) fn for_command(&self, host: &Host) -> Host {
        let parent = self.0.borrow().as_ref().and_then(|run| run.step.within(w3c::for_program));
        match parent {
            Some((parent, state)) => {
                let env = host.env.clone().with(PARENT_VARIABLE, parent);
                // That of another trace has nothing to do with this one.
                let env = match state {
                    Some(state) => env.with(STATE_VARIABLE, state),
                    None => env.without(STATE_VARIABLE),
                };
                Host { env, ..host.clone() }
            }
            None => host.clone(),
        }
    }

    /// Ends it, and hands on what there is to tell. Whatever comes of that, the run has ended
    /// as it ended, and tells nobody but the log.
    pub(crate) fn end(&self, ended: Ended) {
        let Some(Run { step, export }) = self.0.borrow_mut().take() else { return };
        match ended {
            Ended::Replaced => step.note("tmpcred.replaced", true),
            Ended::With(outcome) => {
                step.note("process.exit.code", i64::from(outcome.exit_code()));
                if outcome.exit_code() != 0 {
                    step.failed(outcome.exit_code().to_string());
                }
            }
        }
        drop(step);
        let Some((mut spans, receiver)) = export else { return };
        let told = process::runtime()
            .and_then(|runtime| runtime.block_on(receiver.flush(&mut spans, LIMIT)));
        if let Err(error) = told {
            tracing::warn!(%error, "the spans of this run are lost");
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy)]
pub(crate) enum Ended {
    /// The command is about to take its place.
    Replaced,
    /// As this says.
    With(Outcome),
}

/// The name of a command in its span; nothing for those that do nothing worth telling, or run
/// for as long as a machine does.
fn name(command: &Command) -> Option<&'static str> {
    Some(match command {
        Command::Exec(_) => "exec",
        Command::Env(_) => "env",
        Command::Token(_) => "token",
        Command::Console(_) => "console",
        Command::CredentialProcess(_) => "credential-process",
        Command::Login(_) => "login",
        Command::Logout(_) => "logout",
        Command::Status(_) => "status",
        Command::Ls(_) => "ls",
        Command::Elevate(_) => "elevate",
        Command::Verify(_) => "verify",
        Command::RenewAhead(_) => "renew-ahead",
        #[cfg(feature = "broker")]
        Command::Broker(args) => match &args.command {
            BrokerCommand::Keys(_) => "broker keys",
            BrokerCommand::Revoke(_) => "broker revoke",
            BrokerCommand::Audit(_) => "broker audit",
            _ => return None,
        },
        Command::Explain(_)
        | Command::Config(_)
        | Command::Inspect(_)
        | Command::Completions(_)
        | Command::Man(_) => return None,
    })
}
