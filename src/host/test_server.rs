//! A loopback server that does what a test says, for misbehaviour that no real
//! peer shows.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::oneshot;
use url::{Url, form_urlencoded};

use super::clock::{Clock, SystemClock};
use super::http::HttpClient;
use super::listener::{Exposure, bind};
use super::{Host, clock};

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The parameters of the form; a repeated one counts once.
    pub(crate) form: BTreeMap<String, String>,
}

/// How it is answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    hangs: bool,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, &body.to_string()).header("content-type", "application/json".into())
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.as_bytes().to_vec(), hangs: false }
    }

    /// Says nothing and closes the connection.
    pub(crate) fn gone() -> Self {
        Self { hangs: true, ..Self::text(200, "") }
    }

    pub(crate) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// The server. It ends when it is dropped.
pub(crate) struct TestServer {
    pub(crate) origin: String,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    _stop: oneshot::Sender<Infallible>,
}

impl TestServer {
    /// Starts a server. The handler gets each request and the server's own origin.
    pub(crate) fn start(handler: impl Fn(&Arrived, &str) -> Reply + Send + Sync + 'static) -> Self {
        let socket = bind(([127, 0, 0, 1], 0).into(), Exposure::LoopbackOnly).unwrap();
        let origin = format!("http://{}", socket.local_addr().unwrap());
        let arrived = Arc::<Mutex<Vec<Arrived>>>::default();
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let context = (Arc::new(handler), origin.clone(), arrived.clone());
        std::thread::spawn(move || {
            let runtime = super::process::runtime().unwrap();
            runtime.block_on(async move {
                let socket = tokio::net::TcpListener::from_std(socket).unwrap();
                let accept = async {
                    while let Ok((stream, _)) = socket.accept().await {
                        let (handler, origin, arrived) = context.clone();
                        let service = service_fn(move |request| {
                            let (handler, origin) = (handler.clone(), origin.clone());
                            let arrived = arrived.clone();
                            async move {
                                let request = read(request).await;
                                arrived.lock().unwrap().push(request.clone());
                                answer(handler(&request, &origin))
                            }
                        });
                        let serving =
                            http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                        tokio::spawn(serving);
                    }
                };
                tokio::select! { _ = stopped => (), () = accept => () }
            });
        });
        Self { origin, arrived, _stop: stop }
    }

    /// The requests so far.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    /// The requests to a path so far.
    pub(crate) fn at(&self, path: &str) -> Vec<Arrived> {
        self.arrived().into_iter().filter(|request| request.path == path).collect()
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        Url::parse(&self.origin).unwrap().join(path).unwrap()
    }
}

async fn read(request: hyper::Request<Incoming>) -> Arrived {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let form = form_urlencoded::parse(&body).into_owned().collect();
    Arrived {
        method: parts.method.to_string(),
        path: parts.uri.path().to_string(),
        headers: parts.headers,
        form,
    }
}

fn answer(reply: Reply) -> Result<hyper::Response<Full<Bytes>>, &'static str> {
    if reply.hangs {
        return Err("hyper closes the connection");
    }
    let mut response = hyper::Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = hyper::StatusCode::from_u16(reply.status).unwrap();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    for (name, value) in reply.headers {
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), HeaderValue::try_from(value).unwrap());
    }
    Ok(response)
}

/// A host of its own below `root`, whose clock is this much ahead.
pub(crate) fn host(root: &std::path::Path, ahead: time::Duration) -> Host {
    host_at(root, SystemClock.now() + ahead)
}

/// A host of its own below `root`, whose clock stands at this moment.
pub(crate) fn host_at(root: &std::path::Path, moment: time::OffsetDateTime) -> Host {
    Host {
        clock: Arc::new(clock::FixedClock(moment)),
        env: super::env::Env::from_pairs([("DISPLAY", ":0")]),
        dirs: super::dirs::Dirs::below(root),
        browser: Arc::new(NoBrowser),
        interact: Arc::new(super::interact::Silent),
        skew: clock::SkewMeter::default(),
    }
}

/// A client of its own.
pub(crate) fn client(extra_ca_pem: Option<Vec<u8>>) -> HttpClient {
    HttpClient::new(Arc::new(SystemClock), clock::SkewMeter::default(), extra_ca_pem)
}

struct NoBrowser;

impl super::browser::Browser for NoBrowser {
    fn open(&self, _: &Url) -> crate::error::Result<()> {
        Err(crate::error::Error::new(crate::error::ErrorKind::Io, "there is no browser"))
    }
}

/// Runs what waits for the network, but not for ever.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    super::process::runtime()
        .unwrap()
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await })
        .expect("this took too long")
}
