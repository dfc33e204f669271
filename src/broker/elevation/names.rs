//! By what all that somebody has asked for is found: a person stays the same one, whatever the
//! directory comes to call them, and by each id that it has of them.

use super::Party;
use crate::broker::authenticate::id_of;
use crate::broker::directory::Directory;
use crate::broker::store::Among;
use crate::credential::Principal;

/// Who they are by issuer and subject, at whichever issuer.
pub(super) fn askers_of(directory: Option<&Directory>, party: &Party) -> Vec<String> {
    let principal = Principal { issuer: party.issuer.clone(), subject: party.subject.clone() };
    let entry = directory.and_then(|directory| directory.person(&principal));
    let known = entry.into_iter().flat_map(|(_, person)| &person.ids);
    let mut ids: Vec<_> = known.map(|id| id_of(&id.issuer, &id.subject)).collect();
    ids.push(party.id());
    ids.sort();
    ids.dedup();
    ids
}

/// Those that they asked for: by each of these, and by what the directory calls them.
pub(super) fn theirs(directory: Option<&Directory>, party: &Party) -> Vec<Among> {
    let askers = askers_of(directory, party).into_iter().map(Among::Asker);
    let person = directory.and_then(|directory| {
        let (issuer, subject) = (party.issuer.clone(), party.subject.clone());
        directory.person(&Principal { issuer, subject }).map(|(name, _)| name.to_string())
    });
    let now = person.map(|person| Party { person: Some(person), ..party.clone() });
    let mut owners = vec![party.key()];
    owners.extend(now.map(|now| now.key()).filter(|now| *now != party.key()));
    owners.into_iter().map(Among::Owner).chain(askers).collect()
}
