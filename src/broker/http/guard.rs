//! What surrounds every endpoint: an id for each request, limits, and an answer
//! even where a handler fails.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use axum::{Router, middleware};
use http_body_util::{BodyExt, LengthLimitError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tracing::Instrument;
use uuid::Uuid;

use super::connections::{Connections, Limits};
use super::form;
use super::hosts::{self, Hosts};
use super::refusal::Refusal;
use super::rest::Rest;
use super::source::Source;
use crate::broker::config::ForwardedHeader;
use crate::broker::ids;
use crate::broker::metrics::{Metrics, Shed};
use crate::broker::network::Network;
use crate::host::clock::{Clock, SystemClock};
use crate::trace::{Step, Tracer, w3c};
use crate::wire;
use crate::wire::refusal::INVALID_REQUEST;

/// How large a request may be, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// How many headers a request may have. Over HTTP/1 the server itself takes no more. Over HTTP/2
/// it goes by their length alone, and short ones take thirty times as much memory as they are
/// long, which somebody would hold for as long as a body may take.
const MAX_HEADERS: usize = 100;

/// What of a body is taken in without further ado. Most requests are no larger, so
/// many large ones keep few out.
const SMALL_BODY: usize = 8 * 1024;

/// How many larger bodies there may be at once: together not more than 64 MiB.
const LARGE_AT_ONCE: usize = 1024;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// How long a request may take, its body included.
const MAX_TIME: Duration = Duration::from_secs(30);

/// How many requests are worked on at once. More are turned away at once, so that
/// those that are accepted are answered in time.
const MAX_AT_ONCE: usize = 512;

/// How many more of those there are with which people act where something has gone wrong: a flood
/// of others is no reason that nothing can be revoked.
const MAX_KEPT: usize = 32;

/// The header with the id of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request: in its answer, in the log and in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(
    /// The id.
    pub Uuid,
);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(*parts.extensions.get_or_insert_with(|| Self(Uuid::new_v4())))
    }
}

/// The limits.
#[derive(Clone)]
pub struct Guard {
    hosts: Hosts,
    proxies: Vec<Network>,
    forwarded: ForwardedHeader,
    connections: Connections,
    at_once: Arc<Semaphore>,
    kept: Arc<Semaphore>,
    /// Whether what is kept is for these requests.
    keeps: bool,
    large: Arc<Semaphore>,
    /// How long a body may take to arrive.
    body_time: Duration,
    /// How long a request may take, its body included.
    max_time: Duration,
    metrics: Arc<Metrics>,
    tracer: Tracer,
    clock: Arc<dyn Clock>,
}

impl Guard {
    /// Limits on size, time, hosts and requests at once.
    pub fn new(hosts: Hosts) -> Self {
        Self {
            hosts,
            proxies: Vec::new(),
            forwarded: ForwardedHeader::default(),
            connections: Connections::default(),
            at_once: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            kept: Arc::new(Semaphore::new(MAX_KEPT)),
            keeps: false,
            large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
            body_time: BODY_TIME,
            max_time: MAX_TIME,
            metrics: Arc::default(),
            tracer: Tracer::default(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Counts here what is answered and what is turned away.
    #[must_use]
    pub fn counting(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Makes a span of each request.
    #[must_use]
    pub fn tracing(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// Believes these proxies about where requests come from, who say it in this header.
    #[must_use]
    pub fn believing(self, proxies: Vec<Network>, forwarded: ForwardedHeader) -> Self {
        Self { proxies, forwarded, ..self }
    }

    /// Takes in connections within these limits.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { connections: Connections::new(limits), ..self }
    }

    /// The same for requests that have room left where there is none for others.
    #[must_use]
    pub(super) fn with_room_kept(self) -> Self {
        Self { keeps: true, ..self }
    }

    /// Room for one more request, where there is some.
    fn room(&self) -> Option<SemaphorePermit<'_>> {
        match self.at_once.try_acquire() {
            Err(_) if self.keeps => self.kept.try_acquire().ok(),
            common => common.ok(),
        }
    }

    #[cfg(test)]
    pub(super) fn with_large_bodies(self, count: usize) -> Self {
        Self { large: Arc::new(Semaphore::new(count)), ..self }
    }

    /// The same with so much time for the body, and for all of a request.
    #[cfg(test)]
    pub(super) fn in_time(self, body_time: Duration, max_time: Duration) -> Self {
        Self { body_time, max_time, ..self }
    }

    /// Leaves no room for another request until the result is dropped, but what is kept.
    #[cfg(test)]
    pub(in crate::broker) fn fill(&self) -> OwnedSemaphorePermit {
        self.at_once.clone().try_acquire_many_owned(MAX_AT_ONCE as u32).unwrap()
    }

    /// Leaves none of what is kept either.
    #[cfg(test)]
    pub(in crate::broker) fn fill_kept(&self) -> OwnedSemaphorePermit {
        self.kept.clone().try_acquire_many_owned(MAX_KEPT as u32).unwrap()
    }

    /// The connections that requests come over.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Puts the limits around endpoints.
    pub fn around(self, routes: Router) -> Router {
        routes
            .layer(RequestBodyLimitLayer::new(MAX_BODY))
            .layer(CatchPanicLayer::custom(panicked))
            .layer(middleware::from_fn_with_state(self, accompany))
    }
}

/// What stands for the route of a request that has none.
const UNKNOWN: &str = "unknown";

/// Turns requests away while too many are worked on, or there are too many large
/// ones. A request counts from when it is there as a whole, and its connection is busy from
/// then on: slow callers cannot keep others out.
pub async fn shed_load(
    State(guard): State<Guard>,
    id: RequestId,
    request: Request,
    next: Next,
) -> Response {
    let (peer, has_body) = (peer_of(&request), !request.body().is_end_stream());
    let route = route_of(&request).unwrap_or_else(|| UNKNOWN.into());
    let (parts, body) = request.into_parts();
    let late = || {
        let why = "the body did not arrive in time";
        Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, INVALID_REQUEST, why))
    };
    let gathered = tokio::time::timeout(guard.body_time, guard.gather(body, &route)).await;
    let (body, _large) = match gathered.unwrap_or_else(|_| late()) {
        Ok(gathered) => gathered,
        Err(refusal) => return refusal.at(id),
    };
    let _busy = peer.filter(|_| has_body).map(|peer| guard.connections.busy(peer));
    let request = Request::from_parts(parts, body.into());
    match guard.room() {
        Some(_room) => next.run(request).await,
        None => guard.is_busy(Shed::Requests, &route).at(id),
    }
}

/// The route of a request, as it was mounted.
fn route_of(request: &Request) -> Option<String> {
    request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_string())
}

/// Who is at the other end of the connection of a request.
pub(super) fn peer_of(request: &Request) -> Option<SocketAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)
}

/// Goes with a request from its arrival to its answer.
async fn accompany(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let id = RequestId(ids::new(guard.clock.now()));
    request.extensions_mut().insert(id);
    let peer = peer_of(&request);
    let _request = peer.map(|peer| guard.connections.request(peer));
    // With a body it is not there as a whole yet: see `shed_load`.
    let whole = request.body().is_end_stream();
    let _busy = peer.filter(|_| whole).map(|peer| guard.connections.busy(peer));
    let source =
        peer.map(|peer| Source::of(peer.ip(), request.headers(), &guard.proxies, guard.forwarded));
    if let Some(Ok(source)) = source {
        request.extensions_mut().insert(source);
    }
    let method = request.method().clone();
    // The address as the caller wrote it may hold anything, so the log has the route.
    let route = route_of(&request);
    let came_with = w3c::from_headers(request.headers());
    let step = guard.tracer.answer(|| named(&method, route.as_deref()), came_with);
    if step.is_kept() {
        describe(&step, &request, route.as_deref(), id);
    }
    let route = route.unwrap_or_else(|| UNKNOWN.into());
    let trace_id = step.id().map(tracing::field::display);
    let span = tracing::info_span!("request", request_id = %id, trace_id, %method, route);
    let (request, rest) = Rest::of(request);
    let started = Instant::now();
    // Where there was a Content-Length as well, it is not here any more, and whoever passed
    // the request on may have gone by it: then what follows is none of their requests (RFC
    // 9112 section 6.3).
    let last = request.headers().contains_key(TRANSFER_ENCODING);
    let answered = async {
        // In the proxy's name nobody else may come: policies go by where requests come from.
        let told = source.transpose().map_err(Refusal::from);
        match guard.admit(&request).and(told) {
            Ok(_) => {
                let answer = tokio::time::timeout(guard.max_time, next.run(request));
                let late = || Refusal::unavailable("it took too long", Duration::from_secs(5));
                answer.await.unwrap_or_else(|_| late().at(id))
            }
            Err(refusal) => refusal.at(id),
        }
    }
    .instrument(span.clone());
    let mut response = step.around(answered).await;
    // A handler that panicked did not know the id.
    if response.extensions().get::<Panicked>().is_some() {
        response = Refusal::internal().at(id);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(wire::VERSION_HEADER, HeaderValue::from(wire::VERSION));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if last {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let elapsed = started.elapsed();
    guard.metrics.answered(&route, response.status(), elapsed);
    let status = response.status().as_u16();
    step.note("http.response.status_code", i64::from(status));
    // What a caller did wrong is no failure of the server's.
    if response.status().is_server_error() {
        step.failed(status.to_string());
    }
    span.in_scope(|| tracing::info!(status, ?elapsed, "answered"));
    rest.take_in().await;
    response
}

/// The name of a request's span: what the caller wrote instead may hold anything.
fn named(method: &Method, route: Option<&str>) -> String {
    match (known(method), route) {
        (Some(method), Some(route)) => format!("{method} {route}"),
        (Some(method), None) => method.into(),
        (None, Some(route)) => format!("HTTP {route}"),
        (None, None) => "HTTP".into(),
    }
}

/// A method that everybody knows.
fn known(method: &Method) -> Option<&str> {
    const KNOWN: [Method; 8] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::PATCH,
        Method::CONNECT,
    ];
    KNOWN.contains(method).then_some(method.as_str())
}

/// Says of a request what it is, by the conventions of OpenTelemetry. Who sent it, from where,
/// and an address that is none of ours are no part of that.
fn describe(step: &Step, request: &Request, route: Option<&str>, id: RequestId) {
    let method = known(request.method()).unwrap_or("_OTHER").to_string();
    step.note("http.request.method", method);
    step.note("tmpcred.request.id", id.to_string());
    step.note("url.scheme", request.uri().scheme_str().unwrap_or("http").to_string());
    if let Some(route) = route {
        step.note("http.route", route.to_string());
    }
}

impl Guard {
    /// Counts from now on, from zero, what is turned away of this route.
    pub(super) fn counts_shed_at(&self, route: &str) {
        self.metrics.counts_shed_at(route);
    }

    fn is_busy(&self, what: Shed, route: &str) -> Refusal {
        self.metrics.shed(what, route);
        Refusal::unavailable("the broker is busy", Duration::from_secs(1))
    }

    /// Takes in a body. Where it is large, it counts as one until it is done with.
    async fn gather(&self, mut body: Body, route: &str) -> Result<(Bytes, Option<Large>), Refusal> {
        let mut gathered = Vec::new();
        let mut large = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| unreadable(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            let length = gathered.len() + data.len();
            if length > MAX_BODY {
                return Err(form::too_large());
            }
            if length > SMALL_BODY && large.is_none() {
                let permit = self.large.clone().try_acquire_owned();
                large = Some(permit.map_err(|_| self.is_busy(Shed::LargeBodies, route))?);
            }
            gathered.extend_from_slice(&data);
        }
        Ok((Bytes::from(gathered), large))
    }

    fn admit(&self, request: &Request) -> Result<(), Refusal> {
        if request.headers().len() > MAX_HEADERS {
            let why = format!("a request has at most {MAX_HEADERS} headers");
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Err(Refusal::new(status, INVALID_REQUEST, why));
        }
        if !hosts::is_named(request.headers(), request.version()) {
            let why = "a request needs one header 'Host', with a host and nothing else";
            return Err(Refusal::invalid_request(why));
        }
        if !self.hosts.allow(request.headers(), request.uri().authority()) {
            return Err(Refusal::new(
                StatusCode::MISDIRECTED_REQUEST,
                "misdirected_request",
                "the host of this request is not served here",
            ));
        }
        // Those that are not announced are measured as they are taken in.
        let announced = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        if announced
            .and_then(|text| text.parse().ok())
            .is_some_and(|length: u64| length > MAX_BODY as u64)
        {
            return Err(form::too_large());
        }
        match request.headers().get(wire::VERSION_HEADER) {
            Some(version) if version.as_bytes() != wire::VERSION.to_string().as_bytes() => {
                Err(Refusal::invalid_request(format!(
                    "this broker speaks version {} of the protocol; update the older of the two",
                    wire::VERSION
                )))
            }
            _ => Ok(()),
        }
    }
}

/// The place of a large body.
type Large = OwnedSemaphorePermit;

/// The refusal of a request whose body cannot be had.
fn unreadable(error: &axum::Error) -> Refusal {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.is::<LengthLimitError>() {
            return form::too_large();
        }
        next = error.source();
    }
    Refusal::invalid_request("the body cannot be read")
}

/// Marks the answer that stands for a handler that panicked.
#[derive(Clone, Copy)]
struct Panicked;

fn panicked(_: Box<dyn Any + Send>) -> Response {
    // What it said may hold what it worked on.
    tracing::error!("a request handler panicked");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.extensions_mut().insert(Panicked);
    response
}

#[cfg(test)]
mod tests;
