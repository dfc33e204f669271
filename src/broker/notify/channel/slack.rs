//! A channel of Slack, by an incoming webhook.
//!
//! What callers wrote is in plain text only, which Slack reads no markup in. What it does read
//! markup in is made here: mentions and the page.

use async_trait::async_trait;
use serde_json::{Value, json};
use url::Url;

use super::web::Server;
use super::{Channel, Parcel, Refused};
use crate::broker::config::NotifyChannel;
use crate::broker::notify::Message;
use crate::broker::signed_post::json_request;
use crate::error::Result;
use crate::host::Host;

/// How many fields a section may have.
const FIELDS: usize = 10;

/// How many people are mentioned, so that the text stays within what a section may have.
const MENTIONS: usize = 50;

/// A channel.
pub(super) struct Slack {
    server: Server,
    origin: String,
}

impl Slack {
    pub(super) fn new(config: &NotifyChannel, origin: String, host: &Host) -> Result<Self> {
        Ok(Self { server: Server::new(config, None, host)?, origin })
    }
}

#[async_trait]
impl Channel for Slack {
    async fn deliver(&self, parcel: &Parcel<'_>) -> Result<(), Refused> {
        let body = body(parcel, &self.origin).to_string();
        self.server.send(|url| Ok(json_request(url, body)), parcel.now).await
    }
}

fn body(parcel: &Parcel<'_>, origin: &str) -> Value {
    let message = parcel.message;
    let mut blocks = vec![json!({ "type": "header", "text": plain(message.title()) })];
    let fields: Vec<_> = message
        .facts()
        .iter()
        .map(|fact| plain(&format!("{}\n{}", fact.label, fact.value)))
        .collect();
    blocks.extend(fields.chunks(FIELDS).map(|some| json!({ "type": "section", "fields": some })));
    let mentions = parcel.reachable("slack").filter(|(_, id)| is_member(id)).take(MENTIONS);
    let mentions = mentions.map(|(_, id)| format!("<@{id}>"));
    let lines: Vec<_> = [mentions.collect::<Vec<_>>().join(" ")]
        .into_iter()
        .chain(message.page().map(|page| format!("<{}|Open>", address(page))))
        .filter(|line| !line.is_empty())
        .collect();
    if !lines.is_empty() {
        let text = json!({ "type": "mrkdwn", "text": lines.join("\n") });
        blocks.push(json!({ "type": "section", "text": text }));
    }
    blocks.push(json!({ "type": "context", "elements": [plain(&context(message, origin))] }));
    // For notifications, and for those who cannot see blocks.
    json!({ "text": escaped(message.title()), "blocks": blocks })
}

fn context(message: &Message, origin: &str) -> String {
    let id = if message.id().is_empty() { String::new() } else { format!(" · {}", message.id()) };
    format!("{} · {} · {origin}{id}", message.urgency().said(), message.kind())
}

fn plain(text: &str) -> Value {
    json!({ "type": "plain_text", "text": text, "emoji": false })
}

/// Whether this names a member of a workspace.
fn is_member(id: &str) -> bool {
    id.len() <= 32
        && id.starts_with(['U', 'W'])
        && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// Text as Slack wants it where it reads markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// An address as it stands in a link, whose end and name begin with these.
fn address(page: &Url) -> String {
    escaped(page.as_str()).replace('|', "%7C")
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::broker::notify::message::tests::message;
    use crate::broker::notify::tests::people;

    /// What Slack would get.
    fn sample(message: &Message) -> Value {
        let (people, now) = (people(), OffsetDateTime::UNIX_EPOCH);
        let parcel = Parcel { message, addressee: "", people: Some(&people), now };
        body(&parcel, "broker.example.com")
    }

    #[test]
    fn what_callers_wrote_is_never_markup() {
        let body = sample(&message("k"));
        let blocks = body["blocks"].as_array().unwrap();
        let fact = &blocks[1]["fields"][0];
        assert_eq!(fact["type"], "plain_text");
        assert!(fact["text"].as_str().unwrap().contains("<&> [x](https://evil.example) *b*"));
        let marked: Vec<_> = blocks.iter().filter_map(|b| b["text"]["text"].as_str()).collect();
        // Bob's contact is none that Slack gives out.
        let link = "<https://broker.example.com/elevations/7?a=1&amp;b=%7C|Open>";
        assert_eq!(marked, ["Alice took the role admin", &format!("<@U0ALICE>\n{link}")]);
        let at = OffsetDateTime::UNIX_EPOCH;
        let urgency = crate::broker::notify::Urgency::Info;
        let evil = Message::new("k", "drill", urgency, "<!channel> & <@U1>", at);
        assert_eq!(sample(&evil)["text"], "&lt;!channel&gt; &amp; &lt;@U1&gt;");
    }
}
