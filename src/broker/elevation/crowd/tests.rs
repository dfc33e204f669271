//! Held against asking policy about each person by themselves.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use time::OffsetDateTime;
use time::macros::datetime;

use super::*;
use crate::broker::authenticate::id_of;
use crate::broker::config::{Clients, Notify, Role, TrustedIssuer};
use crate::broker::decide::Rules as Policies;
use crate::broker::directory::tests::directory_of;
use crate::broker::elevation::Asked;
use crate::broker::policy::{Policy, Source, World};
use crate::oidc::Issuer;

const NOW: OffsetDateTime = datetime!(2026-01-02 12:00 UTC);

const CORP: &str = "https://login.example.com";
const CI: &str = "https://ci.example.com";
const OWN: &str = "https://broker.example.com";

const GROUPS: [&str; 4] = ["leads", "staff", "suspended", "guests"];

const ROLE: &str = r#"
audiences = ["https://api.example.com"]
max_ttl = "1h"
[elevation]
longest = "1h"
approvals = [{ count = 1, groups = ["leads"] }, { count = 1 }]
"#;

/// The policies, and the people that they are about.
struct Scene {
    roles: BTreeMap<String, Role>,
    policy: Policy,
}

impl Scene {
    fn new(people: &str, policies: &[&str]) -> Self {
        let groups = GROUPS.map(|group| format!("[group.{group}]\n")).concat();
        let directory = Arc::new(directory_of(&(groups + people)));
        let roles: BTreeMap<String, Role> =
            ["admin", "other"].map(|name| (name.into(), toml::from_str(ROLE).unwrap())).into();
        let trusted: BTreeMap<_, _> = [CORP, CI]
            .map(|issuer| (issuer.into(), TrustedIssuer::new(Issuer::parse(issuer).unwrap())))
            .into();
        let own = Issuer::parse(OWN).unwrap();
        let world = World {
            roles: &roles,
            trusted: &trusted,
            clients: &Clients::new(),
            own: &own,
            directory: Some(&directory),
            notify: &Notify::new(),
        };
        let mut text = format!(
            "@id(\"issues\") @ttl(\"1h\")\npermit (principal == User::\"{CORP}#x\", action == Action::\"issue\", resource);\n"
        );
        for (number, policy) in policies.iter().enumerate() {
            let policy = policy
                .replace("HERE", "action == Action::\"approve\", resource == Role::\"admin\"")
                .replace("CORP", CORP)
                .replace("CI", CI);
            let any = if policy.starts_with("permit (principal,") { "@any_issuer " } else { "" };
            writeln!(text, "@id(\"p{number}\") {any}\n{policy}").unwrap();
        }
        let source = Source { path: "policy.cedar".into(), text };
        let policy = Policy::load(&[source], world).unwrap();
        Self { roles, policy }
    }

    fn policies(&self) -> Policies<'_> {
        Policies { policy: &self.policy, roles: &self.roles }
    }

    fn eligible<'a>(&'a self, asked: &'a Asked) -> Eligible<'a> {
        Eligible::new(self.policies(), asked, NOW)
    }

    /// How often policy was asked since this was.
    fn asked(&self) -> usize {
        self.policy.asked_of_approvers.swap(0, Ordering::Relaxed)
    }

    /// Who could approve, where each is asked about by themselves, by each id.
    fn one_by_one<'a>(&'a self, asked: &'a Asked) -> Vec<&'a str> {
        let eligible = self.eligible(asked);
        let thresholds = &eligible.rules().unwrap().approvals;
        let may = |(name, person): &(&str, &Person)| {
            thresholds.iter().any(|threshold| threshold.takes(&person.groups))
                && !eligible.is_party(name)
                && person.ids.iter().any(|id| {
                    let (issuer, subject) = (id.issuer.clone(), id.subject.clone());
                    let approver = Principal { issuer, subject };
                    let known = self.policy.directory().unwrap().person(&approver);
                    known.is_some_and(|(known, _)| known == *name) && eligible.permits(&approver)
                })
        };
        let people = self.policy.directory().unwrap().people();
        people.filter(may).map(|(name, _)| name).collect()
    }
}

/// Policies of all sorts. The people are `p0` and so on, by the subjects `u0` and so on.
const POLICIES: &[&str] = &[
    r#"permit (principal in DirectoryGroup::"leads", HERE);"#,
    r#"permit (principal in DirectoryGroup::"staff", HERE) unless { principal in DirectoryGroup::"suspended" };"#,
    r#"permit (principal, HERE) when { principal in [DirectoryGroup::"guests", DirectoryGroup::"staff"] };"#,
    r#"permit (principal in Person::"p3", HERE);"#,
    r#"permit (principal == User::"CORP#u4", HERE);"#,
    r#"permit (principal, HERE) when { [User::"CORP#u1", User::"CI#c2"].contains(principal) };"#,
    r#"permit (principal, HERE) when { principal is User in Person::"p5" };"#,
    r#"permit (principal, HERE) when { principal.issuer == "CI" };"#,
    r#"permit (principal, HERE) when { principal.subject like "*2" };"#,
    r#"permit (principal, HERE) when { context.ttl < 100 };"#,
    r#"permit (principal, HERE) when { context.subject in DirectoryGroup::"staff" };"#,
    r#"permit (principal, HERE) when { User::"CORP#u1" in DirectoryGroup::"leads" };"#,
    r#"permit (principal, HERE) when { Person::"p2" in DirectoryGroup::"leads" };"#,
    r#"permit (principal, HERE) when { context.subject != principal && principal in DirectoryGroup::"guests" };"#,
    r#"permit (principal, HERE) when { (if context.ttl < 100 then principal else context.subject).subject like "u*" };"#,
    r#"forbid (principal in DirectoryGroup::"suspended", HERE);"#,
    r#"forbid (principal in Person::"p1", action, resource);"#,
    r#"forbid (principal == User::"CORP#u3", HERE);"#,
    r#"forbid (principal, HERE) when { principal.issuer == "CI" && principal in DirectoryGroup::"guests" };"#,
    r#"forbid (principal, HERE) unless { principal in DirectoryGroup::"staff" || principal == User::"CORP#u4" };"#,
    r#"forbid (principal, HERE) when { principal.subject == "u5" };"#,
    r#"forbid (principal, HERE) when { context.subject in Person::"p0" && principal in Person::"p2" };"#,
];

/// Somebody: whether they are in each of the groups, and which ids they have besides.
type Someone = ([bool; GROUPS.len()], bool, bool, bool);

fn directory(people: &[Someone]) -> String {
    let mut text = String::new();
    for (number, (groups, only_ci, at_ci, at_own)) in people.iter().enumerate() {
        let id = |issuer: &str, subject: &str| {
            format!("{{ issuer = \"{issuer}\", subject = \"{subject}\" }}")
        };
        let corp = id(CORP, &format!("u{number}"));
        let ci = id(CI, &format!("c{number}"));
        // What the broker issued for somebody else is theirs, whoever lists it.
        let own = id(OWN, &id_of(CORP, &format!("u{}", number + 1)));
        let ids: Vec<_> = [(corp, !only_ci), (ci, *only_ci || *at_ci), (own, *at_own)]
            .into_iter()
            .filter_map(|(id, has)| has.then_some(id))
            .collect();
        let groups = GROUPS.iter().zip(groups).filter(|(_, is_in)| **is_in);
        let groups: Vec<_> = groups.map(|(group, _)| format!("\"{group}\"")).collect();
        let (ids, groups) = (ids.join(", "), groups.join(", "));
        writeln!(text, "[person.p{number}]\nids = [{ids}]\ngroups = [{groups}]").unwrap();
    }
    text
}

/// What is asked for, by whom: by nobody, a machine, or a person.
fn asked(by: u8, ttl: u64) -> Asked {
    let mut asked = Asked { ttl, ..Asked::by_nobody("admin", NOW) };
    (asked.by.issuer, asked.by.subject) = match by {
        0 => return asked,
        1 => (CI.into(), "job".into()),
        by => (CORP.into(), format!("u{}", by - 2)),
    };
    asked
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn who_may_approve_is_whom_policy_would_let_if_it_were_asked_about_each(
        people in prop::collection::vec(any::<Someone>(), 1..12),
        policies in prop::sample::subsequence(POLICIES, 0..7),
        by in 0_u8..6,
        ttl in prop::sample::select(vec![60_u64, 3600]),
    ) {
        let scene = Scene::new(&directory(&people), &policies);
        let asked = asked(by, ttl);
        let expected = scene.one_by_one(&asked);
        scene.asked();
        prop_assert_eq!(scene.eligible(&asked).people(), &expected[..]);
        let crowds = Crowds::default();
        let eligible = scene.eligible(&asked);
        let found = runtime().block_on(crowds.people(&eligible, Lane::Looking));
        prop_assert_eq!(found.unwrap(), expected);
        // Each by themselves, as an approval is counted.
        let mut answers = eligible.answers();
        for (name, person) in scene.policy.directory().unwrap().people() {
            for id in &person.ids {
                let (issuer, subject) = (id.issuer.clone(), id.subject.clone());
                let by = Party { issuer, subject, person: Some(name.into()) };
                prop_assert_eq!(answers.groups(&by), eligible.groups(&by), "{:?}", by);
            }
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// So many people, of whom one in seven is suspended and one in two a guest.
fn many(count: usize) -> String {
    let of = |number: usize| {
        let one_in = |count: usize| number.is_multiple_of(count);
        ([true, true, one_in(7), one_in(2)], false, one_in(3), false)
    };
    directory(&(0..count).map(of).collect::<Vec<_>>())
}

/// What looks at nothing but groups and a few by name.
const BY_KIND: [&str; 4] = [POLICIES[0], POLICIES[3], POLICIES[15], POLICIES[17]];

/// What looks at somebody themselves.
const BY_EACH: [&str; 2] = [POLICIES[0], POLICIES[20]];

#[test]
fn of_thousands_policy_is_asked_about_each_sort_once() {
    let (scene, asked) = (Scene::new(&many(3000), &BY_KIND), asked(1, 60));
    let people = scene.eligible(&asked).people();
    // Whoever is suspended may not, nor the one whom a policy names; by another id that one may.
    assert_eq!(people.len(), 3000 - 3000_usize.div_ceil(7));
    assert!(people.contains(&"p3") && !people.contains(&"p7"));
    // In the groups that are named, or not in one of them; and the two who are named.
    assert!((1..=4).contains(&scene.asked()), "{}", scene.asked());
    let signers = scene.eligible(&asked);
    let mut answers = signers.answers();
    for number in 0..3000 {
        let (subject, person) = (format!("u{number}"), Some(format!("p{number}")));
        answers.groups(&Party { issuer: CORP.into(), subject, person });
    }
    assert!((1..=4).contains(&scene.asked()));
}

#[tokio::test]
async fn where_policy_looks_at_each_others_go_on_meanwhile() {
    let (scene, asked) = (Scene::new(&many(300), &BY_EACH), asked(1, 60));
    let (eligible, crowds) = (scene.eligible(&asked), Crowds::default());
    let turns = AtomicUsize::new(0);
    let others = async {
        loop {
            turns.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    };
    let found = tokio::select! {
        biased;
        found = crowds.people(&eligible, Lane::Looking) => found.unwrap(),
        () = others => unreachable!(),
    };
    assert_eq!(found.len(), 299);
    assert!(scene.asked() >= 300);
    let turns = turns.load(Ordering::Relaxed);
    assert!(turns >= 300 * ASKING / A_LITTLE, "{turns}");
}

#[tokio::test]
async fn who_asks_about_each_waits_in_a_short_line_that_is_in_nobody_elses_way() {
    let crowds = Crowds::default();
    let (each, kinds) = (Scene::new(&many(60), &BY_EACH), Scene::new(&many(60), &BY_KIND));
    let asked = asked(1, 60);
    let (each, kinds) = (each.eligible(&asked), kinds.eligible(&asked));
    let turn = crowds.line(Lane::Looking).turn().await.unwrap();
    let mut waiting: Vec<_> =
        (1..IN_LINE).map(|_| Box::pin(crowds.people(&each, Lane::Looking))).collect();
    for one in &mut waiting {
        for _ in 0..100 {
            assert!(one.as_mut().now_or_never().is_none());
        }
    }
    assert_eq!(crowds.people(&each, Lane::Looking).await, Err(Busy::Approvers));
    // Whoever goes away leaves their place to another one.
    drop(waiting.pop());
    let mut next = Box::pin(crowds.people(&each, Lane::Looking));
    for _ in 0..100 {
        assert!(next.as_mut().now_or_never().is_none());
    }
    // Where little is asked, nobody waits, nor does whoever wants something else.
    assert_eq!(crowds.people(&kinds, Lane::Looking).await.unwrap().len(), 51);
    for lane in [
        Lane::Asking,
        Lane::Machines,
        Lane::Alarming,
        Lane::Answering,
        Lane::Settling,
        Lane::Ending,
    ] {
        assert_eq!(crowds.people(&each, lane).await.unwrap().len(), 59, "{lane:?}");
    }
    // Whoever is first in line is next.
    drop(turn);
    assert_eq!(waiting.remove(0).await.unwrap().len(), 59);
}
