//! Whom a request may take the server for.

use std::sync::{Arc, PoisonError, RwLock};

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Version};

/// Which `Host` a request may name.
#[derive(Clone, Debug)]
pub enum Hosts {
    /// Any: certificates tell the names apart.
    Any,
    /// Loopback, and these names: a web page elsewhere may point a name of its own
    /// at this machine (DNS rebinding).
    Loopback(Vec<String>),
    /// The same, where the names may become others.
    Told(Names),
}

/// Names that may become others while they are gone by.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<RwLock<Vec<String>>>);

impl Names {
    /// These count from now on; addresses with brackets or without.
    pub fn set(&self, names: Vec<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = names;
    }
}

impl Hosts {
    pub(super) fn allow(&self, headers: &HeaderMap, authority: Option<&Authority>) -> bool {
        match self {
            Self::Any => true,
            Self::Loopback(names) => Self::are_own(names, headers, authority),
            Self::Told(names) => {
                let names = names.0.read().unwrap_or_else(PoisonError::into_inner);
                Self::are_own(&names, headers, authority)
            }
        }
    }

    fn are_own(names: &[String], headers: &HeaderMap, authority: Option<&Authority>) -> bool {
        let mut given = headers.get_all(HOST).iter();
        let header = match (given.next(), given.next()) {
            (Some(one), None) => match one.to_str().ok().and_then(|text| text.parse().ok()) {
                Some(named) => Some(named),
                None => return false,
            },
            (None, _) => None,
            // Two of them: whoever forwarded the request may have read the other one.
            (Some(_), Some(_)) => return false,
        };
        // A request may name it twice, by its target as well (RFC 9112 section 3.2.2).
        let mut named = header.as_ref().into_iter().chain(authority).peekable();
        named.peek().is_some() && named.all(|authority| Self::is_own(names, authority))
    }

    fn is_own(names: &[String], authority: &Authority) -> bool {
        if authority.as_str().contains('@') {
            return false;
        }
        let host = bare(authority.host());
        let loopback = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        loopback
            || host.eq_ignore_ascii_case("localhost")
            || names.iter().any(|name| bare(name).eq_ignore_ascii_case(host))
    }
}

/// A host without the brackets that an address of IPv6 has in a URL.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Whether a request says for which host it is as it has to (RFC 9112 section 3.2): by one
/// `Host`, which may be empty, or in versions of HTTP but 1.1 by none.
pub(super) fn is_named(headers: &HeaderMap, version: Version) -> bool {
    let mut given = headers.get_all(HOST).iter();
    let is_host = |text: &str| text.is_empty() || is_host_and_port(text);
    match (given.next(), given.next()) {
        (Some(one), None) => one.to_str().is_ok_and(is_host),
        (None, _) => version != Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}

fn is_host_and_port(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let rest = text.strip_prefix(authority.host()).filter(|_| !authority.host().is_empty());
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_request_names_one_host() {
        let named = |given: &[&str], version| {
            let given = given.iter().map(|host| (HOST, HeaderValue::from_str(host).unwrap()));
            let mut headers = HeaderMap::new();
            for (name, host) in given {
                headers.append(name, host);
            }
            is_named(&headers, version)
        };
        for good in ["a.example", "a.example:80", "[::1]:80", "evil.example", ""] {
            assert!(named(&[good], Version::HTTP_11), "{good}");
        }
        for bad in ["a b", "a@b.example", "a/b", "http://a.example", "a.example:x", ":80"] {
            assert!(!named(&[bad], Version::HTTP_11), "{bad}");
        }
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(named(&[], version), version != Version::HTTP_11);
            assert!(!named(&["a.example", "a.example"], version));
        }
    }

    fn allowed(hosts: &Hosts, given: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in given {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        hosts.allow(&headers, None)
    }

    #[test]
    fn only_loopback_and_the_own_name_may_be_named() {
        let hosts = Hosts::Loopback(vec!["broker.example".into()]);
        for good in [
            "127.0.0.1:80",
            "127.0.0.1",
            "localhost:9",
            "LOCALHOST",
            "[::1]:8443",
            "broker.example",
            "Broker.Example:443",
        ] {
            assert!(allowed(&hosts, &[good]), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "a@b@127.0.0.1",
            "",
        ] {
            assert!(!allowed(&hosts, &[bad]), "{bad}");
        }
        let hosts6 = Hosts::Told(Names::default());
        let Hosts::Told(names) = &hosts6 else { unreachable!() };
        names.set(vec!["[2001:db8::7]".into()]);
        assert!(allowed(&hosts6, &["[2001:db8::7]:8443"]));
        assert!(!allowed(&hosts6, &["[2001:db8::8]:8443"]));
        assert!(!allowed(&hosts, &[]));
        assert!(!allowed(&hosts, &["127.0.0.1", "evil.example"]));
        assert!(allowed(&Hosts::Any, &["evil.example"]));
        // By its target as well (RFC 9112 section 3.2.2).
        for (host, target, good) in [
            (Some("localhost"), "127.0.0.1", true),
            (Some("localhost"), "evil.example", false),
            (Some("evil.example"), "localhost", false),
            (Some("no host"), "localhost", false),
            (None, "localhost", true),
        ] {
            let headers = host.map(|host| (HOST, HeaderValue::from_str(host).unwrap()));
            let headers = headers.into_iter().collect();
            assert_eq!(
                hosts.allow(&headers, target.parse().ok().as_ref()),
                good,
                "{host:?} {target}"
            );
        }
    }
}
