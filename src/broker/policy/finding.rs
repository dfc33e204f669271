//! What is wrong with policies, or looks as if it was not meant: by named rules, each
//! with why it matters and what to do.

use std::fmt;

use serde::{Serialize, Serializer};

use super::place::Place;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policies cannot be used, or do not do what they say.
    Error,
    /// It may be meant, and rarely is.
    Warning,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// By which rule.
    pub rule: Rule,
    /// How bad it is.
    pub severity: Severity,
    /// The policy that it is about, if it is about one.
    pub policy: Option<String>,
    /// Where.
    pub place: Option<Place>,
    /// What.
    pub message: String,
}

impl Finding {
    pub(super) fn new(rule: Rule, message: impl Into<String>) -> Self {
        let severity = rule.about().severity;
        Self { rule, severity, policy: None, place: None, message: message.into() }
    }

    pub(super) fn at(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    pub(super) fn of(self, policy: &str) -> Self {
        Self { policy: Some(policy.to_string()), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) if place.text.is_empty() => write!(f, "{place}: {}", self.message),
            Some(place) => write!(f, "{place}: {}: {}", self.message, place.text),
            None => f.write_str(&self.message),
        }
    }
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`about` says it of each, for people who run the program too")]
pub enum Rule {
    Syntax,
    Template,
    Schema,
    Annotation,
    DuplicateId,
    UnknownReference,
    AnyIssuer,
    OneAction,
    ForbidsHalf,
    PriorActors,
    ApprovesByToken,
    NoPermit,
    LikeAnything,
    LikeUnanchored,
    LikeOpenEnd,
    LiteralStar,
    NameNotId,
    UnknownIssuer,
    UnknownAudience,
    UnknownScope,
    UnknownClient,
    UnknownOperation,
    NeverMatches,
    TtlBeyondRole,
    ScopeBeyondRole,
    Shadowed,
    Everybody,
    EveryAudience,
    RoleUnreachable,
    ThresholdUnmeetable,
    ThresholdTight,
    DirectoryUndated,
    DirectoryIssuer,
    NobodyElevates,
    NotElevated,
    EmergencyUntold,
    GrantUntold,
}

/// What there is to say of a rule.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// How bad it is to be against it.
    pub severity: Severity,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub advice: &'static str,
}

impl Rule {
    /// Those by which policies are refused; the broker does not start with them.
    pub const REFUSED: [Self; 12] = [
        Self::Syntax,
        Self::Template,
        Self::Schema,
        Self::Annotation,
        Self::DuplicateId,
        Self::UnknownReference,
        Self::AnyIssuer,
        Self::OneAction,
        Self::ForbidsHalf,
        Self::PriorActors,
        Self::ApprovesByToken,
        Self::NoPermit,
    ];

    /// Those of the linter.
    pub const LINTS: [Self; 25] = [
        Self::LikeAnything,
        Self::LikeUnanchored,
        Self::LikeOpenEnd,
        Self::LiteralStar,
        Self::NameNotId,
        Self::UnknownIssuer,
        Self::UnknownAudience,
        Self::UnknownScope,
        Self::UnknownClient,
        Self::UnknownOperation,
        Self::NeverMatches,
        Self::TtlBeyondRole,
        Self::ScopeBeyondRole,
        Self::Shadowed,
        Self::Everybody,
        Self::EveryAudience,
        Self::RoleUnreachable,
        Self::ThresholdUnmeetable,
        Self::ThresholdTight,
        Self::DirectoryUndated,
        Self::DirectoryIssuer,
        Self::NobodyElevates,
        Self::NotElevated,
        Self::EmergencyUntold,
        Self::GrantUntold,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        self.about().name
    }

    /// What there is to say of it.
    pub fn about(self) -> About {
        use Severity::{Error, Warning};
        let (name, severity, why, advice) = match self {
            Self::Syntax => (
                "syntax",
                Error,
                "the file cannot be read as policies",
                "mend it at the place that is named",
            ),
            Self::Template => (
                "template",
                Error,
                "nothing fills the slots of a template in",
                "write a policy for each that is meant",
            ),
            Self::Schema => (
                "schema",
                Error,
                "it is against the schema, so it would fail or never be true",
                "compare it with `tmpcred broker policy schema`",
            ),
            Self::Annotation => (
                "annotation",
                Error,
                "a permit's limits are its annotations, and records name policies by @id",
                "give each policy an @id, and each permit to issue a @ttl of at most a day",
            ),
            Self::DuplicateId => (
                "duplicate-id",
                Error,
                "a record would not say which of them decided",
                "give one of them another @id",
            ),
            Self::UnknownReference => (
                "unknown-reference",
                Error,
                "what does not exist matches never, and a forbid of it forbids nothing",
                "name a configured role, this broker, or a user or group of a trusted issuer",
            ),
            Self::AnyIssuer => (
                "any-issuer",
                Error,
                "each issuer chooses the claims of its tokens, so the least of them would decide",
                "name the issuer, or annotate the permit @any_issuer",
            ),
            Self::OneAction => (
                "one-action",
                Error,
                "what is granted together is granted by oversight",
                "write a permit for each action",
            ),
            Self::ForbidsHalf => (
                "forbids-half",
                Error,
                "who has a token of the broker's could exchange it for what is forbidden",
                "name both actions, or none",
            ),
            Self::PriorActors => (
                "prior-actors",
                Error,
                "who acted before is for information; it is who acts now that something is permitted to (RFC 8693 section 4.1)",
                "permit by context.actor, and forbid by context.actors where that is meant",
            ),
            Self::ApprovesByToken => (
                "approves-by-token",
                Error,
                "approvals are counted again when a grant begins, and nobody shows a token then",
                "name a DirectoryGroup, a Person or a User, or say which actions the policy is for",
            ),
            Self::NoPermit => {
                ("no-permit", Error, "without a permit to issue everything is denied", "write one")
            }
            Self::LikeAnything => (
                "like-anything",
                Error,
                "a pattern of nothing but * or .* is true of every text",
                "leave the condition out, or say what is meant",
            ),
            Self::LikeUnanchored => (
                "like-unanchored",
                Error,
                "whoever chooses the beginning of a text can put anything there",
                "begin the pattern with what is known, or compare the whole text with ==",
            ),
            Self::LikeOpenEnd => (
                "like-open-end",
                Warning,
                "a name can go on where the pattern ends: acme* is true of acme-of-somebody-else",
                "end it with a separator, such as acme/*, or compare the whole text with ==",
            ),
            Self::LiteralStar => (
                "literal-star",
                Error,
                "only `like` knows patterns; elsewhere * is a star, and nothing has one",
                "use `like`, or write out what is meant",
            ),
            Self::NameNotId => (
                "name-not-id",
                Warning,
                "names and addresses change hands; who has one tomorrow may be somebody else",
                "go by the id that the message names",
            ),
            Self::UnknownIssuer => (
                "unknown-issuer",
                Error,
                "no caller is of an issuer that is not trusted, so this is never true",
                "write the issuer letter by letter as [trusted_issuer] has it",
            ),
            Self::UnknownAudience => (
                "unknown-audience",
                Error,
                "no role that the policy is for has this audience, so this is never true",
                "write the audience letter by letter as [role] has it",
            ),
            Self::UnknownScope => (
                "unknown-scope",
                Error,
                "no role that the policy is for has this scope, so this is never true",
                "write the scope letter by letter as [role] has it",
            ),
            Self::UnknownClient => (
                "unknown-client",
                Error,
                "no client authenticates by that id, so the condition is never true, or always",
                "compare it with the tables [client.NAME]",
            ),
            Self::UnknownOperation => (
                "unknown-operation",
                Error,
                "nobody asks for that, so the condition is never true, or always",
                "compare it with `tmpcred broker policy schema`",
            ),
            Self::NeverMatches => (
                "never-matches",
                Error,
                "its conditions contradict each other, so it does nothing",
                "join what excludes each other with ||, or take one of the two out",
            ),
            Self::TtlBeyondRole => (
                "ttl-beyond-role",
                Warning,
                "the role's max_ttl is shorter, and the least counts",
                "lower @ttl to what is had, or raise max_ttl if the longer one is meant",
            ),
            Self::ScopeBeyondRole => (
                "scope-beyond-role",
                Warning,
                "no role that the permit is for has this scope, so it grants nothing",
                "take it out of @scope, or add it to the role",
            ),
            Self::Shadowed => (
                "shadowed",
                Warning,
                "a forbid outweighs every permit, and this one has no conditions",
                "take the permit out, or narrow the forbid",
            ),
            Self::Everybody => (
                "everybody",
                Warning,
                "it says nothing of the caller: whoever has a token of an issuer has it",
                "name a group or a claim; or the issuer, where all of its callers are meant",
            ),
            Self::EveryAudience => (
                "every-audience",
                Warning,
                "whoever asks about tokens is to be told of those for their own audience only",
                "say context.audience == \"…\" of the resource owner that asks",
            ),
            Self::ThresholdUnmeetable => (
                "threshold-unmeetable",
                Error,
                "a role that nobody can ever have is no way out when it is needed",
                "ask for fewer approvals, or let more people approve",
            ),
            Self::ThresholdTight => (
                "threshold-tight",
                Warning,
                "nobody approves for themselves, and somebody is always away",
                "let more people approve than are needed",
            ),
            Self::DirectoryUndated => (
                "directory-undated",
                Warning,
                "who has left goes on approving for as long as nobody renews the directory",
                "say max_age in [directory], and let whoever exports it write as_of",
            ),
            Self::DirectoryIssuer => (
                "directory-issuer",
                Warning,
                "nobody is found by an id at an issuer that is not trusted, nor in its groups",
                "write the issuer letter by letter as [trusted_issuer] has it, or take the ids out",
            ),
            Self::NobodyElevates => (
                "nobody-elevates",
                Warning,
                "a role that is had by elevation is of use to those who may ask for it",
                "permit somebody Action::\"elevate\"",
            ),
            Self::NotElevated => (
                "not-elevated",
                Warning,
                "nobody asks for a role that is not had by elevation, nor approves it",
                "write its table [role.NAME.elevation], or leave the permit out",
            ),
            Self::EmergencyUntold => (
                "emergency-untold",
                Warning,
                "whoever is skipped in an emergency has to know of it, and nothing but mail tells them",
                "give them a contact email in the directory, or have a channel besides that is a place, such as slack",
            ),
            Self::GrantUntold => (
                "grant-untold",
                Warning,
                "the log of AWS leads back to no grant, and its sessions cannot be told apart",
                "leave source_identity out, or put {elevation} into it or into a tag",
            ),
            Self::RoleUnreachable => (
                "role-unreachable",
                Warning,
                "no permit that can be had is for this role, so nobody gets it",
                "write a permit for it, or take the role out of the configuration",
            ),
        };
        About { name, severity, why, advice }
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
