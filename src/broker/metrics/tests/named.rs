//! What is counted by names of the configuration.

use super::*;
use crate::broker::testbed::{API, CORP};

/// A policy that gives this role.
fn permit(role: &str) -> String {
    format!(
        "@id(\"p\") @ttl(\"15m\") @scope(\"deploy:read\") permit (principal, action == Action::\"issue\", resource == Role::\"{role}\");"
    )
}

#[tokio::test]
async fn renewals_are_counted_by_the_roles_that_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let [policy, file, jwks] =
        ["policy.cedar", "broker.toml", "jwks.json"].map(|name| dir.path().join(name));
    let write = |path, text: &str| {
        crate::host::files::write_private(path, text.as_bytes()).unwrap();
    };
    write(&policy, &permit("deploy"));
    let bed = Bed::with(|options| {
        options.config.policy.files = vec![policy.clone()];
        options.config.path = Some(file.clone());
        options.policies = permit("deploy");
    })
    .await;
    for _ in 0..3 {
        bed.issued(json!({}), &[]).await;
        bed.refused(&bed.key.token(json!({})), &[("role", "made-up")]).await;
    }
    let before = seen(&bed).await;
    assert_eq!(before.get("issuance_renewals_total{role=\"deploy\"}"), 2.0);
    assert!(!before.text.contains("made-up"), "{}", before.text);

    write(&jwks, &bed.key.jwks().to_string());
    write(&policy, &permit("other"));
    write(
        &file,
        &format!(
            "issuer = \"https://broker.example.com\"\n[store]\npath = \"other.db\"\n\
             [trusted_issuer.corp]\nissuer = \"{CORP}\"\njwks_file = \"jwks.json\"\n\
             [policy]\nfiles = [\"policy.cedar\"]\n\
             [role.other]\naudiences = [\"{API}\"]\nscopes = [\"deploy:read\"]\nmax_ttl = \"1h\"\n"
        ),
    );
    assert_eq!(before.get("policies_refused"), 0.0);
    write(&policy, "permit (");
    bed.broker.reload_policies().unwrap_err();
    assert_eq!(seen(&bed).await.get("policies_refused"), 1.0);
    write(&policy, &permit("other"));
    bed.broker.reload_policies().unwrap();
    // A request that began before it was gone counts for nothing.
    bed.broker.metrics.renewed("deploy");
    let after = seen(&bed).await;
    assert_eq!(after.get("policies_refused"), 0.0);
    assert_eq!(after.get("issuance_renewals_total{role=\"other\"}"), 0.0);
    assert!(!after.text.contains("\"deploy\""), "{}", after.text);
}
