//! `tmpcred inspect`

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value, json};
use time::Duration;

use crate::cli::args::Inspect;
use crate::cli::{App, misuse, require_file, show};
use crate::error::{Error, ErrorKind, Result};
use crate::host::files;
use crate::oidc::jwt;
use crate::secret::Secret;

/// The claims that are times (RFC 7519 section 4.1, OpenID Connect Core section 2).
const TIMES: [&str; 4] = ["iat", "nbf", "exp", "auth_time"];

pub(super) fn run(app: &App, args: &Inspect) -> Result<()> {
    let token = read_token(&args.file)?;
    let parts = jwt::decode_unverified(token.expose()).map_err(|error| {
        error
            .context("this is no token that can be looked into")
            .hint("opaque tokens and handles say nothing; ask their issuer by introspection")
    })?;
    if args.json {
        return app.ui.json(&json!({
            "verified": false,
            "header": parts.header,
            "claims": parts.claims,
        }));
    }
    let now = app.host.clock.now();
    let row = |(name, value): (&String, &Value)| {
        [name.clone(), text(value), meaning(name, &parts.claims, now)]
    };
    app.ui.table(["HEADER", "VALUE", ""], parts.header.iter().map(row))?;
    app.ui.line("")?;
    app.ui.table(["CLAIM", "VALUE", ""], parts.claims.iter().map(row))?;
    app.host.interact.note("\nNothing has been checked. To check it: tmpcred verify --audience …");
    Ok(())
}

/// Reads a token from a file, or from standard input.
pub(crate) fn read_token(file: &Path) -> Result<Secret<String>> {
    const MAX: u64 = jwt::MAX_TOKEN as u64 + 1024;
    if file.to_str().is_some_and(is_token) {
        // It is not said which: this may end up in a log.
        return Err(misuse("this is a token, where a file with one is wanted")
            .because_of("what stands on a command line, others can read")
            .hint("`-` reads it from standard input; where the token was good, revoke it"));
    }
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(MAX).read_to_end(&mut bytes).map_err(|cause| {
            Error::new(ErrorKind::Io, "standard input cannot be read").because(cause)
        })?;
        bytes
    } else {
        require_file(file)?;
        files::read_start(file, MAX)?.unwrap_or_default()
    };
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::new(ErrorKind::Verification, "this is no token: it is not text"))?;
    Ok(Secret::new(text.trim().to_string()))
}

/// Whether a text is a token, rather than the name of a file.
fn is_token(text: &str) -> bool {
    text.starts_with("tmpcred_o_") || jwt::decode_unverified(text).is_ok()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

/// What a time means, for people.
fn meaning(name: &str, claims: &Map<String, Value>, now: time::OffsetDateTime) -> String {
    if !TIMES.contains(&name) {
        return String::new();
    }
    let Ok(Some(moment)) = jwt::moment(claims, name) else { return "not a time".into() };
    let relative = match now - moment {
        passed if passed >= Duration::ZERO => show::ago(passed),
        ahead => format!("in {}", show::duration(ahead)),
    };
    format!("{} ({relative})", show::moment(moment))
}
