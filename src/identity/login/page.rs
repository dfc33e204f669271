//! The pages that the browser shows on the way of a login. They hold nothing
//! that came with a request, load nothing and run nothing.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1.1rem/1.5 system-ui,sans-serif;max-width:30rem;margin:20vh auto 0;padding:0 1rem}\
h1{font-size:1.6rem;margin:0}";

/// The login succeeded.
pub(super) fn done() -> Response<Full<Bytes>> {
    page(
        StatusCode::OK,
        "You are logged in",
        "tmpcred has what it needs. You can close this page and go back to the terminal.",
    )
}

/// The login failed.
pub(super) fn failed(status: StatusCode) -> Response<Full<Bytes>> {
    page(status, "The login did not succeed", "The terminal in which it was started says why.")
}

/// The login goes on at another page.
pub(super) fn going_on() -> Response<Full<Bytes>> {
    page(StatusCode::SEE_OTHER, "The login goes on", "Your browser is about to show its page.")
}

/// A request of somebody else.
pub(super) fn another_users() -> Response<Full<Bytes>> {
    page(
        StatusCode::FORBIDDEN,
        "This is not your login",
        "Only a browser of the user who runs tmpcred can take part in it.",
    )
}

/// A request that does not belong to the login.
pub(super) fn not_ours(status: StatusCode) -> Response<Full<Bytes>> {
    page(
        status,
        "This is not the page of a login",
        "If you are logging in to tmpcred, use the page that it opened or printed.",
    )
}

fn page(status: StatusCode, title: &str, text: &str) -> Response<Full<Bytes>> {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title} · tmpcred</title><style>{STYLE}</style></head>\
         <body><h1>{title}</h1><p>{text}</p></body></html>"
    );
    let mut response = Response::new(Full::new(Bytes::from(html)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let style = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    // Base64 and fixed text are always a header value.
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}
