//! A Secret Service that opens its dialog, and nobody ever answers it. gnome-keyring
//! shows none without a desktop, so this one is a stand-in that knows no more than the
//! calls up to the dialog. The bus is a real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use zbus::message::Type;
use zbus::{MessageStream, ObjectPath, Variant};

use super::token;
use crate::journey::Journey;
use crate::support::home::Home;
use crate::support::keyring::Keyring;

/// What the program itself waits for a person at most is half a minute.
const BOUNDED: Duration = Duration::from_secs(50);

/// Serves on the bus at `address` until its connection ends with the test; yields how
/// often the dialog was opened.
fn locked_for_ever(address: &str) -> Arc<AtomicUsize> {
    let path = |text| ObjectPath::try_from(text).unwrap();
    let (collection, prompt) = (path("/org/freedesktop/secrets/c"), path("/prompt"));
    let opened = Arc::new(AtomicUsize::new(0));
    let builder = zbus::connection::Builder::address(address).name("org.freedesktop.secrets");
    let connection = zbus::block_on(builder.build()).unwrap();
    let mut calls = MessageStream::from(&connection);
    let count = opened.clone();
    let serve = async move {
        while let Some(Ok(call)) = calls.next().await {
            if call.message_type() != Type::MethodCall {
                continue;
            }
            let header = call.header();
            let member = header.member().map(|name| name.to_string()).unwrap_or_default();
            let none: [ObjectPath<'_>; 0] = [];
            let replied = match member.as_str() {
                "ReadAlias" => connection.reply(&header, &collection).await,
                "SearchItems" => connection.reply(&header, &(&none[..], &none[..])).await,
                // The collection is locked.
                "Get" => connection.reply(&header, &Variant::new(true)).await,
                "Unlock" => connection.reply(&header, &(&none[..], &prompt)).await,
                // «Completed» never comes.
                "Prompt" => {
                    count.fetch_add(1, Ordering::SeqCst);
                    connection.reply(&header, &()).await
                }
                other => panic!("nobody asks for {other} before the keyring is unlocked"),
            };
            replied.unwrap();
        }
    };
    std::thread::spawn(move || zbus::block_on(serve));
    opened
}

#[test]
fn a_dialog_that_nobody_answers_is_given_up() {
    let mut home = Home::new();
    let _bus = Keyring::bus(&mut home);
    let address = home.variables()[std::ffi::OsStr::new("DBUS_SESSION_BUS_ADDRESS")].clone();
    let opened = locked_for_ever(address.to_str().unwrap());
    let journey = Journey::in_home(home);
    // Where nobody may be asked, no dialog opens.
    let refused = journey.tmpcred(&["token", "--no-input"]).limit(BOUNDED).run().ended_with(8);
    assert!(refused.stderr.contains("the keyring is locked"), "{}", refused.stderr);
    assert_eq!(opened.load(Ordering::SeqCst), 0);

    let started = Instant::now();
    let waiting: Vec<_> =
        (0..3).map(|_| journey.tmpcred(&["token"]).limit(BOUNDED).spawn()).collect();
    for one in waiting {
        let refused = one.wait().ended_with(8);
        assert!(refused.stderr.contains("did not answer in time"), "{}", refused.stderr);
        assert!(refused.stderr.contains("TMPCRED_CACHE_STORE"), "{}", refused.stderr);
    }
    assert!(started.elapsed() < BOUNDED);
    assert_eq!(opened.load(Ordering::SeqCst), 1, "one dialog for all of them");
    assert_eq!(journey.broker.issued(), 0, "nobody logged in for nothing");
    // What it says to do instead does it.
    token(journey.tmpcred(&["token"]).env("TMPCRED_CACHE_STORE", "memory"));
}
