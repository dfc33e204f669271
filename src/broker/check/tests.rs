use std::path::PathBuf;

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use tempfile::TempDir;

use super::*;
use crate::broker::keys::KeyState;
use crate::broker::keys::manage::{Manager, Report, Which};
use crate::broker::testbed::{IssuerKey, host};
use crate::broker::{Broker, config};

/// A broker's directory.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.write("kek", &"A".repeat(43));
        place.write("jwks.json", &IssuerKey::new().jwks().to_string());
        place.write("policy.cedar", POLICY);
        place.write("broker.toml", TOML);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        files::write_private(&self.path(name), text.as_bytes()).unwrap();
    }

    /// Its configuration, changed so.
    fn config(&self, change: (&str, &str)) -> Config {
        self.write("broker.toml", &TOML.replace(change.0, change.1));
        let mut config = config::load(&self.path("broker.toml")).unwrap();
        config.keys.kek_file = Some(self.path("kek"));
        for issuer in config.trusted_issuer.values_mut() {
            issuer.jwks_file = Some(self.path("jwks.json"));
        }
        config
    }

    fn host(&self) -> Host {
        host(&self.path("host"))
    }

    /// What is found, a word for each thing that was looked at.
    async fn found(&self, config: &Config) -> Vec<(Subject, String)> {
        let looks = check(config, &self.host(), false).await;
        let told = looks.into_iter().map(|look| match look.verdict {
            Verdict::Good(_) => (look.subject, "good".into()),
            Verdict::Warning(error) => (look.subject, format!("warning: {error}")),
            Verdict::Wrong(error) => (look.subject, format!("wrong: {error}")),
        });
        told.collect()
    }

    /// What is found that is not good.
    async fn bad(&self, config: &Config) -> Vec<(Subject, String)> {
        let found = self.found(config).await;
        found.into_iter().filter(|(_, said)| said != "good").collect()
    }

    async fn start_once(&self) -> Config {
        let config = self.config(("", ""));
        Broker::open(&config, &self.host()).await.unwrap().close().await;
        config
    }

    async fn execute(&self, sql: &str) {
        let url = format!("sqlite://{}", self.path("broker.db").display());
        let mut connection = AnyConnection::connect(&url).await.unwrap();
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_string()))).await.unwrap();
        connection.close().await.unwrap();
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut all = files::list(self.dir.path()).unwrap();
        all.sort();
        all
    }
}

const TOML: &str = r#"
issuer = "https://broker.example.com"
listen = "127.0.0.1:0"
[store]
path = "broker.db"
[keys]
kek_file = "kek"
[trusted_issuer.ci]
issuer = "https://ci.example.com"
jwks_file = "jwks.json"
[policy]
files = ["policy.cedar"]
[role.deploy]
audiences = ["https://api.example.com"]
scopes = ["deploy:read"]
max_ttl = "1h"
"#;

const POLICY: &str = r#"
@id("ci") @ttl("15m") @scope("deploy:read")
permit (principal, action == Action::"issue", resource == Role::"deploy")
when { principal.issuer == "https://ci.example.com" };
"#;

#[tokio::test]
async fn what_a_broker_would_start_with_is_good_and_nothing_is_made() {
    let place = Place::new();
    let config = place.config(("", ""));
    let before = place.files();
    let found = place.found(&config).await;
    let all =
        [Subject::Issuers, Subject::Policies, Subject::Addresses, Subject::Kek, Subject::Database];
    assert_eq!(found, all.map(|subject| (subject, "good".to_string())));
    assert_eq!(place.files(), before);

    let config = place.start_once().await;
    let found = place.found(&config).await;
    assert_eq!(found.last().unwrap(), &(Subject::Keys, "good".to_string()), "{found:?}");
    // A broker may be running.
    let running = Broker::open(&config, &place.host()).await.unwrap();
    assert_eq!(place.bad(&config).await, []);
    running.close().await;
}

#[tokio::test]
async fn files_are_left_as_they_are() {
    let place = Place::new();
    let sink = "listen = \"127.0.0.1:0\"\n[audit.file.copy]\npath = \"copies/audit.jsonl\"";
    let config = place.config(("listen = \"127.0.0.1:0\"", sink));
    place.write("broker.db", "");
    let before = place.files();
    // A broker makes no directory for records that are handed on.
    let bad = place.bad(&config).await;
    let [(Subject::Sinks, said)] = &bad[..] else { panic!("{bad:?}") };
    assert!(said.contains("there is no directory") && said.contains("copies"), "{said}");
    assert_eq!(place.files(), before);
    let read = |name: &str| files::read(&place.path(name), 1 << 20).unwrap().unwrap();
    assert!(read("broker.db").is_empty());

    files::private_dir(&place.path("copies")).unwrap();
    assert_eq!(place.bad(&config).await, []);
    files::private_dir(&place.path("copies/audit.jsonl")).unwrap();
    let bad = place.bad(&config).await;
    assert!(bad[0].1.contains("audit.jsonl is no file"), "{bad:?}");

    // One that keeps its changes in another way goes on to.
    files::remove(&place.path("broker.db")).unwrap();
    place.start_once().await;
    place.execute("pragma journal_mode = delete").await;
    let database = read("broker.db");
    assert_eq!(place.bad(&place.config(("", ""))).await, []);
    assert!(read("broker.db") == database, "the database is another one");
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    let place = Place::new();
    let all = "
        listen = \"127.0.0.1:0\"
        [tls]
        certificate = \"none.pem\"
        key = \"none.key\"
        [directory]
        file = \"people.toml\"
        [audit.file.copy]
        path = \"kek/audit.jsonl\"
        format = \"jsonl\"
    ";
    let mut config = place.config(("listen = \"127.0.0.1:0\"", all));
    config.listen = "198.51.100.7:8443".parse().unwrap();
    config.store.path = Some(place.path("kek/broker.db"));
    config.keys.kek_file = Some(place.path("no-kek"));
    place.write("jwks.json", "{");
    place.write("policy.cedar", "permit (");
    let bad = place.bad(&config).await;
    let expected = [
        (Subject::Issuers, "jwks.json"),
        (Subject::People, "people.toml"),
        (Subject::Policies, "errors in the policies: 1"),
        (Subject::Sinks, "kek is no directory"),
        (Subject::Certificate, "none.pem cannot be used: there is no such file"),
        (Subject::Addresses, "cannot listen on 198.51.100.7:8443"),
        (Subject::Kek, "no-kek does not exist"),
        (Subject::Database, "kek is no directory"),
    ];
    assert_eq!(bad.len(), expected.len(), "{bad:#?}");
    for ((subject, said), (of, part)) in bad.iter().zip(expected) {
        assert_eq!(*subject, of, "{bad:#?}");
        assert!(said.starts_with("wrong: ") && said.contains(part), "{subject:?}: {said}");
    }
}

#[tokio::test]
async fn a_database_of_another_key_issuer_or_version_is_told() {
    let place = Place::new();
    let config = place.start_once().await;
    let only = async |config: &Config, subject: Subject, part: &str| {
        let bad = place.bad(config).await;
        let [(of, said)] = &bad[..] else { panic!("{part}: {bad:?}") };
        assert!(*of == subject && said.contains(part), "{part}: {bad:?}");
    };
    let mut other = config.clone();
    other.keys.kek_file = Some(place.path("other"));
    place.write("other", &"Q".repeat(43));
    only(&other, Subject::Keys, "wrong: the key-encryption key does not open this database").await;
    let other = place.config(("broker.example.com", "other.example.com"));
    only(&other, Subject::Keys, "wrong: the database is that of a broker with another issuer")
        .await;
    let config = place.config(("", ""));

    place.execute("update audit_head set last_sequence = last_sequence + 1").await;
    only(&config, Subject::Keys, "wrong: ").await;
    place.execute("update audit_head set last_sequence = last_sequence - 1").await;
    assert_eq!(place.bad(&config).await, []);

    place.execute("update _sqlx_migrations set version = 9999 where version = 23").await;
    only(&config, Subject::Database, "wrong: ").await;
    place.execute("delete from _sqlx_migrations where version = 9999").await;
    only(&config, Subject::Database, "warning: an earlier version of tmpcred made it").await;
}

/// What a broker does not start on is not good beforehand.
#[tokio::test]
async fn a_log_whose_last_records_are_gone_is_told() {
    let place = Place::new();
    let config = place.start_once().await;
    place
        .execute(
            "drop trigger audit_record_delete;
             delete from audit_record where sequence = (select max(sequence) from audit_record)",
        )
        .await;
    let gone = "records of the audit log are gone";
    let bad = place.bad(&config).await;
    let [(Subject::Keys, said)] = &bad[..] else { panic!("{bad:?}") };
    assert!(said.starts_with(&format!("wrong: {gone}")), "{said}");
    let error = Broker::open(&config, &place.host()).await.err().unwrap();
    assert!(error.to_string().contains(gone), "{error}");
    // Nor is anything begun on it that has time; what leaked is revoked all the same.
    place.write("broker.toml", &TOML.replace("\"kek\"", &format!("{:?}", place.path("kek"))));
    let manager = Manager::open(&place.host(), &place.path("broker.toml")).await.unwrap();
    let error = manager.rotate(&Which::default()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Verification && error.to_string().contains(gone), "{error}");
    let active = |key: &Report| key.state == KeyState::Active && key.of_log.is_none();
    let kid = manager.list().await.unwrap().into_iter().find(active).unwrap().kid;
    for was_revoked in [false, true] {
        let (keys, before) = manager.revoke(std::slice::from_ref(&kid), "it leaked").await.unwrap();
        assert_eq!(before.contains(&kid), was_revoked);
        assert!(keys.iter().any(|key| key.kid == kid && key.state == KeyState::Revoked));
    }
    manager.close().await;
}

#[tokio::test]
async fn keys_that_are_for_nothing_that_is_accepted_are_told() {
    let place = Place::new();
    let keys = "jwks_file = \"jwks.json\"";
    let bad = place.bad(&place.config((keys, &format!("{keys}\nalgorithms = [\"RS256\"]")))).await;
    let [(Subject::Issuers, said)] = &bad[..] else { panic!("{bad:?}") };
    for part in ["wrong: [trusted_issuer.ci]", "`algorithms` are RS256;", "jwks.json are for ES256"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    // One that is accepted, and others, are as it should be.
    let both = format!("{keys}\nalgorithms = [\"RS256\", \"ES256\"]");
    assert_eq!(place.bad(&place.config((keys, &both))).await, []);
    // Clients are known by keys, too.
    let client = format!(
        "[client.robot]\njwks_file = {:?}\nalgorithms = [\"EdDSA\"]\n[policy]",
        place.path("jwks.json")
    );
    let bad = place.bad(&place.config(("[policy]", &client))).await;
    let [(Subject::Issuers, said)] = &bad[..] else { panic!("{bad:?}") };
    assert!(said.starts_with("wrong: [client.robot] accepts nothing"), "{said}");

    // A key that names what it cannot be for is of no use, alone or beside others.
    let good = IssuerKey::new().jwks()["keys"][0].clone();
    let mut other = good.clone();
    (other["alg"], other["kid"]) = ("RS256".into(), "other".into());
    place.write("jwks.json", &serde_json::json!({"keys": [good, other]}).to_string());
    let bad = place.bad(&place.config(("", ""))).await;
    let [(Subject::Issuers, said)] = &bad[..] else { panic!("{bad:?}") };
    assert!(
        said.starts_with("warning: [trusted_issuer.ci] has a key") && said.contains("RS256"),
        "{said}"
    );
    place.write("jwks.json", &serde_json::json!({"keys": [other]}).to_string());
    let bad = place.bad(&place.config(("", ""))).await;
    let [(Subject::Issuers, said)] = &bad[..] else { panic!("{bad:?}") };
    assert!(said.starts_with("wrong: ") && said.contains("are for none"), "{said}");
}

#[tokio::test]
async fn findings_about_policies_are_warnings_and_errors_are_not() {
    let place = Place::new();
    let config = place.config(("", ""));
    let never = "@id(\"never\") permit (principal, action == Action::\"issue\", resource == Role::\"none\");";
    place.write("policy.cedar", &format!("{POLICY}{never}"));
    let bad = place.bad(&config).await;
    assert!(bad[0].1.starts_with("wrong: errors in the policies: "), "{bad:?}");
    let unanchored = "principal.subject like \"app*\" && principal.issuer ==";
    place.write("policy.cedar", &POLICY.replace("principal.issuer ==", unanchored));
    let bad = place.bad(&config).await;
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert!(bad[0].1.starts_with("warning: findings about the policies: "), "{bad:?}");
}

/// A volume that is mounted as it comes is for everybody, as `/tmp` is.
#[cfg(unix)]
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a directory that somebody else has made")]
async fn a_place_where_no_database_is_made_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let shared = place.path("shared");
    files::private_dir(&shared).unwrap();
    let mode = |mode| {
        std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o1777);
    let mut config = place.config(("", ""));
    config.store.path = Some(shared.join("broker.db"));
    let looks = check(&config, &place.host(), false).await;
    let database = looks.into_iter().find(|look| look.subject == Subject::Database).unwrap();
    let Verdict::Wrong(told) = database.verdict else { panic!("{:?}", database.verdict) };
    let refused = Broker::open(&config, &place.host()).await.err().unwrap();
    for error in [told, refused] {
        assert!(error.to_string().contains("shared is for everybody"), "{error}");
        assert!(error.hints().iter().any(|hint| hint.contains("mode 700")), "{:?}", error.hints());
    }
    assert_eq!(files::list(&shared).unwrap(), [] as [PathBuf; 0]);
    mode(0o700);
    assert_eq!(place.bad(&config).await, []);
    // One that is made there is the broker's own.
    mode(0o1777);
    config.store.path = Some(shared.join("own/broker.db"));
    assert_eq!(place.bad(&config).await, []);
    Broker::open(&config, &place.host()).await.unwrap().close().await;
}

#[tokio::test]
async fn a_certificate_for_another_host_than_that_of_the_issuer_is_told() {
    let place = Place::new();
    let tls = "listen = \"127.0.0.1:0\"\n[tls]\ncertificate = \"tls.pem\"\nkey = \"tls.key\"";
    let mut config = place.config(("listen = \"127.0.0.1:0\"", tls));
    let certify = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        place.write("tls.pem", &made.cert.pem());
        place.write("tls.key", &made.signing_key.serialize_pem());
    };
    config.tls = Some(Tls { certificate: place.path("tls.pem"), key: place.path("tls.key") });
    for names in [&["broker.example.com"][..], &["other.example", "*.example.com"]] {
        certify(names);
        assert_eq!(place.bad(&config).await, []);
    }
    certify(&["wrong.example.com", "192.0.2.1"]);
    let bad = place.bad(&config).await;
    let [(Subject::Certificate, said)] = &bad[..] else { panic!("{bad:?}") };
    assert!(said.starts_with("warning: ") && said.contains("is not for broker.example.com"));
    assert!(said.ends_with("it is for wrong.example.com, 192.0.2.1"), "{said}");
}
