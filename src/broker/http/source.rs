//! Where a request comes from, also where proxies stand in between.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};

use crate::broker::network::Network;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where a request comes from, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(
    /// The address.
    pub IpAddr,
);

impl Source {
    /// The peer itself; where it is one of these proxies, whom it says it speaks for.
    pub fn of(peer: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> Self {
        let trusted = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
        let mut nearest = peer.to_canonical();
        let mut said = said(headers).into_iter().rev();
        // Each proxy adds at the right whom it was asked by. What is left of the first
        // stranger, that stranger may have made up.
        while trusted(nearest) {
            match said.next() {
                Some(Some(address)) => nearest = address.to_canonical(),
                Some(None) | None => break,
            }
        }
        Self(nearest)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Self>().copied();
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        // Every request has come over some connection.
        let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |ConnectInfo(peer)| peer.ip());
        Ok(known.unwrap_or(Self(peer)))
    }
}

/// The addresses that the headers name, nearest last; `None` for what is none. Where
/// both headers are there, the proxy wrote one of them and the caller perhaps the
/// other, so neither is believed.
fn said(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let elements = |name: HeaderName| {
        let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default());
        lines.flat_map(|line| line.split(','))
    };
    match (headers.contains_key(&X_FORWARDED_FOR), headers.contains_key(header::FORWARDED)) {
        (true, false) => elements(X_FORWARDED_FOR).map(address).collect(),
        // RFC 7239 section 4.
        (false, true) => elements(header::FORWARDED)
            .map(|element| {
                let parameters = element.split(';').filter_map(|pair| pair.split_once('='));
                parameters
                    .filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
                    .find_map(|(_, value)| address(value))
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Reads an address with or without a port, brackets and quotes.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn source(peer: &str, lines: &[(&'static str, &str)], proxies: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let proxies: Vec<Network> = proxies.iter().map(|p| p.parse().unwrap()).collect();
        Source::of(peer.parse().unwrap(), &headers, &proxies).0.to_string()
    }

    #[test]
    fn a_proxy_is_believed_and_nobody_else() {
        let x = "x-forwarded-for";
        for (peer, lines, proxies, is) in [
            ("10.0.0.1", &[(x, "203.0.113.7")][..], &[][..], "10.0.0.1"),
            ("198.51.100.1", &[(x, "203.0.113.7")], &["10.0.0.0/8"], "198.51.100.1"),
            ("10.0.0.1", &[], &["10.0.0.0/8"], "10.0.0.1"),
            ("10.0.0.1", &[(x, "203.0.113.7")], &["10.0.0.0/8"], "203.0.113.7"),
            // What the caller wrote is at the left.
            ("10.0.0.1", &[(x, "127.0.0.1, 203.0.113.7")], &["10.0.0.0/8"], "203.0.113.7"),
            ("10.0.0.1", &[(x, "127.0.0.1"), (x, "203.0.113.7")], &["10.0.0.0/8"], "203.0.113.7"),
            ("10.0.0.1", &[(x, "1.1.1.1, 203.0.113.7, 10.0.0.2")], &["10.0.0.0/8"], "203.0.113.7"),
            ("10.0.0.1", &[(x, "203.0.113.7:4711")], &["10.0.0.1"], "203.0.113.7"),
            ("::1", &[(x, "2001:db8::7")], &["::1"], "2001:db8::7"),
            ("::1", &[(x, "[2001:db8::7]:4711")], &["::1"], "2001:db8::7"),
            ("::ffff:10.0.0.1", &[(x, "203.0.113.7")], &["10.0.0.1"], "203.0.113.7"),
            ("10.0.0.1", &[(x, "203.0.113.7, unknown")], &["10.0.0.1"], "10.0.0.1"),
            ("10.0.0.1", &[(x, "")], &["10.0.0.1"], "10.0.0.1"),
            (
                "10.0.0.1",
                &[("forwarded", "for=203.0.113.7;proto=https")],
                &["10.0.0.1"],
                "203.0.113.7",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1, proto=https;For=\"[2001:db8::7]:4711\"")],
                &["10.0.0.1"],
                "2001:db8::7",
            ),
            ("10.0.0.1", &[("forwarded", "for=1.1.1.1, for=_hidden")], &["10.0.0.1"], "10.0.0.1"),
            (
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1"), (x, "203.0.113.7")],
                &["10.0.0.1"],
                "10.0.0.1",
            ),
        ] {
            assert_eq!(source(peer, lines, proxies), is, "{peer} {lines:?} {proxies:?}");
        }
    }
}
