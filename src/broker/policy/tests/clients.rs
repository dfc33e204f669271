//! What policies can say of clients.

use super::*;
use crate::broker::config::{Client, ClientAuth};

#[test]
fn a_policy_speaks_of_clients_that_authenticate_and_of_no_others() {
    let roles = BTreeMap::from([("deploy".to_string(), role("read write admin", 3600))]);
    let public = Client { auth: ClientAuth::None, ..Client::default() };
    let clients: Clients =
        [("api".to_string(), Client::default()), ("public".into(), public)].into();
    let issuers = trusted(&[ISSUER]);
    let none = Clients::new();
    let load = |text: &str, clients| {
        let sources = [Source { path: "policy.cedar".into(), text: text.into() }];
        let world = World { clients, ..world(&roles, &issuers) };
        Policy::load(&sources, world)
    };
    let issues = permit("p", "@ttl(\"5m\")", "true");
    let asks = |who: &str| {
        introspects("i", "", "true")
            .replace("permit (principal", &format!("permit (principal == {who}"))
    };
    let api = issues.clone() + &asks("User::\"https://broker.example.com#api\"");
    assert!(load(&api, &clients).is_ok());
    assert!(load(&api, &none).unwrap_err().to_string().contains("a trusted issuer"));
    for nobody in
        ["User::\"https://broker.example.com#public\"", "User::\"https://broker.example.com#x\""]
    {
        let error = load(&(issues.clone() + &asks(nobody)), &clients).unwrap_err().to_string();
        assert!(error.contains("there is no client of that name"), "{error}");
    }
    // Who lets everybody of the one issuer ask has not meant the clients.
    let open = issues.clone() + &introspects("i", "", "true");
    assert!(load(&open, &none).is_ok());
    let error = load(&open, &clients).unwrap_err().to_string();
    assert!(error.contains("the permit 'i' is for callers of every"), "{error}");
    assert!(load(&issues, &clients).is_ok(), "they are issued nothing in their own name");
    // It is there only where one has authenticated.
    let unguarded = permit("p", "@ttl(\"5m\")", "context.client == \"api\"");
    assert!(load(&unguarded, &clients).is_err());
    let hash = |clients| load(&issues, clients).unwrap().hash().to_string();
    assert_ne!(hash(&clients), hash(&none));
}
