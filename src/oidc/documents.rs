//! Public documents of an issuer: how long they may be kept, and where.

use reqwest::header::{AGE, CACHE_CONTROL};
use time::{Duration, OffsetDateTime};

use crate::host::http::Response;

/// How long a document is kept where the issuer says nothing.
const DEFAULT_AGE: Duration = Duration::hours(1);

/// The bounds within which an issuer's `Cache-Control` is followed: nobody is asked
/// for every single token.
pub(super) const MIN_AGE: Duration = Duration::minutes(1);
pub(super) const MAX_AGE: Duration = Duration::days(1);

/// Where public documents may be kept between runs.
pub trait Documents: Send + Sync {
    /// A document that was kept and may still be used.
    fn get(&self, name: &str) -> Option<Vec<u8>>;
    /// Keeps a document until then.
    fn put(&self, name: &str, bytes: &[u8], until: OffsetDateTime);
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoDocuments;

impl Documents for NoDocuments {
    fn get(&self, _: &str) -> Option<Vec<u8>> {
        None
    }
    fn put(&self, _: &str, _: &[u8], _: OffsetDateTime) {}
}

/// What an answer says about keeping it (RFC 9111 section 5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// How long it may be used, within the bounds.
    pub age: Duration,
    /// Whether it may outlast the process.
    pub keep: bool,
}

impl Freshness {
    /// Reads `Cache-Control` and `Age`.
    pub fn of(response: &Response) -> Self {
        let mut max_age: Option<i64> = None;
        let (mut fresh, mut keep) = (true, true);
        let lines = response.headers.get_all(CACHE_CONTROL).iter();
        for directive in lines.filter_map(|line| line.to_str().ok()).flat_map(|l| l.split(',')) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" => (fresh, keep) = (false, false),
                "no-cache" => fresh = false,
                "max-age" => {
                    // What is no number means «stale» (RFC 9111 section 4.2.1).
                    let said = seconds(value.trim().trim_matches('"')).unwrap_or(0);
                    max_age = Some(max_age.map_or(said, |other| other.min(said)));
                }
                _ => {}
            }
        }
        // Somebody on the way has kept it for so long already.
        let spent = response.headers.get(AGE).and_then(|age| age.to_str().ok());
        let spent = Duration::seconds(spent.and_then(|age| seconds(age.trim())).unwrap_or(0));
        let age = match max_age {
            _ if !fresh => MIN_AGE,
            None => DEFAULT_AGE,
            Some(seconds) => Duration::seconds(seconds).saturating_sub(spent),
        };
        Self { age: age.clamp(MIN_AGE, MAX_AGE), keep }
    }
}

/// After which part of its life a document is to be fetched again, so that nobody waits
/// for it: about four fifths, another part each time, lest many who began together ask
/// together.
pub fn fetch_ahead(life: Duration) -> Duration {
    let mut random = [0];
    // Without randomness they ask together.
    let drawn = aws_lc_rs::rand::fill(&mut random).map_or(128, |()| i32::from(random[0]));
    life * (192 + drawn / 10) / 256
}

/// A number of seconds; more than can be counted is as good as the most that can.
fn seconds(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(i64::from(i32::MAX)))
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::*;
    use crate::secret::Secret;

    fn of(control: &[&str], age: Option<&str>) -> (i64, bool) {
        let mut headers = HeaderMap::new();
        for line in control {
            headers.append(CACHE_CONTROL, HeaderValue::from_str(line).unwrap());
        }
        if let Some(age) = age {
            headers.insert(AGE, HeaderValue::from_str(age).unwrap());
        }
        let body = Secret::new(Vec::new());
        let freshness = Freshness::of(&Response { status: StatusCode::OK, headers, body });
        (freshness.age.whole_seconds(), freshness.keep)
    }

    #[test]
    fn what_an_issuer_says_counts_within_bounds() {
        for (control, age, seconds, keep) in [
            (&[][..], None, 3600, true),
            (&["max-age=600"], None, 600, true),
            (&["Max-Age=600"], None, 600, true),
            (&["public, MAX-AGE=\"600\" , must-revalidate"], None, 600, true),
            (&["public", "max-age=600"], None, 600, true),
            (&["max-age=600, max-age=300"], None, 300, true),
            (&["max-age=1"], None, 60, true),
            (&["max-age=999999999999999999999"], None, 86_400, true),
            (&["max-age=soon"], None, 60, true),
            (&["max-age=-1"], None, 60, true),
            (&["s-maxage=600"], None, 3600, true),
            (&["no-store"], None, 60, false),
            (&["No-Store, max-age=600"], None, 60, false),
            (&["max-age=600, no-cache"], None, 60, true),
            (&["max-age=600"], Some("500"), 100, true),
            (&["max-age=600"], Some("601"), 60, true),
            (&["max-age=600"], Some("99999999999999999999999"), 60, true),
            (&["max-age=600"], Some("-9"), 600, true),
        ] {
            assert_eq!(of(control, age), (seconds, keep), "{control:?} {age:?}");
        }
    }
}
