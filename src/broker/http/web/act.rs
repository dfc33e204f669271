//! Doing something about an elevation.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use uuid::Uuid;

use super::super::elevations::{EVENTS, unserved, verdict};
use super::super::form::Posted;
use super::super::operate::{Outcome, Shown, Unserved, to_its_end};
use super::frame;
use super::visit::{Visit, go_to, is_place};
use crate::broker::Broker;
use crate::broker::elevation::Refusal;

/// Does it, and shows what came of it.
pub(super) async fn settle(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    path: Result<Path<(String, String)>, PathRejection>,
    posted: Posted,
) -> Response {
    let request_id = shown.2;
    let Path((id, event)) = path.unwrap_or_else(|_| Path(Default::default()));
    let to = if is_place(&id) { id.clone() } else { String::new() };
    let (form, headers) = posted.form();
    let form = match form {
        Ok(form) => form,
        Err(refusal) => return frame::unserved(None, &Unserved::from(refusal), request_id),
    };
    let visit = match Visit::sending(&broker, shown, &headers, &form, &to).await {
        Ok(visit) => visit,
        Err(page) => return page,
    };
    let known = EVENTS.into_iter().find(|known| *known == event).unwrap_or("unknown");
    if let Some(page) = visit.turned_away() {
        broker.metrics.elevated(known, Outcome::Denied.as_str());
        return page;
    }
    let Visit { request, who, frame, .. } = visit;
    let mut is_drill = false;
    let perform = async {
        let id = Uuid::try_parse(&id).map_err(|_| unserved(Refusal::Unknown))?;
        let verdict = verdict(&event, &form)?;
        let (broker, book) = (broker.clone(), request.book.clone());
        let (settled, drill) = to_its_end(async move {
            let settled = broker.settle(&book, &who, id, &verdict).await;
            let drill = broker.is_drill(&settled, id).await;
            Ok((settled, drill))
        })
        .await?;
        is_drill = drill;
        match settled {
            // A form must not lead to the provider, or the browser would not let it.
            Err(Refusal::StepUp(login)) => {
                Ok(frame::step_up(&frame, &id.to_string(), &login, StatusCode::FORBIDDEN))
            }
            settled => {
                let elevation = settled.map_err(unserved)?;
                Ok(go_to(&format!("{}/{}?done={known}", frame.base, elevation.id)))
            }
        }
    };
    let outcome: Result<Response, Unserved> = perform.await;
    let said = match &outcome {
        Ok(response) if response.status() == StatusCode::SEE_OTHER => "done",
        Ok(_) => "denied",
        Err(unserved) => unserved.outcome.as_str(),
    };
    if !is_drill {
        broker.metrics.elevated(known, said);
    }
    outcome.unwrap_or_else(|unserved| frame::unserved(Some(&frame), &unserved, request_id))
}
