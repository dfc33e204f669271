//! The loopback server, and everybody who can reach it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, TcpStream};
use std::time::Duration;

use reqwest::Method;
use url::Url;

use super::{settings, visit, visit_with};
use crate::error::Result;
use crate::host::listener::{Exposure, bind};
use crate::host::test_server::{host, run};
use crate::identity::login::{Answer, Callback, Listener, RedirectHost, redirect_uri};
use crate::secret::Secret;

const STATE: &str = "the-state";

fn with(url: &Url, query: &str) -> Url {
    let mut url = url.clone();
    url.set_query(Some(query));
    url
}

fn open(settings: &super::Settings) -> Result<Listener> {
    let dir = tempfile::tempdir().unwrap();
    Listener::open(&host(dir.path(), time::Duration::ZERO), settings)
}

/// Opens a listener, lets `browser` loose on it, and answers the first request
/// that counts. Returns what it brought.
fn listen<T: Send + 'static>(
    settings: &super::Settings,
    answer: Answer,
    browser: impl FnOnce(Url) -> T + Send + 'static,
) -> (Option<String>, T) {
    run(async {
        let mut listener = open(settings).unwrap();
        let url = listener.redirect_uri().clone();
        let browsing = std::thread::spawn(move || browser(url));
        let mut callback: Callback = listener.callback(&Secret::new(STATE.into())).await.unwrap();
        let code = callback.code.take().map(|code| code.expose().clone());
        callback.answer(answer).await;
        drop(listener);
        (code, browsing.join().unwrap())
    })
}

#[test]
fn strangers_get_an_error_and_the_login_goes_on() {
    let settings = settings("https://i.example");
    let (code, statuses) = listen(&settings, Answer::Done, |url| {
        let good = format!("state={STATE}&code=right");
        let status = |url: Url| visit(&url).status;
        let mut other_path = with(&url, &good);
        other_path.set_path("/other");
        let mut favicon = url.clone();
        favicon.set_path("/favicon.ico");
        let rebound = format!("rebound.example:{}", url.port().unwrap());
        let other_name = format!("localhost:{}", url.port().unwrap());
        let by = |host: &str| visit_with(Method::GET, &with(&url, &good), &[("host", host)]).status;
        vec![
            status(with(&url, "code=stolen&state=wrong")),
            status(with(&url, "code=stolen&state=")),
            status(with(&url, "code=stolen")),
            status(with(&url, "error=access_denied&state=wrong")),
            status(with(&url, &format!("{good}&state={STATE}"))),
            status(with(&url, &format!("{good}&code=another"))),
            status(url.clone()),
            status(other_path),
            status(favicon),
            visit_with(Method::POST, &with(&url, &good), &[]).status,
            visit_with(Method::HEAD, &with(&url, &good), &[]).status,
            by(&rebound),
            by(&other_name),
            by("127.0.0.1"),
            status(with(&url, &good)),
        ]
    });
    assert_eq!(code.as_deref(), Some("right"));
    let (last, stray) = statuses.split_last().unwrap();
    assert_eq!(stray, [400; 14]);
    assert_eq!(*last, 200);
}

#[test]
fn a_state_is_good_once() {
    run(async {
        let mut listener = open(&settings("https://i.example")).unwrap();
        let url = with(listener.redirect_uri(), &format!("state={STATE}&code=c"));
        let state = Secret::new(STATE.to_string());
        let first = std::thread::spawn({
            let url = url.clone();
            move || visit(&url).status
        });
        let callback = listener.callback(&state).await.unwrap();
        let again = tokio::task::spawn_blocking(move || visit(&url).status).await.unwrap();
        assert_eq!(again, 400);
        callback.answer(Answer::Done).await;
        assert_eq!(first.join().unwrap(), 200);
    });
}

#[test]
fn pages_are_harmless() {
    let settings = settings("https://i.example");
    let ((_, done), (_, failed)) = (
        listen(&settings, Answer::Done, |url| {
            visit(&with(&url, &format!("state={STATE}&code=canary")))
        }),
        listen(&settings, Answer::Failed, |url| {
            visit(&with(&url, &format!("state={STATE}&error=canary&error_description=canary")))
        }),
    );
    assert!(done.body.contains("You are logged in"));
    assert!(failed.body.contains("did not succeed"));
    for page in [done, failed] {
        assert!(!page.body.contains("canary") && !page.body.contains(STATE));
        assert!(!page.body.contains("<script") && !page.body.contains("http"));
        let header = |name: &str| page.headers[name].to_str().unwrap();
        assert!(
            header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-")
        );
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("x-content-type-options"), "nosniff");
    }
}

#[test]
fn a_browser_can_be_sent_on() {
    let next = Url::parse("https://i.example/login?a=b").unwrap();
    let (_, visit) = listen(&settings("https://i.example"), Answer::GoTo(next.clone()), |url| {
        visit(&with(&url, &format!("state={STATE}&error=invalid_target")))
    });
    assert_eq!((visit.status, visit.location), (303, Some(next)));
}

#[test]
fn the_page_that_a_browser_starts_with_leads_on_once_and_shows_nothing() {
    let mut settings = settings("https://i.example");
    // A machine may have no IPv6; whatever else fails is a fault.
    let has_v6 = bind((Ipv6Addr::LOCALHOST, 0).into(), Exposure::LoopbackOnly).is_ok();
    let v6 = has_v6.then_some(RedirectHost::V6);
    for redirect_host in [RedirectHost::V4, RedirectHost::Localhost].into_iter().chain(v6) {
        settings.redirect_host = redirect_host;
        let next = Url::parse("https://i.example/login?state=canary").unwrap();
        let visits = run(async {
            let listener = open(&settings).unwrap();
            let page = listener.start_page(&next).unwrap();
            assert!(page.path().len() > 40 && page.query().is_none(), "{page}");
            let mut other = page.clone();
            other.set_path("/x");
            let browsing = move || {
                let rebound = [("host", "rebound.example")];
                vec![
                    visit(&other),
                    visit_with(Method::POST, &page, &[]),
                    visit_with(Method::GET, &page, &rebound),
                    visit(&page),
                    visit(&page),
                ]
            };
            tokio::task::spawn_blocking(browsing).await.unwrap()
        });
        let statuses: Vec<_> = visits.iter().map(|visit| visit.status).collect();
        assert_eq!(statuses, [400, 400, 400, 303, 400], "{redirect_host:?}");
        assert_eq!(visits[3].location, Some(next));
        assert!(visits.iter().all(|visit| !visit.body.contains("canary")));
    }
}

#[expect(clippy::disallowed_methods, reason = "a stranger who speaks no HTTP")]
fn stranger(url: &Url) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", url.port().unwrap())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

#[test]
fn idle_large_and_senseless_connections_are_in_nobodys_way() {
    let (code, ()) = listen(&settings("https://i.example"), Answer::Done, |url| {
        let idle: Vec<_> = (0..100).map(|_| stranger(&url)).collect();
        let mut large = stranger(&url);
        let mut answer = String::new();
        let _ = large.write_all(b"GET / HTTP/1.1\r\nx: ");
        let _ = large.write_all(&vec![b'x'; 64 * 1024]);
        let _ = large.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.contains("431"), "{answer}");
        let mut senseless = stranger(&url);
        senseless.write_all(b"\x16\x03\x01\x00\xff\xff\r\n\r\n").unwrap();
        let _ = senseless.read(&mut [0; 1024]);
        visit(&with(&url, &format!("state={STATE}&code=c")));
        drop(idle);
    });
    assert_eq!(code.as_deref(), Some("c"));
}

#[test]
fn allowed_ports_are_tried_in_turn() {
    let bound = |port: u16| bind(([127, 0, 0, 1], port).into(), Exposure::LoopbackOnly);
    // The second is none that the system gives to whoever wants any: it is free once it is let go.
    let second = (2_000..5_000).find_map(|port| bound(port).ok());
    let mut taken = vec![bound(0).unwrap(), second.unwrap()];
    let mut settings = settings("https://i.example");
    settings.redirect_ports = taken.iter().map(|s| s.local_addr().unwrap().port()).collect();
    run(async {
        let error = open(&settings).map(|_| ()).unwrap_err();
        assert!(error.hints()[0].contains("redirect_ports"), "{error}");
        taken.pop();
        let listener = open(&settings).unwrap();
        let port = listener.redirect_uri().port().unwrap();
        assert_eq!(port, settings.redirect_ports[1]);
        assert_eq!(listener.redirect_uri().as_str(), format!("http://127.0.0.1:{port}/callback"));
    });
}

#[test]
fn the_name_localhost_listens_wherever_it_may_lead() {
    let mut settings = settings("https://i.example");
    settings.redirect_host = RedirectHost::Localhost;
    run(async {
        let listener = open(&settings).unwrap();
        let port = listener.redirect_uri().port().unwrap();
        assert_eq!(listener.redirect_uri().host_str(), Some("localhost"));
        for address in ["127.0.0.1", "::1"] {
            let address: std::net::IpAddr = address.parse().unwrap();
            assert!(
                bind((address, port).into(), Exposure::LoopbackOnly).is_err(),
                "{address} must be taken, or missing"
            );
        }
    });
    settings.redirect_host = RedirectHost::V6;
    settings.redirect_path = "/a/b".into();
    assert_eq!(redirect_uri(&settings, 7).unwrap().as_str(), "http://[::1]:7/a/b");
    for bad in ["", "a", "/a?b", "/a#b", "/../a", "/a b"] {
        settings.redirect_path = bad.into();
        assert!(redirect_uri(&settings, 7).is_err(), "{bad}");
    }
}
