//! Records that somebody has deleted, and nothing else.

use std::time::Duration;

use serde_json::{Value, json};

use super::{TOOLS_OFF, audit, checkpoint, sqlite, wrong};
use crate::revocation::Services;
use crate::support::broker::{API, KEK};
use crate::support::home::tmpcred;
use crate::support::wait::wait_until;

#[test]
fn what_is_gone_is_said_by_the_sink_the_export_and_the_next_start() {
    let mut services = Services::with("\n[audit.file.kept]\npath = \"kept.jsonl\"\n");
    for job in 0..5 {
        services.token(&format!("job{job}"), API);
    }
    checkpoint(&services.broker, 6);
    let kept = services.broker.home.path("kept.jsonl");
    let lines = |count: usize| -> Vec<Value> {
        wait_until("the lines of the sink", Duration::from_secs(30), || {
            let text = std::fs::read_to_string(&kept).unwrap_or_default();
            (text.lines().count() == count)
                .then(|| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
        })
    };
    lines(6);
    services.broker.stop();
    // Two amid the others, which the sink is about to get.
    let gone = "delete from audit_record where sequence in (4, 5);
                update audit_sink set delivered = 3";
    sqlite(&services.broker, &format!("{TOOLS_OFF} {gone}"));
    services.broker.restart();
    let said = &lines(8)[6];
    assert_eq!(said["sequence"], 5);
    assert_eq!(said["missing"], json!("records 4 to 5 are gone: somebody has deleted them"));
    let log = services.broker.said();
    assert!(log.contains("records of the audit log are gone"), "{log}");
    let export = audit(&services.broker, "export", &[]).run().ended_with(9);
    assert_eq!(export.stdout.lines().count(), 4, "{}", export.stdout);
    assert!(export.stderr.contains("2 records are gone, 4 to 5 first"), "{}", export.stderr);
    // The last one.
    services.broker.stop();
    sqlite(&services.broker, &format!("{TOOLS_OFF} delete from audit_record where sequence = 6"));
    let home = &services.broker.home;
    let serve = tmpcred(home).args(["broker", "serve", "--config"]);
    let serve = serve.args([home.path("broker.toml")]).env("TMPCRED_BROKER_KEK", KEK);
    let said = serve.run().ended_with(9).stderr;
    assert!(said.contains("records of the audit log are gone"), "{said}");
    assert!(said.contains("audit verify"), "{said}");
    assert_eq!(wrong(&services.broker, &[]), [("missing".into(), 4, 6)]);
}
