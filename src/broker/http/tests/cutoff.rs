//! Many tokens revoked at once, by an operator beside the running broker.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::lineage::{OWN, Site, root_key};
use crate::broker::authenticate::id_of;
use crate::broker::cutoff::{Operator, Revoked, What};
use crate::broker::store::sql::tests::Ground;
use crate::broker::store::{Cutoff, Effect, Store, Unit, Whose, sqlite};
use crate::broker::testbed::failing::Failing;
use crate::broker::testbed::{
    API, Bed, CORP, Options, Shifted, Standing, claims_of, json_of, now, set,
};
use crate::host::clock::{Clock, SystemClock};
use crate::oidc::Issuer;
use crate::secret::Secret;

pub(super) struct Place {
    pub(super) bed: Bed,
    pub(super) path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Place {
    pub(super) async fn new(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        let store: Arc<dyn Store> = Arc::new(sqlite::open(&path).await.unwrap());
        let bed = Bed::with(|options| {
            let other = options.config.role["deploy"].clone();
            options.config.role.insert("other".into(), other);
            options.policies += r#"@id("other") @ttl("15m")
                permit (principal, action == Action::"issue", resource == Role::"other");"#;
            (options.store, options.root_key) = (store, root_key());
            change(options);
        })
        .await;
        Self { bed, path, _dir: dir }
    }

    /// As another process does: over a connection of its own.
    pub(super) async fn operator(&self) -> Operator {
        let store = Arc::new(sqlite::open(&self.path).await.unwrap());
        store.seal_with(root_key().seal_of_log()).await.unwrap();
        Operator::beside(store, Arc::new(SystemClock), Issuer::parse(OWN).unwrap())
    }

    pub(super) async fn revoke(&self, whose: Whose) -> Revoked {
        let many = What::Many { whose, before: None };
        self.operator().await.revoke(&many, "a test").await.unwrap()
    }

    /// As whoever revokes while a broker's clock is ahead.
    async fn cut_off(&self, whose: Whose, before: OffsetDateTime) {
        let cut = Cutoff { whose, before, at: now(), keep_until: before + Duration::DAY };
        let unit = Unit { records: Vec::new(), effects: vec![Effect::CutOff(cut)] };
        self.bed.store.commit(&[unit]).await.unwrap();
    }

    async fn good(&self, tokens: &[&String]) -> Vec<bool> {
        let mut good = Vec::new();
        for token in tokens {
            good.push(active(&self.bed, token).await);
        }
        good
    }
}

pub(super) async fn active(bed: &Bed, token: &str) -> bool {
    json_of(&bed.introspect(Some(token), token).await)["active"].as_bool().unwrap()
}

/// Tokens say in whole seconds when they were issued: what comes later is of a later one.
pub(super) async fn next_second() {
    let second = now().unix_timestamp();
    while now().unix_timestamp() == second {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn those_of_a_subject_a_role_a_client_or_all_end_at_once() {
    let place = Place::new(|_| {}).await;
    let bed = &place.bed;
    let alice = bed.issued(json!({}), &[]).await;
    let bob = bed.issued(json!({"sub": "bob", "azp": "gui"}), &[]).await;
    let role = bed.issued(json!({"sub": "carol"}), &[("role", "other")]).await;
    let tokens = [&alice, &bob, &role];
    assert_eq!(place.good(&tokens).await, [true, true, true]);
    next_second().await;

    let revoked = place.revoke(Whose::Subject(id_of(CORP, "alice"))).await;
    assert_eq!(revoked.tokens, Some(1));
    assert_eq!(place.good(&tokens).await, [false, true, true]);
    let revoked = place.revoke(Whose::Role("other".into())).await;
    assert_eq!(revoked.tokens, Some(1));
    assert_eq!(place.good(&tokens).await, [false, true, false]);
    let later = bed.issued(json!({"sub": "dora", "azp": "gui"}), &[]).await;
    place.revoke(Whose::Client("nobody".into())).await;
    next_second().await;
    let revoked = place.revoke(Whose::Client("gui".into())).await;
    assert_eq!(revoked.tokens, Some(2));
    assert_eq!(place.good(&[&alice, &bob, &role, &later]).await, [false; 4]);
    // Who may have a new one has it.
    next_second().await;
    let again = bed.issued(json!({}), &[]).await;
    assert_eq!(place.good(&[&again]).await, [true]);
    next_second().await;
    place.revoke(Whose::Issuer(CORP.into())).await;
    assert_eq!(place.good(&[&again]).await, [false]);
    let records = bed.records(0, 99).await;
    let many: Vec<_> = records.iter().filter(|(_, r)| r.action == "revoke-many").collect();
    assert_eq!(many.len(), 5);
    assert!(many[0].1.reason.contains("#alice): a test"), "{}", many[0].1.reason);
}

#[tokio::test]
async fn whether_anything_is_known_of_them_is_told_and_who_only_looks_changes_nothing() {
    let place = Place::new(|_| {}).await;
    let bed = &place.bed;
    let alice = bed.issued(json!({}), &[]).await;
    let bob = bed.issued(json!({"sub": "b/ob", "azp": "gui"}), &[]).await;
    next_second().await;
    let operator = place.operator().await;
    let looked = async |what: What| {
        let looked = operator.would_revoke(&what).await.unwrap();
        (looked.tokens, looked.on_record)
    };
    let many = |whose| What::Many { whose, before: None };
    let records = bed.records(0, 99).await.len();
    let subject = |name| Whose::Subject(id_of(CORP, name));
    let jti = claims_of(&bob)["jti"].as_str().unwrap().parse().unwrap();
    for (what, tokens, on_record) in [
        (many(subject("alice")), 1, Some(true)),
        (many(subject("b/ob")), 1, Some(true)),
        (many(subject("Alice")), 0, Some(false)),
        (many(Whose::Client("gui".into())), 1, Some(true)),
        (many(Whose::Client("giu".into())), 0, Some(false)),
        (many(Whose::Issuer(CORP.into())), 2, Some(true)),
        (many(Whose::Issuer("https://nobody.example".into())), 0, Some(false)),
        (many(Whose::Everybodys), 2, Some(true)),
        (many(Whose::Role("gone".into())), 0, None),
        (What::Token(jti), 1, Some(true)),
    ] {
        let told = format!("{what:?}");
        assert_eq!(looked(what).await, (Some(tokens), on_record), "{told}");
    }
    let early = What::Many { whose: Whose::Everybodys, before: Some(now() + Duration::HOUR) };
    assert!(operator.would_revoke(&early).await.unwrap_err().to_string().contains("yet to come"));
    assert!(operator.would_revoke(&What::Token(Uuid::new_v4())).await.is_err());
    assert_eq!(place.good(&[&alice, &bob]).await, [true, true]);
    assert_eq!(bed.records(0, 99).await.len(), records);

    // Somebody whose tokens are good no more is known all the same, and nobody else is.
    assert_eq!(place.revoke(Whose::Everybodys).await.on_record, Some(true));
    assert_eq!(looked(many(subject("alice"))).await, (Some(0), Some(true)));
    assert_eq!(looked(many(Whose::Client("gui".into()))).await, (Some(0), Some(true)));
    let revoked = place.revoke(subject("nobody")).await;
    assert_eq!((revoked.tokens, revoked.on_record), (Some(0), Some(false)));
    // One that was revoked with others is good no more, whoever revokes it by its id.
    assert_eq!(looked(What::Token(jti)).await, (Some(0), Some(true)));
    let again = operator.revoke(&What::Token(jti), "a test").await.unwrap();
    assert_eq!((again.tokens, again.on_record), (Some(0), Some(true)));
    next_second().await;
    let later = bed.issued(json!({}), &[]).await;
    let later = What::Token(claims_of(&later)["jti"].as_str().unwrap().parse().unwrap());
    assert_eq!(looked(later.clone()).await.0, Some(1));
    assert_eq!(operator.revoke(&later, "a test").await.unwrap().tokens, Some(1));
    assert_eq!(looked(later).await.0, Some(0));
}

#[tokio::test]
async fn what_was_issued_later_stays_and_a_later_cut_is_not_taken_back() {
    let place = Place::new(|_| {}).await;
    let token = place.bed.issued(json!({}), &[]).await;
    let operator = place.operator().await;
    let many = |before| What::Many { whose: Whose::Everybodys, before: Some(before) };
    let earlier = now() - Duration::minutes(5);
    let revoked = operator.revoke(&many(earlier), "early").await.unwrap();
    assert_eq!(revoked, Revoked { tokens: Some(0), before: earlier, on_record: None });
    assert!(active(&place.bed, &token).await);
    assert!(operator.revoke(&many(now() + Duration::minutes(5)), "late").await.is_err());
    next_second().await;
    operator.revoke(&many(now()), "now").await.unwrap();
    operator.revoke(&many(earlier), "early again").await.unwrap();
    assert!(!active(&place.bed, &token).await);
}

#[tokio::test]
async fn they_end_also_where_nobody_can_count_them() {
    let (bed, store) = Failing::bed(|_| {}).await;
    let token = bed.issued(json!({}), &[]).await;
    next_second().await;
    store.scans.store(false, Ordering::Relaxed);
    let operator =
        Operator::beside(store.clone(), Arc::new(SystemClock), Issuer::parse(OWN).unwrap());
    let many = What::Many { whose: Whose::Everybodys, before: None };
    assert_eq!(operator.revoke(&many, "a test").await.unwrap().tokens, None);
    assert!(!active(&bed, &token).await);
}

#[tokio::test]
async fn from_when_on_is_not_for_the_operators_clock_to_say_alone() {
    for ground in Ground::each().await {
        let bed_store: Arc<dyn Store> = Arc::new(ground.open().await);
        let bed =
            Bed::with(|options| (options.store, options.root_key) = (bed_store, root_key())).await;
        let token = bed.issued(json!({}), &[]).await;
        next_second().await;
        let store = Arc::new(ground.open().await);
        store.seal_with(root_key().seal_of_log()).await.unwrap();
        let clock = Arc::new(Shifted::default());
        let operator = Operator::beside(store, clock.clone(), Issuer::parse(OWN).unwrap());
        let revoke = async |before| {
            operator.revoke(&What::Many { whose: Whose::Everybodys, before }, "a test").await
        };
        for hours in [-1, 1] {
            clock.0.store(hours * 3600, Ordering::Relaxed);
            // Beside a file there is no other clock, and nobody has said anything later.
            if !ground.is_postgres() && hours > 0 {
                continue;
            }
            let refused = revoke(None).await.unwrap_err().to_string();
            assert!(refused.contains("it cannot be told what time it is"), "{refused}");
            assert!(active(&bed, &token).await);
        }
        match ground.is_postgres() {
            // Whoever says it themselves needs no clock.
            true => revoke(Some(now())).await.unwrap(),
            false => {
                clock.0.store(0, Ordering::Relaxed);
                revoke(None).await.unwrap()
            }
        };
        assert!(!active(&bed, &token).await);
        next_second().await;
        let later = bed.issued(json!({}), &[]).await;
        assert!(active(&bed, &later).await);
    }
}

/// Nobody can be sure that a clock is right which was just set, and a thief does not wait.
#[tokio::test]
async fn what_a_broker_has_issued_whose_clock_is_ahead_can_be_revoked_at_once() {
    for ground in Ground::each().await {
        let store: Arc<dyn Store> = Arc::new(ground.open().await);
        let clock = Arc::new(Shifted::default());
        let bed = Bed::with(|options| {
            (options.store, options.root_key) = (store.clone(), root_key());
            options.clock = clock.clone();
        })
        .await;
        // By a clock that is ahead by more, nothing is issued where there is another one.
        clock.0.store(50, Ordering::Relaxed);
        let at = (now() + Duration::seconds(50)).unix_timestamp();
        let claims = json!({"iat": at, "exp": at + 600});
        let token = bed.issued(claims, &[]).await;
        let right = Arc::new(SystemClock);
        let operator = Operator::beside(store, right, Issuer::parse(OWN).unwrap());
        let revoke = async |before| {
            operator.revoke(&What::Many { whose: Whose::Everybodys, before }, "a test").await
        };
        let refused = revoke(None).await.unwrap_err();
        assert!(refused.to_string().contains("it cannot be told what time it is"), "{refused}");
        let [hint] = refused.hints() else { panic!("{:?}", refused.hints()) };
        let (_, rest) = hint.split_once("--before ").unwrap();
        let before = OffsetDateTime::parse(rest.split(';').next().unwrap(), &Rfc3339).unwrap();
        // No later than that.
        let later = revoke(Some(before + Duration::SECOND)).await.unwrap_err();
        assert!(later.to_string().contains("yet to come"), "{later}");
        assert!(active(&bed, &token).await);
        revoke(Some(before)).await.unwrap();
        assert!(!active(&bed, &token).await);
    }
}

#[tokio::test]
async fn what_came_of_them_ends_with_them() {
    let site = Site::new();
    let bed = site.start().await;
    let first = bed.issued(json!({}), &[("audience", OWN), ("requested_ttl", "600")]).await;
    let response = bed.exchange(&first, &[("role", "again"), ("audience", API)]).await;
    let next = json_of(&response)["access_token"].as_str().unwrap().to_string();
    assert!(active(&bed, &next).await);
    next_second().await;
    let clock = Arc::new(SystemClock);
    let operator = Operator::beside(bed.store.clone(), clock, Issuer::parse(OWN).unwrap());
    // Its own role is another one.
    let many = What::Many { whose: Whose::Role("deploy".into()), before: None };
    operator.revoke(&many, "a test").await.unwrap();
    assert!(!active(&bed, &next).await);
    bed.refused(&first, &[("role", "again"), ("audience", API)]).await;
}

/// Tokens say in whole seconds when they were issued, and so they are taken: also as those
/// that another one came of.
#[tokio::test]
async fn what_came_of_one_that_is_cut_off_in_its_second_ends_with_it() {
    let site = Site::new();
    let bed = site.start().await;
    let first = bed.issued(json!({}), &[("audience", OWN), ("requested_ttl", "600")]).await;
    let response = bed.exchange(&first, &[("role", "again"), ("audience", API)]).await;
    let next = json_of(&response)["access_token"].as_str().unwrap().to_string();
    let jti = claims_of(&first)["jti"].as_str().unwrap().parse().unwrap();
    let mut records = bed.records(0, 9).await.into_iter();
    let before = records.find(|(_, record)| record.jti == Some(jti)).unwrap().1.at;
    let clock = Arc::new(SystemClock);
    let operator = Operator::beside(bed.store.clone(), clock, Issuer::parse(OWN).unwrap());
    let many = What::Many { whose: Whose::Role("deploy".into()), before: Some(before) };
    let revoked = operator.revoke(&many, "a test").await.unwrap();
    assert_eq!(revoked.tokens, Some(1), "it is counted as it is taken");
    assert!(!active(&bed, &first).await && !active(&bed, &next).await);
}

#[tokio::test]
async fn what_is_revoked_with_others_is_not_had_again_by_the_same_request() {
    let bed = Bed::with(super::once::strict).await;
    let [one, other] = ["1", "2"].map(|jti| bed.key.token(json!({ "jti": jti })));
    for assertion in [&one, &other] {
        assert_eq!(bed.exchange(assertion, &[]).await.status.as_u16(), 200);
    }
    // Where nothing was revoked, the answer may have been lost.
    assert_eq!(bed.exchange(&one, &[]).await.status.as_u16(), 200);
    let clock = Arc::new(SystemClock);
    let operator = Operator::beside(bed.store.clone(), clock, Issuer::parse(OWN).unwrap());
    let many = What::Many { whose: Whose::Role("deploy".into()), before: None };
    operator.revoke(&many, "a test").await.unwrap();
    // Of the second in which that was, nothing is good.
    next_second().await;
    for assertion in [&one, &other] {
        let why = bed.refused(assertion, &[]).await["error_description"].to_string();
        assert!(why.contains("it may be used once, and was"), "{why}");
    }
    // A fresh one is another matter.
    bed.issued(json!({"jti": "3"}), &[]).await;
}

#[tokio::test]
async fn one_token_is_revoked_by_its_id_and_by_itself() {
    let place = Place::new(|_| {}).await;
    let bed = &place.bed;
    let (one, other) = (bed.issued(json!({}), &[]).await, bed.issued(json!({}), &[]).await);
    let operator = place.operator().await;
    let jti: Uuid = claims_of(&one)["jti"].as_str().unwrap().parse().unwrap();
    assert_eq!(operator.id_of(&Secret::new(one.clone())).await.unwrap(), jti);
    for tokens in [1, 0] {
        let revoked = operator.revoke(&What::Token(jti), "a test").await.unwrap();
        assert_eq!(revoked.tokens, Some(tokens));
    }
    assert_eq!(place.good(&[&one, &other]).await, [false, true]);
    assert!(operator.revoke(&What::Token(Uuid::new_v4()), "a test").await.is_err());
    // No record is longer than those of which others read the log.
    let jti: Uuid = claims_of(&other)["jti"].as_str().unwrap().parse().unwrap();
    for what in [What::Token(jti), What::Many { whose: Whose::Everybodys, before: None }] {
        let refused = operator.revoke(&what, &"x".repeat(70_000)).await.unwrap_err().to_string();
        assert!(refused.contains("64 KiB"), "{refused}");
    }
    assert_eq!(place.good(&[&one, &other]).await, [false, true]);
    assert!(operator.id_of(&Secret::new("garbage".into())).await.is_err());
}

#[tokio::test]
async fn an_answer_says_whom_a_revocation_reaches_and_lifetimes_differ_within_bounds() {
    let place = Place::new(|options| {
        let deploy = options.config.role.get_mut("deploy").unwrap();
        deploy.ttl_jitter = std::time::Duration::from_secs(600);
        deploy.scopes = set("deploy:read deploy:write");
    })
    .await;
    let bed = &place.bed;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let grant = json_of(&bed.exchange(&bed.key.token(json!({})), &[]).await);
        assert_eq!(grant["revocation_reach"], "introspection");
        let claims = claims_of(grant["access_token"].as_str().unwrap());
        let ttl = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        // A quarter of the 15 minutes that are permitted, at most.
        assert!((675..=900).contains(&ttl), "{ttl}");
        seen.insert(ttl);
    }
    assert!(seen.len() > 3, "{seen:?}");
    // What is on record is what was issued.
    let (_, record) = bed.records(19, 1).await.pop().unwrap();
    assert!(seen.contains(&i64::try_from(record.ttl).unwrap()));
}

/// By a clock that is ahead, or in the very moment: no token is handed over that is dead.
#[tokio::test]
async fn what_is_issued_while_it_is_revoked_is_refused_for_a_moment_and_on_record() {
    let clock = Arc::new(Standing::default());
    let place = Place::new(|options| options.clock = clock.clone()).await;
    let before = clock.now() + Duration::seconds(2);
    place.cut_off(Whose::Role("deploy".into()), before).await;
    let ask = async || {
        let token = place.bed.key.token(json!({}));
        place.bed.exchange(&token, &[]).await
    };
    let refused = ask().await;
    assert_eq!(refused.status.as_u16(), 503, "{}", json_of(&refused));
    assert_eq!(super::header_of(&refused, "retry-after"), "2");
    let (_, record) = place.bed.records(0, 9).await.pop().unwrap();
    assert_eq!(record.decision, crate::broker::audit::Decision::Denied);
    assert!(record.reason.contains("were revoked"), "{}", record.reason);
    // Whatever is of another role goes on.
    place.bed.issued(json!({}), &[("role", "other")]).await;
    clock.set(before.unix_timestamp() - 1);
    assert_eq!(ask().await.status.as_u16(), 503);
    clock.set(before.unix_timestamp());
    let token = place.bed.issued(json!({}), &[]).await;
    assert!(active(&place.bed, &token).await);
}

/// A cut-off that lies ahead is told with its end, and is no policy that says no.
#[tokio::test]
async fn until_when_nothing_is_issued_is_told_and_counted_apart() {
    let place = Place::new(|_| {}).await;
    let until = now().truncate_to_second() + Duration::minutes(10);
    // The later of two counts, and whoever else is meant by one does not.
    place.cut_off(Whose::Role("deploy".into()), until - Duration::minutes(3)).await;
    place.cut_off(Whose::Subject(id_of(CORP, "alice")), until - Duration::MICROSECOND).await;
    place.cut_off(Whose::Subject(id_of(CORP, "bob")), until + Duration::HOUR).await;
    // As often as a caller is on record with denials, and more: it is told each time.
    for _ in 0..40 {
        let token = place.bed.key.token(json!({}));
        let refused = place.bed.exchange(&token, &[]).await;
        // Whoever has to wait so long goes on asking for other roles.
        assert_eq!(refused.status.as_u16(), 400);
        let body = json_of(&refused);
        assert_eq!(body["error"], "access_denied", "{body}");
        let why = body["error_description"].as_str().unwrap();
        assert!(why.contains(&until.format(&Rfc3339).unwrap()), "{why}");
        let after: i64 = super::header_of(&refused, "retry-after").parse().unwrap();
        let left = (until - now()).whole_seconds();
        assert!((left..=left + 60).contains(&after), "{after} {left}");
    }
    place.bed.issued(json!({"sub": "carol"}), &[("role", "other")]).await;
    let metrics = place.bed.admin.get("/metrics").await.body;
    let metrics = String::from_utf8(metrics.expose().clone()).unwrap();
    let count = |reason: &str| {
        let name = format!("tmpcred_issuance_denials_total{{reason=\"{reason}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().to_string()
    };
    assert_eq!(["cut_off", "policy", "too_many"].map(count), ["40", "0", "0"]);
}

/// Numbers and moments on record are not in the same order where clocks differ.
#[tokio::test]
async fn what_is_on_record_ends_whoevers_clock_is_ahead() {
    let place = Place::new(|_| {}).await;
    let token = place.bed.issued(json!({}), &[]).await;
    let clock = Arc::new(Shifted::default());
    clock.0.store(-3, Ordering::Relaxed);
    let store = Arc::new(sqlite::open(&place.path).await.unwrap());
    store.seal_with(root_key().seal_of_log()).await.unwrap();
    let operator = Operator::beside(store, clock, Issuer::parse(OWN).unwrap());
    let revoke = async |role: &str| {
        let many = What::Many { whose: Whose::Role(role.into()), before: None };
        operator.revoke(&many, "a test").await.unwrap()
    };
    // The newest record is of an earlier moment than the one before it.
    revoke("other").await;
    assert!(active(&place.bed, &token).await);
    revoke("deploy").await;
    assert!(!active(&place.bed, &token).await);
}
