//! What comes to the endpoint of a run.

use hyper::header::HeaderName;

use super::*;
use crate::fuzz::{
    Fate::{self, Accepted, Refused},
    halves, hold,
};

struct Nothing;

impl Current for Nothing {
    fn current(&self) -> Result<Credential, String> {
        Err("there is none".into())
    }
}

/// Method and target, a line end, and header lines.
#[test]
fn endpoint() {
    let seed = "GET /credentials\nHost: 127.0.0.1:4711\nAuthorization: the-token";
    hold("endpoint", [seed.into()], |input| {
        let (first, lines) = halves(input);
        let first = String::from_utf8_lossy(first);
        let (method, target) = first.split_once(' ').unwrap_or((&first, "/"));
        let mut request = Request::builder().method(method).uri(target);
        for line in lines.split(|byte| *byte == b'\n').take(50) {
            let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let value = line.get(at + 1..).unwrap_or_default().trim_ascii();
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(&line[..at]), HeaderValue::from_bytes(value))
            {
                request = request.header(name, value);
            }
        }
        let Ok(request) = request.body(()) else { return Refused };
        let address = SocketAddr::from(([127, 0, 0, 1], 4711));
        let guard =
            Guard { address, token: Secret::new("the-token".into()), from: Arc::new(Nothing) };
        assert!(guard.admit(&request, false).is_err(), "a program of somebody else");
        if guard.admit(&request, true).is_err() {
            return Refused;
        }
        assert!(request.method() == Method::GET && request.uri() == PATH);
        for (name, value) in [(HOST, "127.0.0.1:4711"), (AUTHORIZATION, "the-token")] {
            assert!(request.headers().get_all(name).iter().eq([value]), "{value}");
        }
        Accepted
    });
}

/// The token is compared to the letter, and nothing else opens.
#[test]
fn endpoint_headers() {
    hold("endpoint_headers", ["the-token".into(), "The-Token".into()], |input| {
        let secret: Secret<String> = Secret::new("the-token".into());
        assert_eq!(secret.ct_eq(input), input == b"the-token");
        let name = String::from_utf8_lossy(input).to_ascii_lowercase();
        let proxy =
            ["forwarded", "via", "x-real-ip"].contains(&&*name) || name.starts_with("x-forwarded");
        assert_eq!(tells_of_a_proxy(&name), proxy);
        Fate::accepted_if(input == b"the-token")
    });
}
