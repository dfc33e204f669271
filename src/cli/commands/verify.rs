//! `tmpcred verify`

use std::path::Path;

use serde_json::json;

use crate::cli::args::Verify;
use crate::cli::{App, misuse, require_file, show};
use crate::config;
use crate::dpop::{self, Bound, Expected, Shown};
use crate::error::{Error, ErrorKind, Result};
use crate::host::http::HttpClient;
use crate::host::{Host, files, process};
use crate::mint::broker::Server;
use crate::oidc::introspection::{claims_of, require_active};
use crate::oidc::jwt::{
    ALGORITHMS, LEEWAY, MAX_TOKEN, check_access_token, decode_unverified, verify,
};
use crate::oidc::{Claims, Discovery, Expectations, Issuer, Keys, NoDocuments, RemoteKeys};
use crate::reach::Effort;
use crate::secret::Secret;

use super::inspect::read_token;

/// How large a file with keys or certificates may be.
const MAX_FILE: u64 = 1024 * 1024;

pub(super) fn run(app: &App, args: &Verify) -> Result<()> {
    if args.dpop_proof.as_ref() == Some(&args.file) {
        return Err(misuse("the token and the proof cannot come from the same file"));
    }
    let token = read_token(&args.file)?;
    let proof = args.dpop_proof.as_deref().map(read_token).transpose()?;
    if is_opaque(token.expose()) && !args.online {
        decode_unverified(token.expose()).map_err(|error| {
            error.hint("--online asks its issuer, who alone knows an opaque token")
        })?;
    }
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
    if !args.any_type && !is_opaque(token.expose()) {
        check_access_token(token.expose())
            .map_err(|error| error.hint("--any-type takes tokens of other types too"))?;
    }
    let bound = check_key(app, args, &token, &claims, proof.as_ref())?;
    if args.json {
        let report = json!({
            "verified": true,
            "online": args.online,
            "bound_to": bound,
            "proved": bound.is_some() && !args.without_proof,
            "claims": claims.all,
        });
        return app.ui.json(&report);
    }
    let left = claims.expires_at - app.host.clock.now();
    let key = bound.map(|thumbprint| {
        [
            "key".into(),
            match args.without_proof {
                true => {
                    format!("{thumbprint}: good only with a proof by it, which was not checked")
                }
                false => format!("{thumbprint}: proved for this request"),
            },
        ]
    });
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
        "The token is good. Nobody was asked whether it was revoked (--online).\n"
    })?;
    app.ui.table(["CLAIM", "VALUE"], rows.into_iter().chain(key))
}

/// The key that the token is bound to. Without a proof by it, such a token is refused:
/// whoever stole it would have no more.
fn check_key(
    app: &App,
    args: &Verify,
    token: &Secret<String>,
    claims: &Claims,
    proof: Option<&Secret<String>>,
) -> Result<Option<String>> {
    let wrong = |why: &str| Error::new(ErrorKind::Verification, why);
    let thumbprint = match (Bound::of(&claims.all), proof) {
        (Bound::No, None) => return Ok(None),
        (Bound::No, Some(_)) => {
            return Err(wrong("the token is not bound to a key")
                .because_of("a proof goes with it, which proves nothing then"));
        }
        (Bound::Otherwise, _) => {
            return Err(wrong("the token is bound to something that cannot be checked here"));
        }
        (Bound::To(thumbprint), None) if args.without_proof => return Ok(Some(thumbprint)),
        (Bound::To(thumbprint), None) => {
            return Err(wrong("the token is good only with a proof by the key that it is bound to")
                .because_of(format!("it is bound to the key {thumbprint}, and no proof was given"))
                .hint("give the request's header DPoP, and what it is for: --dpop-proof FILE --dpop METHOD URL")
                .hint("--without-proof checks the token alone"));
        }
        (Bound::To(thumbprint), Some(_)) => thumbprint,
    };
    let (Some(proof), Some([method, url])) = (proof, args.dpop.as_deref()) else {
        return Err(misuse("--dpop-proof goes with --dpop METHOD URL"));
    };
    let (method, target) = super::token::parse(method, url)?;
    let expected = Expected {
        method,
        targets: &[target],
        shown: Shown::With(token.expose()),
        now: app.host.corrected_now(),
    };
    let proof = dpop::verify(proof.expose(), &expected).map_err(|refusal| refusal.error)?;
    if proof.thumbprint != thumbprint {
        return Err(wrong("the DPoP proof is by another key than the token is bound to"));
    }
    if args.nonce.is_some() && proof.nonce != args.nonce {
        return Err(wrong("the DPoP proof does not have the nonce that was given"));
    }
    Ok(Some(thumbprint))
}

/// Whether a token is none that is signed: a text that says nothing.
fn is_opaque(token: &str) -> bool {
    !token.is_empty() && token.len() <= MAX_TOKEN && !token.contains('.')
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
    let config = config::load(&app.host)?;
    let mut servers = config.brokers.values();
    let refused = |why: String| {
        Error::new(ErrorKind::Verification, "the token is not that of a configured broker")
            .because_of(why)
            .hint("name the issuer that you trust with --issuer")
    };
    let server = if is_opaque(token) {
        let one = servers.next().filter(|_| servers.next().is_none());
        one.ok_or_else(|| refused("it names no issuer, and not one broker is configured".into()))?
    } else {
        let named = decode_unverified(token)?.claims;
        let named = named.get("iss").and_then(|iss| iss.as_str()).unwrap_or_default();
        let server = servers.find(|server| server.issuer().as_str() == named);
        let named = show::printable(named);
        server.ok_or_else(|| refused(format!("it names the issuer '{named}'")))?
    };
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
    let introspection = discovery.introspection_endpoint.ok_or_else(|| {
        Error::new(ErrorKind::Denied, format!("the issuer {issuer} does not tell"))
            .because_of("its discovery document names no introspection endpoint")
            .hint("leave out --online to check here only")
    });
    if is_opaque(token.expose()) {
        return claims_of(introspection?, http, token, &expected).await;
    }
    let claims = match &args.jwks {
        Some(file) => verify(token.expose(), &keys(file)?, &expected)?,
        None => {
            let keys = RemoteKeys::new(discovery.jwks_uri, http.clone(), host.clock.clone());
            let mut token = decode_unverified(token.expose())?;
            keys.verify(&mut token, &expected, &NoDocuments).await?
        }
    };
    if args.online {
        require_active(introspection?, http, token, &claims).await?;
    }
    Ok(claims)
}

fn keys(file: &Path) -> Result<Keys> {
    let unusable = || format!("{} cannot be used as a JWKS", file.display());
    Keys::parse(&read(file)?).map_err(|error| error.of_kind(ErrorKind::Usage).context(unusable()))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    require_file(file)?;
    Ok(files::read(file, MAX_FILE)?.unwrap_or_default())
}
