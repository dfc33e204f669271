//! The identity source `env`: a token in a variable, for platforms that have no
//! source of their own.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job::job;
use super::token::Given;
use super::{Context, Fact, IdentitySource, Readiness};
use crate::credential::{Assertion, Caller};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::surroundings::Surroundings;

/// A token in an environment variable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The variable that holds the token.
    pub variable: String,
}

impl Settings {
    fn given(&self, host: &Host) -> Result<Given> {
        let Some(token) = host.env.get(&self.variable) else {
            return Err(Error::new(ErrorKind::Config, "there is no token")
                .because_of(format!("{} is not set", self.variable)));
        };
        Ok(Given::new(token, format!("the token in {}", self.variable)))
    }
}

#[async_trait(?Send)]
impl IdentitySource for Settings {
    fn readiness(&self, host: &Host) -> Readiness {
        match host.env.get(&self.variable) {
            Some(_) => Readiness::Ready(format!("{} is set", self.variable)),
            None => Readiness::Absent(format!("{} is not set", self.variable)),
        }
    }

    fn explain(&self, _: &Surroundings) -> Vec<Fact> {
        vec![Fact {
            what: "assertion",
            value: format!("the token in {}", self.variable),
            why: "the configuration names the variable".into(),
        }]
    }

    fn caller(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        let given = self.given(cx.host)?;
        let job = given.own(job(&cx.host.env, &format!("with the token in {}", self.variable)));
        Ok(Some(Caller::job(job).known_as(given.principal()?)))
    }

    async fn assertion(&self, cx: Context<'_>, audience: &str) -> Result<Assertion> {
        let hint = "whoever sets the variable has to ask for a token for this audience";
        self.given(cx.host)?.assertion(cx.host, audience, hint)
    }
}
