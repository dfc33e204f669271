//! The identity source `circleci`: the token of a CircleCI job.
//!
//! <https://circleci.com/docs/openid-connect-tokens/>: `CIRCLE_OIDC_TOKEN_V2` holds
//! one that is for the organisation's id.
//! <https://circleci.com/docs/oidc-tokens-with-custom-claims/>: for another
//! audience, `circleci run oidc get --claims '{"aud": "…"}'` prints one.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::job::{job, named};
use super::token::{Given, MAX_BYTES};
use super::{Context, Fact, IdentitySource, Readiness};
use crate::credential::{Assertion, Caller};
use crate::error::Result;
use crate::host::Host;
use crate::host::process::printed::{Limit, printed};
use crate::host::surroundings::Surroundings;

const TOKEN: &str = "CIRCLE_OIDC_TOKEN_V2";

/// A CircleCI job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {}

#[async_trait(?Send)]
impl IdentitySource for Settings {
    fn readiness(&self, host: &Host) -> Readiness {
        if !host.env.flag("CIRCLECI") {
            Readiness::Absent("this is no CircleCI job: CIRCLECI is not set".into())
        } else if host.env.get(TOKEN).is_none() {
            Readiness::Misconfigured {
                why: format!("{TOKEN} is not set, so this job has no tokens"),
                hint: "builds of forks have none unless the project passes secrets to them".into(),
            }
        } else {
            Readiness::Ready(format!("{TOKEN} is set"))
        }
    }

    fn explain(&self, _: &Surroundings) -> Vec<Fact> {
        vec![Fact {
            what: "assertion",
            value: "the job's own token".into(),
            why: format!("{TOKEN} where it is for the audience, else `circleci run oidc get`"),
        }]
    }

    fn caller(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        let env = &cx.host.env;
        Ok(Some(Caller::job(job(env, &named(env, "CircleCI", "CIRCLE_WORKFLOW_JOB_ID")))))
    }

    async fn assertion(&self, cx: Context<'_>, audience: &str) -> Result<Assertion> {
        if let Some(token) = cx.host.env.get(TOKEN) {
            let given = Given::new(token, format!("the token in {TOKEN}"));
            if given.suits(cx.host, audience) {
                return given.assertion(cx.host, audience, "");
            }
        }
        let claims = json!({ "aud": audience }).to_string();
        let words = ["circleci", "run", "oidc", "get", "--claims", &claims].map(String::from);
        let variables = cx.host.env.of_platform("CIRCLE");
        let token = printed(&cx.host.env, "token", &words, variables.into_iter(), Limit::default(), MAX_BYTES).await?;
        let given = Given::from_bytes(&token, "the token of circleci")?;
        given.assertion(cx.host, audience, "this is not the token that was asked for")
    }
}
