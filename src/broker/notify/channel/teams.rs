//! A channel or chat of Microsoft Teams: an Adaptive Card, as a workflow takes it that begins
//! «When a Teams webhook request is received».
//!
//! What callers wrote is in text runs only, which no Markdown is read in.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::web::Server;
use super::{Channel, Parcel, Refused};
use crate::broker::config::NotifyChannel;
use crate::broker::notify::Urgency;
use crate::broker::signed_post::json_request;
use crate::error::Result;
use crate::host::Host;

/// How many people are mentioned at most.
const MENTIONS: usize = 20;

/// A channel.
pub(super) struct Teams {
    server: Server,
    origin: String,
}

impl Teams {
    pub(super) fn new(config: &NotifyChannel, origin: String, host: &Host) -> Result<Self> {
        Ok(Self { server: Server::new(config, None, host)?, origin })
    }
}

#[async_trait]
impl Channel for Teams {
    async fn deliver(&self, parcel: &Parcel<'_>) -> Result<(), Refused> {
        let body = body(parcel, &self.origin).to_string();
        self.server.send(|url| Ok(json_request(url, body)), parcel.now).await
    }
}

fn body(parcel: &Parcel<'_>, origin: &str) -> Value {
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": card(parcel, origin),
        }],
    })
}

fn card(parcel: &Parcel<'_>, origin: &str) -> Value {
    let message = parcel.message;
    let color = match message.urgency() {
        Urgency::Alarm => "attention",
        Urgency::ActionWanted => "warning",
        Urgency::Info => "default",
    };
    let title = json!({ "type": "TextRun", "text": message.title(), "weight": "bolder",
        "size": "large", "color": color });
    let mut shown = vec![rich(vec![title])];
    for fact in message.facts() {
        let label =
            json!({ "type": "TextRun", "text": format!("{}: ", fact.label), "weight": "bolder" });
        shown.push(rich(vec![label, json!({ "type": "TextRun", "text": fact.value })]));
    }
    let mut entities = Vec::new();
    for (name, id) in parcel.reachable("teams").take(MENTIONS) {
        let text = format!("<at>{name}</at>");
        shown.push(json!({ "type": "TextBlock", "text": text }));
        let mentioned = json!({ "id": id, "name": name });
        entities.push(json!({ "type": "mention", "text": text, "mentioned": mentioned }));
    }
    let context = format!("{} · {} · {origin}", message.urgency().said(), message.kind());
    shown.push(rich(vec![
        json!({ "type": "TextRun", "text": context, "size": "small", "isSubtle": true }),
    ]));
    let open = |page| json!({ "type": "Action.OpenUrl", "title": "Open", "url": page });
    json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": { "width": "Full", "entities": entities },
        "fallbackText": message.title(),
        "body": shown,
        "actions": message.page().into_iter().map(open).collect::<Vec<_>>(),
    })
}

fn rich(runs: Vec<Value>) -> Value {
    json!({ "type": "RichTextBlock", "inlines": runs })
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::broker::notify::Message;
    use crate::broker::notify::message::tests::message;
    use crate::broker::notify::tests::people;

    /// What Teams would get.
    fn sample(message: &Message) -> Value {
        let (people, now) = (people(), OffsetDateTime::UNIX_EPOCH);
        let parcel = Parcel { message, addressee: "", people: Some(&people), now };
        body(&parcel, "broker.example.com")
    }

    #[test]
    fn what_callers_wrote_is_in_text_runs_and_people_are_mentioned() {
        let body = sample(&message("k"));
        let card = &body["attachments"][0]["content"];
        let texts: Vec<_> = card["body"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|block| block["type"] == "TextBlock")
            .map(|block| block["text"].as_str().unwrap())
            .collect();
        assert_eq!(texts, ["<at>alice</at>"]);
        let entity = &card["msteams"]["entities"][0];
        assert_eq!(entity["mentioned"]["id"], "alice@corp.example.com");
        assert_eq!(
            card["actions"][0]["url"], "https://broker.example.com/elevations/7?a=1&b=|",
            "{card}"
        );
    }
}
