//! The way out `console`: a sign-in link to the AWS console
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_enable-console-custom-url.html>).
//!
//! The credentials go to the sign-in endpoint in the body of a POST, where no log keeps
//! them; what is in the link is a token that signs in once and for 15 minutes. No
//! duration is asked for: the session in the browser ends when the credentials do.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, HOST, HeaderValue, LOCATION, REFERRER_POLICY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request as Asked, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use url::{Url, form_urlencoded};

use super::credential_process::not_aws;
use crate::credential::{Credential, Material};
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use crate::host::browser::Browser;
use crate::host::door::Door;
use crate::host::http::{Request, require_secure};
use crate::host::listener::{Exposure, bind};
use crate::host::start_page::StartPage;
use crate::secret::Secret;

/// What is asked for the sign-in token.
const WHO: &str = "the sign-in endpoint of AWS";
/// How long the browser may take to fetch the link.
const FETCH_LIMIT: Duration = Duration::from_secs(60);
/// How many connections are served at once; more wait.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may last.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);

/// Where to sign in to.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The service whose page is shown first, such as `s3`.
    pub service: Option<String>,
    /// The region whose page is shown; where left out, the credential's.
    pub region: Option<String>,
    /// The partition of the credential, where it is known and the role does not say it.
    pub partition: Option<&'static str>,
    /// Another sign-in endpoint.
    pub endpoint_url: Option<String>,
}

/// The hosts of a partition.
struct Hosts {
    signin: &'static str,
    console: &'static str,
}

/// The hosts for a credential (<https://docs.aws.amazon.com/general/latest/gr/signin-service.html>).
/// The partition is that of the role's ARN, else the one that is known.
///
/// # Errors
/// In a partition whose hosts are not known: the credentials are sent to no other.
fn hosts(credential: &Credential, known: Option<&str>) -> Result<Hosts> {
    let by_role = credential.role.split(':').nth(1).filter(|_| credential.role.starts_with("arn:"));
    let (signin, console) = match by_role.or(known).unwrap_or("aws") {
        "aws" => ("signin.aws.amazon.com", "console.aws.amazon.com"),
        "aws-cn" => ("signin.amazonaws.cn", "console.amazonaws.cn"),
        "aws-us-gov" => ("signin.amazonaws-us-gov.com", "console.amazonaws-us-gov.com"),
        other => {
            let other = foreign(other);
            return Err(Error::new(ErrorKind::Config, "it is not known where to sign in")
                .because_of(format!(
                    "tmpcred does not know the console of the partition {other}"
                )));
        }
    };
    Ok(Hosts { signin, console })
}

/// Tells what is wrong with the name of a service or a region: both go into an address.
///
/// # Errors
/// With what is wrong.
pub fn check(text: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || text.len() > 63 || !text.bytes().all(legal) || text.starts_with('-') {
        return Err("only small letters, digits and `-` can stand here".into());
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    signin_token: Secret<String>,
}

/// A link that signs in. Whoever has it is signed in.
#[derive(Debug)]
pub struct Link {
    url: Secret<String>,
    token: Secret<String>,
}

impl Link {
    /// The address.
    pub fn url(&self) -> &Secret<String> {
        &self.url
    }

    /// All that must not be seen: the address, and the token in it by itself.
    pub fn secrets(&self) -> Vec<Secret<String>> {
        vec![self.url.clone(), self.token.clone()]
    }
}

/// Why no other credential will do here.
pub const OF_AWS: &str = "it is the console of AWS";

/// The link that signs in to the console.
///
/// # Errors
/// Where the credential is not for AWS, or AWS gives no sign-in token for it.
pub async fn link(host: &Host, credential: &Credential, place: &Place) -> Result<Link> {
    let Material::Aws { access_key_id, secret_access_key, session_token, region } =
        &credential.material
    else {
        return Err(not_aws(OF_AWS));
    };
    let region = place.region.as_deref().or(region.as_deref());
    let hosts = hosts(credential, place.partition)?;
    let endpoint = match &place.endpoint_url {
        Some(url) => url.clone(),
        None => format!("https://{}/federation", hosts.signin),
    };
    let mut endpoint = Url::parse(&endpoint).map_err(|cause| {
        Error::new(ErrorKind::Config, "the sign-in endpoint has no valid address").because(cause)
    })?;
    require_secure(&endpoint)?;
    let session = json!({
        "sessionId": access_key_id.expose(),
        "sessionKey": secret_access_key.expose(),
        "sessionToken": session_token.expose(),
    });
    let session = Secret::new(session.to_string());
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("Action", "getSigninToken")
        .append_pair("Session", session.expose())
        .finish();
    let headers = HeaderMap::from_iter([(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    )]);
    let body = Secret::new(form.into_bytes());
    let request = Request { method: Method::POST, url: endpoint.clone(), headers, body };
    let response = host.http(None)?.send(request).await?;
    if let Some(outage) = response.outage(WHO) {
        return Err(outage);
    }
    if !response.status.is_success() {
        return Err(Error::new(ErrorKind::Denied, format!("{WHO} does not take the credentials"))
            .because_of(format!("it answered {}", response.status.as_u16()))
            .hint("try again with --refresh; a role that may do nothing cannot sign in either"));
    }
    let given: Given = response.json(&format!("the answer of {WHO}"))?;
    endpoint
        .query_pairs_mut()
        .append_pair("Action", "login")
        .append_pair("Destination", &destination(hosts.console, region, place.service.as_deref()))
        .append_pair("SigninToken", given.signin_token.expose());
    Ok(Link { url: Secret::new(endpoint.into()), token: given.signin_token })
}

/// The page that is shown first.
fn destination(console: &str, region: Option<&str>, service: Option<&str>) -> String {
    let page = format!("https://{console}/{}/home", service.unwrap_or("console"));
    match region {
        Some(region) => format!("{page}?region={region}"),
        None => page,
    }
}

/// Sends a browser to the link, without showing it to anybody who can see with what
/// arguments programs run: the browser is given a page on this machine that leads on
/// once.
///
/// # Errors
/// Where the browser cannot be started, or does not come.
pub async fn open(host: &Host, browser: &dyn Browser, link: &Secret<String>) -> Result<()> {
    let failed = |cause: std::io::Error| Error::new(ErrorKind::Io, "cannot listen").because(cause);
    let socket = bind(([127, 0, 0, 1], 0).into(), Exposure::LoopbackOnly)?;
    let address = socket.local_addr().map_err(failed)?;
    let socket = TcpListener::from_std(socket).map_err(failed)?;
    let start = StartPage::to(link.clone())?;
    let page = Url::parse(&format!("http://{address}{}", start.path().expose()));
    let page = page.map_err(|cause| {
        Error::new(ErrorKind::Other, "the page on this machine has no address").because(cause)
    })?;
    let door = Door::to("this sign-in", "take the link that `--url` prints", host);
    let once = Arc::new(Once { address, door, start: Mutex::new(Some(start)) });
    browser.open(&page)?;
    tokio::time::timeout(FETCH_LIMIT, serve(socket, once)).await.map_err(|_| {
        Error::new(ErrorKind::Unreachable, "your browser has not come for the sign-in link")
            .hint("`--url` prints the link instead")
    })
}

/// What all connections know.
struct Once {
    address: SocketAddr,
    door: Door,
    start: Mutex<Option<StartPage>>,
}

/// Serves until the link has been fetched. Browsers open connections that they may never
/// use, so none waits for another.
async fn serve(socket: TcpListener, once: Arc<Once>) {
    let (fetched, mut done) = mpsc::channel::<()>(1);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            _ = done.recv() => return,
            accepted = socket.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(stream, peer, once.clone(), fetched.clone()));
                }
                // Out of file descriptors, or a connection that is gone already.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            _ = connections.join_next(), if connections.len() >= CONNECTIONS_MAX => {}
        }
    }
}

/// Serves a connection, and tells when it has led on.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    once: Arc<Once>,
    fetched: mpsc::Sender<()>,
) {
    // Asked before anything is read: it can be told while the other end is there.
    let admitted = once.door.admits(peer, once.address);
    let led_on = AtomicBool::new(false);
    let service = service_fn(|request: Asked<Incoming>| {
        let response = once.respond(&request, admitted);
        if response.status() == StatusCode::SEE_OTHER {
            led_on.store(true, Ordering::Relaxed);
        }
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    // A peer that misbehaves is no concern of ours.
    let _ = tokio::time::timeout(CONNECTION_LIMIT, serving).await;
    if led_on.load(Ordering::Relaxed) {
        // Whoever waited for it may have gone.
        let _ = fetched.send(()).await;
    }
}

impl Once {
    fn respond(&self, request: &Asked<Incoming>, admitted: bool) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::new()));
        // Anybody on this machine may have read the address among the browser's arguments.
        if !admitted {
            *response.status_mut() = StatusCode::FORBIDDEN;
            return response;
        }
        *response.status_mut() = StatusCode::NOT_FOUND;
        let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
        if host != Some(self.address.to_string().as_bytes()) || request.method() != Method::GET {
            return response;
        }
        let mut start = self.start.lock().unwrap_or_else(PoisonError::into_inner);
        let link = StartPage::take(&mut start, request.uri().path());
        if let Some(location) = link.and_then(|link| HeaderValue::try_from(link.expose()).ok()) {
            *response.status_mut() = StatusCode::SEE_OTHER;
            let headers = response.headers_mut();
            headers.insert(LOCATION, location);
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::Region;
    use crate::credential::{Lifetime, Principal};
    use crate::host::clock::{Clock, SystemClock};
    use crate::host::test_server::{host, run};

    fn credential(role: &str) -> Credential {
        let now = SystemClock.now();
        let secret = || Secret::new("x".to_string());
        Credential {
            material: Material::Aws {
                access_key_id: secret(),
                secret_access_key: secret(),
                session_token: secret(),
                region: None,
            },
            role: role.into(),
            scope: Vec::new(),
            principal: Principal { issuer: "i".into(), subject: "s".into() },
            lifetime: Lifetime::new(now, now, None, now),
        }
    }

    #[test]
    fn each_partition_has_hosts_of_its_own() {
        let of = |region| Region::parse(region).unwrap().partition();
        for (role, partition, signin) in [
            ("Admin", None, "signin.aws.amazon.com"),
            ("Admin", Some(of("eu-central-1")), "signin.aws.amazon.com"),
            ("Admin", Some(of("cn-north-1")), "signin.amazonaws.cn"),
            ("Admin", Some(of("us-gov-west-1")), "signin.amazonaws-us-gov.com"),
            ("arn:aws-cn:iam::1:role/x", None, "signin.amazonaws.cn"),
            ("arn:aws-us-gov:iam::1:role/x", None, "signin.amazonaws-us-gov.com"),
            ("arn:aws-cn:iam::1:role/x", Some("aws"), "signin.amazonaws.cn"),
        ] {
            let hosts = hosts(&credential(role), partition).unwrap();
            assert_eq!(hosts.signin, signin, "{role} {partition:?}");
        }
        for (role, partition) in [
            ("Admin", of("us-iso-east-1")),
            ("Admin", of("us-isob-east-1")),
            ("Admin", of("eusc-de-east-1")),
            ("arn:aws-iso:iam::1:role/x", "aws"),
        ] {
            assert!(hosts(&credential(role), Some(partition)).is_err(), "{role} {partition}");
        }
        let page = destination("console.aws.amazon.com", Some("eu-west-1"), Some("s3"));
        assert_eq!(page, "https://console.aws.amazon.com/s3/home?region=eu-west-1");
        let page = destination("console.aws.amazon.com", None, None);
        assert_eq!(page, "https://console.aws.amazon.com/console/home");
    }

    /// A status, and where it leads on to.
    type Answer = (u16, Option<String>);

    /// A browser that first opens a connection for nothing, asks for what is not there,
    /// and then for the page, twice.
    #[derive(Default)]
    struct Visitor(Arc<Mutex<Vec<Answer>>>);

    impl Browser for Visitor {
        #[expect(clippy::disallowed_methods, reason = "a browser, not our own client")]
        fn open(&self, url: &Url) -> Result<()> {
            let (url, seen) = (url.clone(), self.0.clone());
            std::thread::spawn(move || {
                let _idle = std::net::TcpStream::connect(url.authority()).unwrap();
                let client = reqwest::Client::builder().no_proxy();
                let client = client.redirect(reqwest::redirect::Policy::none()).build().unwrap();
                let mut other = url.clone();
                other.set_path("/favicon.ico");
                let get = |url: &Url| client.get(url.clone());
                let requests = [
                    get(&other),
                    get(&url).header("host", "rebound.example"),
                    get(&url),
                    get(&url),
                ];
                for request in requests {
                    let answer = run(async { request.send().await });
                    // Nobody listens any more when the link has been fetched.
                    let Ok(answer) = answer else { return };
                    let location = answer.headers().get("location");
                    let location = location.map(|to| to.to_str().unwrap().to_string());
                    seen.lock().unwrap().push((answer.status().as_u16(), location));
                }
            });
            Ok(())
        }
    }

    #[test]
    fn the_page_on_this_machine_leads_on_once_and_only_whoever_was_sent_there() {
        let (visitor, link) = (Visitor::default(), "https://signin.example/federation?x=canary");
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), time::Duration::ZERO);
        run(open(&host, &visitor, &Secret::new(link.to_string()))).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        // The answer may be on its way still.
        while visitor.0.lock().unwrap().len() < 3 && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        let seen = visitor.0.lock().unwrap().clone();
        let expected = [(404, None), (404, None), (303, Some(link.to_string()))];
        assert_eq!(seen[..3], expected);
        assert!(seen[3..].iter().all(|(status, _)| *status == 404), "{seen:?}");
    }

    #[test]
    fn what_goes_into_an_address_is_checked() {
        assert!(check("s3").is_ok() && check("eu-central-1").is_ok());
        for bad in ["", "-x", "a/b", "a?b", "A", "a.b", "a b"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
