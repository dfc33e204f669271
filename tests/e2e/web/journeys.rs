//! What people go through on the pages from its beginning to its end.

use super::*;
use crate::provider_down::Prepared;

#[test]
fn two_tabs_sign_in_one_after_the_other_whatever_others_lead_to() {
    let office = Office::start();
    let (one, other) = (office.request("INC-4711: the disk"), office.page("/reviews"));
    let page = office.page(&format!("/{one}"));
    let seen = office.browse(
        "bob",
        json!([
            ["goto", page],
            ["tab", "second"],
            ["goto", other],
            ["tab", "third"],
            ["led", office.page("/callback?state=x&error=access_denied")],
            ["text"],
            ["tab", "first"],
            ["sign_in", "bob"],
            ["url"],
            ["tab", "second"],
            ["sign_in", "bob"],
            ["url"],
            ["tab", "first"],
            ["click", "button", "Approve"],
            ["text"],
            ["cookies"],
        ]),
    );
    assert_eq!(seen[0], 400);
    assert!(text(&seen[1]).contains("Nothing was changed."), "{}", seen[1]);
    assert_eq!((&seen[2], &seen[3]), (&page.into(), &other.into()));
    assert!(text(&seen[4]).contains("You have approved it."), "{}", seen[4]);
    assert!(!seen[5].to_string().contains("tmpcred-sign-in"), "{}", seen[5]);
}

#[test]
fn an_emergency_is_told_looked_at_ended_and_reviewed_on_the_pages() {
    let office = Office::start();
    let company = &office.company;
    let ask = ["request", "admin", "--emergency", "--reason", "INC-4714: nobody answers"];
    let ask = [&ask[..], &["--for", "15m", "--json"]].concat();
    let had = company.elevate("alice", &ask).ok().json();
    let id = had["id"].as_str().unwrap();
    let token = company.run("alice", &["token", "--role", "admin"]).run().ok().stdout;
    // Everybody who was skipped is told, and whose account it was, and where to look.
    assert_eq!(company.told("emergency"), ["alice", "bob", "carol", "erin"]);
    let told = std::fs::read_to_string(company.broker.home.path("told")).unwrap();
    let told = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told = told.map(|one| one["message"].clone()).find(|one| one["kind"] == "emergency");
    let link = told.unwrap()["link"].as_str().unwrap().to_string();
    assert_eq!(link, office.page(&format!("/{id}")));
    // Bob, who is not signed in, follows the link, looks and ends it.
    let seen = office.browse(
        "bob",
        json!([
            ["goto", link],
            ["sign_in", "bob"],
            ["url"],
            ["text"],
            ["fill", "Why it has to end", "nobody knows of INC-4714"],
            ["click", "button", "Revoke"],
            ["text"],
        ]),
    );
    assert_eq!(text(&seen[0]), link);
    let page = text(&seen[1]);
    for says in [
        "emergency, active",
        "emergency: without anybody's approval",
        "None were needed: it was taken in an emergency.",
        "INC-4714: nobody answers",
        "issued: ",
    ] {
        assert!(page.contains(says), "{says}: {page}");
    }
    assert!(!page.contains("Record the review"), "it has not ended: {page}");
    let ended = text(&seen[2]);
    assert!(ended.contains("revoked by BOB Example: nobody knows of INC-4714"), "{ended}");
    assert!(!crate::revocation::is_active(&company.broker, token.trim()));
    // Who had it does not review it, and carol does.
    office.sign_in("alice");
    let own = office.browse("alice", json!([["goto", link], ["text"]]));
    assert!(!text(&own[0]).contains("Record the review"), "{}", own[0]);
    office.sign_in("carol");
    let seen = office.browse(
        "carol",
        json!([
            ["goto", office.page("/reviews")],
            ["text"],
            ["click", "link", "Review: admin for ALICE Example"],
            ["check", "is in order"],
            ["fill", "What you found", "the disk was full indeed"],
            ["click", "button", "Record the review"],
            ["text"],
        ]),
    );
    assert!(text(&seen[0]).contains("emergency"), "{}", seen[0]);
    let reviewed = text(&seen[1]);
    assert!(reviewed.contains("found in order by CAROL Example"), "{reviewed}");
    // On the command line it is told as well what it was.
    let status = company.elevate("erin", &["status", id]).ok().stdout;
    assert!(status.contains("path  emergency: without anybody's approval"), "{status}");
    let list = company.elevate("alice", &["list", "--which", "mine"]).ok().stdout;
    assert!(list.contains("EMERGENCY: "), "{list}");
    let story = [
        "elevation.emergency alice",
        "issue alice",
        "elevation.revoke bob",
        "elevation.review carol",
    ];
    assert_eq!(company.story(id), story);
}

#[test]
fn what_was_approved_by_signatures_says_so_and_is_reviewed_on_the_pages() {
    drop(program("chromium"));
    let options = OidcOptions { clients: vec![client(json!({}))], ..OidcOptions::default() };
    let prepared = Prepared::at(OidcProvider::start_with(&options), PAGES);
    let id = prepared.had_by_signatures();
    let Prepared { company, .. } = prepared;
    let office = Office { company, home: Home::new() };
    office.sign_in("erin");
    let seen = office.browse(
        "erin",
        json!([
            ["goto", office.page("/reviews")],
            ["text"],
            ["click", "link", "Review: admin for ALICE Example"],
            ["text"],
            ["size", 360, 740],
            ["overflow"],
            ["axe"],
            ["check", "is in order"],
            ["fill", "What you found", "as asked"],
            ["click", "button", "Record the review"],
            ["text"],
        ]),
    );
    assert!(text(&seen[0]).contains("by signatures"), "{}", seen[0]);
    let page = text(&seen[1]);
    assert!(page.contains("provider down: by signatures"), "{page}");
    // Hers who asked, and of those who approved.
    assert_eq!(page.matches("a signature of the key SHA256:").count(), 3, "{page}");
    assert_eq!((&seen[2], &seen[3]), (&json!(0), &json!([])));
    assert!(text(&seen[4]).contains("found in order by ERIN Example"), "{}", seen[4]);
    // The same on the command line.
    let status = office.company.elevate("erin", &["status", &id]).ok().stdout;
    assert!(status.contains("path  provider-down: by signatures"), "{status}");
    assert_eq!(status.matches(", by the key SHA256:").count(), 2, "{status}");
    let list = office.company.elevate("alice", &["list", "--which", "mine"]).ok().stdout;
    assert!(list.contains("BY SIGNATURES: "), "{list}");
    assert_eq!(office.company.story(&id).last().unwrap(), "elevation.review erin");
}
