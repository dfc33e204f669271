//! Records that somebody has deleted, and nothing else.

use std::time::Duration;

use serde_json::{Value, json};

use super::{TOOLS_OFF, asked, audit, checkpoint, sqlite, wrong};
use crate::revocation::{Services, is_active};
use crate::support::broker::{API, KEK};
use crate::support::home::tmpcred;
use crate::support::http::Http;
use crate::support::wait::{free_port, wait_until};

#[test]
fn what_is_gone_is_said_by_the_sink_the_export_and_the_next_start() {
    let mut services = Services::with("\n[audit.file.kept]\npath = \"kept.jsonl\"\n");
    for job in 0..5 {
        services.token(&format!("job{job}"), API);
    }
    checkpoint(&services.broker, 7);
    let kept = services.broker.home.path("kept.jsonl");
    let lines = |count: usize| -> Vec<Value> {
        wait_until("the lines of the sink", Duration::from_secs(30), || {
            let text = std::fs::read_to_string(&kept).unwrap_or_default();
            (text.lines().count() == count)
                .then(|| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
        })
    };
    lines(7);
    services.broker.stop();
    // Two amid the others, which the sink is about to get.
    let gone = "delete from audit_record where sequence in (5, 6);
                update audit_sink set delivered = 4";
    sqlite(&services.broker, &format!("{TOOLS_OFF} {gone}"));
    services.broker.restart();
    let said = &lines(9)[7];
    assert_eq!(said["sequence"], 6);
    assert_eq!(said["missing"], json!("records 5 to 6 are gone: somebody has deleted them"));
    let log = services.broker.said();
    assert!(log.contains("records of the audit log are gone"), "{log}");
    let export = audit(&services.broker, "export", &[]).run().ended_with(9);
    assert_eq!(export.stdout.lines().count(), 5, "{}", export.stdout);
    assert!(export.stderr.contains("2 records are gone, 5 to 6 first"), "{}", export.stderr);
    // The last one.
    services.broker.stop();
    sqlite(&services.broker, &format!("{TOOLS_OFF} delete from audit_record where sequence = 7"));
    let home = &services.broker.home;
    let serve = tmpcred(home).args(["broker", "serve", "--config"]);
    let serve = serve.args([home.path("broker.toml")]).env("TMPCRED_BROKER_KEK", KEK);
    let said = serve.run().ended_with(9).stderr;
    assert!(said.contains("records of the audit log are gone"), "{said}");
    assert!(said.contains("audit verify"), "{said}");
    assert_eq!(wrong(&services.broker, &[]), [("missing".into(), 5, 7)]);
}

#[test]
fn while_the_last_records_are_gone_a_running_broker_issues_nothing_and_revokes_all_the_same() {
    let admin = free_port();
    let services = Services::with(&format!("\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n"));
    let broker = &services.broker;
    let says_broken = |number: u8| {
        let metrics = format!("http://127.0.0.1:{admin}/metrics");
        let line = format!("\ntmpcred_audit_log_broken {number}\n");
        let told = Http::new().get(&metrics).unwrap().body;
        assert!(told.contains(&line), "{told}");
    };
    let token = services.token("job", API);
    checkpoint(broker, 3);
    says_broken(0);
    let url = |path: &str| format!("{}{path}", broker.url());
    let ask = || Http::new().form(&url("/token"), &asked(&services.assertion("job"))).unwrap();
    let answered = |status: u16| {
        wait_until("the broker to notice", Duration::from_secs(60), || {
            let reply = ask();
            (reply.status == status).then_some(reply)
        })
    };
    let kept = "create table kept as select * from audit_record where sequence = 3;
                delete from audit_record where sequence = 3;";
    sqlite(broker, &format!("{TOOLS_OFF} {kept}"));
    let refused = answered(503);
    assert!(refused.body.contains("temporarily_unavailable"), "{}", refused.body);
    says_broken(1);
    assert!(is_active(broker, &token), "it was issued while all was well");
    // What else it can do, no other process on this database could do better.
    assert_eq!(Http::new().get(&url("/readyz")).unwrap().status, 200);
    let revoked = Http::new().form(&url("/revoke"), &[("token", token.as_str())]).unwrap();
    assert_eq!(revoked.status, 200, "{}", revoked.body);
    assert!(!is_active(broker, &token));
    let said = broker.said();
    assert!(said.contains("nothing is issued until the audit log is what was signed"), "{said}");
    // Whoever has the record puts it back.
    sqlite(broker, "insert into audit_record select * from kept; drop table kept");
    answered(200);
    says_broken(0);
    wait_until("it to be told", Duration::from_secs(30), || {
        broker.said().contains("is issued by again").then_some(())
    });
    assert_eq!(wrong(broker, &[]), []);
}
