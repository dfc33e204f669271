//! What somebody signs: a few lines that say who wants what of which broker, and until when.
//!
//! ```text
//! tmpcred statement 1
//! kind: approval
//! broker: https://broker.example.com
//! nonce: 1l6PpCs7TBs1oRM4yrUWOw
//! person: bob
//! request: sha256:…
//! made: 2026-01-01T12:00:00Z
//! expires: 2026-01-01T13:00:00Z
//! ```
//!
//! There is one way to write each: names come in one order, and whoever reads one compares
//! it with how it would be written. Nobody signs what they cannot read: there is nothing
//! in it that does not show.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;
use time::format_description::StaticFormatDescription;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result, foreign, printable};
use crate::oidc::Issuer;

/// How all of them begin.
const HEAD: &str = "tmpcred statement 1";

/// The longest one that is looked at, in bytes.
const MAX_STATEMENT: usize = 8 * 1024;

/// The longest value in one, in bytes.
const MAX_VALUE: usize = 1000;

/// How long one may be good.
pub const LONGEST: Duration = Duration::hours(24);

/// How far ahead the clock of whoever made one may be.
const AHEAD: Duration = Duration::minutes(2);

const MOMENT: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// How the hash of a request begins.
const HASH: &str = "sha256:";

/// What somebody says, and to which broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The broker that it is for.
    pub broker: Issuer,
    /// What tells it from all others; it is good once.
    pub nonce: Nonce,
    /// Who says it, as the broker's directory names them.
    pub person: String,
    /// What they say.
    pub said: Said,
    /// When it was made, to the second.
    pub made: OffsetDateTime,
    /// Until when it is good.
    pub expires: OffsetDateTime,
}

/// What somebody says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// They want a role for a while.
    Request {
        /// What exactly.
        subject: Subject,
        /// By which rules of the broker, as it names them: others are not what was approved.
        rules: String,
        /// The ticket, where there is one.
        ticket: Option<String>,
        /// Why.
        reason: String,
    },
    /// They approve the request with this hash.
    Approval {
        /// The hash.
        request: [u8; 32],
    },
    /// They deny it.
    Denial {
        /// The hash.
        request: [u8; 32],
        /// Why.
        reason: String,
    },
    /// They use what came of their request with this hash: they begin, or want a token.
    Use {
        /// The hash.
        request: [u8; 32],
        /// The thumbprint (RFC 7638) of the key that the token is to be bound to.
        bound_to: Option<String>,
    },
    /// They end what came of a request.
    Ending {
        /// Of which.
        of: Named,
        /// Why.
        reason: String,
    },
    /// The key that signs this is theirs.
    Enrollment {
        /// Its fingerprint, `SHA256:` and 43 characters.
        key: String,
        /// What they call it.
        label: String,
    },
}

/// How a statement names what is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// By the hash of the request that was signed.
    Request([u8; 32]),
    /// By its id at the broker: what was asked for by a login has no such hash.
    Elevation(Uuid),
}

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The role.
    pub role: String,
    /// For which audience; for any that the role is for where left out.
    pub audience: Option<String>,
    /// Within which scope, separated by spaces; all that the role has where left out.
    pub scope: Option<String>,
    /// For how long, in seconds.
    pub seconds: u64,
    /// The thumbprint (RFC 7638) of the key that what they get is to be bound to.
    pub bound_to: Option<String>,
    /// Whether it only is practised.
    pub drill: bool,
}

/// What tells a statement from all others: 16 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce([u8; 16]);

impl Nonce {
    /// A new one.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| Error::new(ErrorKind::Other, "the system gives no random numbers"))?;
        Ok(Self(bytes))
    }

    /// The same as text.
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self(URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
    }
}

impl Said {
    /// What kind of a statement it makes.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Request { .. } => "request",
            Self::Approval { .. } => "approval",
            Self::Denial { .. } => "denial",
            Self::Use { .. } => "use",
            Self::Ending { .. } => "ending",
            Self::Enrollment { .. } => "enrollment",
        }
    }

    /// The hash of the request that it is about, where it names one.
    pub fn request(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Approval { request }
            | Self::Denial { request, .. }
            | Self::Use { request, .. }
            | Self::Ending { of: Named::Request(request), .. } => Some(request),
            Self::Ending { of: Named::Elevation(_), .. }
            | Self::Request { .. }
            | Self::Enrollment { .. } => None,
        }
    }
}

impl Statement {
    /// Reads one.
    ///
    /// # Errors
    /// Where it is none, or not written as [`Self::text`] writes it.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_STATEMENT {
            return Err(unacceptable(format!("it is longer than {MAX_STATEMENT} bytes")));
        }
        let mut lines = Lines::of(text)?;
        let kind = lines.required("kind")?;
        let broker = lines.required("broker")?;
        let broker = Issuer::parse(broker)
            .map_err(|_| unacceptable(format!("'{}' is no broker", foreign(broker))))?;
        let nonce = lines.required("nonce")?;
        let nonce = Nonce::parse(nonce).ok_or_else(|| unacceptable("its nonce is none"))?;
        let person = lines.required("person")?.to_string();
        let said = match kind {
            "request" => {
                let role = lines.required("role")?.to_string();
                let audience = lines.optional("audience");
                let scope = lines.optional("scope");
                let seconds = lines.required("seconds")?.parse();
                let seconds = seconds.map_err(|_| unacceptable("its seconds are no number"))?;
                let bound_to = lines.optional("bound-to");
                // Anything else than this is not as it is written below.
                let drill = lines.optional("drill").is_some();
                let subject = Subject { role, audience, scope, seconds, bound_to, drill };
                let rules = lines.required("rules")?.to_string();
                let ticket = lines.optional("ticket");
                let reason = lines.required("reason")?.to_string();
                Said::Request { subject, rules, ticket, reason }
            }
            "approval" => Said::Approval { request: lines.hash()? },
            "denial" => {
                let request = lines.hash()?;
                Said::Denial { request, reason: lines.required("reason")?.to_string() }
            }
            "use" => {
                let request = lines.hash()?;
                Said::Use { request, bound_to: lines.optional("bound-to") }
            }
            "ending" => {
                let of = match lines.optional("elevation") {
                    Some(id) => Named::Elevation(
                        id.parse().map_err(|_| unacceptable("its elevation is no id"))?,
                    ),
                    None => Named::Request(lines.hash()?),
                };
                Said::Ending { of, reason: lines.required("reason")?.to_string() }
            }
            "enrollment" => {
                let key = lines.required("key")?.to_string();
                Said::Enrollment { key, label: lines.required("label")?.to_string() }
            }
            _ => return Err(unacceptable(format!("there is no kind '{}'", foreign(kind)))),
        };
        let (made, expires) = (lines.moment("made")?, lines.moment("expires")?);
        let statement = Self { broker, nonce, person, said, made, expires };
        // There is one way to write it: what is changed is another one, or none.
        match statement.text()? == text {
            true => Ok(statement),
            false => Err(unacceptable("it is not written as this program writes it")),
        }
    }

    /// The statement as it is signed.
    ///
    /// # Errors
    /// Where something of it cannot be said in a line.
    pub fn text(&self) -> Result<String> {
        let hash = |request: &[u8; 32]| format!("{HASH}{}", HEXLOWER.encode(request));
        let mut text = format!("{HEAD}\n");
        let mut line = |name: &str, value: &str| match is_plain(value) {
            true => {
                text.push_str(&format!("{name}: {value}\n"));
                Ok(())
            }
            false => Err(unacceptable(format!(
                "'{name}' is not a line of 1 to {MAX_VALUE} bytes in which all shows"
            ))),
        };
        line("kind", self.said.kind())?;
        line("broker", self.broker.as_str())?;
        line("nonce", &self.nonce.text())?;
        line("person", &self.person)?;
        match &self.said {
            Said::Request { subject, rules, ticket, reason } => {
                let Subject { role, audience, scope, seconds, bound_to, drill } = subject;
                line("role", role)?;
                for (name, value) in [("audience", audience), ("scope", scope)] {
                    value.as_ref().map_or(Ok(()), |value| line(name, value))?;
                }
                line("seconds", &seconds.to_string())?;
                bound_to.as_ref().map_or(Ok(()), |value| line("bound-to", value))?;
                drill.then(|| line("drill", "yes")).transpose()?;
                line("rules", rules)?;
                ticket.as_ref().map_or(Ok(()), |value| line("ticket", value))?;
                line("reason", reason)?;
            }
            Said::Approval { request } => line("request", &hash(request))?,
            Said::Denial { request, reason } => {
                line("request", &hash(request))?;
                line("reason", reason)?;
            }
            Said::Ending { of, reason } => {
                match of {
                    Named::Request(request) => line("request", &hash(request))?,
                    Named::Elevation(id) => line("elevation", &id.to_string())?,
                }
                line("reason", reason)?;
            }
            Said::Use { request, bound_to } => {
                line("request", &hash(request))?;
                bound_to.as_ref().map_or(Ok(()), |value| line("bound-to", value))?;
            }
            Said::Enrollment { key, label } => {
                line("key", key)?;
                line("label", label)?;
            }
        }
        line("made", &moment(self.made)?)?;
        line("expires", &moment(self.expires)?)?;
        Ok(text)
    }

    /// What names it: a request is approved by this.
    ///
    /// # Errors
    /// As with [`Self::text`].
    pub fn hash(&self) -> Result<[u8; 32]> {
        let text = self.text()?;
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Ok(hash)
    }

    /// Whether it is for this broker, and good at this time.
    ///
    /// # Errors
    /// Where not, with the reason.
    pub fn check(&self, broker: &Issuer, now: OffsetDateTime) -> Result<()> {
        if self.broker != *broker {
            let other = foreign(self.broker.as_str());
            return Err(unacceptable(format!("it is for the broker {other}, not for {broker}")));
        }
        if self.made > now.saturating_add(AHEAD) {
            return Err(unacceptable("it was made in the future")
                .hint("is the clock right where it was made?"));
        }
        if self.expires <= self.made || self.expires - self.made > LONGEST {
            let longest = LONGEST.whole_hours();
            return Err(unacceptable(format!(
                "it is good for longer than {longest} hours, or never"
            )));
        }
        if now >= self.expires {
            return Err(unacceptable("it has expired").hint("make it anew"));
        }
        Ok(())
    }
}

/// The lines of a statement, in their order.
struct Lines<'a> {
    rest: std::iter::Peekable<std::str::Lines<'a>>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Result<Self> {
        let mut rest = text.lines().peekable();
        match rest.next() {
            Some(HEAD) => Ok(Self { rest }),
            _ => Err(unacceptable(format!("it does not begin with '{HEAD}'"))),
        }
    }

    /// The value of the next line, where that has this name.
    fn next_if(&mut self, name: &str) -> Option<&'a str> {
        let line: &'a str = self.rest.peek()?;
        let value = line.strip_prefix(name)?.strip_prefix(": ")?;
        self.rest.next();
        Some(value)
    }

    fn optional(&mut self, name: &str) -> Option<String> {
        self.next_if(name).map(str::to_string)
    }

    fn required(&mut self, name: &str) -> Result<&'a str> {
        self.next_if(name)
            .ok_or_else(|| unacceptable(format!("there is no '{name}' where it belongs")))
    }

    fn hash(&mut self) -> Result<[u8; 32]> {
        let read = |text: &str| {
            let digits = text.strip_prefix(HASH)?;
            let mut hash = [0; 32];
            let is_hex = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
                *byte = u8::from_str_radix(digits.get(at..at + 2).filter(|_| is_hex)?, 16).ok()?;
            }
            Some(hash)
        };
        read(self.required("request")?).ok_or_else(|| unacceptable("its request is no hash"))
    }

    fn moment(&mut self, name: &str) -> Result<OffsetDateTime> {
        let text = self.required(name)?;
        let moment = PrimitiveDateTime::parse(text, MOMENT).map_err(|_| {
            unacceptable(format!("'{name}' is no moment such as 2026-01-01T12:00:00Z"))
        })?;
        Ok(moment.assume_utc())
    }
}

fn moment(at: OffsetDateTime) -> Result<String> {
    at.to_utc().format(MOMENT).map_err(|cause| unacceptable(cause.to_string()))
}

/// Whether a value is a line of which all shows.
fn is_plain(value: &str) -> bool {
    (1..=MAX_VALUE).contains(&value.len()) && value.trim() == value && printable(value) == value
}

fn unacceptable(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Verification, "the statement is not acceptable").because_of(why)
}
