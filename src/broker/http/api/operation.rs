//! What is said of one endpoint: what it takes, and all that it may answer.

use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::wire::refusal;

/// How the schema of a body is made.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// An operation.
#[derive(Clone, Debug)]
pub(in crate::broker::http) struct Operation {
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) about: &'static str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) form: &'static [&'static [Field]],
    /// What besides these a form may have, and whether there has to be one.
    pub(super) form_is: FormIs,
    pub(super) body: Option<(&'static [&'static str], SchemaOf)>,
    pub(super) security: &'static [&'static [Scheme]],
    pub(super) answers: BTreeMap<u16, Answer>,
}

/// What a form may have besides what is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FormIs {
    /// Whatever there is, which is passed over (RFC 6749 section 3.2).
    Open,
    /// Nothing.
    Closed,
    /// Nothing, and it may be left out.
    ClosedOrNone,
}

/// A parameter of a path, a query or a header.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker::http) struct Parameter {
    pub(super) place: &'static str,
    pub(in crate::broker::http) name: &'static str,
    pub(super) about: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
}

impl Parameter {
    /// A part of the path.
    pub(in crate::broker::http) const fn path(name: &'static str, about: &'static str) -> Self {
        Self { place: "path", name, about, kind: Kind::Text, required: true }
    }

    /// A header that may be left out.
    pub(in crate::broker::http) const fn header(name: &'static str, about: &'static str) -> Self {
        Self { place: "header", name, about, kind: Kind::Anything, required: false }
    }

    /// A text in the query, which may be left out.
    pub(in crate::broker::http) const fn text(name: &'static str, about: &'static str) -> Self {
        Self { place: "query", name, about, kind: Kind::Text, required: false }
    }

    /// A number in the query.
    pub(in crate::broker::http) const fn number(
        name: &'static str,
        about: &'static str,
        required: bool,
    ) -> Self {
        Self { place: "query", name, about, kind: Kind::Number, required }
    }
}

/// A parameter of a form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What its values are like.
    pub kind: Kind,
    /// Whether it has to be there.
    pub required: bool,
}

impl Field {
    /// One that may be left out.
    pub(in crate::broker::http) const fn optional(name: &'static str, about: &'static str) -> Self {
        Self { name, about, kind: Kind::Text, required: false }
    }

    /// One that may not.
    pub(in crate::broker::http) const fn required(name: &'static str, about: &'static str) -> Self {
        Self { name, about, kind: Kind::Text, required: true }
    }

    /// The same, of another kind.
    pub(in crate::broker::http) const fn of(self, kind: Kind) -> Self {
        Self { name: self.name, about: self.about, kind, required: self.required }
    }
}

/// What a value is like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Text, or none.
    Anything,
    /// Text.
    Text,
    /// What must not be seen.
    Secret,
    /// A whole number, from one on.
    Number,
    /// One of these.
    OneOf(&'static [&'static str]),
}

/// How a caller shows who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker::http) enum Scheme {
    /// A bearer token (RFC 6750).
    Bearer,
    /// A token that is bound to a key (RFC 9449 section 7.1).
    Dpop,
    /// The proof of a key (RFC 9449 section 4).
    DpopProof,
    /// What a client signs (RFC 7523 section 2.2).
    PrivateKeyJwt,
}

/// A header of an answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker::http) struct Header {
    pub(in crate::broker::http) name: &'static str,
    pub(super) about: &'static str,
    pub(super) required: bool,
}

impl Header {
    /// One that is there each time.
    pub(in crate::broker::http) const fn always(name: &'static str, about: &'static str) -> Self {
        Self { name, about, required: true }
    }

    /// The same, but there some of the time.
    pub(in crate::broker::http) const fn sometimes(self) -> Self {
        Self { name: self.name, about: self.about, required: false }
    }
}

/// When to ask again.
pub(in crate::broker::http) const RETRY_AFTER: Header =
    Header::always("Retry-After", "In how many seconds to ask again (RFC 9110 section 10.2.3)");

/// How to show who one is.
pub(in crate::broker::http) const CHALLENGE: Header = Header::always(
    "WWW-Authenticate",
    "What would be accepted, and what was wrong (RFC 6750 section 3, RFC 9449 section 7.1)",
);

/// By which scheme somebody has tried to show who they are, where it is none that is accepted.
pub(in crate::broker::http) const TRIED: Header =
    Header::always("WWW-Authenticate", "The scheme that was tried (RFC 6749 section 5.2)")
        .sometimes();

/// The nonce for the next proof.
pub(in crate::broker::http) const DPOP_NONCE: Header =
    Header::always("DPoP-Nonce", "The nonce for the next proof (RFC 9449 section 8)").sometimes();

/// What may be answered with one status.
#[derive(Clone, Debug, Default)]
pub(in crate::broker::http) struct Answer {
    pub(super) status: u16,
    pub(super) about: Vec<&'static str>,
    /// What is sent where it is no refusal: of which kind, and what it is like.
    pub(super) body: Option<(&'static str, SchemaOf)>,
    /// The codes of refusals.
    pub(super) codes: BTreeSet<&'static str>,
    pub(super) headers: Vec<Header>,
}

impl Answer {
    /// An answer without a body.
    pub(in crate::broker::http) fn empty(status: u16, about: &'static str) -> Self {
        Self { status, about: vec![about], ..Self::default() }
    }

    /// A document of this kind.
    pub(in crate::broker::http) fn json<T: JsonSchema>(status: u16, about: &'static str) -> Self {
        Self::json_of(status, about, |schemas| schemas.subschema_for::<T>())
    }

    /// A document that is like this.
    pub(in crate::broker::http) fn json_of(
        status: u16,
        about: &'static str,
        schema: SchemaOf,
    ) -> Self {
        Self { body: Some(("application/json", schema)), ..Self::empty(status, about) }
    }

    /// Text of this type.
    pub(in crate::broker::http) fn text(
        status: u16,
        kind: &'static str,
        about: &'static str,
    ) -> Self {
        let schema: SchemaOf = |_| schemars::json_schema!({"type": "string"});
        Self { body: Some((kind, schema)), ..Self::empty(status, about) }
    }

    /// The same, as another type of document.
    pub(in crate::broker::http) fn of_type(self, kind: &'static str) -> Self {
        Self { body: self.body.map(|(_, schema)| (kind, schema)), ..self }
    }

    /// A refusal with one of these codes.
    pub(in crate::broker::http) fn refusal(
        status: u16,
        about: &'static str,
        codes: &[&'static str],
    ) -> Self {
        Self { codes: codes.iter().copied().collect(), ..Self::empty(status, about) }
    }

    /// The same, with this header.
    pub(in crate::broker::http) fn with(mut self, header: Header) -> Self {
        self.headers.push(header);
        self
    }

    /// What may be one answer or the other.
    fn or(&mut self, other: Self) {
        for about in other.about {
            if !self.about.contains(&about) {
                self.about.push(about);
            }
        }
        self.codes.extend(other.codes);
        self.body = self.body.or(other.body);
        for header in &mut self.headers {
            header.required &= other.headers.iter().any(|h| h.name == header.name && h.required);
        }
        for header in other.headers {
            if !self.headers.iter().any(|own| own.name == header.name) {
                self.headers.push(header.sometimes());
            }
        }
    }
}

impl Operation {
    /// An operation by this name.
    pub(in crate::broker::http) fn new(id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            summary,
            about: "",
            parameters: Vec::new(),
            form: &[],
            form_is: FormIs::Open,
            body: None,
            security: &[],
            answers: BTreeMap::new(),
        }
    }

    /// What else there is to say.
    pub(in crate::broker::http) fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// It takes these parameters.
    pub(in crate::broker::http) fn takes(mut self, parameters: &[Parameter]) -> Self {
        self.parameters.extend_from_slice(parameters);
        self
    }

    /// It takes a form with these.
    pub(in crate::broker::http) fn form(self, form: &'static [&'static [Field]]) -> Self {
        let (encoded, codes) = ("The body is encoded", &[refusal::INVALID_REQUEST]);
        Self { form, ..self }.answers(Answer::refusal(415, encoded, codes))
    }

    /// It takes a form with these, and no others.
    pub(in crate::broker::http) fn only(self, form: &'static [&'static [Field]]) -> Self {
        Self { form_is: FormIs::Closed, ..self.form(form) }
    }

    /// The same, and may be asked without one.
    pub(in crate::broker::http) fn only_or_none(self, form: &'static [&'static [Field]]) -> Self {
        Self { form_is: FormIs::ClosedOrNone, ..self.form(form) }
    }

    /// It takes documents that are like this, as a list or one in each line, as these types.
    pub(in crate::broker::http) fn body<T: JsonSchema>(
        self,
        kinds: &'static [&'static str],
    ) -> Self {
        Self { body: Some((kinds, |schemas| schemas.subschema_for::<T>())), ..self }
    }

    /// In which ways callers may show who they are; an empty one says that they need not.
    pub(in crate::broker::http) fn shown(self, security: &'static [&'static [Scheme]]) -> Self {
        Self { security, ..self }
    }

    /// It may answer like this, besides.
    pub(in crate::broker::http) fn answers(mut self, answer: Answer) -> Self {
        match self.answers.get_mut(&answer.status) {
            Some(known) => known.or(answer),
            None => {
                self.answers.insert(answer.status, answer);
            }
        }
        self
    }

    /// What [`guard`](super::guard) may answer in its place.
    pub(super) fn guarded(self) -> Self {
        self.answers(Answer::refusal(
            400,
            "The header `Host` is missing, malformed or there twice, or the header `Tmpcred-Protocol` names another version of the protocol",
            &[refusal::INVALID_REQUEST],
        ))
        .answers(Answer::refusal(413, "The body is too large", &[refusal::INVALID_REQUEST]))
        .answers(Answer::refusal(
            421,
            "The header `Host` names somebody else; only where the listener has no certificate",
            &["misdirected_request"],
        ))
        .answers(Answer::refusal(
            431,
            "There are more than 100 headers",
            &[refusal::INVALID_REQUEST],
        ))
        .answers(Answer::refusal(
            500,
            "The broker failed; its log says why",
            &[refusal::SERVER_ERROR],
        ))
        .answers(unavailable("It took too long"))
    }

    /// What [`shed_load`](super::guard::shed_load) may answer in its place.
    pub(super) fn shedding(self) -> Self {
        self.answers(Answer::refusal(
            408,
            "The body did not arrive in time",
            &[refusal::INVALID_REQUEST],
        ))
        .answers(Answer::refusal(400, "The body cannot be read", &[refusal::INVALID_REQUEST]))
        .answers(unavailable("The broker is busy"))
    }

    /// What [`limit`](super::rates::limit) may answer in its place.
    pub(super) fn limited(self) -> Self {
        let about = "Somebody asks too often (RFC 6585 section 4)";
        let codes = [refusal::TEMPORARILY_UNAVAILABLE];
        self.answers(Answer::refusal(429, about, &codes).with(RETRY_AFTER))
    }
}

/// Not now.
pub(in crate::broker::http) fn unavailable(about: &'static str) -> Answer {
    Answer::refusal(503, about, &[refusal::TEMPORARILY_UNAVAILABLE]).with(RETRY_AFTER)
}
