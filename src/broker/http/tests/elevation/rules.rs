//! What can be asked for, for how long, and in an emergency.

use super::*;

#[tokio::test]
async fn an_emergency_is_had_at_once_and_once_until_it_is_reviewed() {
    let place = Place::new().await;
    let emergency = [("emergency", "true"), ("ttl", "900")];
    // Not by everybody, not for longer than that, and only after a login of now.
    assert_eq!(told(&place.request("bob", &emergency).await).0, 403);
    let long = place.request("alice", &[("emergency", "true"), ("ttl", "901")]).await;
    assert_eq!(told(&long).0, 400);
    let old =
        place.bed.key.token(json!({"sub": "alice", "auth_time": now().unix_timestamp() - 600}));
    let form = [("role", "admin"), ("reason", "INC-1"), ("emergency", "true"), ("ttl", "900")];
    let response = place.ask(&old, (Method::POST, ""), &form).await;
    let challenge = response.headers["www-authenticate"].to_str().unwrap().to_string();
    assert_eq!(told(&response).0, 401);
    assert!(
        challenge.contains("insufficient_user_authentication")
            && challenge.contains("max_age=\"300\""),
        "{challenge}"
    );
    let had = place.requested("alice", &emergency).await;
    assert_eq!(had["access"], "emergency-active");
    assert_eq!(place.issued("alice", &[]).await.status, StatusCode::OK);
    // No second one, by no other name of the same person.
    for subject in ["alice", "alice-too"] {
        let (status, said) = told(&place.request(subject, &emergency).await);
        assert!([403, 409].contains(&status), "{subject}: {said}");
    }
    place.done("alice", "relinquish", &had, &[]).await;
    place.later(120);
    let (status, said) = told(&place.request("alice", &emergency).await);
    assert!(status == 409 && said.contains("not reviewed"), "{said}");
    place.done("bob", "review", &had, &[("outcome", "reviewed"), ("note", "it was")]).await;
    assert_eq!(place.requested("alice", &emergency).await["access"], "emergency-active");
}

#[tokio::test]
async fn of_emergencies_that_are_asked_for_at_once_there_is_one() {
    let place = Place::built(
        None,
        |_| {},
        |options| {
            // By both her names.
            let also = format!("principal == User::\"{CORP}#alice-too\"");
            let rule = format!("permit ({also}, action == Action::\"elevate\", resource);");
            options.policies += &format!("@id(\"on-call-by-another-name\")\n{rule}\n");
        },
    )
    .await;
    let ask = async |subject: &str| {
        told(&place.request(subject, &[("emergency", "true"), ("ttl", "900")]).await)
    };
    let (one, other) = ("alice", "alice-too");
    let told = tokio::join!(ask(one), ask(other), ask(one), ask(other), ask(one), ask(other));
    let told: [(u16, String); 6] = told.into();
    let had = told.iter().filter(|(status, _)| *status == 201).count();
    assert_eq!(had, 1, "{told:?}");
    assert!(told.iter().all(|(status, _)| [201, 409].contains(status)), "{told:?}");
    let records = place.bed.store.records(0, u32::MAX).await.unwrap().into_iter();
    let begun = |record: &Record| {
        record.action == "elevation.emergency" && record.decision != Decision::Denied
    };
    assert_eq!(records.filter(|(_, record)| begun(record)).count(), 1);
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_and_says_why() {
    let place = Place::new().await;
    for (changes, says) in [
        (vec![("reason", "because")], "has to be like INC-"),
        (vec![("reason", "")], "reason"),
        (vec![("ttl", "3601")], "1h at most"),
        (vec![("ttl", "0")], "above zero"),
        (vec![("role", "deploy")], "not had by elevation"),
        (vec![("audience", "https://other.example.com")], "one of these audiences"),
        (vec![("scope", "deploy:everything")], "no scope"),
        (vec![("start", "2020-01-01T00:00:00Z")], "in the past"),
        (vec![("start", "tomorrow")], "no moment"),
        (vec![("dpop_jkt", "x")], "no thumbprint"),
    ] {
        let (status, said) = told(&place.request("alice", &changes).await);
        assert!(status == 400 && said.contains(says), "{changes:?}: {status} {said}");
    }
    // One at a time, but the same again is the same one.
    let key = [("idempotency_key", "k1")];
    let asked = place.requested("alice", &key).await;
    assert_eq!(place.requested("alice", &key).await["id"], asked["id"]);
    let other = [("idempotency_key", "k1"), ("reason", "INC-2")];
    assert_eq!(told(&place.request("alice", &other).await).0, 409);
    assert_eq!(told(&place.request("alice", &[]).await).0, 409);
    place.done("alice", "withdraw", &asked, &[]).await;
    place.requested("alice", &[]).await;
}

/// What a role is for is told to those who may ask for it, and that others tried is on record.
#[tokio::test]
async fn who_may_not_ask_is_not_told_which_audiences_there_are() {
    const OTHER: &str = "https://other.example.com";
    let bob = format!(
        r#"
@id("bob-for-the-other")
permit (principal == User::"{CORP}#bob", action == Action::"elevate", resource == Role::"admin")
when {{ context.audience == "{OTHER}" }};
"#
    );
    let change = |role: &mut Role| role.audiences.extend([OTHER.to_string()]);
    let place = Place::built(None, change, |options| options.policies += &bob).await;
    let emergency = [("emergency", "true"), ("ttl", "900")];
    let none = "https://nobody.example.com";
    for (subject, audience, status) in [
        ("carol", "", 403),
        ("carol", none, 403),
        ("carol", API, 403),
        ("bob", API, 403),
        ("bob", none, 403),
        // They may for one of them.
        ("bob", "", 400),
        ("alice", "", 400),
        ("alice", none, 400),
        ("alice", API, 201),
        ("bob", OTHER, 201),
    ] {
        let before = place.bed.store.records(0, u32::MAX).await.unwrap().len();
        let changes = [&emergency[..], &[("audience", audience)]].concat();
        let answer = told(&place.request(subject, &changes).await);
        assert_eq!(answer.0, status, "{subject} {audience}: {}", answer.1);
        let tells = answer.1.contains("one of these audiences");
        assert_eq!(tells, status == 400, "{subject} {audience}: {}", answer.1);
        let mut records = place.bed.store.records(0, u32::MAX).await.unwrap();
        let added: Vec<_> = records.drain(before..).map(|(_, record)| record.decision).collect();
        let expected = match status {
            403 => vec![Decision::Denied],
            400 => Vec::new(),
            _ => vec![Decision::Changed],
        };
        assert_eq!(added, expected, "{subject} {audience}");
    }
}

#[tokio::test]
async fn who_was_asked_is_told_that_it_is_off_and_what_is_over_with_that() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    place.done("alice", "withdraw", &asked, &[]).await;
    let emergency = [("emergency", "true"), ("ttl", "900")];
    let had = place.requested("alice", &emergency).await;
    place.done("alice", "relinquish", &had, &[]).await;
    let review = [("outcome", "reviewed"), ("note", "as asked")];
    place.done("bob", "review", &had, &review).await;
    let told = place.told().await;
    // All who were skipped know of an emergency, and whoever has that account: it may have been
    // somebody else.
    let alarm = told.iter().find(|one| one.kind() == "emergency").unwrap();
    assert_eq!(alarm.names().iter().collect::<Vec<_>>(), ["alice", "bob", "carol", "erin"]);
    let of = |kind: &str| told.iter().find(|one| one.kind() == kind).unwrap();
    let over = |kind: &str| of(kind).ended().iter().map(String::as_str).collect::<Vec<_>>();
    let leads = of("elevation-requested").names();
    assert_eq!(leads.iter().collect::<Vec<_>>(), ["bob", "carol", "erin"]);
    assert_eq!(of("elevation-withdrawn").names(), leads);
    assert_eq!(of("elevation-withdrawn").title(), "alice asks for admin no more");
    assert_eq!(over("elevation-withdrawn"), ["elevation-requested"]);
    assert_eq!(over("grant-ended"), ["grant-active"]);
    assert_eq!(over("reviewed"), ["emergency", "review-due", "review-overdue"]);
    for begins in ["elevation-requested", "emergency", "review-due"] {
        assert!(over(begins).is_empty(), "{begins}");
    }
}

#[tokio::test]
async fn a_request_lapses_and_so_does_what_is_not_begun_in_time() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    place.done("bob", "approve", &asked, &[]).await;
    place.later(3600);
    // Whether the clock has put it on record or not.
    let (status, said) = place.not_done("carol", "approve", &asked, &[]).await;
    assert!(status == 409 && said.contains("over"), "{said}");
    assert_eq!(place.bed.broker.due_elevations().await.unwrap(), 1);
    assert_eq!(place.shown("alice", &asked).await["access"], "lapsed");
    let asked = place.requested("alice", &[]).await;
    place.done("bob", "approve", &asked, &[]).await;
    place.done("carol", "approve", &asked, &[]).await;
    place.later(1800);
    assert_eq!(place.not_done("alice", "activate", &asked, &[]).await.0, 409);
    assert_eq!(place.bed.broker.due_elevations().await.unwrap(), 1);
    assert_eq!(place.shown("alice", &asked).await["access"], "lapsed");
}

#[tokio::test]
async fn nobody_decides_or_has_a_role_in_another_ones_name() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    let at = now().unix_timestamp();
    let acted = |subject: &str| {
        place.bed.key.token(json!({
            "sub": subject, "groups": [], "auth_time": at,
            "act": {"iss": CORP, "sub": "bot"},
        }))
    };
    let (id, hash) = (asked["id"].as_str().unwrap(), asked["hash"].as_str().unwrap());
    for (subject, what, form) in
        [("bob", "approve", vec![("hash", hash)]), ("bob", "deny", vec![("reason", "no")])]
    {
        let path = format!("/{id}/{what}");
        let response = place.ask(&acted(subject), (Method::POST, &path), &form).await;
        assert_eq!(told(&response).0, 401, "{what}: {}", json_of(&response));
    }
    place.done("bob", "approve", &asked, &[]).await;
    place.done("carol", "approve", &asked, &[]).await;
    let begin = format!("/{id}/activate");
    let response = place.ask(&acted("alice"), (Method::POST, &begin), &[]).await;
    assert_eq!(told(&response).0, 401, "{}", json_of(&response));
    place.done("alice", "activate", &asked, &[]).await;
    let changes = [("role", "admin"), ("audience", API)];
    let (status, said) = told(&place.bed.exchange(&acted("alice"), &changes).await);
    assert!(status == 400 && said.contains("acts for you"), "{said}");
    assert_eq!(place.issued("alice", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_had_can_be_ended_also_while_the_directory_is_out_of_date() {
    let place = Place::dated(Some(Duration::from_secs(600)), |_| {}).await;
    let active = place.active().await;
    place.later(700);
    // Nobody is let in, and nobody approves.
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert!(status == 400 && said.contains("out of date"), "{said}");
    let (status, said) = told(&place.request("dave", &[]).await);
    assert!(status == 403 && said.contains("out of date"), "{said}");
    assert_eq!(place.does("alice", "relinquish", &active, &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_waits_is_had_and_is_to_be_reviewed_is_counted_by_role() {
    let place = Place::new().await;
    let counted = async |state: &str| {
        let response = place.bed.admin.get("/metrics").await;
        let text = String::from_utf8(response.body.expose().clone()).unwrap();
        let line = format!("tmpcred_elevations{{role=\"admin\",state=\"{state}\"}} ");
        let found = text.lines().find_map(|one| one.strip_prefix(&line));
        found.unwrap_or_else(|| panic!("{state}: {text}")).parse::<u64>().unwrap()
    };
    assert_eq!(counted("pending").await, 0);
    let active = place.active().await;
    let emergency = place.requested("alice", &[("emergency", "true"), ("ttl", "900")]).await;
    place.requested("dave", &[]).await;
    for state in ["pending", "active", "emergency-active"] {
        assert_eq!(counted(state).await, 1, "{state}");
    }
    place.done("alice", "relinquish", &active, &[]).await;
    place.done("alice", "relinquish", &emergency, &[]).await;
    for (state, count) in
        [("active", 0), ("emergency-active", 0), ("review-due", 2), ("review-overdue", 0)]
    {
        assert_eq!(counted(state).await, count, "{state}");
    }
    place.later(86401);
    assert_eq!(counted("review-overdue").await, 2);
    // Told each day, and overdue all the same.
    assert_eq!(place.bed.broker.due_elevations().await.unwrap(), 3);
    place.done("bob", "review", &emergency, &[("outcome", "reviewed"), ("note", "it was")]).await;
    for (state, count) in [("review-overdue", 1), ("review-due", 1), ("pending", 0)] {
        assert_eq!(counted(state).await, count, "{state}");
    }
}
