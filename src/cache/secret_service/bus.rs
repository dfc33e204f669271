//! The calls of the Secret Service API (freedesktop.org, draft 0.2), as few as
//! possible: a read is four round trips, the connection included.
//!
//! They are made one after the other. gnome-keyring (seen with 42.1; 50.0 has
//! the same code) learns of a client beside the queue in which it handles calls. Now and
//! then it handles a client's first call before it knows the client, and where
//! that call is `OpenSession`, it crashes, and the keyring is locked. Once it has
//! answered any call it knows the client. So every operation begins with a call
//! that does no harm, and asks again where the answer may come from that moment.
//! For the same reason paths with the alias are left alone: it looks these up
//! from two threads.
//!
//! Secrets travel over a «plain» session. The encrypted one protects from
//! whoever can read the user's own session bus, and they could as well ask the
//! service for the secret; it costs 5 ms on each read.
//!
//! What zbus keeps in its buffers is not wiped when it is freed.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;
use zbus::message::Type as MessageType;
use zbus::{
    Connection, DynamicType, MatchRule, Message, MessageStream, ObjectPath, OwnedObjectPath,
    OwnedVariant, Variant,
};

use crate::cache::key::ItemKey;
use crate::secret::Secret;

const DESTINATION: &str = "org.freedesktop.secrets";
const PATH: &str = "/org/freedesktop/secrets";
const SERVICE: &str = "org.freedesktop.Secret.Service";
const COLLECTION: &str = "org.freedesktop.Secret.Collection";
const ITEM: &str = "org.freedesktop.Secret.Item";
const PROMPT: &str = "org.freedesktop.Secret.Prompt";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// The alias of the collection that is written to. Making one of our own would
/// need a prompt.
const DEFAULT: &str = "default";
/// Stands for «no object», such as no prompt.
const NOTHING: &str = "/";

/// The attributes by which items are found.
const APPLICATION: (&str, &str) = ("application", "tmpcred");
const KEY: &str = "key";

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is no session bus to be reached.
    NoBus(zbus::Error),
    /// There is no collection to write to.
    NoCollection,
    /// It would have to be unlocked first.
    Locked(Vec<OwnedObjectPath>),
    /// The service wants to ask the person, and this run may not.
    WantsToAsk,
    /// The person declined.
    Dismissed,
    /// Nothing came within the time limit.
    TimedOut,
    /// Anything else.
    Call(zbus::Error),
}

impl From<zbus::Error> for Trouble {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::InputOutput(cause) if cause.kind() == std::io::ErrorKind::TimedOut => {
                Self::TimedOut
            }
            other => Self::Call(other),
        }
    }
}

/// Asks the person, where the run may. It is told before the person is asked.
pub(super) type Asking<'a> = Option<&'a (dyn Fn() + Send + Sync)>;

/// What is written.
pub(super) struct NewItem {
    pub(super) key: ItemKey,
    pub(super) label: String,
    pub(super) value: Secret<Vec<u8>>,
}

/// A connection to the session bus. It lasts for one operation: one that is kept
/// open would need a thread to look after it.
pub(super) struct Bus(Connection);

impl Bus {
    pub(super) async fn connect(address: &str, call_limit: Duration) -> Result<Self, Trouble> {
        let builder = zbus::connection::Builder::address(address).method_timeout(call_limit);
        builder.build().await.map(Self).map_err(Trouble::NoBus)
    }

    async fn call<B: Serialize + DynamicType>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> zbus::Result<Message> {
        self.0.call_method(Some(DESTINATION), path, Some(interface), method, body).await
    }

    /// Whether the service is there and has a collection to write to.
    pub(super) async fn probe(&self) -> Result<(), Trouble> {
        self.default_collection().await.map(|_| ())
    }

    /// Reads an item.
    pub(super) async fn read(&self, key: &ItemKey) -> Result<Option<Secret<Vec<u8>>>, Trouble> {
        let mut found = self.search(Some(key)).await?;
        if found.unlocked.len() + found.locked.len() > 1 {
            // Where none is the default any more, any of them is as good.
            if let Ok(collection) = self.default_collection().await {
                found.keep_newest(&collection);
            }
        }
        if let Some(item) = found.unlocked.first() {
            let session = self.open_session().await?;
            return match self.call(item, ITEM, "GetSecret", &session).await {
                Ok(reply) => {
                    type Reply = ((OwnedObjectPath, Vec<u8>, Vec<u8>, String),);
                    let ((_, parameters, value, _),): Reply = reply.body().deserialize()?;
                    drop(parameters);
                    Ok(Some(Secret::new(value)))
                }
                // Somebody deleted it just now.
                Err(cause) if is_no_object(&cause) => Ok(None),
                Err(cause) => Err(locked_or(cause, item)),
            };
        }
        if !found.locked.is_empty() {
            return Err(Trouble::Locked(found.locked));
        }
        // Some services show nothing of a locked collection.
        self.require_unlocked().await?;
        Ok(None)
    }

    /// Writes an item, in place of one with the same key.
    pub(super) async fn write(&self, item: &NewItem, asking: Asking<'_>) -> Result<(), Trouble> {
        let collection = self.default_collection().await?;
        let session = self.open_session().await?;
        let attributes = attributes(Some(&item.key));
        let properties: HashMap<&str, Variant<'_>> = HashMap::from([
            ("org.freedesktop.Secret.Item.Label", Variant::new(item.label.as_str())),
            ("org.freedesktop.Secret.Item.Attributes", Variant::new(attributes)),
        ]);
        let no_parameters: &[u8] = &[];
        let secret =
            (&session, no_parameters, item.value.expose().as_slice(), "application/octet-stream");
        let body = (properties, secret, true);
        match self.call(&collection, COLLECTION, "CreateItem", &body).await {
            Ok(reply) => {
                let (_, prompt): (OwnedObjectPath, OwnedObjectPath) = reply.body().deserialize()?;
                self.perform(&prompt, asking).await?;
                self.delete_elsewhere(&item.key, &collection).await;
                Ok(())
            }
            Err(cause) => Err(locked_or(cause, &collection)),
        }
    }

    /// Deletes what was written with this key while another collection was the default, as
    /// far as that can be done without a word: what is written is not less good for it.
    async fn delete_elsewhere(&self, key: &ItemKey, collection: &str) {
        let Ok(found) = self.search(Some(key)).await else { return };
        // A service that names items in another way has none here, and the one that was just
        // written must stay.
        if !found.unlocked.iter().any(|item| is_within(item, collection)) {
            return;
        }
        for item in found.unlocked.iter().filter(|item| !is_within(item, collection)) {
            if let Err(cause) = self.call(item, ITEM, "Delete", &()).await {
                tracing::debug!(%cause, "an item of another collection stays");
            }
        }
    }

    /// Deletes an item, wherever it is.
    pub(super) async fn delete(&self, key: &ItemKey, asking: Asking<'_>) -> Result<(), Trouble> {
        let found = self.search(Some(key)).await?;
        if !found.locked.is_empty() {
            return Err(Trouble::Locked(found.locked));
        }
        if found.unlocked.is_empty() {
            return self.require_unlocked().await;
        }
        for item in &found.unlocked {
            match self.call(item, ITEM, "Delete", &()).await {
                Ok(reply) => {
                    let prompt: OwnedObjectPath = reply.body().deserialize()?;
                    self.perform(&prompt, asking).await?;
                }
                Err(cause) if is_no_object(&cause) => {}
                Err(cause) => return Err(locked_or(cause, item)),
            }
        }
        Ok(())
    }

    /// The keys of all items of this program.
    pub(super) async fn keys(&self) -> Result<Vec<ItemKey>, Trouble> {
        let found = self.search(None).await?;
        if !found.locked.is_empty() {
            return Err(Trouble::Locked(found.locked));
        }
        let items = found.unlocked.iter();
        let asked = items.map(|item| self.property(item, ITEM, "Attributes"));
        let mut keys = Vec::new();
        for attributes in futures_util::future::join_all(asked).await {
            // An item that was deleted meanwhile has none.
            let Ok(attributes) = attributes else { continue };
            let attributes: HashMap<String, String> =
                attributes.try_into().map_err(Trouble::Call)?;
            keys.extend(attributes.get(KEY).and_then(|key| ItemKey::parse(key)));
        }
        Ok(keys)
    }

    /// Has the person unlock what is locked.
    pub(super) async fn unlock(
        &self,
        objects: &[OwnedObjectPath],
        asking: Asking<'_>,
    ) -> Result<(), Trouble> {
        match self.default_collection().await {
            Ok(_) | Err(Trouble::NoCollection) => {}
            Err(trouble) => return Err(trouble),
        }
        let reply = self.call(PATH, SERVICE, "Unlock", &objects).await?;
        let (_, prompt): (Vec<OwnedObjectPath>, OwnedObjectPath) = reply.body().deserialize()?;
        self.perform(&prompt, asking).await
    }

    /// Lets the service ask the person, where it wants to, and waits until it is done.
    async fn perform(&self, prompt: &ObjectPath<'_>, asking: Asking<'_>) -> Result<(), Trouble> {
        if prompt.as_str() == NOTHING {
            return Ok(());
        }
        let Some(tell) = asking else { return Err(Trouble::WantsToAsk) };
        tell();
        let completed = MatchRule::builder()
            .msg_type(MessageType::Signal)
            .interface(PROMPT)
            .member("Completed")
            .path(prompt.as_ref())
            .build()?;
        // Before the prompt, so that no answer is missed.
        let mut answers = MessageStream::for_match_rule(completed, &self.0, None).await?;
        // No window to belong to: a terminal does not tell which one it is.
        self.call(prompt, PROMPT, "Prompt", &"").await?;
        let answer = answers.next().await.ok_or(Trouble::TimedOut)??;
        let (dismissed, _): (bool, OwnedVariant) = answer.body().deserialize()?;
        if dismissed { Err(Trouble::Dismissed) } else { Ok(()) }
    }

    /// Opens a session. Never the first call: see above.
    async fn open_session(&self) -> Result<OwnedObjectPath, Trouble> {
        let body = ("plain", Variant::new(""));
        let reply = self.call(PATH, SERVICE, "OpenSession", &body).await?;
        let (_, session): (OwnedVariant, OwnedObjectPath) = reply.body().deserialize()?;
        Ok(session)
    }

    /// Finds items. Good as a first call.
    async fn search(&self, key: Option<&ItemKey>) -> Result<Found, Trouble> {
        let attributes = attributes(key);
        let search = || self.call(PATH, SERVICE, "SearchItems", &attributes);
        let reply = match search().await {
            Err(cause) if is_no_object(&cause) => search().await?,
            other => other?,
        };
        let (unlocked, locked) = reply.body().deserialize()?;
        Ok(Found { unlocked, locked })
    }

    /// The collection that is written to. Good as a first call.
    async fn default_collection(&self) -> Result<OwnedObjectPath, Trouble> {
        for _ in 0..2 {
            let reply = self.call(PATH, SERVICE, "ReadAlias", &DEFAULT).await?;
            let collection: OwnedObjectPath = reply.body().deserialize()?;
            if collection.as_str() != NOTHING {
                return Ok(collection);
            }
        }
        Err(Trouble::NoCollection)
    }

    async fn require_unlocked(&self) -> Result<(), Trouble> {
        let collection = self.default_collection().await?;
        let locked = self.property(&collection, COLLECTION, "Locked").await?;
        if bool::try_from(locked)? { Err(Trouble::Locked(vec![collection])) } else { Ok(()) }
    }

    async fn property(
        &self,
        path: &str,
        interface: &str,
        name: &str,
    ) -> Result<OwnedVariant, Trouble> {
        let reply = self.call(path, PROPERTIES, "Get", &(interface, name)).await?;
        Ok(reply.body().deserialize()?)
    }
}

/// What a failed call means: that this object is locked, or something else.
fn locked_or(cause: zbus::Error, object: &OwnedObjectPath) -> Trouble {
    match &cause {
        zbus::Error::MethodError(name, ..)
            if name.as_str() == "org.freedesktop.Secret.Error.IsLocked" =>
        {
            Trouble::Locked(vec![object.clone()])
        }
        _ => cause.into(),
    }
}

/// The items that a search found.
struct Found {
    unlocked: Vec<OwnedObjectPath>,
    locked: Vec<OwnedObjectPath>,
}

impl Found {
    /// Of several items with one key keeps the one in the collection that is written to:
    /// the others are from before it was the default. A refresh token among them may have
    /// been used, and a provider may end a session to which one comes that was.
    fn keep_newest(&mut self, collection: &str) {
        let is_newest = |item: &OwnedObjectPath| is_within(item, collection);
        if self.unlocked.iter().chain(&self.locked).any(is_newest) {
            self.unlocked.retain(is_newest);
            self.locked.retain(is_newest);
        }
    }
}

/// Whether an item is in a collection, whose path its own begins with.
fn is_within(item: &ObjectPath<'_>, collection: &str) -> bool {
    item.as_str().strip_prefix(collection).is_some_and(|rest| rest.starts_with('/'))
}

fn attributes(key: Option<&ItemKey>) -> HashMap<&str, &str> {
    let key = key.map(|key| (KEY, key.as_str()));
    std::iter::once(APPLICATION).chain(key).collect()
}

/// Whether the answer is that there is no such object.
fn is_no_object(cause: &zbus::Error) -> bool {
    match cause {
        zbus::Error::MethodError(name, ..) => {
            name.as_str() == "org.freedesktop.Secret.Error.NoSuchObject"
        }
        zbus::Error::FDO(cause) => {
            matches!(
                **cause,
                zbus::fdo::Error::UnknownObject(_) | zbus::fdo::Error::UnknownMethod(_)
            )
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_item_in_the_default_collection_is_the_newest_one() {
        let path = |name: &str| {
            OwnedObjectPath::try_from(format!("/org/freedesktop/secrets/collection/{name}"))
                .unwrap()
        };
        let kept = |unlocked: &[&str], locked: &[&str]| {
            let paths = |names: &[&str]| names.iter().map(|name| path(name)).collect();
            let mut found = Found { unlocked: paths(unlocked), locked: paths(locked) };
            found.keep_newest(&path("b"));
            (found.unlocked, found.locked)
        };
        for (unlocked, locked, newest) in [
            (&["a/1", "b/1"][..], &[][..], (vec![path("b/1")], vec![])),
            (&["b/1", "a/1"], &["c/1"], (vec![path("b/1")], vec![])),
            // It has to be unlocked: what can be read is older.
            (&["a/1"], &["b/1"], (vec![], vec![path("b/1")])),
            // No item of this collection, although its name begins like that.
            (&["a/1", "bb/1"], &[], (vec![path("a/1"), path("bb/1")], vec![])),
        ] {
            assert_eq!(kept(unlocked, locked), newest, "{unlocked:?} {locked:?}");
        }
    }
}
