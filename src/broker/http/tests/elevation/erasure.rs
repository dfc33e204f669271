//! What is left of somebody who was erased.

use super::*;
use crate::broker::audit::erase::{Erasure, erase};
use crate::broker::audit::verify::{Kind, Proofs, verify};
use crate::broker::enroll::EnrollmentSeal;
use crate::broker::forget::{Forgotten, forget};
use crate::broker::keys::RootKey;
use crate::broker::store::sql::SqlStore;
use crate::broker::store::{
    Effect, Enrollment, EnrollmentState, EnrollmentStore as _, Ledger as _, Store as _, Unit,
    sqlite,
};
use crate::broker::testbed::failing::{BEFORE, Failing, WELL};
use crate::credential::Principal;
use crate::oidc::Issuer;

const KEK: [u8; 32] = [9; 32];

/// What they are called in the directory, which those are told by who asked them.
const PERSON: &str = "lena";

/// What shall be nowhere, be it said or named.
const SECRETS: [&str; 5] =
    ["lena-to-be-forgotten", "INC-7 a private matter", "TICKET-LENA", "lena-note", "198.51.100.77"];

struct Office {
    place: Place,
    file: tempfile::TempDir,
    /// What the broker has for its store, and what is behind it.
    store: Arc<Failing>,
    behind: Arc<SqlStore>,
}

impl Office {
    async fn new() -> Self {
        let file = tempfile::tempdir().unwrap();
        let behind = Arc::new(sqlite::open(&file.path().join("b.db")).await.unwrap());
        let store = Failing::over(behind.clone());
        let place = Place::built(
            None,
            |_| {},
            |options| {
                options.store = store.clone();
                options.root_key = RootKey::new(Secret::new(KEK));
                let channel = toml::from_str("kind = \"command\"\ncommand = [\"true\"]").unwrap();
                options.config.notify.insert("own".into(), channel);
                options.policies += &format!(
                    r#"@id("lena-asks") permit (principal == User::"{CORP}#{}", action == Action::"elevate", resource);"#,
                    SECRETS[0]
                );
            },
        )
        .await;
        let office = Self { place, file, store, behind };
        let text = people(&[])
            + &format!(
                "[person.{}]\nids = [{{ issuer = \"{CORP}\", subject = \"{}\" }}]\ngroups = [\"staff\", \"leads\"]\n",
                PERSON, SECRETS[0]
            );
        let file = office.place.dir.path().join("people.toml");
        crate::host::files::write_private(&file, text.as_bytes()).unwrap();
        office.place.bed.broker.reload_policies().unwrap();
        office
    }

    async fn erase(&self) -> crate::error::Result<Forgotten> {
        let person = Principal { issuer: CORP.into(), subject: SECRETS[0].into() };
        let issuer = Issuer::parse("https://broker.example.com").unwrap();
        let what = Erasure { person: &person, by: "ops", reason: "request 17", issuer: &issuer };
        let (store, root_key) = (self.place.bed.store.as_ref(), RootKey::new(Secret::new(KEK)));
        let done = forget(store, &root_key, &what, now()).await?;
        erase(store, &what, now()).await?;
        Ok(done)
    }

    /// A request of hers that came to nothing.
    async fn withdrawn(&self) {
        let own = self.place.requested(SECRETS[0], &[]).await;
        self.place.done(SECRETS[0], "withdraw", &own, &[]).await;
    }

    /// A key of dave's that she approved.
    async fn approved(&self) -> Enrollment {
        let key = self.sealed(Enrollment {
            id: uuid::Uuid::new_v4(),
            fingerprint: "SHA256:1".into(),
            public_key: "ssh-ed25519 1".into(),
            person: "dave".into(),
            principal: Principal { issuer: CORP.into(), subject: "dave".into() },
            label: "laptop".into(),
            state: EnrollmentState::Approved,
            enrolled_at: now(),
            approved: Some((PERSON.into(), now())),
            seen_at: now(),
            seal: Vec::new(),
        });
        let unit = Unit::default().with(Effect::Enroll(key.clone()));
        assert!(self.behind.commit(&[unit]).await.unwrap()[0].is_committed());
        // As the store has its times.
        self.behind.enrollment(key.id).await.unwrap().unwrap()
    }

    fn sealed(&self, key: Enrollment) -> Enrollment {
        EnrollmentSeal::new(&RootKey::new(Secret::new(KEK))).over(key)
    }

    /// By whom a key was approved.
    async fn approver(&self, key: &Enrollment) -> String {
        self.behind.enrollment(key.id).await.unwrap().unwrap().approved.unwrap().0
    }
}

#[tokio::test]
async fn of_ended_elevations_nothing_of_a_person_is_left_in_the_database() {
    let office = Office::new().await;
    let place = &office.place;
    let lena = SECRETS[0];
    // One of hers, one that she approved and ended, and one in which she has no part.
    let own = place.requested(lena, &[("reason", SECRETS[1]), ("ticket", SECRETS[2])]).await;
    place.done("bob", "approve", &own, &[]).await;
    place.done("carol", "approve", &own, &[]).await;
    place.done(lena, "activate", &own, &[]).await;
    place.bed.broker.take_uses_for_tests(&own, SECRETS[4]).await;
    let other = place.requested("alice", &[]).await;
    let hash = other["hash"].as_str().unwrap();
    place.done(lena, "approve", &other, &[("hash", hash), ("reason", SECRETS[3])]).await;
    place.done("bob", "approve", &other, &[]).await;
    place.done("alice", "activate", &other, &[]).await;
    let apart = place.requested("dave", &[]).await;
    place.done("dave", "withdraw", &apart, &[]).await;
    // As long as something may come of it nothing is erased, and it is said of what.
    let refused = office.erase().await.unwrap_err();
    let said = format!("{refused} {:?}", refused.causes());
    for of in [&own, &other] {
        assert!(said.contains(of["id"].as_str().unwrap()), "{said}");
    }
    assert_eq!(place.shown("bob", &own).await["reason"], SECRETS[1]);
    place.done(lena, "relinquish", &own, &[]).await;
    place.done("erin", "review", &own, &[("outcome", "reviewed"), ("note", "in order")]).await;
    place.done("alice", "relinquish", &other, &[]).await;
    assert!(office.erase().await.is_err(), "it is to be reviewed");
    place.done("erin", "review", &other, &[("outcome", "reviewed"), ("note", "fine")]).await;
    assert_eq!(office.erase().await.unwrap(), Forgotten { elevations: 2, keys: 0 });
    assert_eq!(office.erase().await.unwrap(), Forgotten::default());
    // What is left can be read, and tells the story by its id.
    let left = place.shown("bob", &own).await;
    assert_eq!(
        (&left["reason"], &left["requester"]["subject"]),
        (&json!("(erased)"), &json!("(erased)"))
    );
    assert_eq!((&left["access"], &left["role"]), (&json!("relinquished"), &json!("admin")));
    assert_eq!(left["approvals"][0]["by"]["person"], "bob");
    let others = place.shown("bob", &other).await;
    assert_eq!(others["approvals"][0]["by"]["subject"], "(erased)");
    assert_eq!(others["requester"]["person"], "alice");
    assert_eq!(place.shown("bob", &apart).await["requester"]["person"], "dave");
    let story = place.records_of(&own).await;
    assert_eq!(story.last().unwrap().action, "elevation.erase");
    let seal = RootKey::new(Secret::new(KEK)).seal_of_log();
    let proofs = Proofs { keys: &[], revoked: &[], seal: Some(&seal), elsewhere: &[], now: now() };
    let report = verify(place.bed.store.as_ref(), &proofs).await.unwrap();
    // (By whose key checkpoints are signed is not looked at here.)
    let found: Vec<_> =
        report.findings.iter().filter(|found| found.kind != Kind::Checkpoint).collect();
    assert!(found.is_empty(), "{found:?}");
    // Nor is it in what the database has thrown away.
    office.behind.close().await;
    let files = crate::host::files::list(office.file.path()).unwrap();
    assert!(!files.is_empty());
    for path in files {
        let Some(bytes) = crate::host::files::read(&path, 64 << 20).unwrap() else { continue };
        for secret in SECRETS {
            let there = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!there, "{secret} is in {}", path.display());
        }
    }
}

#[tokio::test]
async fn an_erasure_that_ended_amid_its_work_is_done_by_the_next_one() {
    let office = Office::new().await;
    office.withdrawn().await;
    let key = office.approved().await;
    let store = office.store.clone();
    // What is changed first is changed, and then the disk is full.
    office.store.before_change(async move { store.writes(BEFORE) });
    assert!(office.erase().await.is_err());
    office.store.writes(WELL);
    office.erase().await.unwrap();
    assert_eq!(office.approver(&key).await, "(erased)");
    assert_eq!(office.erase().await.unwrap(), Forgotten::default());
}

#[tokio::test]
async fn whoever_logs_in_meanwhile_does_not_end_an_erasure() {
    let office = Office::new().await;
    office.withdrawn().await;
    let key = office.approved().await;
    let (before, behind) = (key.clone(), office.behind.clone());
    let seen_at = key.seen_at + time::Duration::hours(2);
    let after = Box::new(office.sealed(Enrollment { seen_at, ..key.clone() }));
    office.store.before_change(async move {
        let unit = Unit::default().with(Effect::ChangeEnrollment { before, after });
        assert!(behind.commit(&[unit]).await.unwrap()[0].is_committed());
    });
    assert_eq!(office.erase().await.unwrap(), Forgotten { elevations: 1, keys: 1 });
    assert_eq!(office.approver(&key).await, "(erased)");
    assert_eq!(office.behind.enrollment(key.id).await.unwrap().unwrap().seen_at, seen_at);
}
