//! `tmpcred ls`

mod roles;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::aws::Region;
use crate::aws::sso::Server;
use crate::aws::sso::portal::{Available, Portal};
use crate::cli::App;
use crate::cli::args::Ls;
use crate::cli::misuse;
use crate::cli::prepare::{cache, detected, planned};
use crate::cli::show;
use crate::config::{self, Addition, Config};
use crate::credential::Assertion;
use crate::error::{Error, ErrorKind, Result};
use crate::host::process;
use crate::identity::{Context, IdentitySource, in_place_of};
use crate::mint;
use crate::plan::{self, Plan};

pub(super) fn run(app: &App, args: &Ls) -> Result<()> {
    let config = config::load(&app.host)?;
    let plans = plans(app, &config);
    if !args.available {
        return profiles(app, &config, &plans, args.json);
    }
    let only = args.identity.as_deref();
    // No profile is written for what a broker gives: which of it somebody wants is theirs to say.
    let brokers = if args.write { Vec::new() } else { roles::brokers(&plans, only) };
    let (found, mut failed) = available(app, &config, only, (&plans, brokers.is_empty()))?;
    let (roles, others) = roles::available(app, &plans, &brokers);
    failed.extend(others);
    // Whoever could not be asked may have much: nothing is said then of what there is.
    if !found.is_empty() || !roles.is_empty() || failed.is_empty() {
        show_available(app, args, &config, (&found, &roles))?;
    }
    let Some(last) = failed.pop() else { return Ok(()) };
    failed.iter().for_each(|error| app.host.interact.warn(&error.to_string()));
    Err(last)
}

fn show_available(
    app: &App,
    args: &Ls,
    config: &Config,
    (found, roles): (&[Found], &[roles::Found]),
) -> Result<()> {
    if args.write {
        return write(app, config, found, args.dry_run);
    }
    if args.json {
        let reports = found.iter().map(Found::report);
        return app
            .ui
            .json(&reports.chain(roles.iter().map(roles::Found::report)).collect::<Vec<_>>());
    }
    if !roles.is_empty() {
        roles::tell(app, roles)?;
    }
    match (found.is_empty(), roles.is_empty()) {
        (true, true) => app.ui.line("There is no account, and no role, that you may use."),
        (true, false) => Ok(()),
        (false, _) => show_accounts(app, found),
    }
}

fn show_accounts(app: &App, found: &[Found]) -> Result<()> {
    let rows = found.iter().map(|one| {
        let Available { account, role } = &one.available;
        let (id, name) = (account.account_id.clone(), account.account_name.clone());
        let profiles = one.profiles.join(", ");
        [id, name, role.clone(), if profiles.is_empty() { "–".into() } else { profiles }]
    });
    app.ui.table(["ACCOUNT", "NAME", "ROLE", "PROFILE"], rows)?;
    let without = found.iter().filter(|one| one.profiles.is_empty()).count();
    if without > 0 {
        app.host.interact.note(&format!(
            "\n{} without a profile. To add them: tmpcred ls --available --write",
            show::count(without, "role", "roles")
        ));
    }
    Ok(())
}

/// What each profile would do, or why it cannot.
type Plans = BTreeMap<String, Result<Plan>>;

fn plans(app: &App, config: &Config) -> Plans {
    let detected = detected(&app.host, config);
    let plan = |name: &String| (name.clone(), planned(config, &detected, name));
    config.profiles.keys().map(plan).collect()
}

fn profiles(app: &App, config: &Config, plans: &Plans, as_json: bool) -> Result<()> {
    let target = |plan: &Plan| {
        let mut reasons = plan.reasons.iter().filter(|reason| reason.what == "target");
        reasons.next().map(|reason| reason.value.clone()).unwrap_or_default()
    };
    if as_json {
        let report = |(name, plan): (&String, &Result<Plan>)| {
            let good = plan.as_ref().ok();
            json!({
                "profile": name,
                "default": config.default_profile.as_ref() == Some(name),
                "identity": good.map(|plan| &plan.identity.name),
                "role": good.map(|plan| &plan.request.role),
                "target": good.map(target),
                "error": plan.as_ref().err().map(Error::message),
            })
        };
        return app.ui.json(&plans.iter().map(report).collect::<Vec<_>>());
    }
    if plans.is_empty() {
        return app.ui.line("No profiles. To start a configuration: tmpcred config init");
    }
    let rows = plans.iter().map(|(name, plan)| match plan {
        Ok(plan) => {
            let (role, identity) = (plan.request.role.clone(), plan.identity.name.clone());
            [name.clone(), role, target(plan), identity]
        }
        Err(error) => [name.clone(), "–".into(), error.message().to_string(), "–".into()],
    });
    app.ui.table(["PROFILE", "ROLE", "TARGET", "IDENTITY"], rows)
}

/// A role that may be used, and the profiles for it.
struct Found {
    identity: String,
    /// The region of its Identity Center.
    region: Region,
    available: Available,
    profiles: Vec<String>,
}

impl Found {
    fn report(&self) -> Value {
        let Available { account, role } = &self.available;
        json!({
            "identity": self.identity,
            "account_id": account.account_id,
            "account_name": account.account_name,
            "role": role,
            "profiles": self.profiles,
        })
    }
}

/// What the identities may use, and what kept any of them from telling.
fn available(
    app: &App,
    config: &Config,
    only: Option<&str>,
    (plans, is_all): (&Plans, bool),
) -> Result<(Vec<Found>, Vec<Error>)> {
    let named = only.map(|name| plan::identity(config, Some(name))).transpose()?;
    let mut identities = Vec::new();
    for (name, settings) in &config.identities {
        let wanted = named.as_ref().is_none_or(|named| named.name == *name);
        identities.extend(settings.portal().filter(|_| wanted).map(|at| (name, settings, at)));
    }
    if identities.is_empty() && !is_all {
        return Ok((Vec::new(), Vec::new()));
    }
    if identities.is_empty() {
        return Err(match only {
            Some(name) => misuse(format!("the identity '{name}' is not at IAM Identity Center")),
            None => Error::new(ErrorKind::Config, "no identity is at IAM Identity Center")
                .because_of("no table `[identity.NAME]` has `type = \"aws-sso\"`"),
        });
    }
    let cache = cache(&app.host, config)?;
    let cx = Context::new(&app.host, &cache);
    let several = identities.len() > 1 || !is_all;
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for (name, settings, server) in identities {
        let source = settings.open(name);
        match process::runtime()?.block_on(ask(cx, &*source, &server)) {
            Ok(all) => found.extend(all.into_iter().map(|available| {
                let profiles = profiles_for(plans, name, &available);
                let region = server.region().clone();
                Found { identity: name.clone(), region, available, profiles }
            })),
            Err(error) if several => {
                failed.push(error.context(format!("the identity '{name}' is left out")));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((found, failed))
}

/// What the session of this source may use.
async fn ask(
    cx: Context<'_>,
    source: &dyn IdentitySource,
    server: &Server,
) -> Result<Vec<Available>> {
    let list = async |assertion: &Assertion| {
        let _waiting = cx.host.interact.waiting("asking IAM Identity Center");
        let portal = Portal::new(cx.host, server, &assertion.token)?;
        portal
            .available()
            .await
            .map_err(|failure| failure.error("the accounts and roles cannot be listed"))
    };
    let assertion = source.assertion(cx, server.url()).await?;
    match list(&assertion).await {
        Err(refused) => {
            let another = in_place_of(source, cx, &assertion, server.url(), refused).await?;
            list(&another).await
        }
        listed => listed,
    }
}

fn profiles_for(plans: &Plans, identity: &str, available: &Available) -> Vec<String> {
    let is = |plan: &Plan| {
        let mint::Plan::AwsSso(target) = &plan.target else { return false };
        plan.identity.name == identity
            && plan.request.role == available.role
            && target.account().as_str() == available.account.account_id
    };
    let these = plans.iter().filter(|(_, plan)| plan.as_ref().is_ok_and(is));
    these.map(|(name, _)| name.clone()).collect()
}

/// Adds a profile for each role that has none.
fn write(app: &App, config: &Config, found: &[Found], dry_run: bool) -> Result<()> {
    let mut taken: BTreeSet<String> = config.profiles.keys().cloned().collect();
    let mut tables = Vec::new();
    for one in found.iter().filter(|one| one.profiles.is_empty()) {
        tables.push(table(one, &mut taken)?);
    }
    if tables.is_empty() {
        app.host.interact.note("Every role has a profile already.");
        return Ok(());
    }
    let text = tables.join("\n");
    let addition = Addition::new(&app.host, &text)?;
    let added: String = text.lines().map(|line| format!("+{line}\n")).collect();
    app.ui.line(format!("{}:\n{}", addition.path().display(), added.trim_end()))?;
    let number = show::count(tables.len(), "profile", "profiles");
    if dry_run {
        app.host.interact.note(&format!("{number} would be added. Nothing has been written."));
        return Ok(());
    }
    addition.write()?;
    app.host.interact.note(&format!("{number} added."));
    Ok(())
}

/// The table of a new profile, whose name no other has.
fn table(found: &Found, taken: &mut BTreeSet<String>) -> Result<String> {
    let Available { account, role } = &found.available;
    let plain = slug(&format!("{}-{role}", account.account_name));
    let names = [plain.clone(), slug(&format!("{plain}-{}", account.account_id))];
    let free =
        names.into_iter().find(|name| config::check_name(name).is_ok() && !taken.contains(name));
    let Some(name) = free else {
        return Err(Error::new(
            ErrorKind::Config,
            format!("no name is free for the role {role} in the account {}", account.account_id),
        )
        .hint("write a profile for it yourself"));
    };
    taken.insert(name.clone());
    // What a server says is quoted as TOML wants it.
    let quoted = |text: &str| toml::Value::from(text).to_string();
    Ok(format!(
        "[profile.{name}]\nidentity = {}\nrole = {}\n\
         # `region` is that of the Identity Center, to start with: commands are told it.\n\
         target = {{ type = \"aws-sso\", account_id = {}, region = {} }}\n",
        quoted(&found.identity),
        quoted(role),
        quoted(&account.account_id),
        quoted(found.region.as_str()),
    ))
}

/// A name in small letters, digits and `-`.
fn slug(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.trim_end_matches('-').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::sso::portal::Account;

    fn found(account: &str, name: &str, role: &str) -> Found {
        let account = Account { account_id: account.into(), account_name: name.into() };
        let available = Available { account, role: role.into() };
        let region = Region::parse("eu-central-1").unwrap();
        Found { identity: "corp".into(), region, available, profiles: Vec::new() }
    }

    #[test]
    fn new_profiles_have_names_of_their_own_and_quoted_values() {
        let mut taken = BTreeSet::from(["prod-admin".to_string()]);
        let written = table(&found("111122223333", "Prod", "Admin"), &mut taken).unwrap();
        assert!(written.starts_with("[profile.prod-admin-111122223333]\n"), "{written}");
        assert!(table(&found("111122223333", "Prod", "Admin"), &mut taken).is_err());
        let odd = table(&found("111122223333", "\"]\n[x]", "a\"b"), &mut taken).unwrap();
        assert!(odd.starts_with("[profile.x-a-b]\n"), "{odd}");
        assert!(odd.parse::<toml::Table>().is_ok(), "{odd}");
        assert!(table(&found("1", "é", "ü"), &mut taken).unwrap().starts_with("[profile.1]"));
    }
}
