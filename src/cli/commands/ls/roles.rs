//! The roles that brokers would give.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Plans;
use crate::api::is_of_an_older_one;
use crate::cli::App;
use crate::cli::elsewhere::Elsewhere;
use crate::cli::show;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::wire::roles::{ROLES_PATH, Role, Roles};

/// A broker, asked by an identity.
pub(super) struct Asked {
    identity: String,
    broker: String,
    /// One of the profiles by which it is asked.
    profile: String,
}

/// A role that may be had.
pub(super) struct Found {
    identity: String,
    broker: String,
    role: Role,
    profiles: Vec<String>,
}

/// The brokers that are targets of profiles, each once for each identity that asks it.
pub(super) fn brokers(plans: &Plans, only: Option<&str>) -> Vec<Asked> {
    let mut brokers = BTreeMap::new();
    for (profile, plan) in plans {
        let Some((plan, broker)) = plan.as_ref().ok().and_then(|plan| Some((plan, of(plan)?)))
        else {
            continue;
        };
        if only.is_none_or(|only| only == plan.identity.name) {
            brokers.entry((plan.identity.name.clone(), broker)).or_insert_with(|| profile.clone());
        }
    }
    let asked = |((identity, broker), profile)| Asked { identity, broker, profile };
    brokers.into_iter().map(asked).collect()
}

fn of(plan: &Plan) -> Option<String> {
    Some(plan.target.broker()?.issuer().to_string())
}

/// What these give, and what kept any of them from telling.
pub(super) fn available(app: &App, plans: &Plans, brokers: &[Asked]) -> (Vec<Found>, Vec<Error>) {
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for Asked { identity, broker, profile } in brokers {
        match ask(app, profile) {
            Ok(roles) => found.extend(roles.into_iter().map(|role| Found {
                identity: identity.clone(),
                broker: broker.clone(),
                profiles: profiles_for(plans, (identity, broker), &role),
                role,
            })),
            // An older one says nothing of its roles, which is no failure.
            Err(error) if is_of_an_older_one(&error) => {
                let left_out = error.context(format!("the roles at {broker} are left out"));
                app.host.interact.warn(&left_out.to_string());
            }
            Err(error) => {
                failed.push(error.context(format!("the roles at {broker} are left out")));
            }
        }
    }
    (found, failed)
}

fn ask(app: &App, profile: &str) -> Result<Vec<Role>> {
    let broker = Elsewhere::open(app, Some(profile))?;
    Ok(broker.ask(async |client| client.get::<Roles>(ROLES_PATH, &()).await)?.roles)
}

fn profiles_for(plans: &Plans, (identity, broker): (&str, &str), role: &Role) -> Vec<String> {
    let is = |plan: &Plan| {
        plan.identity.name == identity
            && plan.request.role == role.role
            && of(plan).as_deref() == Some(broker)
    };
    let these = plans.iter().filter(|(_, plan)| plan.as_ref().is_ok_and(is));
    these.map(|(name, _)| name.clone()).collect()
}

/// Shows them to people.
pub(super) fn tell(app: &App, found: &[Found]) -> Result<()> {
    let rows = found.iter().flat_map(|one| one.role.audiences.iter().map(move |at| (one, at)));
    let rows = rows.map(|(one, at)| {
        let lasts = i64::try_from(at.longest).unwrap_or(i64::MAX);
        let profiles = one.profiles.join(", ");
        [
            one.role.role.clone(),
            how(&one.role).into(),
            at.audience.clone(),
            at.scope.clone(),
            show::duration(time::Duration::seconds(lasts)),
            one.broker.clone(),
            if profiles.is_empty() { "–".into() } else { profiles },
        ]
    });
    app.ui.table(["ROLE", "HAD", "AUDIENCE", "SCOPE", "LONGEST", "BROKER", "PROFILE"], rows)
}

/// How it is had.
fn how(role: &Role) -> &'static str {
    match (role.how.as_str(), role.approval, role.emergency) {
        ("elevate", true, true) => "by elevation, or in an emergency",
        ("elevate", false, true) => "in an emergency",
        ("elevate", ..) => "by elevation",
        _ => "at once",
    }
}

impl Found {
    pub(super) fn report(&self) -> Value {
        let mut report = json!(self.role);
        report["identity"] = json!(self.identity);
        report["broker"] = json!(self.broker);
        report["profiles"] = json!(self.profiles);
        report
    }
}
