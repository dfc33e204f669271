//! Parameters of a POST request (RFC 6749 section 3.2, appendix B).

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::mem;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode, Uri};

use super::api::Field;
use super::refusal::Refusal;
use crate::error::foreign;
use crate::secret::Secret;
use crate::wire::refusal::{INVALID_REQUEST, INVALID_TARGET};

/// How many parameters a request may have.
const MAX_PARAMETERS: usize = 64;

/// What stands for what is no UTF-8; nobody writes it on purpose.
const REPLACED: char = char::REPLACEMENT_CHARACTER;

/// What was posted, as it came: nothing of it has been looked at.
pub(in crate::broker) struct Posted {
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
}

impl<S: Send + Sync> FromRequest<S> for Posted {
    type Rejection = Infallible;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Infallible> {
        let (uri, headers) = (mem::take(request.uri_mut()), mem::take(request.headers_mut()));
        Ok(Self { uri, headers, body: Bytes::from_request(request, state).await })
    }
}

impl Posted {
    /// The parameters, of an endpoint whose description has these, and the headers that came
    /// with them. No other parameter is looked at; whoever takes none calls [`Form::known`].
    pub(super) fn described(
        self,
        described: &'static [&'static [Field]],
    ) -> (Result<Form, Refusal>, HeaderMap) {
        let (form, headers) = self.form();
        (form.map(|form| Form { described: Some(described), ..form }), headers)
    }

    /// The same where nothing needs to be said: without a body, and without a word of what it
    /// is, there are no parameters.
    pub(super) fn described_or_none(
        self,
        described: &'static [&'static [Field]],
    ) -> (Result<Form, Refusal>, HeaderMap) {
        let is_empty = self.body.as_ref().is_ok_and(Bytes::is_empty);
        let is_bare = is_empty && !self.headers.contains_key(CONTENT_TYPE);
        if self.uri.query().is_some() || !is_bare {
            return self.described(described);
        }
        (Ok(Form { described: Some(described), ..Form::default() }), self.headers)
    }

    /// The parameters, whichever they are, and the headers that came with them.
    pub(in crate::broker) fn form(self) -> (Result<Form, Refusal>, HeaderMap) {
        self.repeating(&[])
    }

    /// The same where these may be repeated.
    pub(in crate::broker) fn repeating(
        self,
        repeatable: &[&str],
    ) -> (Result<Form, Refusal>, HeaderMap) {
        let Self { uri, headers, body } = self;
        (read(&uri, &headers, body, repeatable), headers)
    }
}

fn read(
    uri: &Uri,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    repeatable: &[&str],
) -> Result<Form, Refusal> {
    if uri.query().is_some() {
        // Addresses end up in logs.
        return Err(Refusal::invalid_request("parameters belong into the body"));
    }
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    let kind = match (kinds.next(), kinds.next()) {
        (Some(kind), None) => kind.to_str().unwrap_or_default(),
        _ => "",
    };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Refusal::invalid_request("the body must be application/x-www-form-urlencoded"));
    }
    // Somebody on the way may have read what it says decoded.
    if headers.contains_key(CONTENT_ENCODING) {
        let why = "the body must not be encoded";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, why));
    }
    Form::parse(&body.map_err(|rejection| unreadable(&rejection))?, repeatable)
}

/// The parameters, none of them empty, and each at most once but for those that
/// may be repeated.
#[derive(Debug, Default)]
pub struct Form {
    values: BTreeMap<String, Vec<Secret<String>>>,
    /// Those that were named, and have no value.
    bare: BTreeSet<String>,
    /// Those that the description of the endpoint has, where there is one.
    described: Option<&'static [&'static [Field]]>,
}

impl Form {
    /// Reads parameters from a body or a query.
    pub fn parse(text: &[u8], repeatable: &[&str]) -> Result<Self, Refusal> {
        let mut parameters: BTreeMap<String, Vec<Secret<String>>> = BTreeMap::new();
        let mut bare = BTreeSet::new();
        for (at, (name, value)) in url::form_urlencoded::parse(text).enumerate() {
            if at >= MAX_PARAMETERS {
                return Err(Refusal::invalid_request("there are too many parameters"));
            }
            // What cannot be read as UTF-8 was replaced, and so different names became one.
            if name.contains(REPLACED) || value.contains(REPLACED) {
                return Err(Refusal::invalid_request("the parameters are not UTF-8"));
            }
            // RFC 6749 section 3.2: without a value, it counts as left out, so it repeats nothing.
            if value.is_empty() {
                bare.insert(name.into_owned());
                continue;
            }
            let values = parameters.entry(name.to_string()).or_default();
            if !values.is_empty() && !repeatable.contains(&&*name) {
                // RFC 8693 section 2.1 and RFC 8707 section 2 let these be repeated: that
                // such a token cannot be had is another error (RFC 8693 section 2.2.2).
                if matches!(&*name, "audience" | "resource") {
                    let why = format!("a token is for one audience: '{name}' is repeated");
                    return Err(Refusal::bad(INVALID_TARGET, why));
                }
                let name = foreign(&name);
                return Err(Refusal::invalid_request(format!(
                    "the parameter '{name}' is repeated"
                )));
            }
            values.push(Secret::new(value.into_owned()));
        }
        Ok(Self { values: parameters, bare, described: None })
    }

    /// The same, where all that was named is described: what is misspelt would otherwise say
    /// nothing, and something else would be done than was meant. RFC 6749 section 3.2 has
    /// others passed over at its own endpoints; at ours they are not.
    pub(super) fn known(self) -> Result<Self, Refusal> {
        self.check_known().map(|()| self)
    }

    /// Refuses what is not described.
    pub(super) fn check_known(&self) -> Result<(), Refusal> {
        let fields = self.described.unwrap_or_default();
        let is_known = |name: &&String| fields.iter().copied().flatten().any(|f| f.name == **name);
        match self.values.keys().chain(&self.bare).find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => {
                let name = cut(name);
                // Beside these, a client may say which one it is.
                let own: Vec<_> =
                    fields.first().into_iter().copied().flatten().map(|f| f.name).collect();
                Err(Refusal::invalid_request(format!(
                    "there is no parameter '{name}' here; there are {}",
                    own.join(", ")
                )))
            }
        }
    }

    /// Whether this was named, and has no value.
    pub(super) fn is_bare(&self, name: &str) -> bool {
        !self.values.contains_key(name) && self.bare.contains(name)
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values(name).iter().map(|value| value.expose().as_str())
    }

    /// A parameter that may be left out.
    pub fn optional(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// A parameter that may not.
    pub fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.optional(name).ok_or_else(|| missing(name))
    }

    /// A parameter that is a secret.
    pub fn secret(&self, name: &str) -> Result<&Secret<String>, Refusal> {
        self.values(name).first().ok_or_else(|| missing(name))
    }

    /// Whether there is any parameter but this one.
    pub(super) fn has_others(&self, name: &str) -> bool {
        self.values.keys().any(|other| other != name)
    }

    fn values(&self, name: &str) -> &[Secret<String>] {
        let described = |fields: &[&[Field]]| fields.concat().iter().any(|f| f.name == name);
        debug_assert!(self.described.is_none_or(described), "'{name}' is not described");
        self.values.get(name).map(Vec::as_slice).unwrap_or_default()
    }
}

/// How much is said of a name that nobody knows, in characters: where it is a token in the wrong
/// place, no more than its header comes into the log.
const NAMED: usize = 48;

/// What stands where a name should, as far as it is told.
pub(super) fn cut(text: &str) -> String {
    foreign(&text.chars().take(NAMED).collect::<String>())
}

/// The refusal of a request whose body cannot be had.
pub(super) fn unreadable(rejection: &BytesRejection) -> Refusal {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        status => Refusal::new(status, INVALID_REQUEST, "the body cannot be read"),
    }
}

/// The refusal of a request whose body is too large.
pub(super) fn too_large() -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, "the body is too large")
}

fn missing(name: &str) -> Refusal {
    Refusal::invalid_request(format!("the parameter '{name}' is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_is_there_once_and_with_a_value() {
        let form = Form::parse(b"a=1&b=&c=x+y%2Bz&%64=%C3%A9", &[]).unwrap();
        assert_eq!(form.optional("a"), Some("1"));
        assert_eq!(form.optional("b"), None);
        assert_eq!(form.optional("c"), Some("x y+z"));
        assert_eq!(form.optional("d"), Some("\u{e9}"));
        assert!(form.required("b").is_err());
        for repeated in ["a=1&a=2", "a=1&a=1", "a=1&%61=1", "a=1&a=&a=2", "resource=x&resource=x"] {
            assert!(Form::parse(repeated.as_bytes(), &["b"]).is_err(), "{repeated}");
        }
        // RFC 6749 section 3.2: one without a value is as good as left out.
        for once in ["a=&a=1", "a=1&a=", "a&a=1&a", "a=&%61=1", "resource=&resource=x&a=1"] {
            let form = Form::parse(once.as_bytes(), &[]).unwrap();
            assert_eq!(form.optional("a"), Some("1"), "{once}");
        }
        let form = Form::parse(b"r=1&r=2&r=", &["r"]).unwrap();
        assert_eq!(form.all("r").collect::<Vec<_>>(), ["1", "2"]);
        for garbled in [&b"a=\xff"[..], b"a=%ff", b"%c3=1", b"a=%ed%a0%80", b"a=\xc0\xaf"] {
            assert!(Form::parse(garbled, &[]).is_err(), "{garbled:?}");
        }
        let many: String = (0..=MAX_PARAMETERS).map(|n| format!("p{n}=1&")).collect();
        assert!(Form::parse(many.as_bytes(), &[]).is_err());
    }

    #[test]
    fn a_body_is_what_its_headers_say_once() {
        let read = |lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().unwrap());
            }
            let body = Ok(Bytes::from_static(b"a=1"));
            read(&Uri::from_static("/token"), &headers, body, &[]).is_ok()
        };
        let form = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        assert!(read(&[form]));
        assert!(!read(&[]) && !read(&[("content-type", "application/json")]));
        assert!(!read(&[form, form]));
        for coding in ["gzip", "identity", ""] {
            assert!(!read(&[form, ("content-encoding", coding)]), "{coding}");
        }
    }

    #[test]
    fn what_is_not_described_is_named_with_what_is_and_never_with_its_value() {
        const OWN: &[Field] = &[Field::optional("role", ""), Field::optional("reason", "")];
        let form = |body: &'static [u8]| {
            let form = Form::parse(body, &[]).unwrap();
            Form { described: Some(&[OWN, super::super::client::FIELDS]), ..form }
        };
        for good in [&b""[..], b"role=a", b"role=a&reason=", b"role=a&client_id=b"] {
            assert!(form(good).known().is_ok(), "{good:?}");
        }
        for bad in [&b"role=a&rolle=hunter2"[..], b"rolle", b"rolle=&role=a"] {
            let said = format!("{:?}", form(bad).known().unwrap_err());
            assert!(said.contains("'rolle' here; there are role, reason"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        let pasted = format!("{}hunter2=1", "x".repeat(60)).into_bytes();
        let said = format!("{:?}", form(pasted.leak()).known().unwrap_err());
        assert!(!said.contains("hunter2"), "{said}");
    }

    #[test]
    fn nothing_at_all_is_no_parameters_where_none_are_needed() {
        let posted = |uri, body, kind: Option<&'static str>| {
            let headers = kind.map(|kind| (CONTENT_TYPE, kind.parse().unwrap()));
            let headers = headers.into_iter().collect();
            let body = Ok(Bytes::from_static(body));
            Posted { uri: Uri::from_static(uri), headers, body }.described_or_none(&[]).0.is_ok()
        };
        assert!(posted("/x", b"", None));
        assert!(!posted("/x?a=1", b"", None) && !posted("/x", b"a=1", None));
        assert!(!posted("/x", b"", Some("text/plain")));
        let posted = Posted {
            uri: Uri::from_static("/x"),
            headers: HeaderMap::new(),
            body: Ok(Bytes::new()),
        };
        assert!(posted.described(&[]).0.is_err());
    }

    #[test]
    fn values_show_nowhere() {
        let form = Form::parse(b"subject_token=hunter2", &[]).unwrap();
        assert!(!format!("{form:?}").contains("hunter2"));
    }
}
