//! The endpoint on loopback that AWS SDKs ask for credentials
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>).
//!
//! Anybody on this machine, and any web page in a browser, can reach it. It answers
//! programs of this user that know its random token, and nobody else; what came through
//! a proxy is refused, and nothing but `GET` is understood.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, FORWARDED, HOST, HeaderMap, HeaderValue, VIA,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::rfc3339;
use crate::credential::{Credential, Material};
use crate::error::{Error, ErrorKind, Result};
use crate::host::listener::{Exposure, bind, is_ours};
use crate::host::process;
use crate::secret::Secret;

/// Where the credential is.
const PATH: &str = "/credentials";
/// How many random bytes the token has.
const TOKEN_BYTES: usize = 48;
/// How long a connection may last.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// How large a request's head may be, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// How many connections are served at once; more wait.
const CONNECTIONS_MAX: usize = 256;
/// How many of others are told at once that they get nothing; more are dropped.
const STRANGERS_MAX: usize = 16;

/// What the endpoint hands out.
pub trait Current: Send + Sync {
    /// The credential of this moment, or why there is none.
    fn current(&self) -> Result<Credential, String>;
}

/// The endpoint. It closes when it is dropped.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    token: Secret<String>,
    _open: oneshot::Sender<Infallible>,
}

impl Endpoint {
    /// Opens one at a free port, in a thread of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]
    pub fn open(from: Arc<dyn Current>) -> Result<Self> {
        let failed = || Error::new(ErrorKind::Io, "the endpoint for credentials cannot be opened");
        let socket = bind((Ipv4Addr::LOCALHOST, 0).into(), Exposure::LoopbackOnly)?;
        let address = socket.local_addr().map_err(|cause| failed().because(cause))?;
        let token = random_token()?;
        let guard = Arc::new(Guard { address, token: token.clone(), from });
        let runtime = process::runtime()?;
        let (open, closed) = oneshot::channel::<Infallible>();
        let serve = move || {
            runtime.block_on(async {
                // Needs the runtime.
                let Ok(socket) = TcpListener::from_std(socket) else { return };
                tokio::select! {
                    _ = closed => {}
                    () = accept(socket, guard) => {}
                }
            });
        };
        std::thread::Builder::new()
            .name("endpoint".into())
            .spawn(serve)
            .map_err(|cause| failed().because(cause))?;
        Ok(Self { address, token, _open: open })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// What has to be shown there.
    pub fn token(&self) -> &Secret<String> {
        &self.token
    }
}

fn random_token() -> Result<Secret<String>> {
    let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice())
        .map_err(|_| Error::new(ErrorKind::Other, "the system has no random numbers"))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

async fn accept(socket: TcpListener, guard: Arc<Guard>) {
    let (mut connections, mut strangers) = (JoinSet::new(), JoinSet::new());
    loop {
        while connections.try_join_next().is_some() {}
        while strangers.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        match socket.accept().await {
            // Looked at before anything is waited for: whoever is silent keeps a place.
            Ok((stream, peer)) if is_ours(peer, guard.address) => {
                connections.spawn(serve(stream, Arc::clone(&guard), true));
            }
            Ok((stream, _)) if strangers.len() < STRANGERS_MAX => {
                strangers.spawn(serve(stream, Arc::clone(&guard), false));
            }
            Ok(_) => {}
            // Out of file descriptors, or a connection that is gone already.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(stream: TcpStream, guard: Arc<Guard>, is_ours: bool) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = guard.answer(&request, is_ours);
        async move { Ok::<_, Infallible>(answer) }
    });
    let serving = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_LIMIT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A peer that misbehaves is no concern of ours.
    let _ = tokio::time::timeout(CONNECTION_LIMIT, serving).await;
}

/// What stands between a request and the credential.
struct Guard {
    address: SocketAddr,
    token: Secret<String>,
    from: Arc<dyn Current>,
}

/// Why a request gets no credential, as SDKs read it.
#[derive(Debug, Serialize)]
struct Refusal {
    #[serde(skip)]
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }
}

/// The credential, as SDKs read it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    expiration: &'a str,
}

impl Guard {
    fn answer<B>(&self, request: &Request<B>, is_ours: bool) -> Response<Full<Bytes>> {
        let (status, body) = match self.admit(request, is_ours).and_then(|()| self.credential()) {
            Ok(body) => (StatusCode::OK, body),
            Err(refusal) => {
                tracing::debug!(code = refusal.code, "a request for credentials is refused");
                let body = serde_json::to_vec(&refusal).unwrap_or_default();
                (refusal.status, Zeroizing::new(body))
            }
        };
        let mut response = Response::new(Full::new(Bytes::copy_from_slice(&body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        response
    }

    /// Lets a request through that is as it must be.
    fn admit<B>(&self, request: &Request<B>, is_ours: bool) -> Result<(), Refusal> {
        if !is_ours {
            let why = "only programs of the user who runs tmpcred are answered";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "WrongPeer", why));
        }
        // DNS rebinding: a page of another host whose name now leads here.
        let address = self.address.to_string();
        let host = only(request.headers(), HOST.as_str());
        if host != Some(address.as_bytes()) || request.uri().authority().is_some() {
            let why = "this endpoint goes by its address only";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "WrongHost", why));
        }
        if request.headers().keys().any(|name| tells_of_a_proxy(name.as_str())) {
            let why = "a request that came through a proxy is not answered";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "Forwarded", why));
        }
        if request.method() != Method::GET {
            let why = "only GET is understood";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "WrongMethod", why));
        }
        if request.uri().path() != PATH || request.uri().query().is_some() {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "NotFound", "there is nothing here"));
        }
        let token = only(request.headers(), AUTHORIZATION.as_str());
        if !token.is_some_and(|token| self.token.ct_eq(token)) {
            let why = "the authorization token is not that of this endpoint";
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "WrongToken", why));
        }
        Ok(())
    }

    fn credential(&self) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let unavailable =
            |code, why: String| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, why);
        let credential =
            self.from.current().map_err(|why| unavailable("CredentialExpired", why))?;
        let Material::Aws { access_key_id, secret_access_key, session_token, .. } =
            &credential.material
        else {
            return Err(unavailable("NotAws", "the credential is not for AWS".into()));
        };
        let expiration = rfc3339(credential.lifetime.expires_at_local())
            .map_err(|error| unavailable("NotAws", error.to_string()))?;
        let answer = Answer {
            access_key_id: access_key_id.expose(),
            secret_access_key: secret_access_key.expose(),
            token: session_token.expose(),
            expiration: &expiration,
        };
        serde_json::to_vec(&answer)
            .map(Zeroizing::new)
            .map_err(|cause| unavailable("NotAws", cause.to_string()))
    }
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

/// Whether a header of this name is added on the way (RFC 7239, RFC 9110 section 7.6.3,
/// and what was usual before).
fn tells_of_a_proxy(name: &str) -> bool {
    name == FORWARDED.as_str()
        || name == VIA.as_str()
        || name == "x-real-ip"
        || name.starts_with("x-forwarded")
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
