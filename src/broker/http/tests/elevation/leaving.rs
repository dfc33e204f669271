//! People who leave the directory, and who come into it.

use super::*;
use crate::broker::elevation;
use crate::broker::policy::Source;
use crate::broker::rulebook::Rulebook;
use crate::credential::Principal;

/// The directory without these people.
fn without(names: &[&str]) -> String {
    let all = people(&[]);
    let mut parts = all.split("[person.");
    let head = parts.next().unwrap().to_string();
    let stay = parts.filter(|part| !names.contains(&part.split(']').next().unwrap()));
    stay.fold(head, |all, part| all + "[person." + part)
}

#[tokio::test]
async fn who_leaves_decides_about_nothing_whatever_that_leaves() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    place.done("bob", "approve", &asked, &[]).await;
    place.done("carol", "approve", &asked, &[]).await;
    // Nobody could have the role any more: that is so, and no reason to go on with who has left.
    assert!(place.directory(&without(&["bob", "carol"])).await);
    let (status, said) = place.not_done("alice", "activate", &asked, &[]).await;
    assert!(status == 409 && said.contains("not enough"), "{status} {said}");
    assert_eq!(place.not_done("carol", "deny", &asked, &[("reason", "x")]).await.0, 403);
    assert!(place.directory(&without(&["bob", "carol", "erin"])).await);
    assert_eq!(place.not_done("erin", "approve", &asked, &[]).await.0, 403);
    // A broker does not start like that, and does not go by rules that could never be met.
    let strict = place.policies.replace("DirectoryGroup::\"leads\"", "DirectoryGroup::\"staff\"");
    let policy = place.dir.path().join("policy.cedar");
    crate::host::files::write_private(&policy, strict.as_bytes()).unwrap();
    let error = place.bed.broker.reload_policies().unwrap_err();
    assert!(error.to_string().contains("nobody could ever have"), "{error}");
}

/// A broker that was started anew knows nothing of who has left: that is for its configuration to say.
#[tokio::test]
async fn who_was_the_last_of_an_issuer_to_leave_is_no_machine_where_that_is_of_people() {
    let place = Place::new().await;
    assert!(place.directory(&people(&[]).replace(CORP, "https://other.example.com")).await);
    let mut config = place.bed.broker.configuration();
    let sources = Source::read_all(&config.policy.files).unwrap();
    let host = crate::broker::testbed::host(place.dir.path());
    let alice = Principal { issuer: CORP.into(), subject: "alice".into() };
    let mut is_machine = |people: bool| {
        config.trusted_issuer.values_mut().for_each(|issuer| issuer.people = people);
        let book = Rulebook::new(config.clone(), &sources, &host, None).unwrap();
        elevation::known(book.directory().map(AsRef::as_ref), &alice, now()).is_ok()
    };
    assert!(is_machine(false) && !is_machine(true));
    // Who was started when people were there goes on as it was.
    let running = place.bed.broker.policies();
    assert!(elevation::known(running.directory().map(AsRef::as_ref), &alice, now()).is_err());
}

#[tokio::test]
async fn a_broker_starts_with_nobody_too_few_and_drops_no_directory_that_it_needs() {
    let place = Place::new().await;
    assert!(place.directory(&without(&["bob", "carol", "erin"])).await);
    // The one that runs goes on; another one does not start like that, nor does this one again.
    let before = place.bed.broker.policies();
    let mut config = place.bed.broker.configuration();
    let sources = Source::read_all(&config.policy.files).unwrap();
    let host = crate::broker::testbed::host(place.dir.path());
    let error = Rulebook::new(config.clone(), &sources, &host, None).err().unwrap();
    assert!(error.to_string().contains("nobody could ever have the role"), "{error}");
    assert!(Rulebook::new(config.clone(), &sources, &host, Some(&*before)).is_ok());
    // Without any directory nobody has left: it is another configuration, and an impossible one.
    config.directory = None;
    let plain = "@id(\"plain\") @ttl(\"15m\") @scope(\"deploy:read\") permit (principal, action == Action::\"issue\", resource == Role::\"deploy\");";
    let file = place.dir.path().join("plain.cedar");
    crate::host::files::write_private(&file, plain.as_bytes()).unwrap();
    let plain = Source::read_all(&[file]).unwrap();
    for before in [None, Some(&*before)] {
        let error = Rulebook::new(config.clone(), &plain, &host, before).err().unwrap();
        assert!(error.to_string().contains("needs a [directory]"), "{error}");
    }
}

#[tokio::test]
async fn who_leaves_is_gone_also_where_all_else_is_refused() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    place.done("bob", "approve", &asked, &[]).await;
    let policy = place.dir.path().join("policy.cedar");
    crate::host::files::write_private(&policy, b"permit (").unwrap();
    // Bob leaves, Erin is no lead any more, and somebody comes.
    let mut text = without(&["bob"]).replace("[person.erin]", "[person.frank]");
    text = text.replace("subject = \"erin\"", "subject = \"frank\"");
    text += &format!(
        "[person.erin]\nids = [{{ issuer = \"{CORP}\", subject = \"erin\" }}]\ngroups = [\"staff\"]\n"
    );
    let before = place.bed.broker.policies().rules_hash().to_string();
    assert!(!place.directory(&text).await);
    assert_eq!(place.bed.broker.policies().rules_hash(), before);
    assert_eq!(place.not_done("bob", "deny", &asked, &[("reason", "x")]).await.0, 403);
    assert_eq!(place.not_done("erin", "approve", &asked, &[]).await.0, 404);
    assert_eq!(place.not_done("frank", "approve", &asked, &[]).await.0, 403);
    // Who stayed goes on.
    place.done("carol", "approve", &asked, &[]).await;
    let (status, said) = place.not_done("alice", "activate", &asked, &[]).await;
    assert!(status == 409 && said.starts_with("elevation_state"), "{said}");
    // A directory that cannot be read says of nobody that they have left.
    assert!(!place.directory("[person.").await);
    place.done("carol", "deny", &asked, &[("reason", "no")]).await;
}

#[tokio::test]
async fn who_leaves_is_gone_also_where_another_entry_of_the_directory_is_wrong() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    place.done("bob", "approve", &asked, &[]).await;
    let wrong = "[person.frank]\nids = []\n";
    assert!(!place.directory(&(without(&["bob"]) + wrong)).await);
    assert_eq!(place.not_done("bob", "deny", &asked, &[("reason", "x")]).await.0, 403);
    // Who stayed goes on, and nobody comes by a file that is refused.
    let shown = place.shown("carol", &asked).await;
    assert_eq!(shown["needs"][0]["have"], json!([]));
    let frank = format!(
        "[person.frank]\nids = [{{ issuer = \"{CORP}\", subject = \"frank\" }}]\ngroups = [\"leads\"]\n"
    );
    assert!(!place.directory(&(without(&["bob"]) + &frank + "mail = \"x\"\n")).await);
    assert_eq!(place.not_done("frank", "approve", &asked, &[]).await.0, 403);
    place.done("carol", "approve", &asked, &[]).await;
    // Whose entry is wrong has not left.
    let all = without(&["bob"]);
    let (others, erin) = all.split_at(all.find("[person.erin]").unwrap());
    let wrong = others.to_string() + &erin.replace("groups = [", "groups = 7 # ");
    assert!(!place.directory(&wrong).await);
    place.done("erin", "approve", &asked, &[]).await;
    // Once it is right again, so is all.
    assert!(place.directory(&people(&[])).await);
    let shown = place.shown("bob", &asked).await;
    assert_eq!(shown["needs"][0]["have"], json!(["bob", "carol", "erin"]));
}

#[tokio::test]
async fn who_leaves_is_let_go_while_nothing_else_can_be_read_again() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    let before = place.bed.broker.policies().rules_hash().to_string();
    let write = |name: &str, text: &str| {
        let path = place.dir.path().join(name);
        crate::host::files::write_private(&path, text.as_bytes()).unwrap();
    };
    write("policy.cedar", &(place.policies.clone() + "// another version\n"));
    write("people.toml", &without(&["bob"]));
    place.bed.broker.let_go_who_left();
    assert_eq!(place.not_done("bob", "deny", &asked, &[("reason", "x")]).await.0, 403);
    assert_eq!(place.bed.broker.policies().rules_hash(), before, "nothing else is read");
    place.done("carol", "approve", &asked, &[]).await;
}

#[tokio::test]
async fn who_comes_has_approved_nothing_before() {
    let place = Place::built(
        None,
        |_| {},
        |options| {
            options.policies += "@id(\"staff-approves\") permit (principal in DirectoryGroup::\"staff\", action == Action::\"approve\", resource == Role::\"admin\");\n";
        },
    )
    .await;
    let asked = place.requested("alice", &[]).await;
    // Policy lets Dave, and no threshold takes him.
    let shown = place.shown("dave", &asked).await;
    assert_eq!(shown["may"], json!(["deny"]));
    assert_eq!(place.not_done("dave", "approve", &asked, &[]).await.0, 403);
    place.done("bob", "approve", &asked, &[]).await;
    let lead = people(&[]).replace(
        "subject = \"dave\" }]\ngroups = [\"staff\"]",
        "subject = \"dave\" }]\ngroups = [\"staff\", \"leads\"]",
    );
    assert!(place.directory(&lead).await);
    let shown = place.shown("alice", &asked).await;
    assert_eq!(shown["needs"][0]["have"], json!(["bob"]));
    assert_eq!(place.done("dave", "approve", &asked, &[]).await["access"], "approved");
}

/// The directory, where Alice is who has these ids.
fn alice_is(subjects: [&str; 2]) -> String {
    let ids = |subjects: [&str; 2]| {
        let id = |subject| format!("{{ issuer = \"{CORP}\", subject = \"{subject}\" }}");
        subjects.map(id).join(", ")
    };
    people(&[]).replace(&ids(["alice", "alice-too"]), &ids(subjects))
}

#[tokio::test]
async fn what_waits_is_not_for_somebody_else_of_the_same_name() {
    let place = Place::new().await;
    let asked = place.requested("alice-too", &[]).await;
    assert_eq!(place.listed("alice", "mine").await.len(), 1);
    assert!(place.directory(&alice_is(["robert", "alice-once"])).await);
    assert_eq!(place.listed("robert", "mine").await.len(), 0);
    for what in ["withdraw", "activate", "relinquish"] {
        assert_eq!(place.not_done("robert", what, &asked, &[]).await.0, 404, "{what}");
    }
    // They decide about it as little as who asked does.
    assert_eq!(place.not_done("robert", "deny", &asked, &[("reason", "x")]).await.0, 404);
    // It is still there for who asked, by whatever id.
    assert!(place.directory(&alice_is(["robert", "alice-too"])).await);
    assert_eq!(place.shown("robert", &asked).await["may"], json!(["withdraw"]));
    place.done("robert", "withdraw", &asked, &[]).await;
}

#[tokio::test]
async fn somebody_else_of_the_same_name_has_nothing_of_who_left() {
    let place = Place::new().await;
    let active = place.active().await;
    assert_eq!(place.issued("alice", &[]).await.status, StatusCode::OK);
    let waits = place.requested("bob", &[]).await;
    assert!(place.directory(&alice_is(["robert", "robert-too"])).await);
    let (status, said) = told(&place.issued("robert", &[]).await);
    assert!(status == 400 && said.contains("you have none"), "{said}");
    // What is in their way by that name, or waits by it, is none of theirs.
    let response = place.request("robert", &[]).await;
    let (status, said) = told(&response);
    assert!(status == 409 && said.starts_with("elevation_conflict"), "{status} {said}");
    let said = json_of(&response).to_string();
    assert!(!said.contains(active["id"].as_str().unwrap()) && !said.contains("until"), "{said}");
    // Nor is who left a machine now.
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert!(status == 400 && said.contains("does not know you"), "{said}");
    // Whoever has that id again, by whatever other one, goes on.
    assert!(place.directory(&alice_is(["alice", "robert"])).await);
    assert_eq!(place.issued("robert", &[]).await.status, StatusCode::OK);
    assert!(told(&place.issued("bob", &[]).await).1.starts_with("elevation_pending"));
    let other = people(&[]).replace("\"bob\"", "\"bert\"").replace("\"bob-too\"", "\"bert-too\"");
    assert!(place.directory(&other).await);
    let response = place.issued("bert", &[]).await;
    let (_, said) = told(&response);
    assert!(said.starts_with("elevation_required"), "{said}");
    assert!(!json_of(&response).to_string().contains(waits["id"].as_str().unwrap()));
}

#[tokio::test]
async fn what_is_approved_and_not_begun_is_approved_anew_where_rules_change() {
    let place = Place::new().await;
    let start = (now() + time::Duration::hours(2)).format(&Rfc3339).unwrap();
    let asked = place.requested("alice", &[("start", &start)]).await;
    place.done("bob", "approve", &asked, &[]).await;
    place.done("carol", "approve", &asked, &[]).await;
    // Nobody is told that they may begin it before it can be.
    let may = async || place.shown("alice", &asked).await["may"].clone();
    assert_eq!(may().await, json!(["withdraw"]));
    place.later(2 * 3600 + 60);
    assert_eq!(may().await, json!(["withdraw", "activate"]));
    assert_eq!(place.listed("erin", "to-approve").await, [json!(null); 0]);
    assert!(place.directory(&without(&["bob"])).await);
    let (status, said) = place.not_done("alice", "activate", &asked, &[]).await;
    assert!(status == 409 && said.contains("not enough"), "{said}");
    // Those who can approve it find it, though it was to be approved long ago.
    let found = place.listed("erin", "to-approve").await;
    assert_eq!((found.len(), &found[0]["id"]), (1, &asked["id"]));
    place.done("erin", "approve", &asked, &[]).await;
    assert_eq!(place.done("alice", "activate", &asked, &[]).await["access"], "active");
}

/// Whoever is not in the directory, or no longer, and tries all the same, is on record.
#[tokio::test]
async fn who_is_not_in_the_directory_and_tries_is_on_record() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    assert!(place.directory(&without(&["bob"])).await);
    let (status, said) = place.not_done("bob", "approve", &asked, &[]).await;
    assert!(status == 403 && said.contains("not in the directory"), "{said}");
    let (status, said) = told(&place.request("bob", &[]).await);
    assert!(status == 403 && said.contains("not in the directory"), "{said}");
    let all = place.bed.store.records(0, u32::MAX).await.unwrap().into_iter();
    let denied = all.map(|(_, record)| record).filter(|one| one.decision == Decision::Denied);
    let denied: Vec<_> = denied
        .map(|one| (one.action, one.principal.subject, one.role, one.elevation, one.reason))
        .collect();
    let why = "you are not in the directory of people".to_string();
    let of =
        |what: &str, id| (what.to_string(), "bob".to_string(), "admin".into(), id, why.clone());
    let id = asked["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(denied, [of("elevation.approve", Some(id)), of("elevation.request", None)]);
}

/// What began stays approved by those by whom it was, whatever becomes of rules and people: who
/// reviews it sees that.
#[tokio::test]
async fn what_has_begun_is_shown_as_it_was_approved() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    for who in ["bob", "carol"] {
        place.done(who, "approve", &asked, &[]).await;
    }
    place.suspends(&["bob"]).await;
    place.done("erin", "approve", &asked, &[]).await;
    place.done("alice", "activate", &asked, &[]).await;
    let policy = place.dir.path().join("policy.cedar");
    let text = place.policies.clone() + "\n// another version\n";
    crate::host::files::write_private(&policy, text.as_bytes()).unwrap();
    // Bob may approve again, and Carol has left.
    assert!(place.directory(&without(&["carol"])).await);
    let counted = async || {
        let shown = place.shown("bob", &asked).await;
        let counts: Vec<_> = shown["approvals"].as_array().unwrap().iter().collect();
        let counts: Vec<_> = counts.iter().map(|one| one["counts"].clone()).collect();
        (counts, shown["needs"][0]["have"].clone(), shown["hash"].clone())
    };
    let as_it_was = (vec![json!(false), json!(true), json!(true)], json!(["carol", "erin"]));
    let (counts, have, hash) = counted().await;
    assert_eq!((counts, have), as_it_was);
    assert_ne!(hash, asked["hash"], "the rules are others");
    place.done("alice", "relinquish", &asked, &[]).await;
    let (counts, have, _) = counted().await;
    assert_eq!((counts, have), as_it_was);
}
