//! The endpoint that a proxy asks about a request: nginx (`auth_request`), Traefik
//! (`ForwardAuth`) and Envoy (`ext_authz` over HTTP).
//!
//! What the request is, only the proxy may say: others are turned away, and each kind of
//! proxy is believed in its own headers alone, which it sets itself. Decisions are counted,
//! and logged where the log is detailed; they are not on record one by one, as the token
//! that a decision rests on is.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HOST, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use super::guard::{self, Guard, RequestId};
use super::refusal::{self, Refusal};
use super::token::RETRY_AFTER;
use crate::broker::authz::{self, Credentials, Held};
use crate::broker::config::{Authz, Binding, Proxy, Route};
use crate::broker::issue;
use crate::broker::metrics::Authorization;
use crate::broker::own::OwnToken;
use crate::broker::proof::{self, Fault, Place};
use crate::broker::{Broker, authenticate};
use crate::dpop::{self, Target};
use crate::secret::Secret;
use crate::wire::refusal::{INVALID_DPOP_PROOF, INVALID_TOKEN, USE_DPOP_NONCE};

/// Where it is, below the path of the broker's issuer.
const PATH: &str = "v1/authz";

/// What a request that is let through is told to come from.
const SUBJECT: HeaderName = HeaderName::from_static("tmpcred-subject");
const ISSUER: HeaderName = HeaderName::from_static("tmpcred-issuer");
const ACTOR: HeaderName = HeaderName::from_static("tmpcred-actor");
const ROLE: HeaderName = HeaderName::from_static("tmpcred-role");
const SCOPE: HeaderName = HeaderName::from_static("tmpcred-scope");
const TOKEN_ID: HeaderName = HeaderName::from_static("tmpcred-jti");

/// The endpoint, where the configuration has one.
pub fn routes(broker: Arc<Broker>, guard: &Guard) -> Router {
    if broker.authz.is_none() {
        return Router::new();
    }
    let path = prefix(&broker);
    Router::new()
        .route(&path, any(decide))
        .route(&format!("{path}/{{route}}"), any(decide))
        .route(&format!("{path}/{{route}}/"), any(decide))
        .route(&format!("{path}/{{route}}/{{*rest}}"), any(decide))
        .layer(axum::middleware::from_fn_with_state(guard.clone(), guard::shed_load))
        .with_state(broker)
}

fn prefix(broker: &Broker) -> String {
    format!("{}/{PATH}", broker.issuer.url().path().trim_end_matches('/'))
}

async fn decide(
    State(broker): State<Arc<Broker>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    id: RequestId,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let counted = |outcome| broker.metrics.authorized(outcome);
    let refuse = |outcome, status, why: &str| {
        counted(outcome);
        tracing::info!(why, "not let through");
        Refusal::new(status, "forbidden", why).at(id)
    };
    let Some(config) = &broker.authz else {
        return refuse(Authorization::Forbidden, StatusCode::FORBIDDEN, "nothing is decided here");
    };
    if !config.proxies(&broker.trusted_proxies).iter().any(|proxy| proxy.contains(peer.ip())) {
        let why = "this is for proxies, and you are none that is known";
        return refuse(Authorization::Stranger, StatusCode::FORBIDDEN, why);
    }
    let asked = uri.path().strip_prefix(&prefix(&broker)).unwrap_or_default();
    let asked = match Asked::read(config, &method, asked, uri.query(), &headers) {
        Ok(asked) => asked,
        Err(why) => return refuse(Authorization::Forbidden, StatusCode::FORBIDDEN, why),
    };
    let nonce = || broker.proofs.nonces().give(Place::Resource, broker.clock.now());
    let (scheme, token) = match credentials(&headers) {
        Ok(Some(shown)) => shown,
        Ok(None) => {
            counted(Authorization::Unauthenticated);
            return challenge(asked.route, None, "no token came with the request", id);
        }
        Err(why) => {
            counted(Authorization::Unauthenticated);
            return challenge(asked.route, Some((Scheme::Bearer, "invalid_request")), why, id);
        }
    };
    let proof = match (scheme, proof::header(&headers)) {
        (Scheme::Bearer, _) => Ok(None),
        (Scheme::Bound, proof) => proof,
    };
    let outcome = match proof {
        Ok(proof) => {
            let shown = match scheme {
                Scheme::Bearer => Credentials::Bearer(&token),
                Scheme::Bound => Credentials::Bound(&token, proof),
            };
            let (route, method) = (asked.route, asked.method.as_str());
            let held = Held { route, method, target: &asked.target, shown };
            broker.authorize(config, held).await
        }
        Err(refused) => Err(authz::Refusal::Proof(refused)),
    };
    match outcome {
        Ok(own) => match passed(&own) {
            Some(response) => {
                counted(Authorization::Allowed);
                tracing::debug!(jti = %own.jti, role = own.role, "let through");
                response
            }
            None => {
                let why = "who the caller is cannot be written into a header";
                refuse(Authorization::Forbidden, StatusCode::FORBIDDEN, why)
            }
        },
        Err(authz::Refusal::Token(why)) => {
            counted(Authorization::Unauthenticated);
            tracing::info!(why, "not let through");
            challenge(asked.route, Some((scheme, INVALID_TOKEN)), why, id)
        }
        Err(authz::Refusal::Proof(refused)) => {
            counted(Authorization::Unauthenticated);
            broker.metrics.proof_rejected(refused.fault);
            let why = authenticate::said(&refused.error);
            tracing::info!(why, "not let through");
            let code = match refused.fault {
                Fault::Nonce => USE_DPOP_NONCE,
                _ => INVALID_DPOP_PROOF,
            };
            let mut response = challenge(asked.route, Some((Scheme::Bound, code)), &why, id);
            if let Ok(nonce) = HeaderValue::from_str(&nonce()) {
                response.headers_mut().insert(dpop::NONCE_HEADER, nonce);
            }
            response
        }
        Err(authz::Refusal::Scope(scopes)) => {
            counted(Authorization::Forbidden);
            let scopes = issue::joined(&scopes);
            insufficient(scheme, &format!(", scope=\"{scopes}\""), "the token lacks scope", id)
        }
        Err(authz::Refusal::Role) => {
            counted(Authorization::Forbidden);
            insufficient(scheme, "", "the token is of another role", id)
        }
        Err(authz::Refusal::Unavailable(error)) => {
            counted(Authorization::Unavailable);
            tracing::error!(%error, "it cannot be decided whether a request may pass");
            let why = "the broker cannot tell at present whether the token is good";
            Refusal::unavailable(why, RETRY_AFTER).at(id)
        }
    }
}

/// What a proxy asks about.
struct Asked<'a> {
    route: &'a Route,
    method: String,
    target: Target,
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
            let origin = route.origins.iter().map(|origin| origin.origin().ascii_serialization());
            let mut origin = origin.filter(|origin| is_at(origin, host));
            origin.next()
        };
        let found = match name {
            Some(name) => {
                let route = config.route.get(name).ok_or("there is no such route")?;
                of_host(route).map(|origin| (route, origin))
            }
            None => {
                let all = config.route.values();
                let mut all = all.filter_map(|route| Some((route, of_host(route)?)));
                match (all.next(), all.next()) {
                    (Some(_), Some(_)) => {
                        return Err("several routes are for this host: the proxy has to name one");
                    }
                    (found, _) => found,
                }
            }
        };
        let (route, origin) = found.ok_or("no route is for this host")?;
        let target = Target::parse(&format!("{origin}{uri}"));
        let target = target.ok_or("the path of the request is none")?;
        Ok(Self { route, method: method.to_string(), target })
    }
}

/// Whether a request with this `Host` goes to this origin.
fn is_at(origin: &str, host: &str) -> bool {
    let Some((scheme, _)) = origin.split_once("://") else { return false };
    let bare = !host.is_empty() && !host.contains(['/', '?', '#', '@', '\\']);
    let url = url::Url::parse(&format!("{scheme}://{host}"));
    bare && url.is_ok_and(|url| url.origin().ascii_serialization() == origin)
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
enum Scheme {
    Bearer,
    Bound,
}

/// The token of a request; `None` where there is none.
fn credentials(headers: &HeaderMap) -> Result<Option<(Scheme, Secret<String>)>, &'static str> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let one = match (given.next(), given.next()) {
        (None, _) => return Ok(None),
        (Some(one), None) => one.to_str().map_err(|_| "the header Authorization is not text")?,
        (Some(_), Some(_)) => return Err("there are two headers Authorization"),
    };
    // Other schemes are none of ours, and none that would be good here.
    let Some((scheme, token)) = one.split_once(' ') else { return Ok(None) };
    let scheme = match scheme {
        bearer if bearer.eq_ignore_ascii_case("bearer") => Scheme::Bearer,
        bound if bound.eq_ignore_ascii_case(dpop::SCHEME) => Scheme::Bound,
        _ => return Ok(None),
    };
    Ok(Some((scheme, Secret::new(token.trim().to_string()))))
}

/// A request that may pass, and as whose. `None` where a value would be no header: it is
/// never changed to fit.
fn passed(own: &OwnToken) -> Option<Response> {
    let mut headers = HeaderMap::new();
    let jti = own.jti.to_string();
    // Where nobody acts it is empty: a caller might have sent one.
    let actors = issue::acting(&own.actors).unwrap_or_default();
    for (name, value) in [
        (SUBJECT, own.subject.as_str()),
        (ISSUER, own.principal.issuer.as_str()),
        (ACTOR, actors.as_str()),
        (ROLE, own.role.as_str()),
        (SCOPE, own.scope.as_str()),
        (TOKEN_ID, jti.as_str()),
    ] {
        let plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        headers.insert(name, HeaderValue::from_str(value).ok().filter(|_| plain)?);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some((StatusCode::OK, headers).into_response())
}

/// What would be accepted (RFC 6750 section 3, RFC 9449 section 7.1), and what is wrong.
/// One header, as some proxies pass only one on.
fn challenge(
    route: &Route,
    wrong: Option<(Scheme, &'static str)>,
    why: &str,
    id: RequestId,
) -> Response {
    let algorithms = dpop::ALGORITHMS.map(|(name, _)| name).join(" ");
    let said = refusal::printable(why);
    let error = |scheme| match wrong {
        Some((at, code)) if at == scheme => {
            format!(", error=\"{code}\", error_description=\"{said}\"")
        }
        _ => String::new(),
    };
    let bound = format!("DPoP algs=\"{algorithms}\"{}", error(Scheme::Bound));
    let bearer = format!("Bearer realm=\"tmpcred\"{}", error(Scheme::Bearer));
    let value = match (route.dpop, wrong) {
        (Binding::Required, Some((Scheme::Bearer, _))) => format!("{bearer}, {bound}"),
        (Binding::Required, _) | (_, Some((Scheme::Bound, _))) => bound,
        (Binding::Optional, _) => format!("{bearer}, {bound}"),
    };
    let code = wrong.map_or("unauthorized", |(_, code)| code);
    let mut response = Refusal::new(StatusCode::UNAUTHORIZED, code, why).at(id);
    // It has nothing but printable ASCII.
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

/// RFC 6750 section 3.1.
fn insufficient(scheme: Scheme, more: &str, why: &str, id: RequestId) -> Response {
    let name = if scheme == Scheme::Bound { dpop::SCHEME } else { "Bearer" };
    let mut response = Refusal::new(StatusCode::FORBIDDEN, "insufficient_scope", why).at(id);
    let value = format!("{name} error=\"insufficient_scope\"{more}");
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

#[cfg(test)]
mod fuzz;
