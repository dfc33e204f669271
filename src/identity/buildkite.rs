//! The identity source `buildkite`: the token of a Buildkite job, as the agent
//! gives it.
//!
//! <https://buildkite.com/docs/agent/v3/cli-oidc>:
//! `buildkite-agent oidc request-token --audience …` prints a token. It is asked
//! for anew for each mint.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job::{job, named};
use super::token::{Given, MAX_BYTES};
use super::{Context, Fact, IdentitySource, Readiness};
use crate::credential::{Assertion, Caller};
use crate::error::Result;
use crate::host::Host;
use crate::host::process::printed::{Limit, printed};
use crate::host::surroundings::Surroundings;

const JOB: &str = "BUILDKITE_JOB_ID";

/// A Buildkite job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {}

#[async_trait(?Send)]
impl IdentitySource for Settings {
    fn readiness(&self, host: &Host) -> Readiness {
        if !host.env.flag("BUILDKITE") {
            Readiness::Absent("this is no Buildkite job: BUILDKITE is not set".into())
        } else if host.env.get(JOB).is_none() {
            Readiness::Misconfigured {
                why: format!("{JOB} is not set, so nothing tells which job this is"),
                hint: "pass the job's variables on to where tmpcred runs; into a container with \
                       `propagate-environment: true`"
                    .into(),
            }
        } else {
            Readiness::Ready(format!("{JOB} is set"))
        }
    }

    fn explain(&self, _: &Surroundings) -> Vec<Fact> {
        vec![Fact {
            what: "assertion",
            value: "the job's own token".into(),
            why: "`buildkite-agent oidc request-token` gives it, anew for each mint".into(),
        }]
    }

    fn caller(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        let env = &cx.host.env;
        Ok(Some(Caller::job(job(env, &named(env, "Buildkite", JOB)))))
    }

    async fn assertion(&self, cx: Context<'_>, audience: &str) -> Result<Assertion> {
        let words = ["buildkite-agent", "oidc", "request-token", "--audience", audience];
        let variables = cx.host.env.of_platform("BUILDKITE");
        let words = words.map(String::from);
        let token = printed(&cx.host.env, "token", &words, variables.into_iter(), Limit::default(), MAX_BYTES).await?;
        let given = Given::from_bytes(&token, "the token of buildkite-agent")?;
        given.assertion(cx.host, audience, "this is not the token that was asked for")
    }
}
