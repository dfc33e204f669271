//! Keys that do not count any more are shown as what they are, and logins keep them.

use super::*;
use crate::broker::store::enrollment::LASTS;
use crate::broker::store::sqlite;
use crate::broker::testbed::failing::Failing;

impl Down {
    async fn approved(&self, alice: &OwnKey, keys: [(&str, &OwnKey); 2]) -> Statement {
        let wants = self.wants();
        let approvals =
            keys.map(|(person, key)| signed(self.approves(person, &wants), key)).concat();
        let told = self.brought(&(signed(wants.clone(), alice) + &approvals)).await;
        assert_eq!(told["access"], "approved");
        wants
    }

    async fn removes(&self, subject: &str, id: &str) {
        let form = [("reason", "stolen")];
        let response = self.operates(subject, &format!("/{id}/remove"), &form).await;
        assert_eq!(response.status, StatusCode::OK);
    }

    /// Shows a token by which somebody logged in at this time.
    async fn looks(&self, subject: &str, logged_in: OffsetDateTime) {
        let at = self.now().unix_timestamp();
        let token = self.place.bed.key.token(json!({
            "sub": subject, "groups": [], "auth_time": logged_in.unix_timestamp(),
            "iat": at, "exp": at + 300, "jti": uuid::Uuid::new_v4().to_string(),
        }));
        let looked = self.place.ask(&token, (Method::GET, "?which=to-approve"), &[]).await;
        assert_eq!(looked.status, StatusCode::OK, "{}", json_of(&looked));
    }

    /// What the gauges say of those who could approve, and of how many have to.
    async fn signers(&self) -> (u32, u32) {
        let response = self.place.bed.admin.get("/metrics").await;
        let text = String::from_utf8(response.body.expose().clone()).unwrap();
        let labels = "{role=\"admin\",groups=\"leads\"} ";
        ["tmpcred_elevation_signers", "tmpcred_elevation_signers_needed"]
            .map(|name| {
                let line = text.lines().find_map(|line| {
                    line.strip_prefix(name).and_then(|rest| rest.strip_prefix(labels))
                });
                line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
            })
            .into()
    }
}

#[tokio::test]
async fn what_a_key_approved_that_is_gone_is_counted_nowhere_before_it_begins() {
    let down = Down::new().await;
    let alice = down.key_of("alice").await;
    let (bob, id) = down.key_with_id("bob", "bob").await;
    let carol = down.key_of("carol").await;
    let wants = down.approved(&alice, [("bob", &bob), ("carol", &carol)]).await;
    let asked = down.brought(&signed(wants.clone(), &alice)).await;
    assert_eq!(down.place.shown("alice", &asked).await["may"], json!(["withdraw", "activate"]));
    assert_eq!(down.place.listed("bob", "to-approve").await.len(), 0);
    down.removes("bob", &id).await;
    let shown = down.place.shown("alice", &asked).await;
    let listed = down.place.listed("alice", "mine").await.swap_remove(0);
    let brought = down.brought(&signed(wants.clone(), &alice)).await;
    for seen in [&shown, &listed, &brought] {
        assert_eq!(seen["needs"][0]["have"], json!(["carol"]), "{seen}");
        // That he approved is told all the same.
        assert_eq!(seen["approvals"][0]["by"]["person"], "bob");
        assert_eq!(seen["approvals"][0]["counts"], false);
        assert_eq!(seen["approvals"][1]["counts"], true);
    }
    assert_eq!((&shown["may"], &listed["may"]), (&json!(["withdraw"]), &json!(["withdraw"])));
    let (status, said) = down.place.not_done("alice", "activate", &asked, &[]).await;
    assert!(status == 409 && said.starts_with("elevation_short"), "{said}");
    // He is asked again, by whatever he shows himself.
    assert_eq!(down.place.listed("bob", "to-approve").await.len(), 1);
    down.place.done("bob", "approve", &shown, &[]).await;
    let active = down.place.done("alice", "activate", &asked, &[]).await;
    assert_eq!(active["access"], "active");
}

#[tokio::test]
async fn who_signed_and_then_logs_in_is_counted_once_and_has_approved_whatever_becomes_of_the_key()
{
    let down = Down::new().await;
    let alice = down.key_of("alice").await;
    let (bob, id) = down.key_with_id("bob", "bob").await;
    let wants = down.wants();
    let approval = signed(down.approves("bob", &wants), &bob);
    let asked = down.brought(&(signed(wants.clone(), &alice) + &approval)).await;
    let shown = down.place.shown("bob", &asked).await;
    let again = down.place.done("bob", "approve", &shown, &[]).await;
    assert_eq!(again["version"].as_u64(), shown["version"].as_u64().map(|before| before + 1));
    assert_eq!(again["needs"][0]["have"], json!(["bob"]));
    let [approval] = &again["approvals"].as_array().unwrap()[..] else { panic!("{again}") };
    assert_eq!(approval.get("key"), None, "{approval}");
    // Each is on record as it was given.
    let records = down.place.records_of(&asked).await;
    let by_key = format!("by a signature of the key {}", bob.public().fingerprint());
    let approved = records.iter().filter(|record| record.action == "elevation.approve");
    let signed_by: Vec<_> = approved.map(|record| record.reason.contains(&by_key)).collect();
    assert_eq!(signed_by, [true, false]);
    // The login again, and a signature after it, say nothing new.
    let other = signed(down.approves("bob", &wants), &bob);
    assert_eq!(down.brought(&other).await["version"], again["version"]);
    assert_eq!(down.place.done("bob", "approve", &shown, &[]).await["version"], again["version"]);
    assert_eq!(down.place.records_of(&asked).await.len(), records.len());
    down.removes("bob", &id).await;
    assert_eq!(down.place.shown("alice", &asked).await["needs"][0]["have"], json!(["bob"]));
}

#[tokio::test]
async fn of_ten_thousand_that_are_approved_by_signatures_each_key_is_looked_up_once() {
    let store = Failing::over(Arc::new(sqlite::in_memory().await.unwrap()));
    let change = |role: &mut Role| {
        let rules = role.elevation.as_mut().unwrap();
        rules.provider_down = Some(ProviderDown::default());
    };
    let place = Place::built(None, change, |options| options.store = store.clone()).await;
    let down = Down { place };
    let (alice, bob) = (down.key_of("alice").await, down.key_of("bob").await);
    let wants = down.wants();
    let approval = signed(down.approves("bob", &wants), &bob);
    let asked = down.brought(&(signed(wants, &alice) + &approval)).await;
    let id = uuid::Uuid::parse_str(asked["id"].as_str().unwrap()).unwrap();
    let broker = &down.place.bed.broker;
    let other = |number: u128, asked: &mut crate::broker::elevation::Asked| {
        asked.by.subject = format!("person-{number}");
        asked.by.person = None;
        asked.at += time::Duration::milliseconds(i64::try_from(number).unwrap());
    };
    broker.multiply(id, (1, 10_000), other).await;
    broker.opened();
    store.rows.store(0, Ordering::Relaxed);
    // A page of 50, and one key.
    assert_eq!(down.place.listed("carol", "to-approve").await.len(), 50);
    assert_eq!((store.rows.swap(0, Ordering::Relaxed), broker.opened()), (51, 50));
}

#[tokio::test]
async fn what_began_stays_approved_by_those_by_whom_it_was() {
    let down = Down::new().await;
    let alice = down.key_of("alice").await;
    let (bob, id) = down.key_with_id("bob", "bob").await;
    let carol = down.key_of("carol").await;
    let wants = down.approved(&alice, [("bob", &bob), ("carol", &carol)]).await;
    let active = down.brought(&signed(down.uses(&wants), &alice)).await;
    down.removes("bob", &id).await;
    let shown = down.place.shown("alice", &active).await;
    assert_eq!(shown["needs"][0]["have"], json!(["bob", "carol"]));
    down.place.done("alice", "relinquish", &active, &[]).await;
    // Nor does he review what he approved.
    assert_eq!(down.place.listed("bob", "to-review").await.len(), 0);
    assert_eq!(down.place.listed("erin", "to-review").await.len(), 1);
}

#[tokio::test]
async fn a_key_goes_with_who_enrolled_it_and_not_with_their_name() {
    let down = Down::new().await;
    let alice = down.key_of("alice").await;
    let (bob, carol) = (down.key_of("bob").await, down.key_of("carol").await);
    let wants = down.approved(&alice, [("bob", &bob), ("carol", &carol)]).await;
    let asked = down.brought(&signed(wants.clone(), &alice)).await;
    assert_eq!(down.signers().await, (3, 2));
    let before = down.enrollment(&bob).await;
    // Bob has left, and somebody else is called so.
    let file = down.place.dir.path().join("people.toml");
    let text = people(&[]).replace("\"bob\"", "\"robert\"").replace("\"bob-too\"", "\"rob\"");
    crate::host::files::write_private(&file, text.as_bytes()).unwrap();
    down.place.bed.broker.reload_policies().unwrap();
    let shown = down.place.shown("alice", &asked).await;
    assert_eq!(shown["needs"][0]["have"], json!(["carol"]));
    assert_eq!(down.signers().await, (2, 2));
    let ending = Said::Ending {
        of: Named::Elevation(asked["id"].as_str().unwrap().parse().unwrap()),
        reason: "x".into(),
    };
    assert_eq!(down.refused(&signed(down.says("bob", ending), &bob)).await.0, 403);
    // Their logins keep nothing that is not theirs.
    down.place.later(2 * 3600);
    let now = down.now();
    down.looks("robert", now).await;
    down.place.bed.broker.tell_of_login("bob", now, now).await.unwrap();
    assert_eq!(down.enrollment(&bob).await.seen_at, before.seen_at);
    // Bob is back.
    crate::host::files::write_private(&file, people(&[]).as_bytes()).unwrap();
    down.place.bed.broker.reload_policies().unwrap();
    assert_eq!(down.signers().await, (3, 2));
}

#[tokio::test]
async fn who_only_approves_keeps_their_key_by_that_they_show_a_login() {
    let down = Down::new().await;
    let bob = down.key_of("bob").await;
    let before = down.enrollment(&bob).await.seen_at;
    down.place.later(20 * 24 * 3600);
    // The token is of now, the login was before.
    let login = down.now() - time::Duration::days(3);
    down.looks("bob", login).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while down.enrollment(&bob).await.seen_at == before {
        assert!(std::time::Instant::now() < deadline, "his login was not noted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(down.enrollment(&bob).await.seen_at, login);
    // So it lapses 30 days after he logged in, however often he comes by that login.
    down.place.later(26 * 24 * 3600);
    down.looks("bob", login).await;
    assert_eq!(down.signers().await, (1, 2));
    down.place.later(24 * 3600 + 1);
    down.looks("bob", login).await;
    assert_eq!(down.signers().await, (0, 2));
}

#[tokio::test]
async fn nobody_enrolls_by_a_login_of_long_ago_nor_logs_in_tomorrow() {
    let down = Down::new().await;
    let enrolls = async |at: OffsetDateTime| {
        let key = key();
        let said = Said::Enrollment { key: key.public().fingerprint(), label: "x".into() };
        let text = signed(down.says("carol", said), &key);
        let now = down.now().unix_timestamp();
        let token = down.place.bed.key.token(json!({
            "sub": "carol", "groups": [], "auth_time": at.unix_timestamp(), "iat": now,
            "exp": now + 300, "jti": uuid::Uuid::new_v4().to_string(),
        }));
        let path = (Method::POST, "/../enrollments");
        (key, down.place.ask(&token, path, &[("statement", &text)]).await)
    };
    let (_, response) = enrolls(down.now() - LASTS - time::Duration::SECOND).await;
    let (status, said) = told(&response);
    assert!(status == 403 && said.contains("more than 30 days ago"), "{status} {said}");
    let before = down.now() - time::Duration::days(29);
    let (key, response) = enrolls(before).await;
    assert_eq!(response.status, StatusCode::CREATED, "{}", json_of(&response));
    assert_eq!(down.enrollment(&key).await.seen_at, before);
    let (key, response) = enrolls(down.now() + time::Duration::days(300)).await;
    assert_eq!(response.status, StatusCode::CREATED, "{}", json_of(&response));
    let known = down.enrollment(&key).await;
    assert_eq!(known.seen_at, known.enrolled_at);
}
