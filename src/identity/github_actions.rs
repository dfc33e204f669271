//! The identity source `github-actions`: the token of a job of GitHub Actions, or
//! of Forgejo and Gitea, which have the same interface.
//!
//! <https://docs.github.com/en/actions/reference/security/oidc#methods-for-requesting-the-oidc-token>:
//! a GET of `ACTIONS_ID_TOKEN_REQUEST_URL` with `&audience=` yields
//! `{"value": "<JWT>"}`. Such a token lives for five minutes: each mint asks for
//! a new one.

use std::path::PathBuf;

use async_trait::async_trait;
use reqwest::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::{Endpoint, address};
use super::job::{job, named};
use super::token::Given;
use super::{Context, Fact, IdentitySource, Readiness};
use crate::credential::{Assertion, Caller};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::surroundings::Surroundings;

const URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
const WHO: &str = "GitHub Actions";
const PERMISSION: &str = "say `permissions: id-token: write` in the workflow, for all of it or for \
                          this job; workflows that a fork's pull request starts never get it";

/// A job of GitHub Actions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// A PEM file with certificate authorities to trust besides the system's, for
    /// an Enterprise Server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

#[async_trait(?Send)]
impl IdentitySource for Settings {
    fn readiness(&self, host: &Host) -> Readiness {
        let broken = |why: String| Readiness::Misconfigured { why, hint: PERMISSION.into() };
        match (host.env.get(URL), host.env.get(TOKEN)) {
            (Some(url), Some(_)) => match address(URL, url) {
                Ok(_) => Readiness::Ready(format!("{URL} is set")),
                Err(why) => broken(why),
            },
            _ if !host.env.flag("GITHUB_ACTIONS") => {
                Readiness::Absent("this is no job of GitHub Actions: GITHUB_ACTIONS is not set".into())
            }
            (None, _) => broken(format!("{URL} is not set, so this job may not ask for a token")),
            (_, None) => broken(format!("{TOKEN} is not set, so this job may not ask for a token")),
        }
    }

    fn explain(&self, _: &Surroundings) -> Vec<Fact> {
        vec![Fact {
            what: "assertion",
            value: "the job's own token".into(),
            why: format!("asked for at {URL}, anew for each mint"),
        }]
    }

    fn caller(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        let env = &cx.host.env;
        Ok(Some(Caller::job(job(env, &named(env, WHO, "GITHUB_JOB")))))
    }

    async fn assertion(&self, cx: Context<'_>, audience: &str) -> Result<Assertion> {
        let env = &cx.host.env;
        let (Some(url), Some(bearer)) = (env.get(URL), env.get(TOKEN)) else {
            return Err(Error::new(ErrorKind::Config, "this job may not ask for a token")
                .because_of(format!("{URL} or {TOKEN} is not set"))
                .hint(PERMISSION));
        };
        let mut url = address(URL, url)
            .map_err(|why| Error::new(ErrorKind::Config, "no token can be asked for").because_of(why))?;
        url.query_pairs_mut().append_pair("audience", audience);
        let endpoint = Endpoint {
            who: WHO,
            method: Method::GET,
            url,
            bearer,
            headers: &[],
            ca_file: self.ca_file.as_deref(),
            hint: PERMISSION,
        };
        let token = endpoint.ask(cx.host).await?;
        let given = Given::new(token.expose(), "the token of GitHub Actions");
        given.assertion(cx.host, audience, "this is not the token that was asked for")
    }
}
