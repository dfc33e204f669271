//! An HTTP server that takes a message as JSON, signed as Standard Webhooks says.

use async_trait::async_trait;
use serde_json::json;

use super::web::{Server, id_of};
use super::{Channel, Parcel, Refused};
use crate::broker::config::NotifyChannel;
use crate::broker::private_text::Place;
use crate::broker::signed_post::Signer;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;

/// A server.
pub(super) struct Webhook {
    server: Server,
    signer: Signer,
    origin: String,
}

impl Webhook {
    pub(super) fn new(config: &NotifyChannel, origin: String, host: &Host) -> Result<Self> {
        let place = Place::of(config.secret_file.as_ref(), config.secret_env.as_ref());
        let place = place.ok_or_else(|| Error::new(ErrorKind::Config, "it has no secret"))?;
        let signer = Signer::new(place, &host.env)?;
        Ok(Self { server: Server::new(config, None, host)?, signer, origin })
    }
}

#[async_trait]
impl Channel for Webhook {
    async fn deliver(&self, parcel: &Parcel<'_>) -> Result<(), Refused> {
        let body = json!({ "broker": self.origin, "message": parcel.message }).to_string();
        let id = format!("{}#{}", self.origin, id_of(parcel.message.key()));
        let request = |url: &_| self.signer.request(url, &id, body, parcel.now);
        self.server.send(request, parcel.now).await
    }
}
