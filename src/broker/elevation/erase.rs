//! Erasing what elevations have of somebody, once nothing more comes of them.

use super::{Elevation, Party, Review};
use crate::broker::audit::leaf::ERASED;

impl Elevation {
    /// Whether nothing more comes of it.
    pub(in crate::broker) fn is_settled(&self) -> bool {
        self.access.is_over() && self.review != Review::Due
    }

    /// Whether it tells of somebody.
    pub(in crate::broker) fn tells_of(&self, is: impl Fn(&Party) -> bool) -> bool {
        let asked = [&self.asked.by].into_iter().chain(&self.asked.actors);
        let approved = self.approvals.iter().map(|approval| &approval.by);
        let ended = self.ended.iter().filter_map(|ended| ended.by.as_ref());
        let reviewed = self.reviewed.iter().map(|reviewed| &reviewed.by);
        asked.chain(approved).chain(ended).chain(reviewed).any(is)
    }

    /// What somebody is called in it in the directory.
    pub(in crate::broker) fn names(&self, is: impl Fn(&Party) -> bool) -> Vec<String> {
        let asked = [&self.asked.by].into_iter().chain(&self.asked.actors);
        let approved = self.approvals.iter().map(|approval| &approval.by);
        let theirs = asked.chain(approved).filter(|party| is(party));
        theirs.filter_map(|party| party.person.clone()).collect()
    }

    /// The same without what it has of somebody, as the next version of it: of what was asked
    /// for by them all that anybody wrote, of others what they wrote themselves.
    pub(in crate::broker) fn without(&self, is: impl Fn(&Party) -> bool) -> Self {
        let gone = || ERASED.to_string();
        let nobody = || Party { issuer: gone(), subject: gone(), person: None };
        let mut next = self.clone();
        next.version += 1;
        let own = is(&self.asked.by);
        let asked = &mut next.asked;
        // Where it was asked from is where somebody was.
        if own || asked.actors.iter().any(&is) {
            asked.source = gone();
        }
        if own {
            asked.by = nobody();
            asked.reason = gone();
            asked.ticket = asked.ticket.as_ref().map(|_| gone());
            asked.key = asked.key.as_ref().map(|_| gone());
            asked.signed = None;
        }
        asked.actors.iter_mut().filter(|actor| is(actor)).for_each(|actor| *actor = nobody());
        for approval in &mut next.approvals {
            let theirs = is(&approval.by);
            if own || theirs {
                approval.reason = approval.reason.as_ref().map(|_| gone());
            }
            if theirs {
                approval.by = nobody();
                approval.signed = None;
            }
        }
        if let Some(ended) = &mut next.ended {
            let theirs = ended.by.as_ref().is_some_and(&is);
            if own || theirs {
                ended.reason = ended.reason.as_ref().map(|_| gone());
            }
            if theirs {
                ended.by = Some(nobody());
            }
        }
        if let Some(reviewed) = &mut next.reviewed {
            let theirs = is(&reviewed.by);
            if own || theirs {
                reviewed.note = gone();
            }
            if theirs {
                reviewed.by = nobody();
            }
        }
        next
    }
}
