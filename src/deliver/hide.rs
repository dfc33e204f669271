//! What a CI platform is told before a secret is handed out, so that it does not
//! show it in the log of the job.
//!
//! | platform | how |
//! |---|---|
//! | GitHub Actions, and Forgejo and Gitea, which have the same interface | `::add-mask::VALUE` in a line of a step's output (<https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions#masking-a-value-in-a-log>) |
//! | Azure Pipelines | `##vso[task.setsecret]VALUE`, the same (<https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands#setsecret-register-a-value-as-a-secret>) |
//! | Buildkite | `buildkite-agent redactor add`, which reads the values (<https://buildkite.com/docs/agent/v3/cli-redactor>) |
//!
//! GitLab and CircleCI have nothing of the kind: they mask what is known before a
//! job starts.

use crate::deliver::text::Text;
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::secret::Secret;

/// A platform that can be told while a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// GitHub Actions, Forgejo, Gitea.
    Github,
    /// Azure Pipelines.
    Azure,
    /// Buildkite.
    Buildkite,
}

/// How to tell it.
pub enum Telling {
    /// Lines on standard error, which these platforms read as they read standard
    /// output. A program that takes our output does not see them.
    Lines(Secret<String>),
    /// The standard input of [`REDACTOR`].
    Redactor(Secret<Vec<u8>>),
}

/// The program that tells Buildkite. The values are never among its arguments.
pub const REDACTOR: [&str; 5] = ["buildkite-agent", "redactor", "add", "--format", "json"];

/// Of a secret of several lines, those that say something. A line `}` is no secret,
/// and without it no log could be read.
const TELLING: usize = 4;

impl Platform {
    /// The one whose job this is, as its own variables tell.
    pub fn of(env: &Env) -> Option<Self> {
        if env.flag("GITHUB_ACTIONS") {
            Some(Self::Github)
        } else if env.flag("TF_BUILD") {
            Some(Self::Azure)
        } else if env.flag("BUILDKITE") {
            Some(Self::Buildkite)
        } else {
            None
        }
    }

    /// How to tell it of these secrets. `None` where there is nothing to tell.
    ///
    /// # Errors
    ///
    /// None that could happen: strings always have a JSON form.
    pub fn tell(self, secrets: &[Secret<String>]) -> Result<Option<Telling>> {
        let values = values(secrets);
        if values.is_empty() {
            return Ok(None);
        }
        let mut text = Text::default();
        match self {
            Self::Github => lines(&mut text, &values, "::add-mask::", "%25"),
            Self::Azure => lines(&mut text, &values, "##vso[task.setsecret]", "%AZP25"),
            Self::Buildkite => {
                let named: std::collections::BTreeMap<usize, &str> =
                    values.into_iter().enumerate().collect();
                serde_json::to_writer(&mut text, &named)
                    .map_err(|_| Error::new(ErrorKind::Other, "the secrets have no JSON form"))?;
                let mut text = text.into_secret();
                let bytes = std::mem::take(text.expose_mut()).into_bytes();
                return Ok(Some(Telling::Redactor(Secret::new(bytes))));
            }
        }
        Ok(Some(Telling::Lines(text.into_secret())))
    }
}

/// What is looked for in a log, line by line: each line of each secret.
fn values(secrets: &[Secret<String>]) -> Vec<&str> {
    let mut values = Vec::new();
    for secret in secrets {
        let mut lines = secret.expose().split(['\r', '\n']).filter(|line| !line.trim().is_empty());
        match (lines.next(), lines.next()) {
            (Some(only), None) => values.push(only),
            (Some(first), Some(second)) => {
                let all = [first, second].into_iter().chain(lines);
                values.extend(all.filter(|line| line.trim().len() >= TELLING));
            }
            _ => {}
        }
    }
    values.sort_unstable();
    values.dedup();
    values
}

/// A command for each value. What is escaped in a value is the percent sign alone:
/// there are no line breaks in it, and the rest counts in properties only.
fn lines(text: &mut Text, values: &[&str], command: &str, percent: &str) {
    for value in values {
        text.push_str(command);
        for (n, piece) in value.split('%').enumerate() {
            if n > 0 {
                text.push_str(percent);
            }
            text.push_str(piece);
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(platform: Platform, secrets: &[&str]) -> Option<String> {
        let secrets: Vec<_> = secrets.iter().map(|s| Secret::new((*s).to_string())).collect();
        platform.tell(&secrets).unwrap().map(|telling| match telling {
            Telling::Lines(text) => text.expose().clone(),
            Telling::Redactor(bytes) => String::from_utf8(bytes.expose().clone()).unwrap(),
        })
    }

    #[test]
    fn each_platform_is_told_in_its_own_words() {
        let secrets = ["a%0Ab", "k]=;,"];
        assert_eq!(
            told(Platform::Github, &secrets).unwrap(),
            "::add-mask::a%250Ab\n::add-mask::k]=;,\n"
        );
        assert_eq!(
            told(Platform::Azure, &secrets).unwrap(),
            "##vso[task.setsecret]a%AZP250Ab\n##vso[task.setsecret]k]=;,\n"
        );
        assert_eq!(told(Platform::Buildkite, &secrets).unwrap(), r#"{"0":"a%0Ab","1":"k]=;,"}"#);
    }

    #[test]
    fn every_line_of_a_secret_is_told_and_what_says_nothing_is_not() {
        let key = "-----BEGIN KEY-----\r\nc2VjcmV0\n}\n\n-----END KEY-----\n";
        assert_eq!(
            told(Platform::Github, &[key, "", "  ", "ab", "ab"]).unwrap(),
            "::add-mask::-----BEGIN KEY-----\n::add-mask::-----END KEY-----\n\
             ::add-mask::ab\n::add-mask::c2VjcmV0\n"
        );
        assert_eq!(told(Platform::Buildkite, &["", "\n"]), None);
    }

    #[test]
    fn a_platform_is_known_by_its_own_variables_only() {
        let of = |name: &str, value: &str| Platform::of(&Env::from_pairs([(name, value)]));
        assert_eq!(of("GITHUB_ACTIONS", "true"), Some(Platform::Github));
        assert_eq!(of("GITHUB_ACTIONS", "false"), None);
        assert_eq!(of("TF_BUILD", "True"), Some(Platform::Azure));
        assert_eq!(of("BUILDKITE", "true"), Some(Platform::Buildkite));
        assert_eq!(of("CI", "true"), None);
        assert_eq!(of("GITLAB_CI", "true"), None);
    }
}
