//! Transactions that conflict with another's, wherever they do: as engines are that lock
//! nothing, and answer with a serialization failure (40001) in place of waiting.
//!
//! A database that does so is made of PostgreSQL: triggers count what is written, and what is
//! committed, by a sequence, which no rollback takes back; the one with the number that a test
//! names fails. So each place of a transaction fails once, and what is begun anew goes well.

use time::OffsetDateTime;
use time::macros::datetime;

use super::peer::Database;
use crate::broker::audit::Record;
use crate::broker::keys::{KeyState, Purpose, StoredKey};
use crate::broker::store::sql::SqlStore;
use crate::broker::store::sql::tests::record;
use crate::broker::store::{
    Consumed, Cutoff, Effect, IssuerKeySet, IssuerKeyStore, KeyStore as _, Ledger, LogStore as _,
    Once, OnceStore as _, OpaqueToken, OutboxStore, Store, TokenStore as _, Unit, Whose,
};

const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

/// Nothing that a broker does in one transaction has so many places.
const MOST: u64 = 60;

const CHAOS: &str = r"
create sequence chaos_places;
create table chaos_at (place bigint not null);
insert into chaos_at values (0);
create function chaos() returns trigger as $$
begin
    if nextval('chaos_places') = (select place from chaos_at) then
        raise exception 'another was quicker' using errcode = 'serialization_failure';
    end if;
    return null;
end;
$$ language plpgsql;
do $$
declare
    name text;
begin
    for name in select tablename from pg_tables
        where schemaname = current_schema() and tablename not in ('chaos_at', '_sqlx_migrations')
    loop
        execute format('create trigger chaos_statement before insert or update or delete on %I
            for each statement execute function chaos()', name);
        execute format('create constraint trigger chaos_commit after insert or update or delete
            on %I deferrable initially deferred for each row execute function chaos()', name);
    end loop;
end;
$$;
";

/// A database that fails where it is told to, and one process at it.
struct Chaos {
    database: Database,
    store: SqlStore,
}

impl Chaos {
    async fn new() -> Self {
        let database = Database::new().await;
        let store = database.open().await;
        database.execute(CHAOS).await.unwrap();
        Self { database, store }
    }

    /// Does this again and again, each time with a failure at the next place, until there is
    /// no further place. It has to go well each time. Returns how many places there were.
    async fn everywhere(&self, what: &str, work: impl AsyncFn(&SqlStore, u64)) -> u64 {
        for place in 1..=MOST {
            let arm =
                format!("alter sequence chaos_places restart; update chaos_at set place = {place}");
            self.database.execute(&arm).await.unwrap();
            work(&self.store, place).await;
            // Behind the last place nothing has failed.
            let failed = format!(
                "do $$ begin if (select last_value from chaos_places) < {place} then raise 'none'; end if; end $$"
            );
            if self.database.execute(&failed).await.is_err() {
                return place - 1;
            }
        }
        panic!("{what}: more than {MOST} places")
    }
}

fn consumed(kind: Once, id: String) -> Effect {
    Effect::Consume(Consumed { kind, id, at: NOON, keep_until: NOON })
}

async fn commit(store: &SqlStore, records: Vec<Record>, effects: Vec<Effect>) {
    let outcomes = store.commit(&[Unit { records, effects }]).await.unwrap();
    assert!(outcomes[0].is_committed(), "{outcomes:?}");
}

#[tokio::test]
async fn each_kind_of_transaction_is_begun_anew_wherever_it_conflicts_and_is_done_once() {
    let chaos = Chaos::new().await;
    let key = |kid: String, state| StoredKey {
        kid,
        purpose: Purpose::AccessToken,
        algorithm: "ES256".into(),
        state,
        sealed: vec![1],
        sealed_by: "k".into(),
        created_at: NOON,
        changed_at: NOON,
    };
    let mut records = 0;
    let places = chaos
        .everywhere("an issuance", async |store, place| {
            let hash = format!("opaque-{place}");
            let token = OpaqueToken {
                hash: hash.clone(),
                claims: "{}".into(),
                seal: vec![1],
                keep_until: NOON,
            };
            let effects = vec![
                consumed(Once::Assertion, format!("assertion-{place}")),
                consumed(Once::DpopProof, format!("proof-{place}")),
                Effect::AddOpaque(token.clone()),
            ];
            commit(store, vec![record("issued")], effects).await;
            assert_eq!(store.opaque(&hash).await.unwrap(), Some(token));
        })
        .await;
    assert!(places >= 6, "{places}: statements, and what is looked at when it commits");
    records += places + 1;
    assert_eq!(chaos.store.size().await.unwrap(), records, "each is there once");

    let places = chaos
        .everywhere("a revocation", async |store, place| {
            let id = format!("token-{place}");
            let effects = vec![consumed(Once::RevokedToken, id.clone())];
            commit(store, vec![record("revoked")], effects).await;
            assert!(store.any_consumed(Once::RevokedToken, &[id]).await.unwrap());
        })
        .await;
    records += places + 1;
    let places = chaos
        .everywhere("a revocation of many", async |store, place| {
            let whose = Whose::Role(format!("role-{place}"));
            let cutoff = Cutoff { whose, before: NOON, at: NOON, keep_until: NOON };
            commit(store, vec![record("cut off")], vec![Effect::CutOff(cutoff)]).await;
        })
        .await;
    records += places + 1;
    let places = chaos
        .everywhere("a change of keys", async |store, place| {
            let (old, new) = (format!("old-{place}"), format!("new-{place}"));
            let before = key(old, KeyState::Retired);
            commit(store, Vec::new(), vec![Effect::AddKey(before.clone())]).await;
            let after = StoredKey { state: KeyState::Revoked, ..before.clone() };
            let effects = vec![
                Effect::ChangeKey { before, after: after.clone() },
                Effect::AddKey(key(new, KeyState::Retired)),
            ];
            commit(store, vec![record("changed")], effects).await;
            assert!(store.keys().await.unwrap().contains(&after));
        })
        .await;
    records += places + 1;
    chaos
        .everywhere("a checkpoint", async |store, place| {
            let checkpoint = Effect::AddCheckpoint { size: place, note: "a note".into(), at: NOON };
            commit(store, Vec::new(), vec![checkpoint]).await;
        })
        .await;
    assert_eq!(chaos.store.size().await.unwrap(), records);

    // The numbers have no gaps, and each record is in the tree once.
    let ends = chaos.store.ends().await.unwrap();
    assert_eq!((ends.promised, ends.last_record, ends.in_tree), (records, records, records));
    assert_eq!(ends.without_number, 0);

    let places = chaos
        .everywhere("an erasure", async |store, place| {
            commit(store, Vec::new(), vec![Effect::Erase(vec![place])]).await;
        })
        .await;
    assert!(places >= 2, "{places}");
}

#[tokio::test]
async fn so_is_whatever_else_is_written() {
    let chaos = Chaos::new().await;
    chaos
        .everywhere("keys of an issuer", async |store, place| {
            let keys = IssuerKeySet {
                issuer: format!("https://{place}.example"),
                address: "https://i.example/jwks".into(),
                good_at: NOON,
                document: vec![1],
                seal: vec![2],
            };
            store.keep_issuer_keys(&keys).await.unwrap();
            assert_eq!(store.issuer_keys(&keys.issuer).await.unwrap(), Some(keys.clone()));
            store.forget_issuer_keys(&keys.issuer).await.unwrap();
            assert_eq!(store.issuer_keys(&keys.issuer).await.unwrap(), None);
        })
        .await;
    chaos
        .everywhere("the turn of a sink", async |store, place| {
            let sink = format!("sink-{place}");
            store.add_sink(&sink, 0).await.unwrap();
            let turn = store.turn(&sink).await.unwrap().unwrap();
            assert!(store.change_turn(&sink, &turn, 0, Some("me")).await.unwrap());
            assert_eq!(store.turn(&sink).await.unwrap().unwrap().holder.as_deref(), Some("me"));
        })
        .await;
    chaos
        .everywhere("what is forgotten", async |store, place| {
            let (id, hash) = (format!("old-{place}"), format!("opaque-{place}"));
            let token = OpaqueToken { hash, claims: "{}".into(), seal: vec![1], keep_until: NOON };
            let whose = Whose::Role(format!("role-{place}"));
            let cutoff = Cutoff { whose, before: NOON, at: NOON, keep_until: NOON };
            let effects = vec![
                consumed(Once::DpopProof, id.clone()),
                Effect::AddOpaque(token.clone()),
                Effect::CutOff(cutoff),
            ];
            commit(store, Vec::new(), effects).await;
            let later = NOON + time::Duration::HOUR;
            let forgotten = [
                store.forget_consumed(Once::DpopProof, later, 9).await.unwrap(),
                store.forget_opaque(later, 9).await.unwrap(),
                store.forget_cutoffs(later, 9).await.unwrap(),
            ];
            assert_eq!(forgotten, [1, 1, 1], "{place}");
            assert!(!store.any_consumed(Once::DpopProof, &[id]).await.unwrap());
        })
        .await;
    chaos
        .everywhere("whether it can be written", async |store, _| store.probe().await.unwrap())
        .await;
}
