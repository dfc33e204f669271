//! `tmpcred broker revoke`

use std::path::Path;

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::check_reason;
use crate::api::operate::{Revoke, Revoked};
use crate::broker::authenticate::id_of;
use crate::broker::config::{self, Config};
use crate::broker::cutoff::{Operator, What, issuer_meant};
use crate::broker::policy::{Named, Policy, Source, World};
use crate::broker::store::Whose;
use crate::cli::App;
use crate::cli::args::BrokerRevoke;
use crate::cli::commands::inspect::read_token;
use crate::cli::elsewhere::Elsewhere;
use crate::cli::show::{self, printable};
use crate::error::{Error, ErrorKind, Result};
use crate::host::process;
use crate::wire::{
    REVOCATIONS_DRY_RUN_PATH, REVOCATIONS_PATH, RevocationReach, RevokedAwsSessions,
};

pub(super) fn run(app: &App, args: &BrokerRevoke) -> Result<()> {
    check_reason(&args.reason)?;
    let revoked = match &args.at.at {
        Some(profile) => elsewhere(&Elsewhere::open(app, Some(profile))?, args)?,
        None => here(app, args.at.file()?, args)?,
    };
    if args.json {
        return app.ui.json(&report(args, &revoked));
    }
    tell(app, args, &revoked);
    Ok(())
}

/// As a broker answers it.
fn report(args: &BrokerRevoke, revoked: &Revoked) -> Value {
    let mut report = json!({
        "revoked": by_what(args),
        "tokens": revoked.tokens,
        // To its last digit: what was issued in the rest of that second stays.
        "issued_before": revoked.issued_before.format(&Rfc3339).unwrap_or_default(),
        "on_record": revoked.on_record,
        "revocation_reach": revoked.revocation_reach,
        "dry_run": revoked.dry_run,
    });
    if let Some(sessions) = &revoked.aws_sessions {
        report["aws_sessions"] = json!(sessions);
    }
    report
}

/// By what those are named that are revoked.
fn by_what(args: &BrokerRevoke) -> &'static str {
    let what = &args.what;
    let named = match (&what.issuer, &args.subject) {
        (Some(_), Some(_)) => Named::Subject,
        (Some(_), None) => Named::Issuer,
        _ if what.role.is_some() => Named::Role,
        _ if what.client.is_some() => Named::Client,
        _ if what.all => Named::All,
        _ => Named::Token,
    };
    named.name()
}

fn tell(app: &App, args: &BrokerRevoke, revoked: &Revoked) {
    let note = |text: &str| app.host.interact.note(text);
    let is_named = args.what.jti.is_none() && args.what.token.is_none() && !args.what.all;
    if let (Some(whose), Some(false)) = (named(args), revoked.on_record) {
        note(&format!(
            "No token of late is on record for {whose}: is it spelt as its tokens have it?\n\
             `tmpcred broker audit query` shows what was issued to whom.",
        ));
    } else if is_named && revoked.tokens == Some(0) {
        note(
            "No token that was good was found. What was issued to whom, and how it is spelt,\n\
             `tmpcred broker audit query` shows.",
        );
    }
    note(&outcome(args.what.jti.is_some() || args.what.token.is_some(), revoked));
    if let Some(sessions) = &revoked.aws_sessions {
        note(&of_aws(sessions));
    }
}

/// What was revoked, or would be, and whom that reaches.
fn outcome(is_one: bool, revoked: &Revoked) -> String {
    let count = |tokens: u64, one, many| {
        show::count(usize::try_from(tokens).unwrap_or(usize::MAX), one, many)
    };
    if revoked.dry_run {
        let tokens = match revoked.tokens {
            Some(tokens) => count(tokens, "token that is good", "tokens that are good"),
            None => "All that are good, as many as they are,".into(),
        };
        return format!("{tokens} would be revoked. Nothing was changed.");
    }
    let tokens = match revoked.tokens {
        Some(tokens) => count(tokens, "token that was good is", "tokens that were good are"),
        None => "All that were good, as many as they were, are".into(),
    };
    if is_one && revoked.tokens == Some(0) {
        return format!("{tokens} revoked.\nNothing changes: what was revoked before stays so.");
    }
    // The log need not have all that was issued: of a database that was restored it lacks what
    // came after the backup.
    let others = match revoked.tokens {
        Some(0) => format!(
            "None that is on record was good. Whatever else was issued before {} is revoked, too.\n",
            revoked.issued_before.format(&Rfc3339).unwrap_or_default()
        ),
        _ => String::new(),
    };
    let reached = match revoked.revocation_reach {
        Some(RevocationReach::Everywhere) => {
            "Everybody refuses them at once: nobody can tell without asking a broker whether such a\n\
             token is good. Of a role that was made so of late there may be signed ones, too, which\n\
             others accept until they expire. Who may have new ones is for the policies to say."
        }
        _ => {
            "Brokers that run know at once. Whoever checks tokens on their own accepts them until they\n\
             expire. Who may have new ones is for the policies to say."
        }
    };
    format!("{tokens} revoked.\n{others}{reached}")
}

/// What lasts in AWS.
fn of_aws(sessions: &RevokedAwsSessions) -> String {
    let of = match sessions.roles.as_slice() {
        [] => String::new(),
        [one] => format!(" of the role {}", printable(one)),
        several => format!(" of the roles {}", printable(&several.join(", "))),
    };
    format!(
        "Sessions of AWS that were had for tokens{of} are not reached: they last until they expire,\n\
         12 hours at most, unless their roles in AWS have this policy, which denies all that began\n\
         before {}: {}",
        printable(&sessions.begun_before),
        printable(&sessions.deny.to_string()),
    )
}

/// Asks a broker that runs.
fn elsewhere(broker: &Elsewhere, args: &BrokerRevoke) -> Result<Revoked> {
    let what = &args.what;
    let token = what.token.as_deref().map(read_token).transpose()?;
    let form = Revoke {
        token: token.as_ref(),
        jti: what.jti,
        issuer: what.issuer.as_deref(),
        subject: args.subject.as_deref(),
        role: what.role.as_deref(),
        client: what.client.as_deref(),
        all: what.all.then_some(true),
        before: args.before.map(|before| before.format(&Rfc3339).unwrap_or_default()),
        reason: &args.reason,
    };
    let path = if args.dry_run { REVOCATIONS_DRY_RUN_PATH } else { REVOCATIONS_PATH };
    let revoked: Revoked = broker.ask(async |client| client.post(path, &form).await)?;
    match args.dry_run && !revoked.dry_run {
        // Whoever stands before it may have led the request elsewhere.
        true => Err(Error::new(
            ErrorKind::Verification,
            "the broker does not say that nothing was changed",
        )
        .hint("`tmpcred broker audit query --action revoke-many` shows whether anything was")),
        false => Ok(revoked),
    }
}

/// Revokes on the broker's database.
fn here(app: &App, file: &Path, args: &BrokerRevoke) -> Result<Revoked> {
    let config = config::load(file)?;
    process::runtime()?.block_on(async {
        let operator = match args.dry_run {
            true => Operator::open_to_look(&app.host, &config).await?,
            false => Operator::open(&app.host, &config).await?,
        };
        let outcome = match what(app, args, &config, &operator).await {
            Ok(what) => revoke(app, args, &config, (&operator, &what)).await,
            Err(error) => Err(error),
        };
        operator.close().await;
        outcome
    })
}

async fn revoke(
    app: &App,
    args: &BrokerRevoke,
    config: &Config,
    (operator, what): (&Operator, &What),
) -> Result<Revoked> {
    let dry_run = args.dry_run;
    let revoked = match dry_run {
        true => operator.would_revoke(what).await?,
        false => operator.revoke(what, &args.reason).await?,
    };
    // Policies that cannot be read keep nothing from being revoked: what would be better is not
    // told then.
    let policy = match what {
        What::Many { whose: Whose::Role(_), .. } => policy(app, config).ok(),
        _ => None,
    };
    let reached = operator.reached(config, policy.as_ref(), what, revoked.before).await;
    Ok(Revoked {
        tokens: revoked.tokens,
        issued_before: revoked.before,
        on_record: revoked.on_record,
        revocation_reach: Some(reached.reach),
        aws_sessions: reached.aws_sessions,
        dry_run,
    })
}

fn policy(app: &App, config: &Config) -> Result<Policy> {
    let directory = config.directory(app.host.clock.now())?;
    let sources = Source::read_all(&config.policy.files)?;
    Policy::load(&sources, World::of(config, directory.as_ref()))
}

/// Those who may be spelt otherwise than in their tokens, as they were given.
fn named(args: &BrokerRevoke) -> Option<String> {
    match (&args.what.issuer, &args.subject, &args.what.client) {
        (Some(issuer), Some(subject), _) => Some(format!("the subject {subject:?} of {issuer:?}")),
        (Some(issuer), None, _) => Some(format!("the issuer {issuer:?}")),
        (.., Some(client)) => Some(format!("the client {client:?}")),
        _ => None,
    }
}

async fn what(
    app: &App,
    args: &BrokerRevoke,
    config: &Config,
    operator: &Operator,
) -> Result<What> {
    let what = &args.what;
    if let Some(jti) = what.jti {
        return Ok(What::Token(jti));
    }
    if let Some(file) = &what.token {
        return Ok(What::Token(operator.id_of(&read_token(file)?).await?));
    }
    // By the name of its table, too, as elsewhere.
    let issuer = what.issuer.as_ref().map(|issuer| issuer_meant(config, issuer));
    let whose = match (&issuer, &args.subject, &what.role, &what.client) {
        (Some(issuer), Some(subject), ..) => Whose::Subject(id_of(issuer, subject)),
        (Some(issuer), None, ..) => Whose::Issuer(issuer.clone()),
        (_, _, Some(role), _) => Whose::Role(role.clone()),
        (.., Some(client)) => Whose::Client(client.clone()),
        _ => Whose::Everybodys,
    };
    let what = What::Many { whose, before: args.before };
    operator.require_known(config, &what).await?;
    // One may have been taken out, and what it said be about still.
    if let Some(issuer) = &issuer
        && config.trusted_issuer.values().all(|trusted| trusted.issuer.as_str() != issuer)
        && config.issuer.as_str() != issuer
    {
        app.host.interact.note(&format!("The configuration trusts no issuer {issuer:?}."));
    }
    Ok(what)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn many_are_revoked_also_where_none_that_was_good_is_on_record() {
        let revoked = |tokens| Revoked {
            tokens,
            issued_before: datetime!(2026-01-01 12:00 UTC),
            on_record: Some(false),
            revocation_reach: Some(RevocationReach::Introspection),
            aws_sessions: None,
            dry_run: false,
        };
        let others = "Whatever else was issued before 2026-01-01T12:00:00Z is revoked, too.\n\
                      Brokers that run know at once.";
        let many = outcome(false, &revoked(Some(0)));
        assert!(many.starts_with("0 tokens that were good are revoked.\nNone that is"), "{many}");
        assert!(many.contains(others) && !many.contains("Nothing changes"), "{many}");
        for counted in [Some(2), None] {
            let many = outcome(false, &revoked(counted));
            assert!(many.contains(" revoked.\nBrokers that run know at once."), "{many}");
        }
        let one = outcome(true, &revoked(Some(0)));
        assert!(one.ends_with("Nothing changes: what was revoked before stays so."), "{one}");
    }
}
