//! `tmpcred broker policy`

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::broker::policy::trial::{
    self, Action, Asking, CaseResult, Cases, Considered, Explanation, Holds, Outcome, Supposed,
    Trial,
};
use crate::broker::policy::{Finding, Severity, Source, World, check, schema};
use crate::broker::{config, elevation};
use crate::cli::args::{Checked, PolicyAction, PolicyCommand, PolicyExplain, PolicyPath};
use crate::cli::show::{count, printable};
use crate::cli::{App, require_file};
use crate::error::{Error, ErrorKind, Result};

pub(super) fn run(app: &App, command: &PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::Check(args) => look(app, args),
        PolicyCommand::Test { file, cases, json } => test(app, file, cases, *json),
        PolicyCommand::Explain(args) => explain(app, args),
        PolicyCommand::Schema => app.ui.line(schema().trim_end()),
    }
}

fn look(app: &App, args: &Checked) -> Result<()> {
    let config = config::load(&args.file)?;
    let sources = Source::read_all(&config.policy.files)?;
    let now = app.host.clock.now();
    let directory = config.directory(now)?;
    config.check_people(directory.as_deref())?;
    let findings = check(&sources, World::of(&config, directory.as_ref()), now)?;
    let number = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let (errors, warnings) = (number(Severity::Error), number(Severity::Warning));
    let counted = format!(
        "{} and {}",
        count(errors, "error", "errors"),
        count(warnings, "warning", "warnings")
    );
    if args.json {
        let findings: Vec<_> = findings
            .iter()
            .map(|finding| {
                let about = finding.rule.about();
                json!({
                    "rule": finding.rule, "severity": finding.severity, "policy": finding.policy,
                    "place": finding.place, "message": finding.message,
                    "why": about.why, "advice": about.advice,
                })
            })
            .collect();
        app.ui.json(&json!({ "errors": errors, "warnings": warnings, "findings": findings }))?;
    } else {
        for finding in &findings {
            app.ui.line(shown(finding))?;
        }
        if findings.is_empty() {
            app.ui.line("Nothing is wrong with the policies.")?;
        }
    }
    if errors > 0 || args.strict && warnings > 0 {
        return Err(Error::new(ErrorKind::Config, format!("the policies have {counted}")));
    }
    if warnings > 0 && !args.json {
        app.ui.line(counted)?;
    }
    Ok(())
}

fn shown(finding: &Finding) -> String {
    let about = finding.rule.about();
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut text = format!("{severity}[{}]: {}\n", about.name, printable(&finding.message));
    if let Some(place) = &finding.place {
        text += &format!("  at {place}\n");
        if !place.text.is_empty() {
            text += &format!("     {}\n", printable(&place.text));
        }
    }
    text + &format!("  why: {}\n  do:  {}\n", about.why, about.advice)
}

fn test(app: &App, file: &Path, files: &[PathBuf], json: bool) -> Result<()> {
    let config = config::load(file)?;
    let trial = Trial::new(&config, app.host.clock.now())?;
    let now = app.host.clock.now();
    let mut results: Vec<(&PathBuf, CaseResult)> = Vec::new();
    for path in files {
        require_file(path)?;
        for case in &Cases::read(path)?.case {
            results.push((path, trial.run(case, now)?));
        }
    }
    let failed = results.iter().filter(|(_, result)| !result.passed).count();
    if json {
        let cases: Vec<_> = results
            .iter()
            .map(|(path, result)| json!({ "file": path, "result": result }))
            .collect();
        app.ui.json(&json!({ "cases": cases.len(), "failed": failed, "results": cases }))?;
    } else if failed > 0 {
        let rows = results.iter().flat_map(|(path, result)| {
            result.differences.iter().map(|difference| {
                [
                    path.display().to_string(),
                    printable(&result.name),
                    difference.what.to_string(),
                    printable(&difference.expected),
                    printable(&difference.got),
                ]
            })
        });
        app.ui.table(["FILE", "CASE", "OF", "EXPECTED", "GOT"], rows)?;
    } else {
        let passed = count(results.len(), "case is", "cases are");
        app.ui.line(format!("{passed} as expected."))?;
    }
    if failed == 0 {
        return Ok(());
    }
    let all = count(results.len(), "case", "cases");
    Err(Error::new(
        ErrorKind::Other,
        format!("of {all}, {failed} came out otherwise than expected"),
    )
    .hint("`tmpcred broker policy explain --cases FILE --name CASE` says why"))
}

fn explain(app: &App, args: &PolicyExplain) -> Result<()> {
    let config = config::load(&args.file)?;
    let trial = Trial::new(&config, app.host.clock.now())?;
    let asking = asking(args)?;
    let explanation = trial.explain(&asking, app.host.clock.now())?;
    if args.json {
        return app.ui.json(&explanation);
    }
    tell(app, &explanation)
}

/// What is asked: a case's question, or what the arguments say.
fn asking(args: &PolicyExplain) -> Result<Asking> {
    if let (Some(path), Some(name)) = (&args.cases, &args.name) {
        require_file(path)?;
        let mut cases = Cases::read(path)?.case.into_iter();
        let case = cases.find(|case| case.name == *name).ok_or_else(|| {
            let what = format!("{} has no case '{name}'", path.display());
            Error::new(ErrorKind::Usage, what)
        })?;
        return Ok(case.ask);
    }
    let given = |value: &Option<String>| value.clone().unwrap_or_default();
    let groups = |groups: &[String]| (!groups.is_empty()).then(|| groups.to_vec());
    let actor_claims = trial::claims(&args.actor_claims)?;
    Ok(Asking {
        caller: Supposed {
            issuer: given(&args.issuer),
            subject: given(&args.subject),
            groups: groups(&args.groups),
            claims: trial::claims(&args.claims)?,
            client: args.client.clone(),
            expires: args.expires,
        },
        actor: args.actor_issuer.clone().zip(args.actor_subject.clone()).map(
            |(issuer, subject)| Supposed {
                issuer,
                subject,
                groups: groups(&args.actor_groups),
                claims: actor_claims,
                client: None,
                expires: None,
            },
        ),
        source: args.source,
        action: match args.action {
            PolicyAction::Issue => Action::Issue,
            PolicyAction::Introspect => Action::Introspect,
            PolicyAction::Revoke => Action::Revoke,
            PolicyAction::Administer => Action::Administer,
            PolicyAction::Elevate => Action::Elevate,
            PolicyAction::Approve => Action::Approve,
        },
        path: args.path.map(|path| match path {
            PolicyPath::Ordinary => elevation::Path::Ordinary,
            PolicyPath::Emergency => elevation::Path::Emergency,
            PolicyPath::ProviderDown => elevation::Path::ProviderDown,
        }),
        role: args.role.clone(),
        operation: args.operation.clone(),
        what: args.what.clone(),
        of_issuer: args.of_issuer.clone(),
        of_subject: args.of_subject.clone(),
        of_client: args.of_client.clone(),
        audience: args.audience.clone(),
        scope: args.scope.clone(),
        ttl: args.ttl,
        key_bound: args.key_bound,
        client: args.authenticated_client.clone(),
        time: args.time,
    })
}

fn tell(app: &App, explanation: &Explanation) -> Result<()> {
    app.ui.line(match &explanation.outcome {
        Outcome::Permit { policy, ttl: Some(ttl), scope, .. } => {
            let scope: Vec<_> = scope.iter().flatten().map(String::as_str).collect();
            let ttl = humantime::format_duration(std::time::Duration::from_secs(*ttl));
            format!("Permitted by '{policy}', for {ttl}, with the scope '{}'.", scope.join(" "))
        }
        Outcome::Permit { policy, .. } => format!("Permitted by '{policy}'."),
        Outcome::Deny { reason, policy: Some(policy), said } => {
            format!("Denied ({}) by '{policy}': {}.", reason.name(), printable(said))
        }
        Outcome::Deny { reason, said, .. } => {
            format!("Denied ({}): {}.", reason.name(), printable(said))
        }
    })?;
    if let Outcome::Permit { claims, .. } = &explanation.outcome {
        for (name, value) in claims {
            let value = printable(&value.to_string());
            app.ui.line(format!("  The token says: {} = {value}", printable(name)))?;
        }
    }
    for change in &explanation.changes {
        app.ui.line(format!("  For a permit: {}.", printable(change)))?;
    }
    for approvers in &explanation.approvers {
        let groups = match approvers.groups.is_empty() {
            true => String::new(),
            false => format!(" of {}", approvers.groups.join(" or ")),
        };
        let people = match approvers.people.is_empty() {
            true => "nobody".into(),
            false => approvers.people.join(", "),
        };
        app.ui.line(format!(
            "  {} would have to approve{groups}; could: {people}",
            approvers.count
        ))?;
    }
    for considered in &explanation.considered {
        tell_of(app, considered)?;
    }
    Ok(())
}

fn tell_of(app: &App, considered: &Considered) -> Result<()> {
    let kind = if considered.forbids { "forbid" } else { "permit" };
    let applies = match (considered.applies, considered.decides) {
        (_, true) => "decides",
        (true, false) => "applies",
        (false, false) => "does not apply",
    };
    app.ui.line(format!("\n{kind} '{}' {applies}", considered.policy))?;
    for part in &considered.parts {
        let holds = match part.holds {
            Holds::Yes => "yes",
            Holds::No => "no ",
            Holds::NotReached => "-  ",
            Holds::Fails => "cannot be evaluated:",
        };
        let unless = if part.of == "unless" { "unless " } else { "" };
        app.ui.line(format!("  {holds} {unless}{}", printable(&part.text)))?;
        if part.holds != Holds::Yes {
            for found in &part.found {
                app.ui.line(format!("        {} is {}", found.what, printable(&found.is)))?;
            }
        }
    }
    Ok(())
}
