//! Makes the database of a broker large: audit records as of tokens that were issued, a
//! revocation for every tenth, and some of all that somebody had been issued. Part of `benches/broker grow`, which measures the broker
//! before and after it.
//!
//!     cargo bench --bench grow -- BROKER_TOML MILLIONS

#[cfg(feature = "broker")]
fn main() -> tmpcred::error::Result<()> {
    grow::run()
}

#[cfg(not(feature = "broker"))]
fn main() {}

#[cfg(feature = "broker")]
mod grow {
    use std::path::Path;

    use time::{Duration, OffsetDateTime};
    use tmpcred::broker::audit::{Decision, Record};
    use tmpcred::broker::config;
    use tmpcred::broker::keys::{Kek, RootKey};
    use tmpcred::broker::store::{
        self, Consumed, Cutoff, Effect, Ledger, Once, Store, Unit, Whose,
    };
    use tmpcred::credential::Principal;
    use tmpcred::error::{Error, ErrorKind, Result};
    use tmpcred::host::clock::{Clock, SystemClock};
    use tmpcred::host::{env::Env, process};
    use uuid::Uuid;

    /// How many units are committed at a time, and how many records one has.
    const GROUP: u64 = 256;

    /// Of how many people all was revoked that they had been issued.
    const CUT_OFF: u64 = 300;

    pub(crate) fn run() -> Result<()> {
        let arguments: Vec<_> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
        let [path, millions] = arguments.as_slice() else {
            return Err(Error::new(ErrorKind::Usage, "usage: grow BROKER_TOML MILLIONS"));
        };
        let records = millions.parse::<u64>().map_err(|cause| {
            Error::new(ErrorKind::Usage, format!("{millions} is no number")).because(cause)
        })? * 1_000_000;
        let config: config::Config = config::load(Path::new(path))?;
        process::runtime()?.block_on(async {
            let kek = Kek::load(&config.keys, &Env::default()).await?;
            let store = store::open(&config.store, &Env::default()).await?;
            let root_key = RootKey::open_or_make(&store, &kek, SystemClock.now()).await?;
            store.seal_with(root_key.seal_of_log()).await?;
            let now = SystemClock.now();
            for first in (0..records).step_by(GROUP as usize) {
                let units: Vec<_> =
                    (first..records.min(first + GROUP)).map(|number| unit(number, now)).collect();
                store.commit(&units).await?;
            }
            let cut_off: Vec<_> = (0..CUT_OFF).map(|number| cut_off(number, now)).collect();
            store.commit(&cut_off).await?;
            store.close().await;
            Ok(())
        })
    }

    fn person(number: u64) -> Principal {
        Principal {
            issuer: "https://login.example.com".into(),
            subject: format!("person-{}", number % 1000),
        }
    }

    fn cut_off(number: u64, now: OffsetDateTime) -> Unit {
        let who = person(number);
        let whose = Whose::Subject(format!("{}#{}", who.issuer, who.subject));
        let record = Record::of_the_broker(now, "revoke", Decision::Revoked, who);
        let keep_until = now + Duration::days(2);
        Unit::of(record).with(Effect::CutOff(Cutoff { whose, before: now, at: now, keep_until }))
    }

    /// What one of a thousand people was issued; every tenth gave it back.
    fn unit(number: u64, now: OffsetDateTime) -> Unit {
        let jti = Uuid::new_v4();
        let issued = Record {
            reason: "a policy permits it".into(),
            client: "cli".into(),
            source: "192.0.2.7".into(),
            role: "deploy".into(),
            audience: "https://api.example.com".into(),
            scope: "deploy:read deploy:write".into(),
            ttl: 900,
            jti: Some(jti),
            policy_id: Some("platform-deploys".into()),
            policy_hash: "0".repeat(64),
            ..Record::of_the_broker(now, "issue", Decision::Issued, person(number))
        };
        if number % 10 != 9 {
            return Unit::of(issued);
        }
        let id = Uuid::new_v4().to_string();
        Unit::of(Record { action: "revoke".into(), decision: Decision::Revoked, ..issued }).with(
            Effect::Consume(Consumed {
                kind: Once::RevokedToken,
                id,
                at: now,
                keep_until: now + Duration::days(2),
            }),
        )
    }
}
