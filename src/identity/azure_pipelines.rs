//! The identity source `azure-pipelines`: the token of a job of Azure Pipelines.
//!
//! <https://learn.microsoft.com/rest/api/azure/devops/distributedtask/oidctoken/create>:
//! a POST to `SYSTEM_OIDCREQUESTURI` with the job's `SYSTEM_ACCESSTOKEN` yields
//! `{"oidcToken": "<JWT>"}`. The audience is always
//! `api://AzureADTokenExchange`; nobody can ask for another.

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::HeaderName;
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

const URL: &str = "SYSTEM_OIDCREQUESTURI";
const TOKEN: &str = "SYSTEM_ACCESSTOKEN";
const WHO: &str = "Azure Pipelines";
const API_VERSION: &str = "7.1-preview.1";
const MAPPED: &str = "hand the job's token to the step: `env: SYSTEM_ACCESSTOKEN: $(System.AccessToken)`";

/// A job of Azure Pipelines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The id of a service connection, which is then whom the token is about.
    /// Where left out: the pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_connection_id: Option<String>,
}

#[async_trait(?Send)]
impl IdentitySource for Settings {
    fn readiness(&self, host: &Host) -> Readiness {
        let broken = |why: String| Readiness::Misconfigured { why, hint: MAPPED.into() };
        match (host.env.get(URL), host.env.get(TOKEN)) {
            (Some(url), Some(_)) => match address(URL, url) {
                Ok(_) => Readiness::Ready(format!("{URL} is set")),
                Err(why) => broken(why),
            },
            _ if !host.env.flag("TF_BUILD") => {
                Readiness::Absent("this is no job of Azure Pipelines: TF_BUILD is not set".into())
            }
            (None, _) => broken(format!("{URL} is not set, so this job has no token")),
            (_, None) => broken(format!("{TOKEN} is not set: the step is not given it by itself")),
        }
    }

    fn explain(&self, _: &Surroundings) -> Vec<Fact> {
        vec![Fact {
            what: "assertion",
            value: match &self.service_connection_id {
                Some(id) => format!("a token of the service connection {id}"),
                None => "the job's own token".into(),
            },
            why: format!("asked for at {URL}, anew for each mint"),
        }]
    }

    fn caller(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        let env = &cx.host.env;
        Ok(Some(Caller::job(job(env, &named(env, WHO, "SYSTEM_JOBNAME")))))
    }

    async fn assertion(&self, cx: Context<'_>, audience: &str) -> Result<Assertion> {
        let env = &cx.host.env;
        let (Some(url), Some(bearer)) = (env.get(URL), env.get(TOKEN)) else {
            return Err(Error::new(ErrorKind::Config, "this job may not ask for a token")
                .because_of(format!("{URL} or {TOKEN} is not set"))
                .hint(MAPPED));
        };
        let mut url = address(URL, url)
            .map_err(|why| Error::new(ErrorKind::Config, "no token can be asked for").because_of(why))?;
        if let Some(id) = &self.service_connection_id {
            url.query_pairs_mut().append_pair("serviceConnectionId", id);
        }
        url.query_pairs_mut().append_pair("api-version", API_VERSION);
        let endpoint = Endpoint {
            who: WHO,
            method: Method::POST,
            url,
            bearer,
            // Otherwise a token that is not accepted is answered by a login page.
            headers: &[(HeaderName::from_static("x-tfs-fedauthredirect"), "Suppress")],
            ca_file: None,
            hint: MAPPED,
        };
        let token = endpoint.ask(cx.host).await?;
        let given = Given::new(token.expose(), "the token of Azure Pipelines");
        given.assertion(
            cx.host,
            audience,
            "Azure Pipelines has tokens for `api://AzureADTokenExchange` only: say \
             `audience = \"api://AzureADTokenExchange\"` in the broker's table, or in a target \
             of the type `aws`, and let the other side accept it",
        )
    }
}
