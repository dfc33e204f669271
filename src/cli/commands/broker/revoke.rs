//! `tmpcred broker revoke`

use std::path::Path;

use serde_json::json;

use crate::api::operate::{Revoke, Revoked};
use crate::broker::authenticate::id_of;
use crate::broker::config::{self, Config};
use crate::broker::cutoff::{Operator, What};
use crate::broker::store::Whose;
use crate::cli::App;
use crate::cli::args::BrokerRevoke;
use crate::cli::commands::inspect::read_token;
use crate::cli::elsewhere::Elsewhere;
use crate::cli::show;
use crate::error::{Error, ErrorKind, Result};
use crate::host::process;
use crate::wire::{REVOCATIONS_DRY_RUN_PATH, REVOCATIONS_PATH};

pub(super) fn run(app: &App, args: &BrokerRevoke) -> Result<()> {
    let revoked = match &args.at.at {
        Some(profile) => elsewhere(&Elsewhere::open(app, Some(profile))?, args)?,
        None => here(app, args.at.file()?, args)?,
    };
    if args.json {
        let before = show::moment(revoked.issued_before);
        return app.ui.json(&json!({
            "tokens": revoked.tokens,
            "issued_before": before,
            "on_record": revoked.on_record,
            "dry_run": revoked.dry_run,
        }));
    }
    let is_named = args.what.jti.is_none() && args.what.token.is_none() && !args.what.all;
    if let (Some(whose), Some(false)) = (named(args), revoked.on_record) {
        app.host.interact.note(&format!(
            "No token of late is on record for {whose}: is it spelt as its tokens have it?\n\
             `tmpcred broker audit query` shows what was issued to whom.",
        ));
    } else if is_named && revoked.tokens == Some(0) {
        app.host.interact.note(
            "No token that was good was found. What was issued to whom, and how it is spelt,\n\
             `tmpcred broker audit query` shows.",
        );
    }
    let count = |tokens: u64, one, many| {
        show::count(usize::try_from(tokens).unwrap_or(usize::MAX), one, many)
    };
    if args.dry_run {
        let tokens = match revoked.tokens {
            Some(tokens) => count(tokens, "token that is good", "tokens that are good"),
            None => "All that are good, as many as they are,".into(),
        };
        app.host.interact.note(&format!("{tokens} would be revoked. Nothing was changed."));
        return Ok(());
    }
    let tokens = match revoked.tokens {
        Some(tokens) => count(tokens, "token that was good is", "tokens that were good are"),
        None => "All that were good, as many as they were, are".into(),
    };
    app.host.interact.note(&format!(
        "{tokens} revoked.\n\
         Brokers that run know at once. Whoever checks tokens on their own accepts them until they\n\
         expire. Who may have new ones is for the policies to say."
    ));
    Ok(())
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
        before: args.before.map(show::moment),
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
    let revoked = process::runtime()?.block_on(async {
        let operator = match args.dry_run {
            true => Operator::open_to_look(&app.host, &config).await?,
            false => Operator::open(&app.host, &config).await?,
        };
        let outcome = match what(app, args, &config, &operator).await {
            Ok(what) if args.dry_run => operator.would_revoke(&what).await,
            Ok(what) => operator.revoke(&what, &args.reason).await,
            Err(error) => Err(error),
        };
        operator.close().await;
        outcome
    })?;
    let on_record = revoked.on_record;
    let dry_run = args.dry_run;
    Ok(Revoked { tokens: revoked.tokens, issued_before: revoked.before, on_record, dry_run })
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
    let issuer = what.issuer.as_ref().map(|issuer| match config.trusted_issuer.get(issuer) {
        Some(trusted) => trusted.issuer.to_string(),
        None => issuer.clone(),
    });
    // One may have been taken out, and what it said be about still.
    if let Some(issuer) = &issuer
        && config.trusted_issuer.values().all(|trusted| trusted.issuer.as_str() != issuer)
        && config.issuer.as_str() != issuer
    {
        app.host.interact.note(&format!("The configuration trusts no issuer {issuer:?}."));
    }
    let whose = match (&issuer, &args.subject, &what.role, &what.client) {
        (Some(issuer), Some(subject), ..) => Whose::Subject(id_of(issuer, subject)),
        (Some(issuer), None, ..) => Whose::Issuer(issuer.clone()),
        (_, _, Some(role), _) => Whose::Role(role.clone()),
        (.., Some(client)) => Whose::Client(client.clone()),
        _ => Whose::Everybodys,
    };
    let what = What::Many { whose, before: args.before };
    operator.require_role(config, &what).await?;
    Ok(what)
}
