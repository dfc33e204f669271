//! What is practised, from the command line.

use super::*;

#[test]
fn a_drill_asks_the_people_waits_ends_and_says_how_long_each_step_took() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let terminal = Terminal::start(company.home("alice"), 80, 40);
    terminal.enter("tmpcred elevate drill admin --for 30m");
    let id = company.waiting_for("bob");
    terminal.wait_for("0 of 2 approvals");
    let screen = terminal.screen();
    assert!(screen.contains("DRILL  this is practised; nothing is issued"), "{screen}");
    assert_eq!(company.told("elevation-requested"), ["bob", "carol", "erin"]);
    let told = std::fs::read_to_string(company.broker.home.path("told")).unwrap();
    assert!(told.contains("DRILL: alice asks for admin"), "{told}");
    let list = company.elevate("bob", &["list", "--which", "to-approve"]).ok().stdout;
    assert!(list.contains("DRILL: pending, 2 missing"), "{list}");
    company.approve("bob", &id);
    company.approve("carol", &id);
    terminal.wait_for("STEP");
    terminal.wait_for("relinquished");
    let screen = terminal.screen();
    assert!(screen.contains("token  would have been issued: the policy 'admins'"), "{screen}");
    for step in ["approved by bob", "approved by carol", "enough have approved", "begun"] {
        assert!(screen.contains(step), "{step}: {screen}");
    }
    let issued = company.story(&id).into_iter().filter(|what| what.starts_with("issue ")).count();
    assert_eq!(issued, 0);
    assert_eq!(
        company.story(&id).last().unwrap(),
        "elevation.relinquish alice",
        "it ends by itself"
    );
}

#[test]
fn a_practised_emergency_is_over_at_once_and_everybody_who_was_skipped_is_told() {
    let company = Company::start(&["alice"]);
    let drill = ["drill", "admin", "--emergency", "--for", "5m", "--json"];
    let ended = company.elevate("alice", &drill).ok().json();
    assert_eq!((&ended["access"], &ended["drill"]), (&"relinquished".into(), &true.into()));
    assert_eq!((&ended["review"], &ended["path"]), (&"due".into(), &"emergency".into()));
    assert_eq!(ended["tried"]["issued"], true, "{ended}");
    assert_eq!(company.told("emergency"), ["alice", "bob", "carol", "erin"]);
    // A run that wants the role in earnest does not take it for one.
    let emergency = ["exec", "--elevate", "admin", "--reason", "INC-1", "--emergency"];
    let run = company.run("alice", &emergency).args(["--", "sh", "-c", "echo $TMPCRED_ROLE"]);
    assert_eq!(run.limit(SOON).run().ok().stdout, "admin\n");
}

#[test]
fn a_drill_has_not_gone_well_where_no_token_would_have_been_issued() {
    let forbids = r#"
@id("not-on-this-network")
forbid (principal, action == Action::"issue", resource == Role::"admin");
"#;
    let company = Company::of(vec![("alice", Home::stranger())], ROLE, forbids);
    let drill = company.elevate("alice", &["drill", "admin", "--emergency"]).ended_with(5);
    assert!(drill.stdout.contains("token  would not have been issued"), "{}", drill.stdout);
    let says = "a policy forbids the role 'admin'";
    assert!(drill.stdout.contains("relinquished") && drill.stderr.contains(says), "{drill:?}");
}

#[test]
fn a_drill_that_nobody_waited_for_is_gone_on_with() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let drill = ["drill", "admin", "--no-wait", "--json"];
    let asked = company.elevate("alice", &drill).ok().json();
    let id = asked["id"].as_str().unwrap();
    company.approve("bob", id);
    company.approve("carol", id);
    let ended = company.elevate("alice", &["status", id, "--wait"]).ok().stdout;
    assert!(ended.contains("STEP") && ended.contains("relinquished"), "{ended}");
}

#[test]
fn whoever_waits_for_a_drill_at_two_places_is_told_at_both_how_it_went() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let first = company.run("alice", &["elevate", "drill", "admin"]).limit(SOON).spawn();
    let id = company.waiting_for("bob");
    let status = ["elevate", "status", &id, "--wait"];
    let others = ["alice", "bob"].map(|who| company.run(who, &status).limit(SOON).spawn());
    for one in [&first, &others[0], &others[1]] {
        one.line_on_stderr("waiting for approval");
    }
    company.approve("bob", &id);
    company.approve("carol", &id);
    let [own, bob] = others.map(|one| one.wait().ok().stdout);
    for told in [first.wait().ok().stdout, own] {
        assert!(told.contains("STEP") && told.contains("relinquished"), "{told}");
    }
    assert!(bob.contains("DRILL"), "{bob}");
    let story = company.story(&id);
    let ended = story.iter().filter(|what| what.starts_with("elevation.relinquish")).count();
    assert_eq!(ended, 1, "nobody else is denied to end it: {story:?}");
}
