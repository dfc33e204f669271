//! Paths without what is one of very many, and ids of grants in names of sessions.

use url::Url;
use uuid::Uuid;

/// How many parts of a path are told apart.
const PARTS: usize = 12;

/// From which length on a part with digits in it is taken for the name of one of many.
const LONG: usize = 16;

/// What stands for such a part.
const ONE: &str = "{}";

/// The path of an address, with `{}` where something names one of very many.
pub(super) fn of(address: &str) -> String {
    let path = Url::parse(address).map(|url| url.path().to_string()).unwrap_or_default();
    let mut parts = path.split('/').skip(1);
    let mut shape = String::new();
    for part in parts.by_ref().take(PARTS) {
        shape.push('/');
        shape.push_str(if is_one_of_many(part) { ONE } else { part });
    }
    if parts.next().is_some() {
        shape.push_str("/…");
    }
    shape
}

fn is_one_of_many(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    !part.is_empty() && digits == part.len() || digits > 0 && part.len() >= LONG
}

/// The id of a grant: it alone, or in the name of a session of AWS, or in a source identity,
/// where the configuration has put it.
pub(in crate::broker) fn elevation_in(text: &str) -> Option<Uuid> {
    const LENGTH: usize = 36;
    if text.len() <= LENGTH {
        return Uuid::try_parse(text).ok();
    }
    let at = |start: usize| {
        let found = text.get(start..start + LENGTH)?;
        let apart = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        let before = start.checked_sub(1).and_then(|before| text.as_bytes().get(before));
        let is_apart = apart(before) && apart(text.as_bytes().get(start + LENGTH));
        Uuid::try_parse(found).ok().filter(|_| is_apart)
    };
    let mut found = (0..=text.len() - LENGTH).filter_map(at);
    // Of two nobody can tell which is meant.
    found.next().filter(|_| found.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_no_query_and_names_nobody_of_many() {
        for (address, shape) in [
            ("https://a.example/things", "/things"),
            ("https://a.example/things/?q=secret", "/things/"),
            ("https://a.example/v1/users/4711/keys", "/v1/users/{}/keys"),
            ("https://a.example/t/0190f3d2-8f4e-7c3a-9f00-3b1c2d4e5f60", "/t/{}"),
            ("https://a.example/t/9f86d081884c7d659a2f", "/t/{}"),
            ("https://a.example/s3-bucket/readme", "/s3-bucket/readme"),
            ("https://a.example/a/b/c/d/e/f/g/h/i/j/k/l/m", "/a/b/c/d/e/f/g/h/i/j/k/l/…"),
            ("nothing", ""),
        ] {
            assert_eq!(of(address), shape, "{address}");
        }
    }

    #[test]
    fn the_id_of_a_grant_is_found_in_the_name_of_a_session() {
        let id = "0190f3d2-8f4e-7c3a-9f00-3b1c2d4e5f60";
        let known = Some(Uuid::try_parse(id).unwrap());
        assert_eq!(elevation_in(id), known);
        assert_eq!(elevation_in(&format!("grant-{id}@alice")), known);
        for text in [
            "",
            "alice",
            &format!("{id} {id}"),
            &format!("a{id}"),
            &"x".repeat(64),
            "ä".repeat(40).as_str(),
        ] {
            assert_eq!(elevation_in(text), None, "{text}");
        }
    }
}
