use time::macros::datetime;

use super::*;
use crate::broker::audit::leaf::PLAIN;
use crate::broker::keys::{CheckpointKeys, RootKey};
use crate::broker::store::sql::tests::{Ground, append, record};
use crate::broker::store::{
    Consumed, Cutoff, Effect, Issuance, KeyStore as _, Ledger as _, LogStore as _, Once,
    OnceStore as _, OpaqueToken, Revocable, Store as _, TokenStore as _, Unit, Whose,
};
use crate::host::clock::SystemClock;
use crate::secret::Secret;

/// The first version whose tables have what a broker of today writes, as far as it goes: an
/// older one is made by its own statements, and this and later ones by taking away from today's.
const TREE: usize = 4;

/// The first version that seals the end of the log.
const SEALED: usize = 5;

/// What takes away what each version adds, the last one first.
const UNDONE: [(usize, &str); 19] = [
    (23, "create index consumed_keep_until on consumed (keep_until);"),
    (22, "drop index consumed_due;"),
    (21, "alter table audit_record drop column claims;"),
    (20, "drop table root_key;"),
    (
        19,
        "drop index elevation_asked; drop index elevation_asked_so;
         drop index elevation_asked_waiting; drop index elevation_asked_had;
         drop index elevation_asked_unreviewed; drop index elevation_owned_waiting;
         drop index elevation_owned_had; drop index elevation_owned_unreviewed;
         alter table elevation drop column asker;",
    ),
    (
        18,
        "drop table elevation_use; drop table elevation_use_event;
         drop index elevation_waiting; drop index elevation_had; drop index elevation_had_acted;
         drop index elevation_unreviewed; drop index elevation_owned;
         drop index elevation_owned_so;
         alter table elevation drop column question; alter table elevation drop column acted;
         create index elevation_owner on elevation (owner, role, asked_at);
         create index elevation_access on elevation (access, asked_at);
         create index elevation_review on elevation (review, asked_at);",
    ),
    (17, "alter table elevation drop column drill;"),
    (16, "drop table enrolled_key;"),
    (15, "drop table notify_delivery; drop table notify_message;"),
    (
        14,
        "drop table elevation; drop index audit_record_elevation;
         alter table audit_record drop column elevation;",
    ),
    (13, "drop table issuer_key_set;"),
    (12, "drop index audit_record_end;"),
    (11, "alter table audit_record drop column trace_id;"),
    (10, "drop index audit_record_subject; drop index audit_record_request;"),
    (9, "alter table audit_record drop column erased;"),
    (8, "drop table audit_sink;"),
    (7, "drop table revocation_cutoff; drop table opaque_token; drop index audit_record_at;"),
    (6, "alter table audit_record drop column actor;"),
    (5, "alter table audit_head drop column frontier; alter table audit_head drop column seal;"),
];

/// The columns of a record that each version has written besides.
const WRITTEN: [(usize, &str, &str); 7] = [
    (3, "parent", "null"),
    (3, "count", "1"),
    (4, "leaf_version", "1"),
    (6, "actor", "null"),
    (11, "trace_id", "null"),
    (14, "elevation", "null"),
    (21, "claims", "null"),
];

fn root_key() -> RootKey {
    RootKey::new(Secret::new([7; 32]))
}

/// What brokers of a version wrote, as these did: nothing of it says more than they knew.
fn statements(version: usize, number: usize, ground: &Ground) -> Vec<String> {
    let bytes = if ground.is_postgres() { "'\\x00'::bytea" } else { "x'00'" };
    let (mut columns, mut values) = (String::new(), String::new());
    for (_, column, value) in WRITTEN.iter().filter(|(since, ..)| *since <= version) {
        columns += &format!(", {column}");
        values += &format!(", {value}");
    }
    let mut all = vec![
        format!(
            "insert into signing_key (kid, purpose, algorithm, state, sealed, kek_id, created_at,
                 changed_at)
             values ('kid-{number}', 'access-token', 'ES256', 'retired', {bytes}, 'k', 1, 2)"
        ),
        format!(
            "insert into audit_record (sequence, at, request_id, action, decision, reason, issuer,
                 subject, client, source, role, audience, scope, ttl, jti, policy_id,
                 policy_hash{columns})
             values ({number}, 1767268800123456, '00000000-0000-0000-0000-000000000000', 'issue',
                 'issued', 'old', 'https://i.example', 'alice', 'cli', '127.0.0.1', 'deploy',
                 'https://api.example', 'a b', 900, 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'p',
                 '00'{values})"
        ),
        format!("update audit_head set last_sequence = {number} where id = 1"),
        format!("update probe set count = {number}, padding = 'x' where id = 1"),
    ];
    let mut with = |since: usize, statement: String| {
        if version >= since {
            all.push(statement);
        }
    };
    if version == 2 {
        with(2, format!("insert into revoked_token values ('revoked-{number}', 1, 2)"));
    }
    with(
        3,
        format!(
            "insert into consumed (kind, id, consumed_at, keep_until)
             values ('revoked-token', 'revoked-{number}', 1, 2)"
        ),
    );
    with(
        4,
        format!("insert into audit_tile (level, number, hashes) values (9, {number}, {bytes})"),
    );
    with(4, format!("insert into audit_checkpoint (size, at, note) values ({number}, 1, 'n')"));
    with(
        7,
        format!(
            "insert into revocation_cutoff (kind, id, before, made_at, keep_until)
             values ('role', 'cut-{number}', 1, 2, 3)"
        ),
    );
    with(
        7,
        format!(
            "insert into opaque_token (hash, claims, seal, keep_until)
             values ('hash-{number}', 'c', {bytes}, 1)"
        ),
    );
    with(8, format!("insert into audit_sink (name, delivered) values ('sink-{number}', 0)"));
    with(
        13,
        format!(
            "insert into issuer_key_set (issuer, address, good_at, document, seal)
             values ('https://i-{number}.example', 'a', 1, {bytes}, {bytes})"
        ),
    );
    with(
        15,
        format!(
            "insert into notify_message (key, body, at, keep_until)
             values ('message-{number}', '{{}}', 1, 2)"
        ),
    );
    with(
        15,
        format!(
            "insert into notify_delivery (message, channel, addressee, state, hurry, at, due_at)
             values ('message-{number}', 'c', '', 'waiting', 2, 1, 0)"
        ),
    );
    with(
        16,
        format!(
            "insert into enrolled_key (fingerprint, id, public_key, person, issuer, subject, label,
                 state, enrolled_at, approver, approved_at, seen_at, counted, seal)
             values ('f-{number}', 'id-{number}', 'k', 'p', 'i', 's', 'l', 'pending', 1, '', 0, 1, 0,
                 {bytes})"
        ),
    );
    all
}

/// The version of today.
fn newest() -> usize {
    migrations("").iter().map(|one| usize::try_from(one.version).unwrap()).max().unwrap()
}

/// Makes the tables of an early version, as a broker of that version did, with a record, a key
/// and what was revoked.
async fn early(ground: &Ground, version: usize) {
    let mut first = migrations("");
    first.truncate(version);
    let mut migrator = Migrator::with_migrations(first);
    migrator.set_locking(false);
    migrator.run(&ground.bare().await.engine.pool).await.unwrap();
    ground.tamper(&statements(version, 1, ground).join(";\n")).await;
}

/// Has of everything what a version knows, and today's tables without what it does not.
async fn late(ground: &Ground, version: usize) {
    let store = ground.open().await;
    CheckpointKeys::open(&store, &root_key(), &SystemClock).await.unwrap();
    let records: Vec<_> = (0..300).map(|n| record(&n.to_string())).collect();
    append(&store, &records).await.unwrap();
    let at = datetime!(2026-01-01 12:00 UTC);
    let id = "revoked-1".into();
    let mut effects = vec![
        Effect::Consume(Consumed { kind: Once::RevokedToken, id, at, keep_until: at }),
        Effect::AddCheckpoint { size: 300, note: "a note".into(), at },
    ];
    if version >= 7 {
        let whose = Whose::Role("cut".into());
        effects.push(Effect::CutOff(Cutoff { whose, before: at, at, keep_until: at }));
        effects.push(Effect::AddOpaque(opaque()));
    }
    store.commit(&[Unit { records: Vec::new(), effects }]).await.unwrap();
    store.close().await;
    for (_, undo) in UNDONE.iter().filter(|(since, _)| *since > version) {
        ground.tamper(undo).await;
    }
    ground.tamper(&format!("delete from _sqlx_migrations where version > {version}")).await;
}

fn opaque() -> OpaqueToken {
    let (claims, keep_until) = ("{}".into(), datetime!(2026-01-01 12:00 UTC));
    OpaqueToken { hash: "h".into(), claims, seal: vec![0, 255], keep_until }
}

/// What there was is there, and whoever has the key goes on.
async fn has_all(store: &SqlStore, version: usize) {
    assert!(store.any_consumed(Once::RevokedToken, &["revoked-1".into()]).await.unwrap());
    assert_eq!(store.keys().await.unwrap().len(), 1);
    let records = if version < TREE { 1 } else { 300 };
    let kept = store.records(0, 999).await.unwrap();
    assert_eq!(kept.len(), records, "{version}");
    if version < TREE {
        assert_eq!(kept[0], (1, record("old")));
        assert_eq!(store.leaves(0, 1).await.unwrap()[0].version, PLAIN);
    } else {
        assert_eq!(kept[299], (300, record("299")));
        assert_eq!(store.latest_note().await.unwrap().unwrap().note, "a note");
    }
    let names = [Whose::Role("cut".into())].into();
    let cut = Issuance { at: datetime!(2025-01-01 12:00 UTC), names, erased: false };
    assert_eq!(store.any_revoked(Revocable::together(&[cut])).await.unwrap(), version >= 7);
    assert_eq!(store.opaque("h").await.unwrap(), (version >= 7).then(opaque));
    let seal = root_key().seal_of_log();
    // Where a log ends that was never sealed nobody can tell: it can be read, and a broker, which has
    // the key, does not go on with it.
    let by = (version >= SEALED).then_some(&seal);
    assert_eq!(store.check(by).await.unwrap().records, records as u64);
    let sealed = store.seal_with(root_key().seal_of_log()).await;
    assert_eq!(sealed.is_ok(), version >= SEALED, "{version}: {sealed:?}");
    let next = records as u64 + 1;
    assert_eq!(append(store, &[record("new")]).await.unwrap(), next, "{version}");
    assert_eq!(store.check(by).await.unwrap().records, next);
}

#[tokio::test]
async fn a_database_of_each_earlier_version_is_brought_up_to_date_with_all_that_it_has() {
    let newest = newest();
    assert_eq!(UNDONE[0].0, newest, "what a version adds is taken away here for those before it");
    for version in 1..newest {
        for ground in Ground::each().await {
            if version < TREE {
                early(&ground, version).await;
                if version == 1 {
                    // Nothing could be revoked.
                    let revoked =
                        "insert into consumed values ('revoked-token', 'revoked-1', 1, 2)";
                    ground.open().await.close().await;
                    ground.tamper(revoked).await;
                }
            } else {
                late(&ground, version).await;
            }
            // However many come at once.
            let (one, other) = tokio::join!(ground.open(), ground.open());
            has_all(&one, version).await;
            assert_eq!(one.keys().await.unwrap(), other.keys().await.unwrap());
        }
    }
}

#[tokio::test]
async fn of_those_who_are_the_first_at_once_each_comes_up() {
    for ground in Ground::each().await {
        let (a, b, c) = tokio::join!(ground.open(), ground.open(), ground.open());
        for (store, first) in [a, b, c].iter().zip(1..) {
            assert_eq!(append(store, &[record("x")]).await.unwrap(), first);
        }
    }
}

/// As those do that are still there while others are started of the next version.
#[tokio::test]
async fn the_statements_of_earlier_versions_are_good_with_the_tables_of_today() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        append(&store, &[record("one")]).await.unwrap();
        for version in 3..=newest() {
            // Of no use to anybody but here: a broker of that version would keep the tree, too.
            let number = 1000 + version;
            ground.tamper(&statements(version, number, &ground).join(";\n")).await;
            let read = store.records(number as u64 - 1, 1).await.unwrap();
            assert_eq!(read, [(number as u64, record("old"))]);
        }
    }
}

/// Whoever runs the database can build an index while brokers go on.
#[tokio::test]
async fn an_index_that_is_there_already_is_not_built_again() {
    for ground in Ground::each().await {
        late(&ground, 9).await;
        let concurrently = if ground.is_postgres() { "concurrently" } else { "" };
        for index in [
            "audit_record_subject on audit_record (subject, sequence)",
            "audit_record_request on audit_record (request_id)",
        ] {
            ground.execute(&format!("create index {concurrently} {index}")).await;
        }
        has_all(&ground.open().await, 9).await;
    }
}
