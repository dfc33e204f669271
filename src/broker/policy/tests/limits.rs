//! What permits give and want, each by itself.

use proptest::prelude::*;

use super::*;

fn with_obligations(wanted: &str) -> String {
    permit("p", &format!("@ttl(\"15m\") @scope(\"read\") @obligations(\"{wanted}\")"), "true")
}

fn obligations(verdict: Verdict) -> BTreeSet<Obligation> {
    match verdict {
        Verdict::Granted(granted) => granted.obligations,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_permit_wants_comes_with_what_it_grants() {
    let policy = load(&with_obligations("opaque  ends_with_token")).unwrap();
    let wanted = BTreeSet::from([Obligation::EndsWithToken, Obligation::Opaque]);
    assert_eq!(obligations(decide(&policy, NOTHING)), wanted);

    // The token ends with the one that was shown.
    let soon = Duration::from_secs(90);
    let Verdict::Granted(got) = decide(&policy, Asked { left: soon, ..NOTHING }) else { panic!() };
    assert_eq!(got.ttl, soon);
    assert_eq!(decide(&policy, Asked { left: Duration::ZERO, ..NOTHING }), Verdict::Ended);
}

#[test]
fn a_permit_that_wants_a_key_is_none_for_those_who_prove_none() {
    let wants = load(&with_obligations("key_bound")).unwrap();
    assert_eq!(decide(&wants, NOTHING), Verdict::Unbound);
    let proved = Asked { key_bound: true, ..NOTHING };
    assert_eq!(obligations(decide(&wants, proved)), [Obligation::KeyBound].into());

    // Another one counts by itself, with the less that it gives.
    let policy = with_obligations("key_bound") + &permit("q", "@ttl(\"1m\")", "true");
    let policy = load(&policy).unwrap();
    assert_eq!(decide(&policy, NOTHING), granted("q", 60, ""));
    let reads = Asked { scope: Some("read"), ..NOTHING };
    assert_eq!(decide(&policy, reads), Verdict::Unbound, "that one does not read");
    let admin = Asked { scope: Some("admin"), ..NOTHING };
    assert_eq!(decide(&policy, admin), Verdict::ScopeDenied);
}

#[test]
fn obligations_that_nobody_knows_are_refused() {
    let error = refused(&with_obligations("opaque key-bound"));
    let wanted = "the permit 'p' has the unknown obligation 'key-bound'; known are ends_with_token, key_bound, opaque";
    assert!(error.contains(wanted), "{error}");
    let forbids = permit("p", "@ttl(\"1m\")", "true")
        + "@id(\"f\") @obligations(\"opaque\") forbid (principal, action, resource);";
    let error = refused(&forbids);
    assert!(error.contains("'f' forbids, so it cannot have @obligations"), "{error}");
}

#[test]
fn what_is_forbidden_to_issue_is_forbidden_to_exchange() {
    let forbids = |actions: &str| {
        permit("p", "@ttl(\"5m\") @any_issuer", "true")
            + &format!("@id(\"f\") forbid (principal, action {actions}, resource);")
    };
    let half = forbids("== Action::\"issue\"");
    let own = trusted(&[ISSUER, "https://broker.example.com"]);
    let error = load_among(&own, &half).unwrap_err().to_string();
    assert!(error.contains("'f' forbids to issue, and not to exchange"), "{error}");
    let whole = forbids("in [Action::\"issue\", Action::\"exchange\"]");
    assert!(load_among(&own, &whole).is_ok());
    assert!(load_among(&trusted(&[ISSUER]), &half).is_ok(), "nobody exchanges anything");
}

/// A permit for Alice, and one for whoever has a token of the broker's that is hers.
#[test]
fn to_exchange_has_permits_of_its_own() {
    let own = trusted(&[ISSUER, "https://broker.example.com"]);
    let issues = permit("i", "@ttl(\"5m\") @any_issuer", "true");
    let exchanges = issues.replace("\"i\"", "\"e\"").replace("\"issue\"", "\"exchange\"");
    let exchanges = exchanges.replace("@any_issuer", "");
    let of_broker = caller("https://broker.example.com", "alice", json!({})).unwrap();
    let ask = |text: &str| {
        let policy = load_among(&own, text).unwrap();
        policy.decide(
            &of_broker,
            &Question {
                role: "deploy",
                role_scopes: &set("read"),
                role_ttl: Duration::from_secs(3600),
                key_bound: false,
                jwt: false,
                elevation: None,
                left: Duration::MAX,
                audience: "https://api.example.com",
                scope: None,
                ttl: None,
                moment: MOMENT,
            },
        )
    };
    assert_eq!(ask(&issues), Verdict::Denied { forbidden_by: None });
    assert_eq!(ask(&(issues + &exchanges)), granted("e", 300, ""));
    let none = load_among(&own, &exchanges).unwrap_err().to_string();
    assert!(none.contains("there is no permit to issue"), "{none}");
}

fn limits() -> impl Strategy<Value = Limits> {
    let scope = prop::sample::subsequence(vec!["read", "write", "admin", "other"], 0..=4);
    let obligations = prop::sample::subsequence(Obligation::ALL.to_vec(), 0..=3);
    (1_u64..5, scope, obligations).prop_map(|(ttl, scope, obligations)| Limits {
        ttl: Duration::from_secs(ttl),
        scope: scope.iter().map(ToString::to_string).collect(),
        obligations: obligations.into_iter().collect(),
    })
}

proptest! {
    /// Whatever permits apply, what is granted is within a single one of them, and
    /// no other one that covers it lives longer.
    #[test]
    fn every_grant_is_within_one_permit(
        permits in prop::collection::vec(limits(), 0..6),
        wanted in prop::option::of(prop::sample::subsequence(vec!["read", "write", "admin", "other"], 1..=4)),
        ttl in prop::option::of(1_u64..6),
        role_ttl in 1_u64..6,
        key_bound: bool,
        jwt: bool,
        left in 0_u64..6,
    ) {
        let permits: Vec<(String, Limits)> = permits
            .into_iter()
            .enumerate()
            .map(|(n, limits)| (format!("p{n}"), limits))
            .collect();
        let wanted: Option<BTreeSet<String>> = wanted.map(|w| w.iter().map(ToString::to_string).collect());
        let role_scopes = set("read write admin");
        let question = Question {
            elevation: None,
            role: "r",
            role_scopes: &role_scopes,
            role_ttl: Duration::from_secs(role_ttl),
            key_bound,
            jwt,
            left: Duration::from_secs(left),
            audience: "a",
            scope: wanted.as_ref(),
            ttl: ttl.map(Duration::from_secs),
            moment: MOMENT,
        };
        let got = weigh(permits.iter().map(|(id, l)| (id.as_str(), l)), &question);
        let covering = |l: &Limits| {
            wanted.as_ref().is_none_or(|w| w.is_subset(&l.scope) && w.is_subset(&role_scopes))
                && (key_bound || !l.obligations.contains(&Obligation::KeyBound))
                && (!jwt || !l.obligations.contains(&Obligation::Opaque))
                && (left > 0 || !l.obligations.contains(&Obligation::EndsWithToken))
        };
        let ends = |l: &Limits| l.obligations.contains(&Obligation::EndsWithToken);
        let longest = |l: &Limits| if ends(l) { l.ttl.min(question.left) } else { l.ttl };
        match got {
            Err(_) => prop_assert!(!permits.iter().any(|(_, l)| covering(l))),
            Ok(granted) => {
                let (_, by) = permits.iter().find(|(id, _)| *id == granted.policy_id).unwrap();
                prop_assert!(covering(by) && granted.obligations == by.obligations);
                prop_assert!(granted.ttl <= longest(by) && granted.ttl <= question.role_ttl);
                prop_assert!(question.ttl.is_none_or(|ttl| granted.ttl <= ttl));
                prop_assert!(granted.scope.is_subset(&by.scope) && granted.scope.is_subset(&role_scopes));
                prop_assert!(wanted.as_ref().is_none_or(|w| *w == granted.scope));
                prop_assert!(permits.iter().all(|(_, l)| !covering(l) || longest(l) <= longest(by)));
            }
        }
    }
}
