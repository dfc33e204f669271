//! Where a request comes from, also where proxies stand in between.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};

use super::refusal::Refusal;
use crate::broker::config::ForwardedHeader;
use crate::broker::network::Network;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where a request comes from, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(
    /// The address.
    pub IpAddr,
);

/// A proxy that is believed says of a request that it comes from what is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable(
    /// The proxy.
    IpAddr,
);

impl Source {
    /// The peer itself; where it is one of these proxies, whom it says it speaks for in this
    /// header. What another one says is not looked at: a proxy that does not know it passes on
    /// what callers wrote there.
    ///
    /// # Errors
    /// Where a proxy says it so that nobody can read it: to take the proxy's own address would let
    /// somebody in where those of its network are.
    pub fn of(
        peer: IpAddr,
        headers: &HeaderMap,
        proxies: &[Network],
        header: ForwardedHeader,
    ) -> Result<Self, Unreadable> {
        let trusted = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
        let mut nearest = peer.to_canonical();
        if !trusted(nearest) {
            return Ok(Self(nearest));
        }
        let mut said = said(headers, header).into_iter().rev();
        // Each proxy adds at the right whom it was asked by. What is left of the first
        // stranger, that stranger may have made up.
        while trusted(nearest) {
            match said.next() {
                Some(Some(address)) => nearest = address.to_canonical(),
                Some(None) => return Err(Unreadable(nearest)),
                None => break,
            }
        }
        Ok(Self(nearest))
    }
}

impl From<Unreadable> for Refusal {
    fn from(Unreadable(proxy): Unreadable) -> Self {
        tracing::warn!(%proxy, "a proxy says that a request comes from what is no address; it is refused");
        Self::invalid_request("the proxy in front of the broker does not say where this comes from")
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

/// The addresses that this header names, nearest last; `None` for what is none.
fn said(headers: &HeaderMap, header: ForwardedHeader) -> Vec<Option<IpAddr>> {
    let name = match header {
        ForwardedHeader::XForwardedFor => X_FORWARDED_FOR,
        ForwardedHeader::Forwarded => header::FORWARDED,
    };
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default());
    let elements = lines.flat_map(|line| line.split(','));
    match header {
        ForwardedHeader::XForwardedFor => elements.map(address).collect(),
        // RFC 7239 section 4.
        ForwardedHeader::Forwarded => elements
            .map(|element| {
                let parameters = element.split(';').filter_map(|pair| pair.split_once('='));
                parameters
                    .filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
                    .find_map(|(_, value)| address(value))
            })
            .collect(),
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

    fn source(
        peer: &str,
        lines: &[(&'static str, &str)],
        proxies: &[&str],
        header: ForwardedHeader,
    ) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let proxies: Vec<Network> = proxies.iter().map(|p| p.parse().unwrap()).collect();
        let source = Source::of(peer.parse().unwrap(), &headers, &proxies, header);
        source.ok().map(|source| source.0.to_string())
    }

    #[test]
    fn a_proxy_is_believed_and_nobody_else() {
        let x = "x-forwarded-for";
        let header = ForwardedHeader::XForwardedFor;
        for (peer, lines, proxies, is) in [
            ("10.0.0.1", &[(x, "203.0.113.7")][..], &[][..], Some("10.0.0.1")),
            ("198.51.100.1", &[(x, "203.0.113.7")], &["10.0.0.0/8"], Some("198.51.100.1")),
            ("198.51.100.1", &[(x, "unknown")], &["10.0.0.0/8"], Some("198.51.100.1")),
            // Whoever asks from where the proxy is, and does not come by it.
            ("10.0.0.1", &[], &["10.0.0.0/8"], Some("10.0.0.1")),
            ("10.0.0.1", &[(x, "203.0.113.7")], &["10.0.0.0/8"], Some("203.0.113.7")),
            // What the caller wrote is at the left.
            ("10.0.0.1", &[(x, "127.0.0.1, 203.0.113.7")], &["10.0.0.0/8"], Some("203.0.113.7")),
            ("10.0.0.1", &[(x, "unknown, 203.0.113.7")], &["10.0.0.0/8"], Some("203.0.113.7")),
            (
                "10.0.0.1",
                &[(x, "127.0.0.1"), (x, "203.0.113.7")],
                &["10.0.0.0/8"],
                Some("203.0.113.7"),
            ),
            (
                "10.0.0.1",
                &[(x, "1.1.1.1, 203.0.113.7, 10.0.0.2")],
                &["10.0.0.0/8"],
                Some("203.0.113.7"),
            ),
            ("10.0.0.1", &[(x, "203.0.113.7:4711")], &["10.0.0.1"], Some("203.0.113.7")),
            ("::1", &[(x, "2001:db8::7")], &["::1"], Some("2001:db8::7")),
            ("::1", &[(x, "[2001:db8::7]:4711")], &["::1"], Some("2001:db8::7")),
            ("::ffff:10.0.0.1", &[(x, "203.0.113.7")], &["10.0.0.1"], Some("203.0.113.7")),
            // Nobody is taken for the proxy that is said to come from nobody knows where.
            ("10.0.0.1", &[(x, "203.0.113.7, unknown")], &["10.0.0.1"], None),
            ("10.0.0.1", &[(x, "203.0.113.7, unknown, 10.0.0.2")], &["10.0.0.0/8"], None),
            ("10.0.0.1", &[(x, "")], &["10.0.0.1"], None),
            // The proxy passes on what it does not know.
            (
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1"), (x, "203.0.113.7")],
                &["10.0.0.1"],
                Some("203.0.113.7"),
            ),
            (
                "10.0.0.1",
                &[("forwarded", "x"), (x, "203.0.113.7")],
                &["10.0.0.1"],
                Some("203.0.113.7"),
            ),
        ] {
            let found = source(peer, lines, proxies, header);
            assert_eq!(found.as_deref(), is, "{peer} {lines:?} {proxies:?}");
        }
    }

    #[test]
    fn the_standard_header_is_read_where_the_proxy_writes_that() {
        for (line, is) in [
            ("for=203.0.113.7;proto=https", Some("203.0.113.7")),
            ("for=1.1.1.1, proto=https;For=\"[2001:db8::7]:4711\"", Some("2001:db8::7")),
            ("for=1.1.1.1, for=_hidden", None),
            ("for=1.1.1.1, proto=https", None),
        ] {
            let lines = [("forwarded", line), ("x-forwarded-for", "198.51.100.9")];
            let header = ForwardedHeader::Forwarded;
            assert_eq!(source("10.0.0.1", &lines, &["10.0.0.1"], header).as_deref(), is, "{line}");
        }
    }
}
