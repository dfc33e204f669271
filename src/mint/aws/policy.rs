//! Session policies: what of a role's permissions a session keeps
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies.html#policies_session>).

use std::path::{Path, PathBuf};

use super::PolicyArn;
use crate::error::{Error, ErrorKind, Result};
use crate::host::files;

/// How long the policies of a session may be, all together, in characters:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>.
const MAX_LENGTH: usize = 2048;
/// How many managed policies a session may have.
const MAX_ARNS: usize = 10;
/// How much of a file is read, in bytes: what is longer is no policy.
const MAX_FILE: u64 = 64 * 1024;

/// The session policies of one step.
#[derive(Clone, Copy, Debug)]
pub struct SessionPolicy<'a> {
    /// The one that is written out.
    pub(super) text: Option<&'a str>,
    /// The file that it is in.
    pub(super) file: Option<&'a Path>,
    /// Managed ones.
    pub(super) arns: &'a [PolicyArn],
}

impl SessionPolicy<'_> {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_none() && self.file.is_none() && self.arns.is_empty()
    }

    /// Tells what AWS would refuse.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(text) = self.text {
            let read = serde_json::from_str::<serde_json::Map<_, _>>(text);
            read.map_err(|cause| format!("the session policy is no JSON object: {cause}"))?;
        }
        let length = self.text.map_or(0, |text| text.chars().count())
            + self.arns.iter().map(|arn| arn.as_str().len()).sum::<usize>();
        if length > MAX_LENGTH {
            return Err(format!(
                "session policies have at most {MAX_LENGTH} characters, and these have {length}"
            ));
        }
        if self.arns.len() > MAX_ARNS {
            return Err(format!("a session has at most {MAX_ARNS} managed policies"));
        }
        Ok(())
    }

    /// What people are told of it.
    pub(super) fn shown(&self) -> String {
        let text = match (self.file, self.text) {
            (Some(file), _) => Some(format!("the policy in {}", file.display())),
            (None, Some(_)) => Some("a policy of its own".to_string()),
            (None, None) => None,
        };
        let arns = self.arns.iter().map(ToString::to_string);
        let all: Vec<_> = text.into_iter().chain(arns).collect();
        if all.is_empty() { String::new() } else { format!(", within {}", all.join(" and ")) }
    }
}

/// Where the session policies of one step stand.
pub(super) struct Place<'a> {
    pub(super) policy: &'a mut Option<String>,
    pub(super) file: &'a Option<PathBuf>,
    pub(super) policy_arns: &'a mut Vec<PolicyArn>,
}

impl Place<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.as_policy().is_empty()
    }

    pub(super) fn as_policy(&self) -> SessionPolicy<'_> {
        let text = self.policy.as_deref();
        SessionPolicy { text, file: self.file.as_deref(), arns: self.policy_arns }
    }

    /// Reads the file, where there is one, and checks what is there then.
    pub(super) fn complete(self) -> Result<()> {
        let wrong =
            |why: String| Error::new(ErrorKind::Config, "a session policy is not valid").because_of(why);
        if let Some(file) = self.file {
            let bytes = files::read_trusted(file, MAX_FILE)?
                .ok_or_else(|| wrong(format!("there is no file {}", file.display())))?;
            let text = String::from_utf8(bytes)
                .map_err(|_| wrong(format!("{} is not a text file", file.display())))?;
            if self.policy.as_ref().is_some_and(|policy| *policy != text) {
                return Err(wrong("`policy` and `policy_file` cannot stand together".into()));
            }
            *self.policy = Some(text);
        }
        self.as_policy().check().map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: Option<&str>, arns: usize) -> Result<(), String> {
        let arn = PolicyArn::parse("arn:aws:iam::aws:policy/ReadOnlyAccess").unwrap();
        SessionPolicy { text, file: None, arns: &vec![arn; arns] }.check()
    }

    #[test]
    fn limits_are_those_of_aws() {
        let policy = |length: usize| format!("{{\"x\":\"{}\"}}", "é".repeat(length - 8));
        assert!(check(None, 10).is_ok() && check(Some(&policy(2048)), 0).is_ok());
        assert!(check(Some(&policy(2049)), 0).unwrap_err().contains("have 2049"));
        assert!(check(Some(&policy(2048)), 1).is_err());
        assert!(check(None, 11).unwrap_err().contains("at most 10"));
        for bad in ["", "[]", "{", "\"x\""] {
            assert!(check(Some(bad), 0).unwrap_err().contains("no JSON object"), "{bad}");
        }
    }
}
