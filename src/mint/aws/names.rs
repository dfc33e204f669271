//! Texts with a form of their own: ARNs, account ids, regions, session names.

pub use crate::aws::{AccountId, EndpointUrl, Region};
use crate::aws::checked;
use crate::credential::Principal;

checked! {
    /// The ARN of an IAM role, such as `arn:aws:iam::123456789012:role/deploy`.
    RoleArn, check_role
}

impl RoleArn {
    /// The partition, such as `aws`, `aws-cn` or `aws-us-gov`.
    pub fn partition(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }

    /// The account that the role is in; `None` at servers that know no accounts.
    pub fn account(&self) -> Option<&str> {
        account(&self.0)
    }
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

/// The account in an ARN.
pub(super) fn account(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| AccountId::parse(account).is_ok())
}

fn check_role(text: &str) -> Result<(), String> {
    check_arn(text, "role/", "arn:aws:iam::123456789012:role/deploy")
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
        assert_eq!((role.partition(), role.account()), ("aws-cn", Some("123456789012")));
        let elsewhere = RoleArn::parse("arn:aws:iam:::role/S3Access").unwrap();
        assert_eq!(elsewhere.account(), None);
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
