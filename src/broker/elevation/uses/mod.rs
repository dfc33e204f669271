//! What was done under grants: decisions about requests that proxies held up, introspections,
//! and what logs outside of the broker tell. A review looks at that, and not at the request
//! alone.
//!
//! It is summed up, so it takes bounded room whatever somebody does: how often, when first and
//! when last. [`gather`] takes notes without making anybody wait; [`outside`] takes what others
//! tell, each event once.

mod gather;
mod outside;
mod shape;
mod sum;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use uuid::Uuid;

pub(in crate::broker) use gather::Gathering;
pub(in crate::broker) use outside::{Event, read};
pub(in crate::broker) use shape::elevation_in;
pub use sum::{Kind, Row, Sum, Times, What};

use super::{Elevation, Refusal};
use crate::broker::Broker;
use crate::broker::audit::Decision;
use crate::broker::operate::Asked as Who;
use crate::broker::own::OwnToken;
use crate::broker::rulebook::Rulebook;
use crate::broker::store::Filter;
use crate::error::Result as Outcome;

/// How many of the tokens that were issued under a grant are counted.
const ISSUED: u32 = 1000;

/// What is known of a grant's uses.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Known {
    /// The grant.
    pub(in crate::broker) elevation: Uuid,
    /// Whether it is a drill.
    pub(in crate::broker) is_drill: bool,
    /// What was done.
    pub(in crate::broker) sum: Sum,
    /// Whether there were more tokens than are counted.
    pub(in crate::broker) more_issued: bool,
}

impl Broker {
    /// Takes note of a decision about a request that a proxy held up, where the token is one
    /// under a grant. Nobody waits for it.
    pub(in crate::broker) fn note_decision(
        &self,
        own: &OwnToken,
        (route, method, target): (&str, &str, &str),
        outcome: &'static str,
        from: Option<IpAddr>,
    ) {
        let Some(claim) = &own.elevation else { return };
        let from = from.map(|address| address.to_canonical().to_string()).unwrap_or_default();
        let resource = shape::of(target);
        let what = What::new(Kind::Decision, [route, method, &resource, outcome, &from]);
        self.uses.note(claim.id, what, self.clock.now());
    }

    /// Takes note that somebody asked whether a token is good that is one under a grant.
    pub(in crate::broker) fn note_introspection(
        &self,
        own: &OwnToken,
        by: Option<&str>,
        outcome: &'static str,
    ) {
        let Some(claim) = &own.elevation else { return };
        let by = by.unwrap_or("whoever has the token");
        let what = What::new(Kind::Introspection, [by, "introspect", &own.audience, outcome, ""]);
        self.uses.note(claim.id, what, self.clock.now());
    }

    /// What was done under a grant that somebody may see.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(in crate::broker) async fn uses_for(
        &self,
        book: &Rulebook,
        who: &Who,
        id: Uuid,
    ) -> Result<Known, Refusal> {
        let (elevation, _) = self.elevation_visible_to(book, who, id).await?;
        Ok(self.uses_of(&elevation).await?)
    }

    /// All that is known: what is stored, what is not yet, and what the log has of tokens.
    async fn uses_of(&self, elevation: &Elevation) -> Outcome<Known> {
        let mut sum = self.uses.of(elevation.id).await?;
        let filter = Filter {
            elevation: Some(elevation.id),
            decision: Some(Decision::Issued),
            ..Filter::default()
        };
        let issued = self.store.find(&filter, ISSUED).await?;
        let more_issued = issued.len() >= ISSUED as usize;
        let mut tokens: BTreeMap<What, Times> = BTreeMap::new();
        for record in issued.into_iter().filter_map(|(_, record)| record) {
            let parts = [&record.client, "issue", &record.audience, "issued", &record.source];
            let what = What::new(Kind::Issued, parts);
            let times = tokens.entry(what).or_insert(Times::none_at(record.at));
            times.add(&Times::once(record.at));
        }
        for (what, times) in tokens {
            sum.add(what, &times);
        }
        sum.sort();
        Ok(Known { elevation: elevation.id, is_drill: elevation.asked.drill, sum, more_issued })
    }
}
