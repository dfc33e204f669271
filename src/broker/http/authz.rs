//! The endpoint that a proxy asks about a request: nginx (`auth_request`), Traefik
//! (`ForwardAuth`) and Envoy (`ext_authz` over HTTP).
//!
//! What the request is, only the proxy may say: others are turned away, and each kind of
//! proxy is believed in its own headers alone, which it sets itself. Decisions are counted,
//! and logged where the log is detailed; they are not on record one by one, as the token
//! that a decision rests on is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HOST};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::Value;

use super::api::{
    About, Answer, Api, CHALLENGE, DPOP_NONCE, Endpoint, Header, Operation, Parameter, Scheme,
    Verb, unavailable,
};
use super::guard::{Guard, RequestId};
use super::refusal::{self, Refusal};
use super::source::Source;
use super::token::RETRY_AFTER;
use crate::broker::Broker;
use crate::broker::authenticate::{self, names};
use crate::broker::authz::{self, Credentials, Held};
use crate::broker::config::{self, Authz, Binding, ForwardedHeader, Nonces, Proxy, Route};
use crate::broker::issue;
use crate::broker::metrics::Authorization;
use crate::broker::network::Network;
use crate::broker::origins::{self, Used};
use crate::broker::own::OwnToken;
use crate::broker::proof::{self, Fault, Place};
use crate::dpop::{self, Target};
use crate::secret::Secret;
use crate::wire::refusal::{
    INSUFFICIENT_SCOPE, INVALID_DPOP_PROOF, INVALID_REQUEST, INVALID_TOKEN, USE_DPOP_NONCE,
};

/// Where it is, below the path of the broker's issuer.
const PATH: &str = "v1/authz";

/// What a request that is let through is told to come from.
const PASSED: [Header; 6] = [
    Header::always("tmpcred-subject", "The subject of the token"),
    Header::always("tmpcred-issuer", "Whose word it is who that is"),
    Header::always("tmpcred-actor", "Who acts for the subject; empty where nobody does"),
    Header::always("tmpcred-role", "The role"),
    Header::always("tmpcred-scope", "What the token covers, separated by spaces"),
    Header::always("tmpcred-jti", "The id of the token"),
];

/// The endpoint on a listener of its own.
pub fn routes(broker: Arc<Broker>, guard: &Guard) -> Api {
    let base = super::base(&broker);
    let about = About { server: "/".into(), ..super::about(String::new(), &broker.issuer) };
    let endpoints = endpoints(&base).into_iter().chain([super::api::description(&base)]);
    Api::mount(endpoints.collect(), &about, broker.clone(), &broker, guard)
}

/// The endpoint, at its paths.
pub(super) fn endpoints(base: &str) -> [Endpoint<Arc<Broker>>; 4] {
    let route = Parameter::path("route", "The name of an `[authz.route.NAME]`");
    let rest =
        Parameter::path("rest", "With Envoy, the path that the request is for; may have `/`");
    [
        ("", "authz", &[][..]),
        ("/{route}", "authz-route", &[route]),
        ("/{route}/", "authz-route-root", &[route]),
        ("/{route}/{*rest}", "authz-route-path", &[route, rest]),
    ]
    .map(|(behind, id, parameters)| {
        let path = format!("{base}/{PATH}{behind}");
        Endpoint::new(path, Verb::Any, any(decide), operation(id, parameters))
            .shedding()
            .limited(config::Endpoint::Authz)
    })
}

fn operation(id: &'static str, parameters: &[Parameter]) -> Operation {
    let passed = Answer::empty(200, "The request may pass, as whose the headers say");
    let passed = PASSED.into_iter().fold(passed, Answer::with);
    let unproved = Answer::refusal(
        401,
        "No token came with the request, none that is good, or no proof that is",
        &["unauthorized", INVALID_REQUEST, INVALID_TOKEN, INVALID_DPOP_PROOF, USE_DPOP_NONCE],
    );
    let lacking = CHALLENGE.sometimes();
    Operation::new(id, "Decide whether a request may pass that a proxy holds up")
        .about(
            "For proxies that are known by their addresses; any method will do, also one that has no name here. \
             It takes the headers `Authorization` and `DPoP` of the request, and of the kind of proxy that is configured \
             what the request is.",
        )
        .takes(parameters)
        .takes(&[
            Parameter::header("X-Original-Method", "With nginx: the method of the request"),
            Parameter::header("X-Original-Host", "With nginx: its host"),
            Parameter::header("X-Original-URI", "With nginx: its path and query"),
            Parameter::header("X-Original-Source", "With nginx and Envoy: where it came from"),
            Parameter::header("X-Forwarded-Method", "With Traefik: the method of the request"),
            Parameter::header("X-Forwarded-Host", "With Traefik: its host"),
            Parameter::header("X-Forwarded-Uri", "With Traefik: its path and query"),
            Parameter::header("X-Forwarded-For", "With Traefik: where it came from"),
        ])
        .shown(&[&[Scheme::Bearer], &[Scheme::Dpop, Scheme::DpopProof]])
        .answers(passed)
        .answers(unproved.with(CHALLENGE).with(DPOP_NONCE))
        .answers(
            Answer::refusal(
                403,
                "The token is not good for so much, no route is for the request, or whoever asks is no proxy",
                &["forbidden", INSUFFICIENT_SCOPE],
            )
            .with(lacking),
        )
        .answers(unavailable("The broker cannot tell at present whether the token is good"))
}

fn prefix(broker: &Broker) -> String {
    format!("{}/{PATH}", super::base(broker))
}

async fn decide(
    State(broker): State<Arc<Broker>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    id: RequestId,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let refuse = |route, outcome, why: &str| {
        broker.metrics.authorized(route, outcome);
        tracing::info!(why, "not let through");
        Refusal::new(StatusCode::FORBIDDEN, "forbidden", why).at(id)
    };
    let book = broker.policies();
    let Some(config) = book.authz() else {
        return refuse(None, Authorization::Forbidden, "nothing is decided here");
    };
    if !config.is_for(peer.ip(), &broker.trusted_proxies) {
        let why = "this is for proxies, and you are none that is known";
        return refuse(None, Authorization::Stranger, why);
    }
    let asked = uri.path().strip_prefix(&prefix(&broker)).unwrap_or_default();
    let asked = match Asked::read(config, &method, asked, uri.query(), &headers) {
        Ok(asked) => asked,
        Err(why) => return refuse(None, Authorization::Forbidden, why),
    };
    let counted = |outcome| broker.metrics.authorized(Some(asked.name), outcome);
    let told = |why: &str| tracing::info!(why, "not let through");
    let nonce = || broker.proofs.nonces().give(Place::Resource, broker.clock.now());
    let (scheme, token) = match credentials(&headers) {
        Ok(Some(shown)) => shown,
        Ok(None) => {
            counted(Authorization::Unauthenticated);
            let why = "no token came with the request";
            told(why);
            return challenge(asked.route, None, why, id);
        }
        Err(why) => {
            counted(Authorization::Unauthenticated);
            told(why);
            return challenge(asked.route, Some((Shown::Bearer, INVALID_REQUEST)), why, id);
        }
    };
    let proof = match (scheme, proof::header(&headers)) {
        (Shown::Bearer, _) => Ok(None),
        (Shown::Bound, proof) => proof,
    };
    let from = sender(config, &broker.trusted_proxies, peer.ip(), &headers);
    let outcome = match proof {
        Ok(proof) => {
            let shown = match scheme {
                Shown::Bearer => Credentials::Bearer(&token),
                Shown::Bound => Credentials::Bound(&token, proof),
            };
            let (route, method) = (asked.route, asked.method.as_str());
            let held = Held { route, method, targets: &asked.targets, shown, from };
            broker.authorize(config, held).await
        }
        Err(refused) => Err(authz::Refusal::Proof(refused)),
    };
    match outcome {
        Ok(own) => match passed(asked.route, &own) {
            Some(response) => {
                counted(Authorization::Allowed);
                if let Some(sender) = from {
                    let used = Used::of(&own, sender, origins::Place::Authz);
                    broker.origins.used(&book.config().origins, used);
                }
                tracing::debug!(jti = %own.jti, role = own.role, "let through");
                response
            }
            None => {
                let why = "what is to be said of the caller cannot be written into a header";
                refuse(Some(asked.name), Authorization::Forbidden, why)
            }
        },
        Err(authz::Refusal::Token(why)) => {
            counted(Authorization::Unauthenticated);
            told(why);
            challenge(asked.route, Some((scheme, INVALID_TOKEN)), why, id)
        }
        Err(authz::Refusal::Proof(refused)) => {
            counted(Authorization::Unauthenticated);
            broker.metrics.proof_rejected(refused.fault);
            let why = authenticate::said(&refused.error);
            told(&why);
            let code = match refused.fault {
                Fault::Nonce => USE_DPOP_NONCE,
                _ => INVALID_DPOP_PROOF,
            };
            let mut response = challenge(asked.route, Some((Shown::Bound, code)), &why, id);
            // RFC 9449 section 11.3: who was given one may not do without.
            let wanted = config.nonces == Nonces::Required || refused.fault == Fault::Nonce;
            if wanted && let Ok(nonce) = HeaderValue::from_str(&nonce()) {
                response.headers_mut().insert(dpop::NONCE_HEADER, nonce);
            }
            response
        }
        Err(authz::Refusal::Scope(scopes)) => {
            counted(Authorization::Forbidden);
            let (why, scopes) = ("the token lacks scope", issue::joined(&scopes));
            told(why);
            insufficient(scheme, &format!(", scope=\"{scopes}\""), why, id)
        }
        Err(authz::Refusal::Role) => {
            counted(Authorization::Forbidden);
            let why = "the token is of another role";
            told(why);
            insufficient(scheme, "", why, id)
        }
        Err(authz::Refusal::Unavailable(error)) => {
            counted(Authorization::Unavailable);
            tracing::error!(%error, "it cannot be decided whether a request may pass");
            let why = "the broker cannot tell at present whether the token is good";
            Refusal::unavailable(why, RETRY_AFTER).at(id)
        }
    }
}

/// Where the request that a proxy holds up comes from, where the proxy says so.
fn sender(
    config: &Authz,
    trusted: &[Network],
    peer: IpAddr,
    headers: &HeaderMap,
) -> Option<IpAddr> {
    match config.proxy {
        // What else they send of that, callers may have written.
        Proxy::Nginx | Proxy::Envoy => one(headers, "x-original-source").ok()?.parse().ok(),
        Proxy::Traefik => {
            let proxies = config.proxies(trusted);
            let said = ForwardedHeader::XForwardedFor;
            let Source(sender) = Source::of(peer, headers, proxies, said).ok()?;
            (!proxies.iter().any(|proxy| proxy.contains(sender))).then_some(sender)
        }
    }
}

/// What a proxy asks about.
struct Asked<'a> {
    /// The name of the route.
    name: &'a str,
    route: &'a Route,
    method: String,
    /// Where it may have been sent to: the proxy does not say by which scheme.
    targets: Vec<Target>,
}

impl<'a> Asked<'a> {
    /// `behind` is what of the path comes behind that of the endpoint: the name of a
    /// route, where the proxy names one, and with Envoy the path of the request.
    fn read(
        config: &'a Authz,
        method: &Method,
        behind: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self, &'static str> {
        let (name, rest) = match behind.strip_prefix('/') {
            None => (None, ""),
            Some(behind) => {
                let end = behind.find('/').unwrap_or(behind.len());
                (Some(&behind[..end]), &behind[end..])
            }
        };
        let one = |name: &str| one(headers, name);
        let (method, host, uri) = match config.proxy {
            Proxy::Envoy => {
                let uri = match query {
                    Some(query) => format!("{rest}?{query}"),
                    None => rest.to_string(),
                };
                (method.as_str(), one(HOST.as_str())?, uri)
            }
            _ if !rest.trim_end_matches('/').is_empty() => {
                return Err("there is more behind the name of the route");
            }
            Proxy::Nginx => {
                (one("x-original-method")?, one("x-original-host")?, one("x-original-uri")?.into())
            }
            Proxy::Traefik => (
                one("x-forwarded-method")?,
                one("x-forwarded-host")?,
                one("x-forwarded-uri")?.into(),
            ),
        };
        if !uri.starts_with('/') {
            return Err("the proxy does not say which path the request is for");
        }
        let of_host = |route: &Route| {
            let all = route.origins.iter().map(|origin| origin.origin().ascii_serialization());
            let found: Vec<_> = all.filter(|origin| is_at(origin, host)).collect();
            (!found.is_empty()).then_some(found)
        };
        let found = match name {
            Some(name) => {
                let route = config.route.get_key_value(name).ok_or("there is no such route")?;
                of_host(route.1).map(|origins| (route, origins))
            }
            None => {
                let all = config.route.iter();
                let mut all = all.filter_map(|route| Some((route, of_host(route.1)?)));
                match (all.next(), all.next()) {
                    (Some(_), Some(_)) => {
                        return Err("several routes are for this host: the proxy has to name one");
                    }
                    (found, _) => found,
                }
            }
        };
        let ((name, route), origins) = found.ok_or("no route is for this host")?;
        let targets = origins.iter().map(|origin| Target::parse(&format!("{origin}{uri}")));
        let targets = targets.collect::<Option<_>>().ok_or("the path of the request is none")?;
        Ok(Self { name, route, method: method.to_string(), targets })
    }
}

/// Whether a request with this `Host` goes to this origin. It is written as in there, but for
/// case and a port that goes without saying: of what would have to be decoded or tidied up first,
/// such as `%61pi.example.com`, a proxy may think that it is another host.
fn is_at(origin: &str, host: &str) -> bool {
    let Some((scheme, _)) = origin.split_once("://") else { return false };
    let Ok(url) = url::Url::parse(&format!("{scheme}://{host}")) else { return false };
    let (Some(name), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return false;
    };
    let as_written =
        host.eq_ignore_ascii_case(name) || host.eq_ignore_ascii_case(&format!("{name}:{port}"));
    as_written && url.origin().ascii_serialization() == origin
}

/// The one value of a header that the proxy sets.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, &'static str> {
    let mut given = headers.get_all(name).iter();
    match (given.next().map(HeaderValue::to_str), given.next()) {
        (Some(Ok(one)), None) => Ok(one),
        _ => Err("the proxy does not say what the request is, or says it twice"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Bearer,
    Bound,
}

/// The token of a request; `None` where there is none.
fn credentials(headers: &HeaderMap) -> Result<Option<(Shown, Secret<String>)>, &'static str> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let one = match (given.next(), given.next()) {
        (None, _) => return Ok(None),
        (Some(one), None) => one.to_str().map_err(|_| "the header Authorization is not text")?,
        (Some(_), Some(_)) => return Err("there are two headers Authorization"),
    };
    // Other schemes are none of ours, and none that would be good here.
    let Some((scheme, token)) = one.split_once(' ') else { return Ok(None) };
    let scheme = match scheme {
        bearer if bearer.eq_ignore_ascii_case("bearer") => Shown::Bearer,
        bound if bound.eq_ignore_ascii_case(dpop::SCHEME) => Shown::Bound,
        _ => return Ok(None),
    };
    Ok(Some((scheme, Secret::new(token.trim().to_string()))))
}

/// A request that may pass, and as whose. `None` where a value would be no header: it is
/// never changed to fit.
fn passed(route: &Route, own: &OwnToken) -> Option<Response> {
    let mut headers = HeaderMap::new();
    let jti = own.jti.to_string();
    // Where nobody acts it is empty: a caller might have sent one.
    let actors = issue::acting(&own.actors).unwrap_or_default();
    let values = [
        own.subject.as_str(),
        own.principal.issuer.as_str(),
        actors.as_str(),
        own.role.as_str(),
        own.scope.as_str(),
        jti.as_str(),
    ];
    for (header, value) in PASSED.iter().zip(values) {
        headers.insert(HeaderName::from_static(header.name), plain(value)?);
    }
    for (header, claim) in &route.headers {
        // Empty where the token does not say it, for the same reason.
        let said = names::claim(&own.claims, claim).map_or(Some(String::new()), listed);
        let Some(value) = said.and_then(|said| plain(&said)) else {
            tracing::info!(jti = %own.jti, header, claim, "a claim cannot be written into a header");
            return None;
        };
        headers.insert(HeaderName::try_from(header).ok()?, value);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some((StatusCode::OK, headers).into_response())
}

/// A text as the value of a header.
fn plain(value: &str) -> Option<HeaderValue> {
    let plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    HeaderValue::from_str(value).ok().filter(|_| plain)
}

/// A claim as the value of a header. `None` where it would be taken for several, for another
/// one, or for none: blanks at the ends are no part of a value (RFC 9110 section 5.5).
fn listed(claim: &Value) -> Option<String> {
    let whole = |text: &&str| !text.is_empty() && text.trim() == *text;
    match claim {
        Value::String(text) => Some(&**text).filter(whole).map(String::from),
        Value::Array(values) => {
            let texts: Option<Vec<&str>> = values.iter().map(Value::as_str).collect();
            let alone = |text: &&str| whole(text) && !text.contains(',');
            texts.filter(|texts| texts.iter().all(alone)).map(|texts| texts.join(","))
        }
        _ => None,
    }
}

/// What would be accepted (RFC 6750 section 3, RFC 9449 section 7.1), and what is wrong.
/// One header, as some proxies pass only one on.
fn challenge(
    route: &Route,
    wrong: Option<(Shown, &'static str)>,
    why: &str,
    id: RequestId,
) -> Response {
    let algorithms = refusal::algorithms();
    let said = refusal::printable(why);
    let error = |scheme| match wrong {
        Some((at, code)) if at == scheme => {
            format!(", error=\"{code}\", error_description=\"{said}\"")
        }
        _ => String::new(),
    };
    let bound = format!("DPoP algs=\"{algorithms}\"{}", error(Shown::Bound));
    let bearer = format!("Bearer realm=\"tmpcred\"{}", error(Shown::Bearer));
    let value = match (route.dpop, wrong) {
        (Binding::Required, Some((Shown::Bearer, _))) => format!("{bearer}, {bound}"),
        (Binding::Required, _) | (_, Some((Shown::Bound, _))) => bound,
        (Binding::Optional, _) => format!("{bearer}, {bound}"),
    };
    let code = wrong.map_or("unauthorized", |(_, code)| code);
    Refusal::new(StatusCode::UNAUTHORIZED, code, why).challenging(value).at(id)
}

/// RFC 6750 section 3.1.
fn insufficient(scheme: Shown, more: &str, why: &str, id: RequestId) -> Response {
    let error = format!("error=\"{INSUFFICIENT_SCOPE}\"{more}");
    let challenge = match scheme {
        Shown::Bearer => format!("Bearer {error}"),
        Shown::Bound => format!("DPoP algs=\"{}\", {error}", refusal::algorithms()),
    };
    Refusal::new(StatusCode::FORBIDDEN, INSUFFICIENT_SCOPE, why).challenging(challenge).at(id)
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_route_gives_a_header_another_meaning() {
        for header in PASSED {
            let rest = header.name.strip_prefix("tmpcred-").unwrap();
            assert!(config::TAKEN.contains(&rest), "{rest}");
        }
    }
}
