//! `tmpcred broker revoke`

use serde_json::json;

use crate::broker::authenticate::id_of;
use crate::broker::cutoff::{Operator, What};
use crate::broker::store::Whose;
use crate::cli::App;
use crate::cli::args::BrokerRevoke;
use crate::cli::commands::inspect::read_token;
use crate::cli::show;
use crate::error::Result;
use crate::host::process;

pub(super) fn run(app: &App, args: &BrokerRevoke) -> Result<()> {
    let revoked = process::runtime()?.block_on(async {
        let operator = Operator::open(&app.host, &args.of.file).await?;
        let outcome = match what(args, &operator).await {
            Ok(what) => operator.revoke(&what, &args.reason).await,
            Err(error) => Err(error),
        };
        operator.close().await;
        outcome
    })?;
    if args.json {
        let before = show::moment(revoked.before);
        return app.ui.json(&json!({ "tokens": revoked.tokens, "issued_before": before }));
    }
    let tokens = match revoked.tokens {
        Some(tokens) => show::count(
            usize::try_from(tokens).unwrap_or(usize::MAX),
            "token that was good is",
            "tokens that were good are",
        ),
        None => "All that were good, as many as they were, are".into(),
    };
    app.host.interact.note(&format!(
        "{tokens} revoked.\n\
         Brokers that run know at once. Whoever checks tokens on their own accepts them until they\n\
         expire. Who may have new ones is for the policies to say."
    ));
    Ok(())
}

async fn what(args: &BrokerRevoke, operator: &Operator) -> Result<What> {
    let what = &args.what;
    if let Some(jti) = what.jti {
        return Ok(What::Token(jti));
    }
    if let Some(file) = &what.token {
        return Ok(What::Token(operator.id_of(&read_token(file)?).await?));
    }
    let whose = match (&what.issuer, &args.subject, &what.role, &what.client) {
        (Some(issuer), Some(subject), ..) => Whose::Subject(id_of(issuer, subject)),
        (Some(issuer), None, ..) => Whose::Issuer(issuer.clone()),
        (_, _, Some(role), _) => Whose::Role(role.clone()),
        (.., Some(client)) => Whose::Client(client.clone()),
        _ => Whose::Everybodys,
    };
    Ok(What::Many { whose, before: args.before })
}
