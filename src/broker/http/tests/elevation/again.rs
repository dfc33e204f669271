//! The same asked for again, and what is in the way of something else.

use super::*;

const OTHER: &str = "https://other.example.com";

#[tokio::test]
async fn what_is_had_may_be_begun_again_by_who_has_it_and_is_as_it_was() {
    let place = Place::new().await;
    let active = place.active().await;
    let again = place.done("alice", "activate", &active, &[]).await;
    assert_eq!((&again["access"], &again["version"]), (&json!("active"), &active["version"]));
    assert_eq!(again["grant"], active["grant"]);
    let (status, said) = place.not_done("bob", "activate", &active, &[]).await;
    assert!(status == 403 && said.contains("only who asked"), "{said}");
    // It had to be begun within half an hour, and that it was is no less so later.
    place.later(1740);
    let late = place.done("alice", "activate", &active, &[]).await;
    assert_eq!(late["version"], active["version"]);
    place.later(70);
    let (status, said) = place.not_done("alice", "activate", &active, &[]).await;
    assert!(status == 409 && said.contains("its time is over"), "{said}");
    let begun = place.records_of(&active).await;
    let begun = begun.iter().filter(|one| one.action == "elevation.activate");
    assert_eq!(begun.filter(|one| one.decision == Decision::Changed).count(), 1);
}

#[tokio::test]
async fn one_key_stands_for_one_request_and_for_nothing_that_is_otherwise() {
    let place = Place::with(|role| {
        role.audiences.insert(OTHER.into());
    })
    .await;
    let start = now() + time::Duration::hours(2);
    let start = start.format(&Rfc3339).unwrap();
    let thumbprint = "a".repeat(43);
    let first = [
        ("idempotency_key", "k-1"),
        ("audience", API),
        ("scope", "deploy:read"),
        ("start", &start),
        ("dpop_jkt", &thumbprint),
        ("ticket", "CHG-1"),
    ];
    let asked = place.requested("alice", &first).await;
    assert_eq!(place.requested("alice", &first).await["id"], asked["id"], "the answer was lost");
    let (later, other) = (now() + time::Duration::hours(3), "b".repeat(43));
    let later = later.format(&Rfc3339).unwrap();
    for (name, value) in [
        ("audience", OTHER),
        ("scope", "deploy:read deploy:write"),
        ("scope", ""),
        ("start", &later),
        ("start", ""),
        ("dpop_jkt", &other),
        ("dpop_jkt", ""),
        ("ticket", "CHG-2"),
        ("ttl", "60"),
        ("reason", "INC-2 something else"),
    ] {
        let mut changed: Vec<_> = first.to_vec();
        changed.retain(|(known, _)| *known != name);
        changed.push((name, value));
        let response = place.request("alice", &changed).await;
        let (status, said) = told(&response);
        assert!(status == 409 && said.contains("used for another request"), "{name}: {said}");
        assert_eq!(json_of(&response)["elevation"], asked["id"]);
    }
}

#[tokio::test]
async fn whoever_has_no_grant_is_told_so_and_which_one_waits() {
    let place = Place::new().await;
    let refused = async |who: &str| {
        let response = place.issued(who, &[]).await;
        let answer = json_of(&response);
        (answer["error"].as_str().unwrap().to_string(), answer["elevation"].clone())
    };
    assert_eq!(refused("alice").await, ("elevation_required".into(), Value::Null));
    // A drill is no grant that anybody waits for.
    place.requested("alice", &[("drill", "true")]).await;
    assert_eq!(refused("alice").await.0, "elevation_required");
    let asked = place.requested("alice", &[]).await;
    assert_eq!(refused("alice").await, ("elevation_pending".into(), asked["id"].clone()));
    // It is nobody else's.
    assert_eq!(refused("dave").await, ("elevation_required".into(), Value::Null));
    let (_, said) = told(&place.issued("alice", &[]).await);
    assert!(said.contains("waits for approval"), "{said}");
    for who in ["bob", "carol"] {
        place.done(who, "approve", &asked, &[]).await;
    }
    assert_eq!(refused("alice").await.0, "elevation_pending");
    let (_, said) = told(&place.issued("alice", &[]).await);
    assert!(said.contains("is approved and has not begun"), "{said}");
    // So it is where it is named, and not once it has ended.
    let named = [("elevation", asked["id"].as_str().unwrap())];
    let response = place.issued("alice", &named).await;
    assert!(told(&response).1.starts_with("elevation_pending"), "{:?}", told(&response));
    place.done("alice", "activate", &asked, &[]).await;
    assert_eq!(place.issued("alice", &[]).await.status, StatusCode::OK);
    place.done("alice", "relinquish", &asked, &[]).await;
    assert_eq!(refused("alice").await.0, "elevation_required");
    assert!(told(&place.issued("alice", &named).await).1.starts_with("elevation_required"));
    // What has lapsed is waited for no more, though that is not on record yet.
    place.requested("dave", &[]).await;
    place.later(3601);
    assert_eq!(refused("dave").await.0, "elevation_required");
}

#[tokio::test]
async fn what_is_waited_for_of_another_role_is_none_of_this_one() {
    let place = Place::built(
        None,
        |_| {},
        |options| {
            let mut role = options.config.role["admin"].clone();
            role.elevation.as_mut().unwrap().emergency = None;
            options.config.role.insert("other".into(), role);
            let rules = ["staff\", action == Action::\"elevate", "leads\", action == Action::\"approve"];
            for (number, rule) in rules.iter().enumerate() {
                options.policies += &format!(
                    "@id(\"other-{number}\") permit (principal in DirectoryGroup::\"{rule}\", resource == Role::\"other\");\n"
                );
            }
            options.policies += "@id(\"others\") @ttl(\"1h\") @scope(\"deploy:read\") permit (principal, action == Action::\"issue\", resource == Role::\"other\") when { context has elevation };\n";
        },
    )
    .await;
    let other = place.requested("alice", &[("role", "other")]).await;
    let named = [("elevation", other["id"].as_str().unwrap())];
    let response = place.issued("alice", &named).await;
    let (_, said) = told(&response);
    assert!(said.starts_with("access_denied") && said.contains("for another role"), "{said}");
    assert_eq!(json_of(&response).get("elevation"), None);
    // Of its own it is.
    let (_, said) = told(&place.issued("alice", &[named[0], ("role", "other")]).await);
    assert!(said.starts_with("elevation_pending"), "{said}");
}

#[tokio::test]
async fn what_is_denied_so_often_that_it_is_only_counted_is_on_record_as_what_was_wanted() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    for _ in 0..35 {
        assert_eq!(place.not_done("alice", "approve", &asked, &[]).await.0, 403);
    }
    place.later(61);
    place.shown("alice", &asked).await;
    let records = place.bed.store.records(0, u32::MAX).await.unwrap();
    let counted: Vec<_> = records
        .iter()
        .filter(|(_, record)| record.reason.contains("only counted"))
        .map(|(_, record)| (record.action.as_str(), record.principal.subject.as_str()))
        .collect();
    assert_eq!(counted, [("elevation.approve", "alice")]);
}

/// That it is not asked for because of this one, and what is said of it.
async fn in_the_way(place: &Place, changes: &[(&str, &str)], of: &Value) -> String {
    let response = place.request("alice", changes).await;
    let (status, said) = told(&response);
    assert!(status == 409 && said.starts_with("elevation_conflict"), "{status} {said}");
    assert_eq!(json_of(&response)["elevation"], of["id"], "{said}");
    said
}

#[tokio::test]
async fn what_is_in_the_way_of_a_request_is_named_and_until_when() {
    let place = Place::with(|role| {
        let rules = role.elevation.as_mut().unwrap();
        rules.cool_down = Duration::from_secs(600);
    })
    .await;
    let asked = place.requested("alice", &[]).await;
    let said = in_the_way(&place, &[], &asked).await;
    let until = &asked["lapses_at"].as_str().unwrap()[.."2026-01-01T12:00:00".len()];
    assert!(said.contains("waits for approval") && said.contains(until), "{said}");
    for who in ["bob", "carol"] {
        place.done(who, "approve", &asked, &[]).await;
    }
    let said = in_the_way(&place, &[], &asked).await;
    assert!(said.contains("that is approved"), "{said}");
    place.done("alice", "activate", &asked, &[]).await;
    let said = in_the_way(&place, &[], &asked).await;
    assert!(said.contains("you have the role already, until 2"), "{said}");
    place.done("alice", "relinquish", &asked, &[]).await;
    let said = in_the_way(&place, &[], &asked).await;
    assert!(said.contains("may have it again from 2"), "{said}");
    place.later(601);
    // An emergency goes by rules of its own.
    let emergency = [("emergency", "true"), ("ttl", "600")];
    let had = place.requested("alice", &emergency).await;
    let said = in_the_way(&place, &emergency, &had).await;
    assert!(said.contains("in an emergency already"), "{said}");
    place.done("alice", "relinquish", &had, &[]).await;
    let said = in_the_way(&place, &emergency, &had).await;
    assert!(said.contains("was not reviewed yet"), "{said}");
    let note = [("outcome", "reviewed"), ("note", "fine")];
    place.done("bob", "review", &had, &note).await;
    let said = in_the_way(&place, &emergency, &had).await;
    assert!(said.contains("in an emergency until 2"), "{said}");
}
