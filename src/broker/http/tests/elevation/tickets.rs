//! Tickets: who asks in the ordinary way has theirs looked up, and who asks because all is down
//! waits for no system that may be down with it.

use super::*;

const ASKED: [(&str, &str); 1] = [("ticket", "CHG-1")];
const EMERGENCY: [(&str, &str); 3] = [("emergency", "true"), ("ttl", "900"), ("ticket", "CHG-1")];

/// A role whose tickets are looked up by this command.
pub(super) fn looked_up(rules: &mut Elevation, command: &[&str]) {
    rules.ticket = Some("CHG-[0-9]+|-.*".to_string().try_into().unwrap());
    rules.ticket_command = command.iter().map(ToString::to_string).collect();
}

async fn place(command: &[&str]) -> Place {
    Place::with(|role| looked_up(role.elevation.as_mut().unwrap(), command)).await
}

#[tokio::test]
async fn an_emergency_is_had_whatever_became_of_the_system_of_tickets() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("was-run");
    let mark_it = format!("touch '{}'; exit 1", mark.display());
    for command in [&["/nonexistent/tickets"][..], &["/bin/sh", "-c", &mark_it]] {
        let place = place(command).await;
        // The pattern holds.
        for ticket in ["", "INC-1", "-h"] {
            let changes = [&EMERGENCY[..2], &[("ticket", ticket)]].concat();
            assert_eq!(told(&place.request("alice", &changes).await).0, 400, "{ticket}");
        }
        let had = place.requested("alice", &EMERGENCY).await;
        assert_eq!(
            (&had["access"], &had["ticket"], &had["ticket_unchecked"]),
            (&json!("emergency-active"), &json!("CHG-1"), &json!(true))
        );
        assert!(!mark.exists(), "nobody is asked");
        // Whoever is told, and whoever looks at what was done, knows.
        let said = &place.records_of(&had).await[0].reason;
        assert!(said.ends_with("INC-1 all is down (CHG-1, not checked)"), "{said}");
        let told = place.told().await;
        let alarm = told.iter().find(|one| one.kind() == "emergency").unwrap();
        let ticket = alarm.facts().iter().find(|fact| fact.label == "Ticket").unwrap();
        assert_eq!(ticket.value, "CHG-1 (not checked)");
        assert_eq!(place.shown("bob", &had).await["ticket_unchecked"], true);
    }
}

#[tokio::test]
async fn that_a_ticket_cannot_be_looked_up_is_not_the_mistake_of_who_asks() {
    for (command, expected, says) in [
        (&["/nonexistent/tickets"][..], 503, "cannot be checked at present"),
        (&["/bin/sh", "-c", "exit 75"], 503, "cannot be checked at present"),
        (&["/bin/sh", "-c", "kill -9 $$"], 503, "cannot be checked at present"),
        (&["/bin/sh", "-c", "exit 1"], 400, "there is no such ticket"),
    ] {
        let place = place(command).await;
        let response = place.request("alice", &ASKED).await;
        let (status, said) = told(&response);
        assert!(status == expected && said.contains(says), "{command:?}: {status} {said}");
        assert_eq!(response.headers.contains_key("retry-after"), status == 503, "{command:?}");
        assert_eq!(place.listed("alice", "mine").await, Vec::<Value>::new(), "{command:?}");
    }
    let place = place(&["/bin/sh", "-c", "exit 0"]).await;
    let asked = place.requested("alice", &ASKED).await;
    assert_eq!((&asked["ticket"], &asked["ticket_unchecked"]), (&json!("CHG-1"), &Value::Null));
    let said = &place.records_of(&asked).await[0].reason;
    assert!(said.ends_with("INC-1 all is down (CHG-1)"), "{said}");
}
