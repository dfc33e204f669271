//! Texts with a form of their own: ARNs, account ids, regions, session names.

pub use crate::aws::{AccountId, EndpointUrl, Region};
use crate::aws::checked;
use crate::credential::Principal;

checked! {
    /// The ARN of an IAM role, such as `arn:aws:iam::123456789012:role/deploy`.
    RoleArn, check_role
}

checked! {
    /// The ARN of an IAM user, such as `arn:aws:iam::123456789012:user/alice`.
    UserArn, check_user
}

checked! {
    /// An MFA device: its ARN, or the serial number of one made of hardware.
    MfaSerial, check_serial
}

/// What a profile's `role` can be at AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// A role, to be assumed.
    Role(RoleArn),
    /// The user whose access keys there are: a session of their own.
    User(UserArn),
}

impl Start {
    /// Reads one, or tells what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        match UserArn::parse(text) {
            Ok(user) => Ok(Self::User(user)),
            Err(_) => RoleArn::parse(text).map(Self::Role),
        }
    }

    /// The ARN.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Role(role) => role.as_str(),
            Self::User(user) => user.as_str(),
        }
    }
}

/// The partition of an ARN, such as `aws`, `aws-cn` or `aws-us-gov`.
pub(super) fn partition(arn: &str) -> &str {
    arn.split(':').nth(1).unwrap_or_default()
}

checked! {
    /// The ARN of a managed policy, such as `arn:aws:iam::aws:policy/ReadOnlyAccess`.
    PolicyArn, check_policy
}

checked! {
    /// The name of a session, 2 to 64 characters; `{subject}` stands for whoever is calling.
    SessionName, check_session_name
}

/// The session's name where none is configured.
const SESSION_NAME: &str = "tmpcred-{subject}";
const SUBJECT: &str = "{subject}";
/// How long the name of a session may be:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>.
const SESSION_NAME_MAX: usize = 64;

impl Default for SessionName {
    fn default() -> Self {
        Self(SESSION_NAME.to_string())
    }
}

impl SessionName {
    /// The name for this caller. What a session's name cannot have becomes `-`,
    /// and what is too long is cut off.
    pub fn fill(&self, principal: &Principal) -> String {
        let name = self.0.replace(SUBJECT, &principal.subject);
        let legal = |c: char| if is_session_char(c) { c } else { '-' };
        let mut name: String = name.chars().map(legal).take(SESSION_NAME_MAX).collect();
        while name.len() < 2 {
            name.push('-');
        }
        name
    }
}

/// The account in an ARN; `None` at servers that know no accounts.
pub(super) fn account(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| AccountId::parse(account).is_ok())
}

fn check_role(text: &str) -> Result<(), String> {
    check_arn(text, "role/", "arn:aws:iam::123456789012:role/deploy")
}

fn check_user(text: &str) -> Result<(), String> {
    check_arn(text, "user/", "arn:aws:iam::123456789012:user/alice")
}

/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html>.
fn check_serial(text: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_+=/:,.@-".contains(c);
    if (9..=256).contains(&text.len()) && text.chars().all(legal) {
        return Ok(());
    }
    Err("an MFA device is an ARN such as `arn:aws:iam::123456789012:mfa/alice`, or a serial number".into())
}

fn check_policy(text: &str) -> Result<(), String> {
    check_arn(text, "policy/", "arn:aws:iam::aws:policy/ReadOnlyAccess")
}

/// Servers other than AWS leave accounts and even colons out, so this is lenient
/// where AWS itself will tell.
fn check_arn(text: &str, kind: &str, example: &str) -> Result<(), String> {
    let mut fields = text.split(':');
    let head = [fields.next(), fields.next(), fields.next()];
    let named = fields.next_back().and_then(|resource| resource.strip_prefix(kind));
    let good = matches!(head, [Some("arn"), Some(partition), Some("iam")] if !partition.is_empty())
        && named.is_some_and(|name| !name.is_empty())
        && (20..=2048).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    if good { Ok(()) } else { Err(format!("this is no ARN such as `{example}`")) }
}

fn check_session_name(text: &str) -> Result<(), String> {
    let literal = text.replace(SUBJECT, "");
    if literal.contains(['{', '}']) {
        return Err("`{subject}` is all that can stand in braces here".into());
    }
    if !literal.chars().all(is_session_char) {
        return Err("the name of a session has letters, digits and `_+=,.@-`".into());
    }
    if text == literal && !(2..=SESSION_NAME_MAX).contains(&text.len()) {
        return Err("the name of a session has 2 to 64 characters".into());
    }
    Ok(())
}

fn is_session_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_+=,.@-".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_tell_their_partition_and_account() {
        let role = RoleArn::parse("arn:aws-cn:iam::123456789012:role/a/b").unwrap();
        assert_eq!((partition(&role.0), account(&role.0)), ("aws-cn", Some("123456789012")));
        let elsewhere = RoleArn::parse("arn:aws:iam:::role/S3Access").unwrap();
        assert_eq!(account(&elsewhere.0), None);
        let user = "arn:aws:iam::123456789012:user/alice";
        assert_eq!(Start::parse(user), UserArn::parse(user).map(Start::User));
        assert_eq!(Start::parse(role.as_str()), Ok(Start::Role(role)));
        assert!(Start::parse("deploy").unwrap_err().contains(":role/deploy"));
        for (good, bad) in [("arn:aws:iam::123456789012:mfa/alice", "alice"), ("GAHT12345678", "GAHT 2345678")] {
            assert!(MfaSerial::parse(good).is_ok() && MfaSerial::parse(bad).is_err());
        }
        for bad in [
            "",
            "deploy",
            "role/deploy",
            "arn:aws:iam::123456789012:user/deploy",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:s3::123456789012:role/deploy",
            "arn:aws:iam::123456789012:role/de ploy",
        ] {
            assert!(RoleArn::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_sessions_are_such_as_aws_takes() {
        let fill = |template: &str, subject: &str| {
            let principal = Principal { issuer: "i".into(), subject: subject.into() };
            SessionName::parse(template).unwrap().fill(&principal)
        };
        assert_eq!(fill(SESSION_NAME, "alice@corp"), "tmpcred-alice@corp");
        assert_eq!(fill("{subject}", "repo:a/b é"), "repo-a-b--");
        assert_eq!(fill("{subject}", "x"), "x-");
        assert_eq!(fill("{subject}", &"x".repeat(100)).len(), 64);
        for bad in ["", "x", "{sub}", "a b", "{subject", "a:b", &"x".repeat(65)] {
            assert!(SessionName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn regions_accounts_and_addresses_are_checked() {
        for (good, bad) in [("eu-central-1", "eu.central"), ("us-gov-west-1", "-x"), ("a", "x/y")] {
            assert!(Region::parse(good).is_ok() && Region::parse(bad).is_err());
        }
        assert!(AccountId::parse("012345678901").is_ok() && AccountId::parse("1").is_err());
        for bad in ["http://sts.example", "https://u:p@sts.example", "x", "https://a.example/?x"] {
            assert!(EndpointUrl::parse(bad).is_err(), "{bad}");
        }
        assert!(EndpointUrl::parse("http://127.0.0.1:4566").is_ok());
    }
}
