//! Plain HTTP for tests that talk to a peer themselves, and a place on loopback
//! that a browser can be sent to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener};
use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Client, Method, redirect};
use serde_json::Value;
use url::Url;

use super::wait::wait_until;

/// How long one request may take: longer than a broker takes to say that it cannot serve.
const REQUEST: Duration = Duration::from_secs(40);

/// An HTTP client that follows no redirect and remembers one cookie.
pub(crate) struct Http {
    runtime: tokio::runtime::Runtime,
    client: Client,
    cookie: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The status code.
    pub(crate) status: u16,
    /// Where it redirects to.
    pub(crate) location: Option<String>,
    /// The `Date` header.
    pub(crate) date: Option<String>,
    /// The `Cache-Control` header.
    #[cfg_attr(not(feature = "broker"), expect(dead_code, reason = "of interest at the broker"))]
    pub(crate) cache_control: Option<String>,
    /// The `X-Request-Id` header.
    #[cfg_attr(not(feature = "broker"), expect(dead_code, reason = "of interest at the broker"))]
    pub(crate) request_id: Option<String>,
    /// The body.
    pub(crate) body: String,
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|cause| panic!("no JSON: {cause}\n{}: {}", self.status, self.body))
    }
}

impl Http {
    /// A client for plain HTTP, or for servers that the system trusts.
    pub(crate) fn new() -> Self {
        Self::build(None)
    }

    /// A client that trusts the authorities in a PEM file and no others.
    pub(crate) fn trusting(authorities: &Path) -> Self {
        Self::build(Some(&std::fs::read(authorities).unwrap()))
    }

    fn build(authorities: Option<&[u8]>) -> Self {
        let mut client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(REQUEST)
            // Nobody would notice meanwhile that a server has closed an idle one.
            .pool_max_idle_per_host(0);
        // Loading the system's authorities takes a while.
        client = client.tls_certs_only(match authorities {
            Some(pem) => Certificate::from_pem_bundle(pem).unwrap(),
            None => Vec::new(),
        });
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            client: client.build().unwrap(),
            cookie: None,
        }
    }

    /// Fetches a page.
    pub(crate) fn get(&mut self, url: &str) -> Result<Reply, reqwest::Error> {
        self.send(self.client.request(Method::GET, url))
    }

    /// The same with a header.
    #[cfg(feature = "broker")]
    pub(crate) fn get_with(
        &mut self,
        url: &str,
        (name, value): (&str, &str),
    ) -> Result<Reply, reqwest::Error> {
        self.send(self.client.request(Method::GET, url).header(name, value))
    }

    /// The same with several.
    #[cfg(feature = "broker")]
    pub(crate) fn get_with_all(
        &mut self,
        url: &str,
        headers: &[(&str, String)],
    ) -> Result<Reply, reqwest::Error> {
        let request = self.client.request(Method::GET, url);
        self.send(
            headers.iter().fold(request, |request, (name, value)| request.header(*name, value)),
        )
    }

    /// The same with several, and a bearer token as proof of who does.
    #[cfg(feature = "broker")]
    pub(crate) fn get_as(
        &mut self,
        bearer: &str,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<Reply, reqwest::Error> {
        let request = self.client.request(Method::GET, url).bearer_auth(bearer);
        let request = headers.iter().fold(request, |it, (name, value)| it.header(*name, *value));
        self.send(request)
    }

    /// Sends a form.
    pub(crate) fn form(
        &mut self,
        url: &str,
        fields: &[(&str, &str)],
    ) -> Result<Reply, reqwest::Error> {
        self.send(self.client.request(Method::POST, url).form(fields))
    }

    /// Sends a form, with a bearer token as proof of who does.
    #[cfg(feature = "broker")]
    pub(crate) fn form_as(
        &mut self,
        bearer: &str,
        url: &str,
        fields: &[(&str, &str)],
    ) -> Result<Reply, reqwest::Error> {
        self.send(self.client.request(Method::POST, url).bearer_auth(bearer).form(fields))
    }

    /// Posts a form with a header.
    #[cfg(feature = "broker")]
    pub(crate) fn form_with(
        &mut self,
        url: &str,
        (name, value): (&str, &str),
        fields: &[(&str, &str)],
    ) -> Result<Reply, reqwest::Error> {
        self.send(self.client.request(Method::POST, url).header(name, value).form(fields))
    }

    /// Sends JSON, and takes nothing but success for an answer.
    #[track_caller]
    pub(crate) fn json(&mut self, method: Method, url: &str, body: &Value) -> Reply {
        let reply = self.send(self.client.request(method.clone(), url).json(body)).unwrap();
        assert!(reply.status < 300, "{method} {url}: {} {}", reply.status, reply.body);
        reply
    }

    fn send(&mut self, mut request: reqwest::RequestBuilder) -> Result<Reply, reqwest::Error> {
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        self.runtime.block_on(async {
            let response = request.send().await?;
            let header = |name| {
                response.headers().get(name).and_then(|value| value.to_str().ok()).map(String::from)
            };
            if let Some(set) = header("set-cookie") {
                self.cookie = set.split(';').next().map(String::from);
            }
            Ok(Reply {
                status: response.status().as_u16(),
                location: header("location"),
                date: header("date"),
                cache_control: header("cache-control"),
                request_id: header("x-request-id"),
                body: response.text().await?,
            })
        })
    }
}

/// A socket on 127.0.0.1 that waits for a browser to be sent there.
pub(crate) struct Loopback {
    listener: TcpListener,
}

impl Loopback {
    /// Listens on this port; 0 takes a free one.
    #[track_caller]
    pub(crate) fn listen(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    /// The address of a page there.
    pub(crate) fn url(&self, path: &str) -> Url {
        let address = self.listener.local_addr().unwrap();
        Url::parse(&format!("http://{address}{path}")).unwrap()
    }

    /// Waits for the first request, thanks for it, and tells what it asked for.
    #[track_caller]
    pub(crate) fn visit(&self, limit: Duration) -> Url {
        wait_until("a visit on loopback", limit, || {
            let (mut stream, _) = self.listener.accept().ok()?;
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(REQUEST)).unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            // Browsers open connections that they may never use.
            let first = lines.next()?.ok()?;
            while !lines.next()?.ok()?.is_empty() {}
            let body = "You can close this page.";
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close";
            write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            Some(self.url(first.split(' ').nth(1)?))
        })
    }
}
