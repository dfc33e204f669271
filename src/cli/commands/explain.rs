//! `tmpcred explain`

use serde_json::{Value, json};

use super::status::left_alone;
use crate::cache::CredentialKey;
use crate::cli::App;
use crate::cli::args::Explain;
use crate::cli::prepare::{Prepared, prepare};
use crate::cli::show;
use crate::error::{Error, ErrorKind, Result};
use crate::host::surroundings::Surroundings;
use crate::identity::{Context, Fact, Readiness};
use crate::plan::Plan;
use crate::reach;

pub(super) fn run(app: &App, args: &Explain) -> Result<()> {
    let prepared = prepare(app, &args.wanted)?;
    let plan = &prepared.plan;
    let source = plan.identity.settings.open(&plan.identity.name);
    let facts = source.explain(&Surroundings::detect(&app.host.env));
    // In CI it is so by itself, for `exec` alone: what others use is the question then.
    let own = args.at_exit.revoke_on_exit == Some(true);
    let cache = match prepared.revoked_because(args.at_exit)? {
        Some(why) if own => Cached { state: "unused", why: why.into() },
        _ => cached(&prepared)?,
    };
    let renewed = prepared.renewed_because(args.renew, None)?;
    let supervised = prepared.supervised_because(args.at_exit, args.output, renewed.as_deref())?;
    let (mode, why) = mode(supervised, plan);
    let store = prepared.cache.store_name();
    let (key, resting) = (key(&prepared), reach::resting(&prepared.host));
    if args.json {
        return app.ui.json(&json!({
            "plan": report(plan)?,
            "identity": facts,
            "sources": prepared.sources,
            "cache": { "state": cache.state, "because": cache.why, "store": store },
            "key": key.as_ref().map(|(thumbprint, why)| json!({ "thumbprint": thumbprint, "because": why })),
            "mode": { "name": mode, "because": why },
            "left_alone": resting.iter().map(left_alone).collect::<Vec<_>>(),
        }));
    }
    let reasons = plan.reasons.iter().cloned().map(|r| [r.what, r.value, r.origin]);
    let facts = facts.into_iter().map(|Fact { what, value, why }| [what.into(), value, why]);
    let rest = [
        ["cache".into(), cache.state.into(), cache.why],
        ["store".into(), store.into(), "where credentials and sessions are kept".into()],
        ["mode".into(), mode.into(), why],
    ];
    let sources = prepared.sources.iter().map(|source| {
        let (state, why) = source.state();
        [format!("source {}", source.name), state.into(), why.into()]
    });
    let key = key.map(|(thumbprint, why)| {
        let thumbprint = thumbprint.unwrap_or_else(|| "made at the first use".into());
        ["key".into(), thumbprint, why]
    });
    let left_alone = resting.iter().map(|one| {
        let until = format!("until {}", show::moment(one.until));
        ["left alone".into(), one.address.clone(), format!("{until}: {}", one.error)]
    });
    let rows = reasons.chain(sources).chain(facts).chain(rest).chain(key).chain(left_alone);
    app.ui.table(["WHAT", "VALUE", "BECAUSE"], rows)
}

/// The plan. Of commands that it names, only the program is told: their arguments may be
/// anything, secrets too.
fn report(plan: &Plan) -> Result<Value> {
    let mut report = serde_json::to_value(plan).map_err(|cause| {
        Error::new(ErrorKind::Other, "the plan cannot be written as JSON").because(cause)
    })?;
    leave_arguments_out(&mut report);
    Ok(report)
}

fn leave_arguments_out(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::Array(words) if name == "command" => words.truncate(1),
                    other => leave_arguments_out(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(leave_arguments_out),
        _ => {}
    }
}

/// The key that the credential is bound to, where it is, and how a command uses both.
fn key(prepared: &Prepared) -> Option<(Option<String>, String)> {
    if !prepared.plan.wants_key() {
        return None;
    }
    let thumbprint = prepared.cache.device_label().map(|label| label.thumbprint);
    let why = match prepared.can_be_handed_on() {
        Ok(()) => format!(
            "the token is bound to it: for each request, a command asks `tmpcred token --dpop METHOD URL {}` for both headers",
            prepared.plan.profile
        ),
        Err(error) => error.to_string(),
    };
    Some((thumbprint, why))
}

/// How `exec` would run the command, and why.
fn mode(supervised_because: Option<String>, plan: &Plan) -> (&'static str, String) {
    match (supervised_because, plan.expected_runtime) {
        (Some(why), _) => ("supervisor", why),
        (None, Some(expected)) => {
            let expected = humantime::format_duration(expected);
            (
                "execve",
                format!("a supervisor where the credential is good for less than {expected}"),
            )
        }
        (None, None) => ("execve", "nothing has to happen beside or after the command".into()),
    }
}

struct Cached {
    state: &'static str,
    why: String,
}

/// What a run would find in the cache, as far as the index tells. No keyring is read for it.
fn cached(prepared: &Prepared) -> Result<Cached> {
    let plan = &prepared.plan;
    let source = plan.identity.settings.open(&plan.identity.name);
    let cx = Context::new(&prepared.host, &prepared.cache);
    let miss = |why: String| Ok(Cached { state: "miss", why });
    match source.readiness(&prepared.host) {
        Readiness::Ready(_) => {}
        Readiness::Absent(why) | Readiness::Misconfigured { why, .. } => return miss(why),
    }
    let caller = match source.caller(cx) {
        Ok(Some(caller)) => caller,
        // It may be that the index is lost and a session is not: a run finds out.
        Ok(None) => return miss("nobody is logged in, as far as the index tells".into()),
        // A token that a run would refuse.
        Err(error) if error.kind() == ErrorKind::Verification => return miss(error.to_string()),
        Err(error) => return Err(error),
    };
    let mut key = CredentialKey::of(&plan.fingerprint(), &caller);
    if plan.wants_key() {
        let Some(device) = prepared.cache.device_label() else {
            return miss("this device has no key yet, as far as the index tells".into());
        };
        key = key.bound_to(&device.thumbprint);
    }
    let label = prepared.cache.credential_label(&key)?;
    let Some(lifetime) = label.map(|label| label.lifetime) else {
        return miss(format!("no credential for {caller} is cached"));
    };
    let left = lifetime.remaining(prepared.host.clock.now());
    let has = format!("a credential for {caller} has {} left", show::duration(left));
    // When exactly it is due depends on its secret.
    Ok(if left > lifetime.refresh_window(0.0) {
        Cached { state: "hit", why: has }
    } else {
        Cached { state: "due", why: format!("{has}: a new one is minted, where it can be had") }
    })
}
