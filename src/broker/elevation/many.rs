//! Very many requests at once, for tests.

use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::uses::{Kind, What};
use super::{Asked, Elevation};
use crate::broker::Broker;
use crate::broker::store::{Effect, Unit, Unless};

/// How many are committed at a time.
const GROUP: u128 = 500;

impl Broker {
    /// Adds requests that are like this one but for what is changed in each, by its number.
    pub(in crate::broker) async fn multiply(
        &self,
        like: Uuid,
        (first, count): (u128, u128),
        change: impl Fn(u128, &mut Asked),
    ) {
        let like = self.elevation_with(like).await.unwrap().unwrap();
        let book = self.policies();
        let numbers: Vec<u128> = (first..first + count).collect();
        for group in numbers.chunks(GROUP as usize) {
            let effects = group.iter().map(|number| {
                let mut other = like.clone();
                other.id = Uuid::from_u128(*number);
                change(*number, &mut other.asked);
                let role = book.roles().get(&other.asked.role);
                let stored = self.elevations.over(&other, role).unwrap();
                Effect::AddElevation(stored, Unless::default())
            });
            let unit = Unit { records: Vec::new(), effects: effects.collect() };
            assert!(self.store.commit(&[unit]).await.unwrap()[0].is_committed());
        }
    }

    /// Has something done under a grant, from this address.
    pub(in crate::broker) async fn take_uses_for_tests(&self, of: &serde_json::Value, from: &str) {
        let id = Uuid::parse_str(of["id"].as_str().unwrap()).unwrap();
        let texts = ["api", "GET", "/a", "allowed", from];
        self.uses.note(id, What::new(Kind::Decision, texts), self.clock.now());
        self.uses.write().await;
    }

    /// The elevation with this id, which there is.
    pub(in crate::broker) async fn elevation_for_tests(&self, id: Uuid) -> Elevation {
        self.elevation_with(id).await.unwrap().unwrap()
    }

    /// How many elevations were opened since this was asked.
    pub(in crate::broker) fn opened(&self) -> usize {
        self.elevations.opened.swap(0, Ordering::Relaxed)
    }
}
