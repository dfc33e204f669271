//! `tmpcred verify`

use std::path::Path;

use serde_json::json;

use crate::cli::App;
use crate::cli::args::Verify;
use crate::cli::show;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::host::http::HttpClient;
use crate::host::{Host, files, process};
use crate::mint::broker::Server;
use crate::oidc::introspection::require_active;
use crate::oidc::jwt::{ALGORITHMS, LEEWAY, decode_unverified, verify};
use crate::oidc::{Claims, Discovery, Expectations, Issuer, Keys, NoDocuments, RemoteKeys};
use crate::reach::Effort;
use crate::secret::Secret;

use super::inspect::read_token;

/// How large a file with keys or certificates may be.
const MAX_FILE: u64 = 1024 * 1024;

pub(super) fn run(app: &App, args: &Verify) -> Result<()> {
    let token = read_token(&args.file)?;
    let server = server(app, args, token.expose())?;
    let expected = Expectations {
        issuer: server.issuer().as_str(),
        audiences: &args.audience,
        algorithms: ALGORITHMS,
        nonce: None,
        now: app.host.clock.now(),
        leeway: LEEWAY,
    };
    let claims = match &args.jwks {
        Some(file) if !args.online => verify(token.expose(), &keys(file)?, &expected)?,
        _ => {
            let asked = ask(&app.host, args, &server, &token, &expected);
            process::runtime()?.block_on(asked)?
        }
    };
    if args.json {
        let report = json!({ "verified": true, "online": args.online, "claims": claims.all });
        return app.ui.json(&report);
    }
    let left = claims.expires_at - app.host.clock.now();
    let rows = [
        ["issuer".into(), claims.principal.issuer],
        ["subject".into(), claims.principal.subject],
        ["audience".into(), claims.audience.join(", ")],
        [
            "expires".into(),
            format!("{} (in {})", show::moment(claims.expires_at), show::duration(left)),
        ],
    ];
    app.ui.line(if args.online {
        "The token is good, and its issuer says so.\n"
    } else {
        "The token is good.\n"
    })?;
    app.ui.table(["CLAIM", "VALUE"], rows)
}

/// Who is trusted for this token: the issuer on the command line, or the configured
/// broker that the token names. What the token says alone is no reason to trust
/// anybody.
fn server(app: &App, args: &Verify, token: &str) -> Result<Server> {
    if let Some(text) = &args.issuer {
        let issuer = Issuer::parse(text).map_err(|why| {
            Error::new(ErrorKind::Usage, "--issuer is not acceptable").because_of(why)
        })?;
        return Ok(Server { ca_file: args.ca_file.clone(), ..issuer.into() });
    }
    let named = decode_unverified(token)?.claims;
    let named = named.get("iss").and_then(|iss| iss.as_str()).unwrap_or_default();
    let config = config::load(&app.host)?;
    let server = config.brokers.values().find(|server| server.issuer().as_str() == named);
    let server = server.ok_or_else(|| {
        Error::new(ErrorKind::Verification, "the token is not that of a configured broker")
            .because_of(format!("it names the issuer '{}'", show::printable(named)))
            .hint("name the issuer that you trust with --issuer")
    })?;
    let ca_file = args.ca_file.clone().or_else(|| server.ca_file.clone());
    Ok(Server { ca_file, ..server.clone() })
}

/// Asks the issuer for what is not at hand: its keys, and with `--online` whether the
/// token is still good.
async fn ask(
    host: &Host,
    args: &Verify,
    server: &Server,
    token: &Secret<String>,
    expected: &Expectations<'_>,
) -> Result<Claims> {
    let ca = server.ca_file.as_deref().map(read).transpose()?;
    let http = HttpClient::new(host.clock.clone(), host.skew.clone(), ca);
    server
        .ask(host, Effort::LOOK, None, async |address| {
            Ok(ask_at(address, host, args, server.issuer(), &http, token, expected).await?)
        })
        .await
}

/// Asks at one of the issuer's addresses.
async fn ask_at(
    address: &Issuer,
    host: &Host,
    args: &Verify,
    issuer: &Issuer,
    http: &HttpClient,
    token: &Secret<String>,
    expected: &Expectations<'_>,
) -> Result<Claims> {
    let discovery = Discovery::fetch_at(address, issuer, http, &*host.clock, &NoDocuments).await?;
    // Asking the issuer has told how far this clock is off.
    let expected = Expectations { now: host.corrected_now(), ..expected.clone() };
    let claims = match &args.jwks {
        Some(file) => verify(token.expose(), &keys(file)?, &expected)?,
        None => {
            let keys = RemoteKeys::new(discovery.jwks_uri, http.clone(), host.clock.clone());
            keys.verify(token.expose(), &expected, &NoDocuments).await?
        }
    };
    if args.online {
        let endpoint = discovery.introspection_endpoint.ok_or_else(|| {
            Error::new(ErrorKind::Denied, format!("the issuer {issuer} does not tell"))
                .because_of("its discovery document names no introspection endpoint")
                .hint("leave out --online to check here only")
        })?;
        require_active(endpoint, http, token, &claims).await?;
    }
    Ok(claims)
}

fn keys(file: &Path) -> Result<Keys> {
    Keys::parse(&read(file)?)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    files::read(file, MAX_FILE)?
        .ok_or_else(|| Error::new(ErrorKind::Io, format!("there is no file {}", file.display())))
}
