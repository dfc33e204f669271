//! What it means that STS did not give a session, for people.

use std::error::Error as StdError;

use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::RequestId;

use time::OffsetDateTime;

use super::sts::Signer;
use super::{RoleArn, UserArn};
use crate::credential::Assertion;
use crate::error::{Error, ErrorKind, foreign};
use crate::host::http;
use crate::reach::Failure;
use crate::secret::Secret;

/// What was asked of STS.
pub(super) enum Asked<'a> {
    /// A session for an assertion.
    WebIdentity {
        /// The role.
        role: &'a RoleArn,
        /// The assertion.
        assertion: &'a Assertion,
        /// What it is bound to.
        audience: String,
    },
    /// A session of a role, for whoever signs.
    Role {
        /// The role.
        role: &'a RoleArn,
        /// Who asked.
        signer: &'a Signer<'a>,
        /// The MFA code that was sent.
        code: Option<&'a Secret<String>>,
    },
    /// A session of a user, for the user's access keys.
    User {
        /// The user.
        user: &'a UserArn,
        /// Who asked.
        signer: &'a Signer<'a>,
        /// The MFA code that was sent.
        code: Option<&'a Secret<String>>,
    },
}

impl Asked<'_> {
    /// Says what failed.
    pub(super) fn context(&self, error: Error) -> Error {
        error.context(match self {
            Self::WebIdentity { role, .. } | Self::Role { role, .. } => {
                format!("AWS gives no session of the role {role}")
            }
            Self::User { user, .. } => format!("AWS gives no session of the user {user}"),
        })
    }

    /// Whether what was asked is signed, and so is good for minutes.
    pub(super) fn is_signed(&self) -> bool {
        !matches!(self, Self::WebIdentity { .. })
    }

    fn code(&self) -> Option<&Secret<String>> {
        match self {
            Self::WebIdentity { .. } => None,
            Self::Role { code, .. } | Self::User { code, .. } => *code,
        }
    }

    /// What AWS was shown.
    fn was_shown(&self) -> &'static str {
        match self {
            Self::WebIdentity { .. } => "assertion",
            Self::Role { signer, .. } if !signer.is_long_lived() => "session",
            Self::Role { .. } | Self::User { .. } => "access keys",
        }
    }

    fn who_decides(&self) -> String {
        match self {
            Self::WebIdentity { assertion, audience, .. } => format!(
                "the role's trust policy must allow `sts:AssumeRoleWithWebIdentity` for the provider {}, its subject '{}' and its audience (asked for: {audience})",
                foreign(&assertion.principal.issuer),
                foreign(&assertion.principal.subject),
            ),
            Self::Role { signer, .. } => format!(
                "the role's trust policy and the permissions of {} must both allow `sts:AssumeRole`",
                foreign(signer.name)
            ),
            Self::User { .. } => "no policy may forbid `sts:GetSessionToken` to the user".into(),
        }
    }
}

/// What it means that a call failed. `now` is the time by the server's clock.
pub(super) fn explain<E>(
    cause: &SdkError<E, HttpResponse>,
    asked: &Asked<'_>,
    now: OffsetDateTime,
) -> Failure
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let error = match cause {
        SdkError::ServiceError(said) => {
            let status = said.raw().status().as_u16();
            refused(said.err(), cause.request_id(), status, asked)
        }
        SdkError::ResponseError(said) => {
            let status = said.raw().status().as_u16();
            if status >= 500 || status == 429 {
                outage(status)
            } else {
                // What it is instead may hold anything, so nothing of it is shown.
                Error::new(ErrorKind::Verification, "the answer of STS cannot be understood")
                    .because_of(format!("the status is {status}"))
                    .hint("check `region` and `endpoint_url` of the profile's target")
            }
        }
        SdkError::TimeoutError(_) => {
            Error::new(ErrorKind::Unreachable, "STS did not answer in time")
                .hint("check the network, then try again")
        }
        other => match our_own(other) {
            Some(error) => error.clone(),
            None => Error::new(ErrorKind::Other, "the request cannot be made").because(other),
        },
    };
    // STS serves, and somebody whom it asks in turn does not.
    if cause.code().is_some_and(|code| code.starts_with("IDPCommunicationError")) {
        return Failure::behind(error);
    }
    let wish = cause.raw_response().and_then(|response| response.headers().get("retry-after"));
    Failure::wishing(error, wish.and_then(|wish| http::retry_after(wish, now)))
}

/// Whether a call was refused, in whatever form.
pub(super) fn is_refusal<E>(cause: &SdkError<E, HttpResponse>) -> bool {
    let status = cause.raw_response().map(|response| response.status().as_u16());
    matches!(status, Some(400 | 401 | 403))
}

/// Whether a call was refused for its signature, which is looked at before all else.
pub(super) fn is_of_the_signature<E>(cause: &SdkError<E, HttpResponse>) -> bool
where
    E: ProvideErrorMetadata,
{
    const CODES: [&str; 3] = ["SignatureDoesNotMatch", "RequestExpired", "RequestTimeTooSkewed"];
    is_refusal(cause)
        && (cause.code().is_some_and(|code| CODES.contains(&code))
            || cause.message().is_some_and(is_about_time))
}

/// Whether a message says that a signature is not of this time.
fn is_about_time(message: &str) -> bool {
    message.contains("Signature expired") || message.contains("Signature not yet current")
}

/// The error of our own HTTP client, somewhere among the causes.
fn our_own<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut next = Some(cause);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn outage(status: u16) -> Error {
    Error::new(ErrorKind::Unreachable, "STS cannot serve at the moment")
        .because_of(format!("it answered {status}"))
        .hint("try again in a while")
}

const CLOCK: &[&str] = &["check this machine's clock, and `region` of the profile's target"];

/// What a refusal means, by its code:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html> and
/// <https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html>.
fn refused(
    said: &impl ProvideErrorMetadata,
    request: Option<&str>,
    status: u16,
    asked: &Asked<'_>,
) -> Error {
    let code = said.code().unwrap_or_default();
    let hints: &[&str];
    let (kind, what) = match code {
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
            hints = &[];
            (ErrorKind::Denied, "AWS says no".to_string())
        }
        "ExpiredTokenException" | "ExpiredToken" => {
            hints = &["check this machine's clock, and log in again: `tmpcred login --force`"];
            (ErrorKind::Verification, format!("the {} expired", asked.was_shown()))
        }
        "InvalidIdentityToken" | "InvalidIdentityTokenException" | "IDPRejectedClaim"
        | "IDPRejectedClaimException" => {
            hints = &["the provider must be registered in the role's account, with this audience or client id"];
            (ErrorKind::Verification, "AWS does not accept the assertion".to_string())
        }
        "InvalidClientTokenId" | "SignatureDoesNotMatch" | "IncompleteSignature"
        | "UnrecognizedClientException" | "AuthFailure" | "RequestExpired"
        | "RequestTimeTooSkewed" => {
            let about_time = said.message().is_some_and(is_about_time);
            hints = match asked {
                _ if about_time || code.starts_with("Request") => CLOCK,
                Asked::WebIdentity { .. } => CLOCK,
                Asked::Role { signer, .. } if !signer.is_long_lived() => CLOCK,
                _ => &["they may have been deleted or turned off: `tmpcred login --force` takes others"],
            };
            (ErrorKind::Verification, format!("AWS does not accept the {}", asked.was_shown()))
        }
        "IDPCommunicationError" | "IDPCommunicationErrorException" => {
            hints = &["AWS must be able to fetch the provider's keys; try again in a while"];
            (ErrorKind::Unreachable, "AWS could not reach the identity provider".to_string())
        }
        "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequestsException"
        | "SlowDown" | "ServiceUnavailable" | "InternalFailure" | "InternalError"
        | "RequestTimeout" | "RequestTimeoutException" => {
            hints = &["try again in a while"];
            (ErrorKind::Unreachable, "STS cannot serve at the moment".to_string())
        }
        "MalformedPolicyDocument" | "MalformedPolicyDocumentException" | "PackedPolicyTooLarge"
        | "PackedPolicyTooLargeException" => {
            hints = &["correct the session policies, or make policies and tags shorter"];
            (ErrorKind::Config, "AWS does not take the session policies or tags".to_string())
        }
        "RegionDisabledException" => {
            hints = &["activate STS for this region in the account, or name another `region`"];
            (ErrorKind::Config, "STS is not activated in the region".to_string())
        }
        "ValidationError" | "ValidationException" | "InvalidParameterValue" => {
            let about_ttl = said.message().is_some_and(|m| m.contains("DurationSeconds"));
            hints = if about_ttl { &["ask for less with `ttl` or `--ttl`"] } else { &[] };
            (ErrorKind::Config, "AWS does not take the request".to_string())
        }
        _ if status >= 500 || status == 429 => {
            hints = &["try again in a while"];
            (ErrorKind::Unreachable, format!("STS cannot serve at the moment (status {status})"))
        }
        // Other servers have forms of their own for it.
        "" if status == 403 => {
            hints = &["check `region` and `endpoint_url` of the profile's target"];
            let what = "STS says no, in a form that cannot be understood (status 403)";
            (ErrorKind::Denied, what.to_string())
        }
        "" => {
            hints = &["check `region` and `endpoint_url` of the profile's target"];
            (ErrorKind::Verification, format!("the answer of STS cannot be understood (status {status})"))
        }
        other if !is_fit(other, asked) => {
            hints = &[];
            (ErrorKind::Other, "AWS refused".to_string())
        }
        other => {
            hints = &[];
            (ErrorKind::Other, format!("AWS refused: {}", foreign(other)))
        }
    };
    let mut error = Error::new(kind, what);
    if let Some(message) = said.message().filter(|message| is_fit(message, asked)) {
        error = error.because_of(foreign(message));
    }
    if let Some(id) = request.filter(|id| is_fit(id, asked)) {
        error = error.because_of(format!("the request is {}", foreign(id)));
    }
    if kind == ErrorKind::Denied {
        error = error.hint(asked.who_decides());
        error = match (asked, asked.code()) {
            (_, Some(_)) => {
                error.hint("check the MFA device's `serial` and clock; another attempt needs another code")
            }
            (Asked::WebIdentity { .. }, None) => error,
            (_, None) => error.hint("where they ask for MFA, say `mfa` in the profile's target"),
        };
    }
    hints.iter().fold(error, |error, hint| error.hint(*hint))
}

/// Whether a text of the server's can be shown: it could repeat what it was sent.
fn is_fit(text: &str, asked: &Asked<'_>) -> bool {
    // What is shorter may be part of any word, and is no secret. A code is short, and is one.
    const SHORT: usize = 8;
    let repeats = |secret: &Secret<String>| text.contains(secret.expose().as_str());
    let is_long = |secret: &&Secret<String>| secret.expose().len() >= SHORT;
    let repeated = match asked {
        Asked::WebIdentity { assertion, .. } => repeats(&assertion.token),
        Asked::Role { signer, .. } | Asked::User { signer, .. } => {
            signer.secrets().filter(is_long).any(repeats) || asked.code().is_some_and(repeats)
        }
    };
    !text.is_empty() && !repeated
}
