//! Roles that are had by elevation: whether anybody may ask for them, and enough approve.

use time::OffsetDateTime;

use super::super::finding::{Finding, Rule};
use super::super::load::World;
use super::super::view::View;
use super::super::{APPROVE, ELEVATE, Policy};
use crate::broker::config::{ChannelKind, EMERGENCY};
use crate::broker::decide::Rules;
use crate::broker::elevation::{Asked, Eligible, Reach};

/// Looks at all policies together; at who may approve only where they can be used.
pub(super) fn look(
    views: &[View<'_>],
    world: World<'_>,
    policy: Option<&Policy>,
    now: OffsetDateTime,
    findings: &mut Vec<Finding>,
) {
    let is_elevated = |name: &str| world.roles[name].elevation.is_some();
    for view in views.iter().filter(|view| view.permits(&[ELEVATE, APPROVE])) {
        let roles = view.roles(world);
        if !roles.is_empty() && !roles.iter().any(|name| is_elevated(name)) {
            let id = &view.id;
            let message =
                format!("the permit '{id}' is for roles of which none is had by elevation");
            findings.push(Finding::new(Rule::NotElevated, message).of(id).at(view.place(None)));
        }
    }
    for name in world.roles.keys().filter(|name| is_elevated(name)) {
        let asks =
            |view: &View<'_>| view.permits(&[ELEVATE]) && view.roles(world).contains(&**name);
        if !views.iter().any(asks) {
            let message = format!("no permit lets anybody ask for the role '{name}'");
            findings.push(Finding::new(Rule::NobodyElevates, message));
        }
    }
    let elevated = world.roles.keys().any(|name| is_elevated(name));
    if elevated && world.directory.is_some_and(|people| people.max_age().is_none()) {
        let message = "roles are had by elevation, and the directory of people may be of any age";
        findings.push(Finding::new(Rule::DirectoryUndated, message));
    }
    for (name, role) in world.roles.iter().filter(|(name, _)| is_elevated(name)) {
        if role.aws.as_ref().is_some_and(|aws| !aws.names_grants()) {
            let message = format!(
                "what AWS is told of the role '{name}' does not say under which grant it is had"
            );
            findings.push(Finding::new(Rule::GrantUntold, message));
        }
    }
    let Some(policy) = policy else { return };
    let reach = Reach::of(Rules { policy, roles: world.roles }, now);
    let of = |rule| move |message| Finding::new(rule, message);
    findings.extend(reach.never.into_iter().map(of(Rule::ThresholdUnmeetable)));
    findings.extend(reach.barely.into_iter().map(of(Rule::ThresholdTight)));
    let rules = Rules { policy, roles: world.roles };
    let untold = world.roles.keys().filter_map(|name| untold(name, rules, world, now));
    findings.extend(untold.map(of(Rule::EmergencyUntold)));
}

/// Who of those that are skipped in an emergency is not told of it, because they are told by mail
/// alone and nobody knows their address.
fn untold(name: &str, rules: Rules<'_>, world: World<'_>, now: OffsetDateTime) -> Option<String> {
    world.roles[name].elevation.as_ref()?.emergency.as_ref()?;
    let mut told = world.notify.values().filter(|one| one.wants(EMERGENCY, Some(name)));
    if told.any(|one| one.kind != ChannelKind::Email || !one.to.is_empty()) {
        return None;
    }
    let asked = Asked::by_nobody(name, now);
    let has_address = |person: &&str| {
        let known = world.directory.and_then(|people| people.named(person));
        known.is_some_and(|known| known.contacts.contains_key("email"))
    };
    let people = Eligible::new(rules, &asked, now).people();
    let without: Vec<_> = people.into_iter().filter(|person| !has_address(person)).collect();
    (!without.is_empty()).then(|| {
        let who = without.join(", ");
        format!("nobody tells {who} when somebody takes the role '{name}' in an emergency")
    })
}
