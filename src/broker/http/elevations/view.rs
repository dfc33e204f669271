//! Elevations as they are told of.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::broker::directory::Directory;
use crate::broker::elevation::{Page, Party, Review, Seen, Span, Yields};
use crate::broker::issue::joined;
use crate::broker::rulebook::Rulebook;
use crate::broker::told::aws;
use crate::oidc::jwt::LEEWAY;
use crate::wire::RevocationReach;
use crate::wire::elevation as wire;

/// An elevation, as somebody is told of it.
pub(in crate::broker::http) fn elevation(book: &Rulebook, seen: &Seen) -> wire::Elevation {
    let Seen { elevation, tally, people, may } = seen;
    let asked = &elevation.asked;
    let directory = book.directory().map(AsRef::as_ref);
    let party = |party: &Party| self::party(directory, party);
    let role = book.roles().get(&asked.role);
    let rules = role.and_then(|role| role.elevation.as_ref());
    let span = |span: std::time::Duration| time::Duration::try_from(span).unwrap_or_default();
    let begin_by = rules.and_then(|rules| elevation.begin_by(span(rules.start_window)));
    let review_by = rules.and_then(|rules| {
        let ended = elevation.ended.as_ref()?;
        Some(ended.at.saturating_add(span(rules.review_within?)))
    });
    let needs = tally.needs.iter().zip(people).map(|(need, people)| wire::Need {
        count: need.threshold.count.get(),
        groups: need.threshold.groups.iter().cloned().collect(),
        have: need.have.iter().cloned().collect(),
        could: people.iter().filter(|name| !need.have.contains(*name)).cloned().collect(),
    });
    let approvals = elevation.approvals.iter().map(|approval| wire::Approval {
        by: party(&approval.by),
        at: moment(approval.at),
        reason: approval.reason.clone(),
        key: approval.signed.as_ref().map(|signed| signed.key.clone()),
        counts: tally.counts(approval),
    });
    // Of one that ended before that was noted, as the role is now.
    let unknown = Yields { signed: true, aws: false };
    let yields = elevation.yields.or(role.map(Yields::of)).unwrap_or(unknown);
    let ended = elevation.grant.filter(|_| elevation.access.is_over() && !asked.drill);
    let aws_sessions = ended.filter(|_| yields.aws).map(|grant| {
        // AWS takes a token until it expires, whatever became of its grant.
        let begun_before = moment(grant.until.saturating_add(LEEWAY));
        wire::AwsSessions { deny: aws::denial(&begun_before), begun_before }
    });
    wire::Elevation {
        id: elevation.id.to_string(),
        version: elevation.version,
        path: asked.path.as_str().into(),
        drill: asked.drill,
        access: elevation.access.as_str().into(),
        review: elevation.review.as_str().into(),
        role: asked.role.clone(),
        audience: asked.audience.clone(),
        scope: asked.scope.as_ref().map(joined),
        ttl: asked.ttl,
        start: asked.start.map(moment),
        key: asked.key.clone(),
        requester: party(&asked.by),
        actors: asked.actors.iter().map(party).collect(),
        request: asked.signed.as_ref().map(|signed| signed.statement.clone()),
        not_taken: Vec::new(),
        reason: asked.reason.clone(),
        ticket: asked.ticket.clone(),
        ticket_unchecked: asked.ticket_unchecked,
        source: asked.source.clone(),
        asked_at: moment(asked.at),
        lapses_at: moment(asked.lapses_at),
        hash: tally.hash.clone(),
        approvals: approvals.collect(),
        needs: needs.collect(),
        approved_at: elevation.approved_at.map(moment),
        begin_by: begin_by.filter(|_| elevation.grant.is_none()).map(moment),
        grant: elevation
            .grant
            .map(|Span { from, until }| wire::Span { from: moment(from), until: moment(until) }),
        ended: elevation.ended.as_ref().map(|ended| wire::Ended {
            by: ended.by.as_ref().map(party),
            at: moment(ended.at),
            reason: ended.reason.clone(),
        }),
        reviewed: elevation.reviewed.as_ref().map(|reviewed| wire::Reviewed {
            by: party(&reviewed.by),
            at: moment(reviewed.at),
            note: reviewed.note.clone(),
        }),
        tried: elevation
            .tried
            .as_ref()
            .map(|tried| wire::Tried { issued: tried.issued, said: tried.said.clone() }),
        review_by: review_by.filter(|_| elevation.review == Review::Due).map(moment),
        may: may.iter().map(ToString::to_string).collect(),
        revocation_reach: ended.map(|_| match yields.signed {
            true => RevocationReach::Introspection,
            false => RevocationReach::Everywhere,
        }),
        aws_sessions,
    }
}

/// The same for whoever brings what people signed, and shows nobody who they are: how it stands,
/// who has approved and who could, and of what is asked for what whoever has the signed request
/// has anyway.
pub(super) fn brought(book: &Rulebook, seen: &Seen) -> wire::Elevation {
    let whole = elevation(book, seen);
    let named = |party: wire::Party| wire::Party {
        issuer: String::new(),
        subject: String::new(),
        person: party.person,
        name: None,
    };
    let is_signed = whole.request.is_some();
    let approvals = whole.approvals.into_iter().map(|approval| wire::Approval {
        by: named(approval.by),
        at: approval.at,
        reason: None,
        key: None,
        counts: approval.counts,
    });
    // Each by its name: what is added is not told before somebody says so here.
    wire::Elevation {
        id: whole.id,
        version: whole.version,
        path: whole.path,
        drill: whole.drill,
        access: whole.access,
        review: whole.review,
        role: whole.role,
        audience: whole.audience,
        // What was asked for by a login, nobody signed.
        scope: whole.scope.filter(|_| is_signed),
        ttl: whole.ttl,
        start: None,
        key: whole.key.filter(|_| is_signed),
        requester: named(whole.requester),
        actors: Vec::new(),
        request: whole.request,
        not_taken: whole.not_taken,
        reason: if is_signed { whole.reason } else { String::new() },
        ticket: whole.ticket.filter(|_| is_signed),
        ticket_unchecked: whole.ticket_unchecked && is_signed,
        source: String::new(),
        asked_at: whole.asked_at,
        lapses_at: whole.lapses_at,
        // The address is in it, and can be guessed by it.
        hash: String::new(),
        approvals: approvals.collect(),
        needs: whole.needs,
        approved_at: whole.approved_at,
        begin_by: whole.begin_by,
        grant: whole.grant,
        ended: whole.ended.map(|ended| wire::Ended {
            by: ended.by.map(named),
            at: ended.at,
            reason: ended.reason,
        }),
        reviewed: None,
        // Nothing is had under a drill, and who practises has to know how it would have been.
        tried: whole.tried,
        review_by: None,
        may: Vec::new(),
        revocation_reach: whole.revocation_reach,
        // Where the provider is down, nobody could look it up elsewhere.
        aws_sessions: whole.aws_sessions,
    }
}

/// A page of them.
pub(super) fn page(book: &Rulebook, page: &Page) -> wire::Page {
    wire::Page {
        elevations: page.elevations.iter().map(|seen| elevation(book, seen)).collect(),
        next_below: page.below.map(|id| id.to_string()),
    }
}

pub(in crate::broker::http) fn party(directory: Option<&Directory>, party: &Party) -> wire::Party {
    let name = directory
        .zip(party.person.as_deref())
        .and_then(|(directory, person)| directory.named(person).map(|one| one.name.clone()));
    wire::Party {
        issuer: party.issuer.clone(),
        subject: party.subject.clone(),
        person: party.person.clone(),
        name: name.filter(|name| !name.is_empty()),
    }
}

pub(super) fn moment(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}
