//! Operations of those who look after a broker, as they are tried.

use super::{Action, Asking, usage};
use crate::broker::authenticate::id_of;
use crate::broker::policy::{Administration, Named, Operation, Tokens};
use crate::credential::Principal;
use crate::error::Result;

/// What is asked for, where it is an operation.
pub(super) fn of(asking: &Asking) -> Result<Option<Operation>> {
    let of_tokens = [
        ("what", &asking.what),
        ("of_issuer", &asking.of_issuer),
        ("of_subject", &asking.of_subject),
        ("of_client", &asking.of_client),
    ];
    let of_broker = [("operation", &asking.operation)];
    let (foreign, action): (&[_], _) = match asking.action {
        Action::Revoke => (&of_broker, "revoke"),
        Action::Administer => (&of_tokens, "administer"),
        Action::Issue | Action::Introspect => {
            require_none(&of_tokens, "issue or introspect")?;
            require_none(&of_broker, "issue or introspect")?;
            return Ok(None);
        }
        Action::Elevate | Action::Approve => {
            require_none(&of_broker, "elevate or approve")?;
            let others = [("what", &asking.what), ("of_client", &asking.of_client)];
            require_none(&others, "elevate or approve")?;
            if asking.action == Action::Elevate {
                require_none(&of_tokens, "elevate")?;
            }
            return Ok(None);
        }
    };
    require_none(foreign, action)?;
    let of_issuance = [("audience", &asking.audience), ("scope", &asking.scope)];
    require_none(&of_issuance, action)?;
    match asking.action {
        Action::Administer => administration(asking).map(Operation::Administer).map(Some),
        _ => tokens(asking).map(Operation::Revoke).map(Some),
    }
}

fn require_none(keys: &[(&str, &Option<String>)], action: &str) -> Result<()> {
    match keys.iter().find(|(_, value)| value.is_some()) {
        Some((name, _)) => Err(usage(format!("`{name}` says nothing of the action to {action}"))),
        None => Ok(()),
    }
}

fn administration(asking: &Asking) -> Result<Administration> {
    require_none(&[("role", &asking.role)], "administer")?;
    let name = asking.operation.as_deref().unwrap_or_default();
    let known = Administration::ALL.map(Administration::name).join(", ");
    Administration::from_name(name)
        .ok_or_else(|| usage(format!("`operation` has to be one of {known}")))
}

fn tokens(asking: &Asking) -> Result<Tokens> {
    let name = asking.what.as_deref().unwrap_or_default();
    let known = Named::ALL.map(Named::name).join(", ");
    let what =
        Named::from_name(name).ok_or_else(|| usage(format!("`what` has to be one of {known}")))?;
    let (role, issuer) = (asking.role.clone(), asking.of_issuer.clone());
    let (subject, client) = (asking.of_subject.clone(), asking.of_client.clone());
    // What a request can have, and no more: a case that could not be asked proves nothing.
    let given = [role.is_some(), issuer.is_some(), subject.is_some(), client.is_some()];
    let (is_right, wants) = match what {
        Named::Token => (given[1] == given[2], "`of_issuer` and `of_subject` together, if any"),
        Named::Subject => (given == [false, true, true, false], "`of_issuer` and `of_subject`"),
        Named::Issuer => (given == [false, true, false, false], "`of_issuer`"),
        Named::Role => (given == [true, false, false, false], "`role`"),
        Named::Client => (given == [false, false, false, true], "`of_client`"),
        Named::All => (given == [false; 4], "nothing else"),
    };
    if !is_right {
        return Err(usage(format!("to revoke by '{name}' takes {wants}")));
    }
    let subject = issuer.clone().zip(subject);
    let subject = subject.map(|(issuer, subject)| Principal { issuer, subject });
    Ok(Tokens { what, role, subject, issuer, client })
}

/// The value of what a condition speaks of, where it is about the operation.
pub(super) fn found(operation: &Operation, path: &str) -> Option<String> {
    let text = |value: Option<&str>| {
        value.map_or_else(|| "not said".to_string(), |value| format!("\"{value}\""))
    };
    match (operation, path) {
        (Operation::Administer(what), "context.operation") => Some(text(Some(what.name()))),
        (Operation::Revoke(tokens), "context.what") => Some(text(Some(tokens.what.name()))),
        (Operation::Revoke(tokens), "context.of_issuer") => Some(text(tokens.issuer.as_deref())),
        (Operation::Revoke(tokens), "context.of_client") => Some(text(tokens.client.as_deref())),
        (Operation::Revoke(tokens), "context.of_subject") => Some(match &tokens.subject {
            Some(of) => format!("User::\"{}\"", id_of(&of.issuer, &of.subject)),
            None => "not said".into(),
        }),
        _ => None,
    }
}
