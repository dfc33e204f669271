//! The identity source `gitlab`: a token of a GitLab CI/CD job.
//!
//! <https://docs.gitlab.com/ci/secrets/id_token_authentication/>: `id_tokens:` in
//! `.gitlab-ci.yml` names the variables that hold tokens, and their audiences.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job::{job, named};
use super::token::Given;
use super::{Context, Fact, IdentitySource, Readiness};
use crate::credential::{Assertion, Caller};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::surroundings::Surroundings;

const WHO: &str = "GitLab";

/// A GitLab CI/CD job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The variable that `id_tokens` in `.gitlab-ci.yml` names.
    pub variable: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { variable: "TMPCRED_ID_TOKEN".into() }
    }
}

impl Settings {
    fn given(&self, host: &Host) -> Result<Given> {
        let Some(token) = host.env.get(&self.variable) else {
            return Err(Error::new(ErrorKind::Config, "this job has no token")
                .because_of(format!("{} is not set", self.variable))
                .hint(self.hint("AUDIENCE")));
        };
        Ok(Given::new(token, format!("the token in {}", self.variable)))
    }

    fn hint(&self, audience: &str) -> String {
        format!(
            "say `id_tokens: {{ {}: {{ aud: {audience} }} }}` of the job in .gitlab-ci.yml",
            self.variable
        )
    }
}

#[async_trait(?Send)]
impl IdentitySource for Settings {
    fn readiness(&self, host: &Host) -> Readiness {
        let variable = &self.variable;
        if !host.env.flag("GITLAB_CI") {
            Readiness::Absent("this is no GitLab job: GITLAB_CI is not set".into())
        } else if host.env.get(variable).is_none() {
            Readiness::Misconfigured {
                why: format!("{variable} is not set, so this job has no token"),
                hint: self.hint("AUDIENCE"),
            }
        } else {
            Readiness::Ready(format!("GITLAB_CI and {variable} are set"))
        }
    }

    fn explain(&self, _: &Surroundings) -> Vec<Fact> {
        vec![Fact {
            what: "assertion",
            value: "the job's own token".into(),
            why: format!("in {}, as `id_tokens` in .gitlab-ci.yml says", self.variable),
        }]
    }

    fn caller(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        let (env, given) = (&cx.host.env, self.given(cx.host)?);
        let job = given.own(job(env, &named(env, WHO, "CI_JOB_ID")));
        Ok(Some(Caller::job(job).known_as(given.principal()?)))
    }

    async fn assertion(&self, cx: Context<'_>, audience: &str) -> Result<Assertion> {
        self.given(cx.host)?.assertion(cx.host, audience, &self.hint(audience))
    }
}
