//! By what all that somebody has asked for is found: a person stays the same one, whatever the
//! directory comes to call them, and by each id that it has of them.

use super::Party;
use crate::broker::directory::{Directory, Person, origin_of};
use crate::broker::store::Among;
use crate::credential::Principal;

/// Who somebody is by issuer and subject, and where they came by a token of the broker's own, for
/// whom that was issued.
pub(super) fn asker_of(party: &Party, own: &str) -> String {
    origin_of(&principal_of(party), own)
}

/// The issuer who says who they are, in that sense.
pub(super) fn issuer_of(party: &Party, own: &str) -> String {
    let asker = asker_of(party, own);
    asker.split_once('#').map_or(asker.as_str(), |(issuer, _)| issuer).to_string()
}

/// The same of each id that the directory has of them.
pub(super) fn askers_of(directory: Option<&Directory>, party: &Party, own: &str) -> Vec<String> {
    let known = entry_of(directory, party).into_iter().flat_map(|(_, person)| &person.ids);
    let mut ids: Vec<_> = known
        .map(|id| {
            let (issuer, subject) = (id.issuer.clone(), id.subject.clone());
            origin_of(&Principal { issuer, subject }, own)
        })
        .collect();
    ids.push(asker_of(party, own));
    ids.sort();
    ids.dedup();
    ids
}

/// Those that they asked for: by each of these, and by what the directory calls them, or did.
pub(super) fn theirs(directory: Option<&Directory>, party: &Party, own: &str) -> Vec<Among> {
    let askers = askers_of(directory, party, own).into_iter().map(Among::Asker);
    let now = entry_of(directory, party).map(|(name, _)| name.to_string());
    let now = now.map(|person| Party { person: Some(person), ..party.clone() }.key());
    let mut owners = vec![party.key()];
    owners.extend(now.filter(|now| *now != party.key()));
    owners.into_iter().map(Among::Owner).chain(askers).collect()
}

fn entry_of<'a>(directory: Option<&'a Directory>, party: &Party) -> Option<(&'a str, &'a Person)> {
    directory?.person(&principal_of(party))
}

fn principal_of(party: &Party) -> Principal {
    Principal { issuer: party.issuer.clone(), subject: party.subject.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::directory::tests::directory_of;

    const OWN: &str = "https://broker.example.com";

    fn party(issuer: &str, subject: &str) -> Party {
        Party { issuer: issuer.into(), subject: subject.into(), person: Some("alice".into()) }
    }

    #[test]
    fn whoever_comes_by_a_token_of_the_broker_is_whom_that_was_issued_for() {
        let people = directory_of(
            "[person.alicia]\nids = [{ issuer = \"https://corp\", subject = \"a@x\" }, { issuer = \"https://gh\", subject = \"7\" }]\n",
        );
        let plain = party("https://corp", "a@x");
        let once = party(OWN, &plain.id());
        let twice = party(OWN, &once.id());
        for one in [&plain, &once, &twice] {
            assert_eq!(asker_of(one, OWN), plain.id());
            assert_eq!(issuer_of(one, OWN), "https://corp");
        }
        // At another broker that is somebody's subject, and nobody else.
        let elsewhere = party("https://other", &plain.id());
        assert_eq!(asker_of(&elsewhere, OWN), elsewhere.id());
        let askers = vec![plain.id(), "https://gh#7".to_string()];
        assert_eq!(askers_of(Some(&people), &twice, OWN), askers);
        let all = [
            Among::Owner("person alice".into()),
            Among::Owner("person alicia".into()),
            Among::Asker(askers[0].clone()),
            Among::Asker(askers[1].clone()),
        ];
        assert_eq!(theirs(Some(&people), &plain, OWN), all);
        // Whom nobody knows has their own id alone.
        assert_eq!(askers_of(None, &elsewhere, OWN), [elsewhere.id()]);
    }
}
