//! Two thousand people who may approve: how often policy is asked follows from how many sorts of
//! them it can tell apart.

use super::*;

const MANY: usize = 2000;

/// One of them is kept from it by name.
const NOT_ONE: &str = r#"
@id("not-her")
forbid (principal in Person::"lead-7", action == Action::"approve", resource == Role::"admin");
"#;

/// It looks at whoever approves.
const PERSONAL: &str = r#"
@id("not-these")
forbid (principal, action == Action::"approve", resource == Role::"admin")
when { principal.subject like "lead-19*" };
"#;

/// The directory with so many leads more.
fn with_leads(count: usize) -> String {
    let lead = |number: usize| {
        format!(
            "[person.lead-{number}]\nids = [{{ issuer = \"{CORP}\", subject = \"lead-{number}\" }}]\ngroups = [\"leads\"]\n"
        )
    };
    people(&[]) + &(0..count).map(lead).collect::<String>()
}

impl Place {
    /// How often policy was asked who may approve since this was.
    fn asked_about_people(&self) -> usize {
        let book = self.bed.broker.policies();
        book.asked_of_approvers.swap(0, Ordering::Relaxed)
    }
}

async fn place(policy: &str, leads: usize) -> Place {
    let place = Place::built(None, |_| {}, |options| options.policies += policy).await;
    assert!(place.directory(&with_leads(leads)).await);
    place
}

fn could_approve(shown: &Value) -> Vec<String> {
    let people = shown["needs"][0]["could"].as_array().unwrap_or_else(|| panic!("{shown}"));
    people.iter().map(|name| name.as_str().unwrap().to_string()).collect()
}

#[tokio::test]
async fn with_thousands_policy_is_asked_about_as_few_as_it_can_tell_apart() {
    let place = place(NOT_ONE, MANY).await;
    place.asked_about_people();
    let asked = place.requested("alice", &[]).await;
    // Whom it is told, and who could approve it, as it is shown: each time leads are asked about,
    // and the one with a name.
    assert!(place.asked_about_people() <= 8);
    let shown = place.shown("bob", &asked).await;
    assert!(place.asked_about_people() <= 8);
    let could = could_approve(&shown);
    // The three others who are leads, and all of these but one.
    assert_eq!(could.len(), 3 + MANY - 1);
    assert!(!could.contains(&"lead-7".to_string()) && !could.contains(&"alice".to_string()));
    let told = place.told().await;
    assert!(told.iter().any(|message| message.names().iter().eq(&could)), "they are told");
    // Whoever leaves is gone at once.
    assert!(place.directory(&with_leads(MANY - 1)).await);
    let could = could_approve(&place.shown("bob", &asked).await);
    assert_eq!(could.len(), 3 + MANY - 2);
    for name in ["bob", "lead-3"] {
        place.asked_about_people();
        place.done(name, "approve", &asked, &[]).await;
        assert!(place.asked_about_people() <= 12);
    }
    assert_eq!(place.not_done("lead-7", "approve", &asked, &[]).await.0, 404);
    place.done("alice", "activate", &asked, &[]).await;
    place.asked_about_people();
    place.done("erin", "revoke", &asked, &[("reason", "enough")]).await;
    assert!(place.asked_about_people() <= 12);
}

#[tokio::test]
async fn where_policy_looks_at_each_it_is_asked_about_each() {
    let place = place(PERSONAL, 200).await;
    place.asked_about_people();
    let asked = place.requested("alice", &[]).await;
    let could = could_approve(&place.shown("bob", &asked).await);
    assert!(place.asked_about_people() >= 3 * 200);
    // All but `lead-19` and the ten from `lead-190` on.
    assert_eq!(could.len(), 3 + 200 - 11);
    assert_eq!(place.not_done("lead-190", "approve", &asked, &[]).await.0, 404);
    place.done("lead-18", "approve", &asked, &[]).await;
}
