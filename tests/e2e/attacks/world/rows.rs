//! What there is after an attack: in the store, and where no secret must be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use aho_corasick::AhoCorasick;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Row as _};

use super::World;

/// What the broker does by itself, now and then, and what it tells people when it gets to it.
const ITS_OWN: [&str; 5] =
    ["audit_checkpoint", "audit_tile", "probe", "notify_message", "notify_delivery"];

/// What the store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::attacks) struct Rows {
    pub(in crate::attacks) counts: BTreeMap<String, i64>,
    pub(in crate::attacks) issued: i64,
}

impl World {
    /// How many rows each table has, and how many tokens are on record.
    pub(in crate::attacks) fn rows(&self) -> Rows {
        let path = self.broker.home.path("broker.db");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let options = SqliteConnectOptions::new().filename(path).read_only(true);
            let mut store = SqliteConnection::connect_with(&options).await.unwrap();
            let names = "select name from sqlite_master where type = 'table'";
            let mut counts = BTreeMap::new();
            for row in sqlx::query(names).fetch_all(&mut store).await.unwrap() {
                let name: String = row.get(0);
                if ITS_OWN.contains(&name.as_str()) {
                    continue;
                }
                let count = sqlx::AssertSqlSafe(format!("select count(*) from \"{name}\""));
                let count: i64 = sqlx::query(count).fetch_one(&mut store).await.unwrap().get(0);
                counts.insert(name, count);
            }
            // Keys of an issuer on its list it fetches by itself, whenever they are due. Of
            // any other it must not have one.
            let configured = std::fs::read_to_string(self.broker.home.path("broker.toml")).unwrap();
            let issuers = "select issuer from issuer_key_set";
            let issuers = sqlx::query(issuers).fetch_all(&mut store).await.unwrap().into_iter();
            let unknown = issuers.filter(|row| {
                let issuer: String = row.get(0);
                !configured.contains(&format!("issuer = \"{issuer}\"\n"))
            });
            counts.insert("issuer_key_set".into(), unknown.count() as i64);
            // What the broker tells of itself, such as how often it has denied something.
            let own = "select count(*) from audit_record where request_id like '00000000-%'";
            let own: i64 = sqlx::query(own).fetch_one(&mut store).await.unwrap().get(0);
            counts.entry("audit_record".into()).and_modify(|all| *all -= own);
            let issued = "select count(*) from audit_record where decision = 'issued'";
            let issued = sqlx::query(issued).fetch_one(&mut store).await.unwrap().get(0);
            Rows { counts, issued }
        })
    }

    /// Which of the secrets are in the log of the broker, or in its files.
    pub(in crate::attacks) fn leaks(&self) -> Vec<(String, PathBuf)> {
        self.places_of(&self.secrets.borrow())
    }

    /// Where each of these is, of all places in which no secret must be.
    pub(in crate::attacks) fn places_of(&self, secrets: &[String]) -> Vec<(String, PathBuf)> {
        let mut places = vec![("the log".into(), self.broker.said().into_bytes())];
        places.push(("the other log".into(), self.twin.borrow().said().into_bytes()));
        for name in ["broker.db", "broker.db-wal"] {
            let path = self.broker.home.path(name);
            places.push((path.clone(), std::fs::read(path).unwrap_or_default()));
        }
        // All of them at once: there are thousands, and the logs are long.
        let search = AhoCorasick::new(secrets).unwrap();
        let leaks = places.iter().flat_map(|(place, bytes)| {
            let found = search.find_overlapping_iter(bytes).map(|found| found.pattern());
            let found = BTreeSet::from_iter(found);
            found.into_iter().map(|which| (secrets[which].clone(), place.clone()))
        });
        leaks.collect()
    }
}
