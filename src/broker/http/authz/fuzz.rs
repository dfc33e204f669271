//! What a proxy asks about.

use super::*;
use crate::fuzz::{
    Fate::{Accepted, Refused},
    halves, headers, hold,
};

fn config(proxy: &str) -> Authz {
    let route =
        |host: &str| serde_json::json!({"origins": [host], "audience": "https://api.example"});
    let routes = serde_json::json!({"api": route("https://api.example"), "port": route("https://api.example:8443")});
    serde_json::from_value(serde_json::json!({"proxy": proxy, "route": routes})).unwrap()
}

/// The path behind the endpoint and a query, a line end, and header lines.
#[test]
fn proxy() {
    let configs = ["nginx", "traefik", "envoy"].map(config);
    hold("proxy", [], move |input| {
        let (first, lines) = halves(input);
        let headers = headers(lines);
        let shown = credentials(&headers);
        assert!(headers.get_all("authorization").iter().count() < 2 || shown.is_err());
        let Ok(first) = std::str::from_utf8(first) else { return Refused };
        let (path, query) = first.split_once('?').map_or((first, None), |(p, q)| (p, Some(q)));
        let mut fate = Refused;
        for config in &configs {
            let asked = Asked::read(config, &Method::GET, path, query, &headers);
            let Ok(asked) = asked else { continue };
            // It is at origins of its route, whatever the path was.
            let of_route = |target: &Target| {
                let origins = asked.route.origins.iter().map(|o| o.origin().ascii_serialization());
                origins.into_iter().any(|o| target.as_str().starts_with(&format!("{o}/")))
            };
            assert!(!asked.targets.is_empty());
            assert!(asked.targets.iter().all(of_route), "{:?}", asked.targets);
            let name = match config.proxy {
                Proxy::Nginx => "x-original-host",
                Proxy::Traefik => "x-forwarded-host",
                Proxy::Envoy => "host",
            };
            assert_eq!(headers.get_all(name).iter().count(), 1);
            fate = Accepted;
        }
        fate
    });
}
