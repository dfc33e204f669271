//! The address that a proof is for.

use std::fmt;

use url::Url;

/// An address as two parties compare it (RFC 9449 section 4.3): without query and
/// fragment, and normalized (RFC 3986 sections 6.2.2 and 6.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(String);

impl Target {
    /// The target at this address; `None` where it is none of HTTP.
    pub fn parse(text: &str) -> Option<Self> {
        // Nobody wrote these on purpose, and they are dropped silently below.
        if text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ' || byte == b'\\') {
            return None;
        }
        let url = Url::parse(text).ok()?;
        if !is_as_written(text, &url) { None } else { Self::of(&url) }
    }

    /// The same of an address that was read already.
    pub fn of(url: &Url) -> Option<Self> {
        let secret = !url.username().is_empty() || url.password().is_some();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || secret {
            return None;
        }
        let origin = url.origin().ascii_serialization();
        Some(Self(origin + &normalized(url.path())))
    }

    /// As a proof has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether scheme, host and port are those of the text, but for case and a port that goes without
/// saying (RFC 3986 sections 6.2.2.1 and 6.2.3). Browsers repair much more, such as slashes that
/// are missing or too many, and addresses of machines in other notations: two who compare
/// addresses need not do so alike.
fn is_as_written(text: &str, url: &Url) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some(host) = url.host_str() else { return false };
    let Some((named, port)) = authority.split_at_checked(host.len()) else { return false };
    let default = url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
    let is_port = ["", ":"].contains(&port) && url.port().is_none() || port == default;
    scheme.eq_ignore_ascii_case(url.scheme()) && named.eq_ignore_ascii_case(host) && is_port
}

/// A path in which percent-encoding is in capitals, and only of what needs it.
fn normalized(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        let byte = from.get(1..3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte.filter(|_| from.as_bytes().get(1) != Some(&b'+')) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                text.push(char::from(byte));
                rest = &from[3..];
            }
            Some(byte) => {
                text.push_str(&format!("%{byte:02X}"));
                rest = &from[3..];
            }
            // By itself it stands for itself; together with what is decoded behind it, it
            // would be read as something else the next time.
            None => {
                text.push_str("%25");
                rest = &from[1..];
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_same_where_they_mean_the_same() {
        let same = |a: &str, b: &str| {
            let (a, b) = (Target::parse(a).unwrap(), Target::parse(b).unwrap());
            a == b
        };
        let one = "https://api.example.com/a/b";
        for other in [
            "https://api.example.com:443/a/b",
            "https://api.example.com:/a/b",
            "HTTPS://API.example.com/a/b",
            "https://api.example.com/a/b?x=1",
            "https://api.example.com/a/b#f",
            "https://api.example.com/a/./c/../b",
            "https://api.example.com/%61/b",
        ] {
            assert!(same(one, other), "{other}");
        }
        assert!(same("https://a.example", "https://a.example/"));
        assert!(same("https://a.example?x", "https://a.example#f"));
        assert!(same("http://127.0.0.1:80/", "HTTP://127.0.0.1"));
        assert!(same("https://[::1]:8443/", "https://[::1]:8443"));
        assert!(same("https://[FE80::A]:443/", "https://[fe80::a]/"));
        assert!(same("https://a.example/%c3%a9", "https://a.example/%C3%A9"));
        assert!(same("https://a.example/é", "https://a.example/%C3%A9"));
        for other in [
            "http://api.example.com/a/b",
            "https://api.example.com:444/a/b",
            "https://api.example.org/a/b",
            "https://api.example.com/a/b/",
            "https://api.example.com/A/b",
            "https://api.example.com/a%2Fb",
        ] {
            assert!(!same(one, other), "{other}");
        }
        assert!(!same("https://a.example/%25%36%31", "https://a.example/a"));
        assert!(!same("https://a.example/%2%356", "https://a.example/%56"));
        for text in ["https://a.example/%2%65", "https://a.example/100%", "https://a.example/%zz%"]
        {
            let target = Target::parse(text).unwrap();
            assert_eq!(Target::parse(target.as_str()), Some(target.clone()), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_of_a_request_is_none() {
        for bad in [
            "",
            "/a",
            "api.example.com/a",
            "ftp://a.example/",
            "https://user@a.example/",
            "https://:secret@a.example/",
            "https://a.example/\n",
            " https://a.example/",
            "https:\\\\a.example/",
            "data:text/plain,a",
            // What browsers would repair.
            "https:a.example/",
            "https:/a.example/",
            "https:///a.example/",
            "https:////a.example/",
            "https:a.example://a.example/",
            "http:127.0.0.1:8080/token",
            "http://127.1/",
            "http://127.0.1/",
            "http://0x7f000001/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://2130706433/",
            "http://127.0.0.1./",
            "https://[0:0:0:0:0:0:0:1]/",
            "https://%61.example/",
            "https://é.example/",
            "https://ａ.example/",
            "https://a\u{ad}.example/",
            "https://@a.example/",
            "https://:@a.example/",
            "https://a.example:0443/",
            "https://a.example:00444/",
            "https://a.example:80443/",
        ] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }
}
