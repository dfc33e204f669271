//! The least that a warm `tmpcred token` could do where the Secret Service is the
//! store: reads one item and prints it. One connection, three calls, one after the
//! other as the API suggests.
//!
//!     floor-secret-service KEY

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::collections::HashMap;
    use std::io::Write;

    use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant};

    const DESTINATION: &str = "org.freedesktop.secrets";
    const PATH: &str = "/org/freedesktop/secrets";
    const SERVICE: &str = "org.freedesktop.Secret.Service";
    const ITEM: &str = "org.freedesktop.Secret.Item";

    let key = std::env::args().nth(1).ok_or("the key of the item is missing")?;
    let value = zbus::block_on(async {
        let bus = Connection::session().await?;
        let plain = ("plain", Variant::new(""));
        let reply =
            bus.call_method(Some(DESTINATION), PATH, Some(SERVICE), "OpenSession", &plain).await?;
        let (_, session): (OwnedVariant, OwnedObjectPath) = reply.body().deserialize()?;
        let attributes = HashMap::from([("application", "tmpcred"), ("key", key.as_str())]);
        let reply = bus
            .call_method(Some(DESTINATION), PATH, Some(SERVICE), "SearchItems", &attributes)
            .await?;
        let (unlocked, _): (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) =
            reply.body().deserialize()?;
        let item = unlocked.first().ok_or(zbus::Error::InvalidReply)?;
        let reply = bus
            .call_method(Some(DESTINATION), item.as_str(), Some(ITEM), "GetSecret", &session)
            .await?;
        type Reply = ((OwnedObjectPath, Vec<u8>, Vec<u8>, String),);
        let ((_, _, value, _),): Reply = reply.body().deserialize()?;
        zbus::Result::Ok(value)
    })?;
    std::io::stdout().write_all(&value)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
