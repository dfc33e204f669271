use std::io::Write as _;

use super::super::support::aws::python_program;
use super::super::support::broker::KEK;
use super::super::support::home::tmpcred;
use super::super::support::peer::{node_script, program};
use super::*;

/// What no policy permits anybody.
const NOBODY: &str =
    "\n[role.nobody]\naudiences = [\"https://api.example.com\"]\nmax_ttl = \"1h\"\n";

/// What is done to records behind the broker's back, by number: one that was taken back, one
/// of somebody who acts for others, one of a trace, and one that cannot be read.
const CHANGED: &str = "
    drop trigger if exists audit_record_update;
    update audit_record set decision = 'aborted' where sequence = 2;
    update audit_record set actor = 'https://corp.example.com#bot https://corp.example.com#other' where sequence = 3;
    update audit_record set trace_id = '4bf92f3577b34da6a3ce929d0e0e4736' where sequence = 4;
    update audit_record set decision = 'x' where sequence = 5;";

/// The lines of a file, once there are so many.
#[track_caller]
fn lines(services: &Services, name: &str, number: u64) -> String {
    let path = services.broker.home.path(name);
    wait_until("all records in the file", SOON, || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        (text.matches('\n').count() as u64 >= number).then_some(text)
    })
}

#[test]
fn who_takes_events_of_ecs_and_ocsf_finds_nothing_wrong_with_any_kind_of_record() {
    let mut services = Services::with(NOBODY);
    let own = |services: &Services, args: &[&str]| {
        let run = tmpcred(&services.broker.home).args(["broker"]).args(args).args(["--config"]);
        run.args([services.broker.home.path("broker.toml")]).env("TMPCRED_BROKER_KEK", KEK)
    };
    issues(&services, 4);
    let token = services.token("job9", API);
    let url = services.broker.url().to_string();
    let reply = Http::new().form(&format!("{url}/revoke"), &[("token", &token)]).unwrap();
    assert_eq!(reply.status, 200);
    let assertion = services.assertion("job9");
    let mut form = super::super::audit::asked(&assertion);
    form.iter_mut().filter(|(name, _)| *name == "role").for_each(|(_, role)| *role = "nobody");
    let reply = Http::new().form(&format!("{url}/token"), &form).unwrap();
    assert_eq!(reply.json()["error"], "access_denied");
    own(&services, &["keys", "rotate"]).run().ok();
    let whom = "https://services.example.com#job1";
    own(&services, &["audit", "erase", "--reason", "asked", "--subject", whom]).run().ok();

    services.broker.stop();
    let sqlite = services.broker.home.command("sqlite3").args(["-cmd", ".timeout 20000"]);
    sqlite.args([services.broker.home.path("broker.db")]).args([CHANGED]).run().ok();
    let toml = services.broker.home.path("broker.toml");
    let mut file = std::fs::OpenOptions::new().append(true).open(toml).unwrap();
    for format in ["ecs", "ocsf"] {
        let table =
            format!("\n[audit.file.{format}]\npath = \"{format}\"\nformat = \"{format}\"\n");
        file.write_all(table.as_bytes()).unwrap();
    }
    services.broker.restart();
    let newest = newest(&services.broker);
    for (format, judge, interpreter) in
        [("ecs", "siem.mjs", program("node")), ("ocsf", "siem.py", python_program("python3"))]
    {
        let events = lines(&services, format, newest);
        let kinds = ["issued", "denied", "aborted", "revoked", "changed"];
        for said in kinds.map(|kind| format!("\"decision\":\"{kind}\"")) {
            assert!(events.contains(&said), "{said}: {events}");
        }
        for said in ["(erased)", "#bot ", "4bf92f3577b34da6a3ce929d0e0e4736", "cannot be read"] {
            assert!(events.contains(said), "{said}: {events}");
        }
        let judged = services.broker.home.command(interpreter).args([node_script(judge)]);
        assert_eq!(judged.stdin(&*events).run().ok().stdout, "", "{format}");
        // The same by hand, where nobody can hand on what cannot be read.
        let exported = own(&services, &["audit", "export", "--format", format]);
        let exported = exported.run().ended_with(9).stdout;
        let readable = events.lines().filter(|line| !line.contains("cannot be read"));
        assert_eq!(exported.lines().collect::<Vec<_>>(), readable.collect::<Vec<_>>(), "{format}");
    }
}
