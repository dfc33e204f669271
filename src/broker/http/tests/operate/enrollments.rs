//! Enrolling, listing, approving and removing keys of people, and whose signatures count.

mod overtaken;
mod place;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration as Wait;

use time::Duration;
use uuid::Uuid;

use super::*;
use crate::broker::audit::Decision;
use crate::broker::directory::Settings;
use crate::broker::enroll::Signer;
use crate::broker::store::sql::tests::Ground;
use crate::broker::testbed::failing::Failing;
use crate::broker::testbed::{Shifted, now};
use crate::sshsig::{self, Kind, Nonce, OwnKey, PublicKey, Said, Signed, Statement};

use place::*;

#[tokio::test]
async fn a_key_counts_once_somebody_else_has_approved_it_and_all_is_on_record() {
    let place = Place::new().await;
    let key = key();
    let before = place.bed.store.size().await.unwrap();
    let enrolled = created(&place.enroll("alice", &place.signed("alice", &key)).await);
    let fingerprint = key.public().fingerprint();
    assert_eq!((&enrolled["state"], &enrolled["person"]), (&json!("pending"), &json!("alice")));
    assert_eq!(
        (&enrolled["fingerprint"], &enrolled["label"]),
        (&json!(fingerprint), &json!("laptop"))
    );
    assert_eq!(enrolled["public_key"], key.public().line().unwrap());
    assert_eq!(place.counts_for(&key).await, None, "nobody has approved it");
    let record = newest(&place.bed).await;
    assert_eq!((record.action.as_str(), record.decision), ("enroll", Decision::Changed));
    assert_eq!((record.principal.subject.as_str(), record.policy_id), ("alice", None));
    assert!(record.reason.contains(&fingerprint) && record.reason.starts_with("alice enrolls"));

    let id = enrolled["id"].as_str().unwrap();
    let approved = ok(&place.approve("bob", id).await);
    assert_eq!((&approved["state"], &approved["approved_by"]), (&json!("approved"), &json!("bob")));
    let signer = place.signer(&key).await.unwrap();
    assert_eq!((signer.person.as_str(), signer.enrollment.to_string()), ("alice", id.to_string()));
    assert_eq!(signer.principal.subject, "alice");
    let record = newest(&place.bed).await;
    assert_eq!(
        (record.principal.subject.as_str(), record.policy_id.as_deref()),
        ("bob", Some("keepers"))
    );
    assert!(record.reason.starts_with("bob approves the key"), "{}", record.reason);
    let said = refused(&place.approve("bob", id).await, 400, "invalid_request");
    assert!(said.contains("does not wait"), "{said}");

    let removed = ok(&place.remove("alice", id).await);
    assert_eq!((&removed["state"], &removed["public_key"]), (&json!("removed"), &json!("")));
    assert_eq!(place.counts_for(&key).await, None);
    let record = newest(&place.bed).await;
    assert_eq!((record.principal.subject.as_str(), record.policy_id), ("alice", None));
    assert!(record.reason.ends_with("of alice: lost"), "{}", record.reason);
    refused(&place.remove("alice", id).await, 400, "invalid_request");
    assert_eq!(place.bed.store.size().await.unwrap(), before + 3);
}

#[tokio::test]
async fn nobody_enrolls_a_key_that_is_not_theirs_or_by_what_they_did_not_sign() {
    let place = Place::new().await;
    let (mine, other) = (key(), key());
    let good = || place.statement("alice", mine.public());
    let elsewhere = crate::oidc::Issuer::parse("https://other.example").unwrap();
    let approval = Statement { said: Said::Approval { request: [1; 32] }, ..good() };
    let late = Statement { made: good().made - Duration::hours(2), expires: good().made, ..good() };
    for (statement, says) in [
        (String::new(), "statement"),
        ("x".into(), "these are no statements"),
        (signed(good(), &other), "not signed by the key that it is about"),
        (signed(place.statement("bob", mine.public()), &mine), "whom the directory names 'alice'"),
        (signed(Statement { broker: elsewhere, ..good() }, &mine), "for the broker"),
        (signed(approval, &mine), "not an enrollment"),
        (signed(late, &mine), "it has expired"),
        (signed(good(), &mine).repeat(2), "more than one statement"),
        (signed(good(), &mine).replace("laptop", "laptoq"), "did not sign this"),
    ] {
        let said = refused(&place.enroll("alice", &statement).await, 400, "invalid_request");
        assert!(said.contains(says), "{said}");
    }
    for sub in ["mallory", "nobody"] {
        let statement = signed(place.statement(sub, mine.public()), &mine);
        let said = refused(&place.enroll(sub, &statement).await, 403, "access_denied");
        assert!(said.contains("only people"), "{said}");
    }
    // A machine that acts for her is not she.
    let acting = place.token_with("alice", json!({"act": {"sub": "robot"}}));
    let form = [("statement", &place.signed("alice", &mine)[..])];
    let answer = post(&place.bed, "/v1/enrollments", &acting, &form).await;
    assert!(answer.status.is_client_error());

    let once = place.signed("alice", &mine);
    let id = created(&place.enroll("alice", &once).await)["id"].as_str().unwrap().to_string();
    ok(&place.remove("alice", &id).await);
    let said = refused(&place.enroll("alice", &once).await, 400, "invalid_request");
    assert!(said.contains("used before"), "{said}");
    let said =
        refused(&place.enroll("bob", &place.signed("bob", &mine)).await, 400, "invalid_request");
    assert!(said.contains("another person's"), "{said}");
    // She herself may have it again.
    place.enrolled("alice", &mine).await;
    let said = refused(
        &place.enroll("alice", &place.signed("alice", &mine)).await,
        400,
        "invalid_request",
    );
    assert!(said.contains("enrolled already"), "{said}");
}

#[tokio::test]
async fn nobody_approves_their_own_whichever_way_they_come_nor_without_a_policy() {
    let place = Place::new().await;
    let key = key();
    let id = place.enrolled("alice", &key).await;
    // Policy lets her by her other id.
    let said = refused(&place.approve("alice-admin", &id).await, 403, "access_denied");
    assert!(said.contains("a key of their own"), "{said}");
    let record = newest(&place.bed).await;
    assert_eq!((record.action.as_str(), record.decision), ("administer", Decision::Denied));
    assert_eq!((record.principal.subject.as_str(), record.reason), ("alice-admin", said));
    let said = refused(&place.approve("carol", &id).await, 403, "access_denied");
    assert!(said.starts_with("no policy permits"), "{said}");
    // Nor does a machine, whatever policy says.
    let machine = place.token_with("robot", json!({"groups": ["keys"]}));
    let path = format!("/v1/enrollments/{id}/approve");
    let said = refused(&post(&place.bed, &path, &machine, &[]).await, 403, "access_denied");
    assert!(said.contains("only people"), "{said}");
    let form = [("fingerprint", &self::key().public().fingerprint()[..])];
    let answer = post(&place.bed, &path, &place.token("bob"), &form).await;
    assert!(refused(&answer, 400, "invalid_request").contains("another fingerprint"));
    for id in ["x", &Uuid::new_v4().to_string()] {
        refused(&place.approve("bob", id).await, 400, "invalid_request");
    }
    assert_eq!(place.counts_for(&key).await, None);
    let form = [("fingerprint", &key.public().fingerprint()[..])];
    ok(&post(&place.bed, &path, &place.token("bob"), &form).await);
    assert_eq!(place.counts_for(&key).await.as_deref(), Some("alice"));
    refused(&place.remove("carol", &id).await, 403, "access_denied");
    ok(&place.remove("bob", &id).await);
    assert_eq!(newest(&place.bed).await.policy_id.as_deref(), Some("keepers"));
}

#[tokio::test]
async fn what_nobody_approves_in_a_week_cannot_be_approved() {
    let place = Place::new().await;
    let key = key();
    let id = place.enrolled("alice", &key).await;
    place.pass(Duration::days(7) + Duration::minutes(1));
    let said = refused(&place.approve("bob", &id).await, 400, "invalid_request");
    assert!(said.contains("in time") || said.contains("no enrolled key"), "{said}");
    assert_eq!(place.counts_for(&key).await, None);
}

#[tokio::test]
async fn a_person_has_five_keys_at_most() {
    let place = Place::new().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(place.enrolled("alice", &key()).await);
    }
    let sixth = key();
    let said = refused(
        &place.enroll("alice", &place.signed("alice", &sixth)).await,
        400,
        "invalid_request",
    );
    assert!(said.contains("5 keys enrolled"), "{said}");
    place.enrolled("bob", &key()).await;
    ok(&place.remove("alice", &ids[0]).await);
    place.enrolled("alice", &sixth).await;
}

#[tokio::test]
async fn it_lapses_thirty_days_after_the_last_login_and_a_login_afterwards_changes_nothing() {
    let place = Place::new().await;
    let (mine, id) = place.approved("alice").await;
    let (other, _) = place.approved("carol").await;
    place.pass(Duration::days(29));
    // A request for a token shows a login, whatever comes of it.
    let login = async |sub: &str| place.bed.exchange(&place.token(sub), &[]).await;
    let before = place.seen(&mine).await;
    login("alice").await;
    until(async || place.seen(&mine).await > before).await;
    let seen = place.seen(&mine).await;
    // Once an hour is enough.
    place.pass(Duration::minutes(50));
    login("alice").await;
    place.bed.broker.tell_of_login("alice", place.now(), place.now()).await.unwrap();
    assert_eq!(place.seen(&mine).await, seen);
    place.pass(Duration::minutes(11));
    login("alice").await;
    until(async || place.seen(&mine).await > seen).await;

    place.pass(Duration::days(2));
    assert_eq!(place.counts_for(&mine).await.as_deref(), Some("alice"));
    assert_eq!(place.counts_for(&other).await, None, "carol was not there for 31 days");
    login("carol").await;
    place.bed.broker.tell_of_login("carol", place.now(), place.now()).await.unwrap();
    assert_eq!(place.counts_for(&other).await, None);
    let listed = ok(&get(&place.bed, "/v1/enrollments", &place.token("bob")).await);
    let states: Vec<_> =
        listed["keys"].as_array().unwrap().iter().map(|key| &key["state"]).collect();
    assert_eq!(states, ["approved", "lapsed"]);
    // It may be enrolled anew, and is approved anew.
    let again = place.enrolled("carol", &other).await;
    assert_eq!(place.counts_for(&other).await, None);
    ok(&place.approve("bob", &again).await);
    assert_eq!(place.counts_for(&other).await.as_deref(), Some("carol"));
    place.pass(Duration::days(30));
    assert_eq!(place.counts_for(&mine).await, None);
    ok(&place.remove("alice", &id).await);
}

#[tokio::test]
async fn no_login_of_somebody_else_keeps_a_key() {
    let place = Place::new().await;
    let (mine, _) = place.approved("alice").await;
    let bobs = key();
    let id = place.enrolled("bob", &bobs).await;
    let path = format!("/v1/enrollments/{id}/approve");
    let keeper = place.token_with("carol", json!({"groups": ["keys"]}));
    ok(&post(&place.bed, &path, &keeper, &[]).await);
    let before = place.seen(&mine).await;
    // An own token of the broker's, exchanged, is no login: her provider said nothing.
    let own = place
        .bed
        .issued(
            json!({"sub": "alice", "exp": now().unix_timestamp() + 3000}),
            &[("requested_ttl", "900")],
        )
        .await;
    place.pass(Duration::minutes(10));
    place.bed.exchange(&own, &[]).await;
    place.bed.exchange(&place.token("bob"), &[]).await;
    place.bed.exchange(&place.token("nobody"), &[]).await;
    place.pass(Duration::hours(2));
    let acted = place.token_with("alice", json!({"act": {"sub": "robot"}}));
    place.bed.exchange(&acted, &[]).await;
    // What was noticed before this is told by then.
    let earlier = place.seen(&bobs).await;
    place.bed.exchange(&place.token("bob"), &[]).await;
    until(async || place.seen(&bobs).await > earlier).await;
    assert_eq!(place.seen(&mine).await, before);
}

#[tokio::test]
async fn it_ends_with_the_directory_entry_and_is_not_the_next_one_s_of_that_name() {
    let place = Place::new().await;
    let (mine, id) = place.approved("alice").await;
    let bob = &PEOPLE[PEOPLE.find("[person.bob]").unwrap()..];
    place.people(bob);
    assert_eq!(place.counts_for(&mine).await, None);
    let new =
        format!("{bob}\n[person.alice]\nids = [{{ issuer = \"CORP\", subject = \"alice2\" }}]");
    place.people(&new);
    assert_eq!(place.counts_for(&mine).await, None);
    // By the id by which she enrolled, whatever else changed.
    place.people(&PEOPLE.replace("{ issuer = \"CORP\", subject = \"alice-admin\" }", ""));
    assert_eq!(place.counts_for(&mine).await.as_deref(), Some("alice"));
    place.people(&PEOPLE.replace("person.alice", "person.alice-m"));
    assert_eq!(place.counts_for(&mine).await, None);
    place.people(PEOPLE);
    ok(&place.remove("bob", &id).await);

    let waiting = key();
    let id = place.enrolled("carol", &waiting).await;
    place.people(&PEOPLE.replace("subject = \"carol\"", "subject = \"x\""));
    let said = refused(&place.approve("bob", &id).await, 403, "access_denied");
    assert!(said.contains("does not have its owner"), "{said}");
}

#[tokio::test]
async fn a_directory_that_is_out_of_date_or_not_there_says_of_nobody_who_they_are() {
    let place = Place::with(|options| {
        options.config.directory.as_mut().unwrap().max_age = Some(Wait::from_secs(3600));
        let file = options.config.directory.as_ref().unwrap().file.clone();
        let dated = time::format_description::well_known::Rfc3339;
        write(&file, &format!("as_of = \"{}\"\n{PEOPLE}", now().format(&dated).unwrap()));
    })
    .await;
    let (mine, _) = place.approved("alice").await;
    place.pass(Duration::hours(2));
    assert_eq!(place.counts_for(&mine).await, None);
    let said =
        refused(&place.enroll("alice", &place.signed("alice", &key())).await, 403, "access_denied");
    assert!(said.contains("out of date"), "{said}");

    let place = Place::with(|options| options.config.directory = None).await;
    refused(&place.enroll("alice", &place.signed("alice", &key())).await, 403, "access_denied");
}

#[tokio::test]
async fn the_configuration_says_which_kinds_of_keys_count() {
    let place = Place::with(|options| {
        options.config.enrollment.kinds = vec![Kind::SkEd25519];
    })
    .await;
    let said = refused(
        &place.enroll("alice", &place.signed("alice", &key())).await,
        400,
        "invalid_request",
    );
    assert!(said.contains("accepted are sk-ssh-ed25519@openssh.com"), "{said}");
}

#[tokio::test]
async fn who_writes_to_the_database_does_not_say_whose_signatures_count() {
    use crate::broker::store::{Effect, Enrollment, Unit};

    let place = Place::new().await;
    let (mine, _) = place.approved("alice").await;
    let other = key();
    place.enrolled("carol", &other).await;
    let store = &place.bed.store;
    let read = async |key: &OwnKey| {
        store.enrollment_of(&key.public().fingerprint()).await.unwrap().unwrap()
    };
    let write = async |before: Enrollment, after: Enrollment| {
        let unit =
            Unit::default().with(Effect::ChangeEnrollment { before, after: Box::new(after) });
        assert!(store.commit(&[unit]).await.unwrap()[0].is_committed());
    };
    // An approval, or another login, that nobody saw.
    let (approved, waiting) = (read(&mine).await, read(&other).await);
    let forged = Enrollment {
        state: approved.state,
        approved: approved.approved.clone(),
        ..waiting.clone()
    };
    write(waiting.clone(), forged.clone()).await;
    assert_eq!(place.counts_for(&other).await, None);
    write(forged, Enrollment { seal: approved.seal.clone(), ..read(&other).await }).await;
    assert_eq!(place.counts_for(&other).await, None);
    let later = Enrollment { seen_at: approved.seen_at + Duration::days(20), ..approved.clone() };
    write(approved.clone(), later.clone()).await;
    assert_eq!(place.counts_for(&mine).await, None);
    write(later, approved).await;
    assert_eq!(place.counts_for(&mine).await.as_deref(), Some("alice"));
    // Nor is it shown.
    let listed = ok(&get(&place.bed, "/v1/enrollments", &place.token("bob")).await);
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "{listed}");
}

#[tokio::test]
async fn everybody_lists_their_own_and_keepers_all() {
    let place = Place::new().await;
    place.approved("alice").await;
    place.enrolled("carol", &key()).await;
    let people = |listed: &Value| -> Vec<String> {
        let keys = listed["keys"].as_array().unwrap();
        keys.iter().map(|key| key["person"].as_str().unwrap().to_string()).collect()
    };
    let mine = "/v1/enrollments?mine=true";
    let listed = async |path: &str, sub: &str| get(&place.bed, path, &place.token(sub)).await;
    assert_eq!(people(&ok(&listed(mine, "alice").await)), ["alice"]);
    assert_eq!(people(&ok(&listed(mine, "bob").await)), Vec::<String>::new());
    assert_eq!(people(&ok(&listed("/v1/enrollments", "bob").await)), ["alice", "carol"]);
    refused(&listed("/v1/enrollments", "alice").await, 403, "access_denied");
    refused(&listed(mine, "nobody").await, 403, "access_denied");
    refused(&listed("/v1/enrollments?mine=x", "bob").await, 400, "invalid_request");
    refused(&get(&place.bed, mine, "x").await, 401, "invalid_token");
}

/// As where the process is stopped before it commits what it has looked at.
#[tokio::test]
async fn what_was_looked_at_long_ago_has_no_key_count() {
    for ground in Ground::each().await.into_iter().filter(Ground::is_postgres) {
        let store = Failing::over(Arc::new(ground.open().await));
        let place = Place::with(|options| options.store = store.clone()).await;
        // As it is about to commit, it is a minute and a half later than it saw.
        let stops = async || {
            place.clock.0.store(-90, Ordering::Relaxed);
            store.behind.store(90, Ordering::Relaxed);
            place.bed.broker.store_clock.forget().await;
            let (other, clock) = (store.clone(), place.clock.clone());
            store.before_moment(async move {
                clock.0.store(0, Ordering::Relaxed);
                // (With 0 it is the database that says it.)
                other.behind.store(0, Ordering::Relaxed);
            });
        };
        let key = key();
        stops().await;
        let enrolling = place.enroll("alice", &place.signed("alice", &key)).await;
        refused(&enrolling, 503, "temporarily_unavailable");
        let id = place.enrolled("alice", &key).await;
        stops().await;
        refused(&place.approve("bob", &id).await, 503, "temporarily_unavailable");
        assert_eq!(place.counts_for(&key).await, None);
        ok(&place.approve("bob", &id).await);
    }
}

/// Waits until something is so.
async fn until(is_so: impl AsyncFn() -> bool) {
    for _ in 0..2000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Wait::from_millis(5)).await;
    }
    panic!("it did not come about");
}
