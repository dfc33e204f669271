//! A provider that is asked too often says so (`slow_down`, RFC 8628 section 3.5). No client
//! asks sooner than it was told to, unless what it was told is not what the provider wants:
//! here something on the way changes that number, and nothing else.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tmpcred::credential::TokenType;

use super::{BROKER, LONG, Plan, claims};
use crate::support::browser::Browser;
use crate::support::glewlwyd::{CLIENT, Glewlwyd, GlewlwydOptions, PASSWORD, USER};
use crate::support::wait::wait_until;

/// What Glewlwyd wants, and what the device is told; as many characters, so that the length
/// of the answer stays what it is.
const WANTED: u32 = 3;
const TOLD: u32 = 1;

/// The way to a server.
struct Hasty {
    listener: TcpListener,
    answered: Arc<Mutex<String>>,
}

impl Hasty {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { listener, answered: Arc::default() }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Leads to this port from now on.
    fn leads_to(&self, port: u16) {
        let (listener, answered) = (self.listener.try_clone().unwrap(), self.answered.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (to_server, to_client) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || pass_on(client, to_server, |_| {}));
                let answered = answered.clone();
                std::thread::spawn(move || {
                    pass_on(server, to_client, |bytes| {
                        hasten(bytes);
                        answered.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
                    });
                });
            }
        });
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, mut each: impl FnMut(&mut [u8])) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let bytes = &mut buffer[..length];
        each(bytes);
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    // Whoever is gone already cannot be told.
    let _ = to.shutdown(Shutdown::Write);
}

/// Changes the number of seconds in the answer to a device.
fn hasten(bytes: &mut [u8]) {
    let name = b"\"interval\":";
    let Some(at) = bytes.windows(name.len()).position(|window| window == name) else { return };
    let (wanted, told) = (WANTED.to_string().into_bytes()[0], TOLD.to_string().into_bytes()[0]);
    let number = bytes[at + name.len()..].iter_mut().find(|byte| **byte != b' ');
    if let Some(byte) = number.filter(|byte| **byte == wanted) {
        *byte = told;
    }
}

#[test]
fn who_is_told_to_slow_down_waits_longer_and_logs_in() {
    let way = Hasty::new();
    let options = GlewlwydOptions {
        device_interval: WANTED,
        resources: vec![BROKER],
        behind: Some(way.port()),
        ..GlewlwydOptions::default()
    };
    let server = Glewlwyd::start_with(&options);
    way.leads_to(server.port());
    let answered = way.answered.clone();
    let count = move || answered.lock().unwrap().matches("slow_down").count();
    let heard = count.clone();
    let plan = Plan::new(&server.issuer())
        .set("client_id", json!(CLIENT))
        .set("scopes", json!(["openid"]))
        .set("flow", json!("device"))
        .browser(Browser::http().user(USER, PASSWORD));
    // The code is typed only when the provider has said it.
    let (world, _) = plan
        .types_when(move || {
            wait_until("slow_down", LONG, || (heard() > 0).then_some(()));
            true
        })
        .build();
    let assertion = world.assertion(BROKER).unwrap();
    assert_eq!(assertion.token_type, TokenType::AccessToken);
    assert_eq!(claims(&assertion)["aud"], BROKER);
    // Five seconds more are enough for this one: it had not to say it again.
    assert_eq!(count(), 1);
}
