//! The least that a broker could do for a token: verifies an ES256 JWT, appends a record
//! to a SQLite database that syncs fully, in groups, and signs another ES256 JWT once the
//! record is durable. No HTTP, no policy, no claims that anybody reads.
//!
//!     floor-issue DATABASE SECONDS        tokens a second, with two threads
//!     floor-issue - SECONDS               verifications a second, with one thread

use std::error::Error;
use std::hint::black_box;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    ParsedPublicKey,
};

/// How many records a thread hands over at a time, and waits for.
const GROUP: usize = 128;

/// As long as header and claims of a token are.
const SIGNED: usize = 500;

/// As many bytes as a record of a broker has.
const RECORD: usize = 400;

struct Group {
    records: Vec<Vec<u8>>,
    durable: Sender<()>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [database, seconds] = arguments.as_slice() else {
        return Err("usage: floor-issue DATABASE|- SECONDS".into());
    };
    let time = Duration::from_secs(seconds.parse()?);
    if database == "-" {
        println!("{:.0}", rate(verify(time)?, time));
        return Ok(());
    }
    let (groups, queue) = channel();
    let path = database.clone();
    let writer = thread::spawn(move || write(&path, queue).map_err(|cause| cause.to_string()));
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let groups = groups.clone();
            thread::spawn(move || issue(time, &groups).map_err(|cause| cause.to_string()))
        })
        .collect();
    drop(groups);
    let mut issued = 0;
    for worker in workers {
        issued += worker.join().map_err(|_| "a thread failed")??;
    }
    writer.join().map_err(|_| "the writer failed")??;
    println!("{:.0}", rate(issued, time));
    Ok(())
}

fn rate(number: usize, time: Duration) -> f64 {
    number as f64 / time.as_secs_f64()
}

struct Keys {
    own: EcdsaKeyPair,
    issuer: ParsedPublicKey,
    shown: Vec<u8>,
    signature: Vec<u8>,
}

impl Keys {
    fn new() -> Result<Self, Box<dyn Error>> {
        let random = SystemRandom::new();
        let issuer = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let shown = vec![b'x'; SIGNED];
        let signature = issuer.sign(&random, &shown)?.as_ref().to_vec();
        let public = issuer.public_key().as_ref();
        Ok(Self {
            own: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
            issuer: ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public)?,
            shown,
            signature,
        })
    }
}

fn verify(time: Duration) -> Result<usize, Box<dyn Error>> {
    let keys = Keys::new()?;
    let (began, mut verified) = (Instant::now(), 0);
    while began.elapsed() < time {
        keys.issuer.verify_sig(black_box(&keys.shown), &keys.signature)?;
        verified += 1;
    }
    Ok(verified)
}

/// While a group becomes durable, the next one is verified.
fn issue(time: Duration, groups: &Sender<Group>) -> Result<usize, Box<dyn Error>> {
    let keys = Keys::new()?;
    let random = SystemRandom::new();
    let (began, mut issued) = (Instant::now(), 0);
    let mut under_way: Option<Receiver<()>> = None;
    while began.elapsed() < time {
        let mut records = Vec::with_capacity(GROUP);
        for _ in 0..GROUP {
            keys.issuer.verify_sig(black_box(&keys.shown), &keys.signature)?;
            records.push(vec![b'r'; RECORD]);
        }
        if let Some(durable) = under_way.take() {
            durable.recv()?;
            for _ in 0..GROUP {
                black_box(keys.own.sign(&random, black_box(&keys.shown))?);
                issued += 1;
            }
        }
        let (durable, waits) = channel();
        groups.send(Group { records, durable })?;
        under_way = Some(waits);
    }
    Ok(issued)
}

fn write(path: &str, queue: Receiver<Group>) -> Result<(), Box<dyn Error>> {
    let mut database = rusqlite::Connection::open(path)?;
    database.execute_batch(
        "pragma journal_mode = wal; pragma synchronous = full;
         create table if not exists record (sequence integer primary key, text blob not null);",
    )?;
    while let Ok(first) = queue.recv() {
        let groups: Vec<Group> = std::iter::once(first).chain(queue.try_iter()).collect();
        let transaction = database.transaction()?;
        {
            let mut insert = transaction.prepare_cached("insert into record (text) values (?1)")?;
            for record in groups.iter().flat_map(|group| &group.records) {
                insert.execute([record])?;
            }
        }
        transaction.commit()?;
        for group in groups {
            // Whose time is over waits no more.
            let _ = group.durable.send(());
        }
    }
    Ok(())
}
