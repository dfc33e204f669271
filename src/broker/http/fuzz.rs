//! Forms and header lines.

use std::net::IpAddr;

use axum::http::uri::Authority;
use url::form_urlencoded;

use super::form::Form;
use super::hosts::Hosts;
use super::shown::bearer;
use super::source::Source;
use super::token::Requested;
use crate::broker::config::ForwardedHeader;
use crate::broker::network::Network;
use crate::fuzz::{
    Fate::{self, Accepted, Refused},
    headers, hold,
};

const NAMES: [&str; 15] = [
    "grant_type",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "audience",
    "resource",
    "scope",
    "role",
    "requested_ttl",
    "idempotency_key",
    "requested_token_type",
    "client_id",
    "client_assertion",
    "token",
];

#[test]
fn form() {
    hold("form", [], |input| {
        let Ok(form) = Form::parse(input, &["resource"]) else { return Refused };
        let mut again = form_urlencoded::Serializer::new(String::new());
        for name in NAMES {
            let values: Vec<_> = form.all(name).collect();
            assert!(values.len() <= 1 || name == "resource", "{name} is there twice");
            assert!(values.iter().all(|value| !value.is_empty() && !value.contains('\u{fffd}')));
            again.extend_pairs(values.iter().map(|value| (name, value)));
        }
        let again = Form::parse(again.finish().as_bytes(), &["resource"]).unwrap();
        for name in NAMES {
            assert!(form.all(name).eq(again.all(name)), "{name}");
        }
        let Ok(form) = Form::parse(input, &[]) else { return Refused };
        let Ok(requested) = Requested::read(&form) else { return Refused };
        assert!(crate::broker::config::is_name(&requested.role));
        assert!(requested.scope.is_none_or(|scope| (1..=100).contains(&scope.len())));
        assert!(requested.ttl.is_none_or(|ttl| !ttl.is_zero()));
        assert!(
            form.all("audience").chain(form.all("resource")).all(|one| one == requested.audience)
        );
        Accepted
    });
}

/// Who asks, and from where.
#[test]
fn header_lines() {
    let proxies: Vec<Network> = vec!["10.0.0.0/8".parse().unwrap()];
    hold("header_lines", [], move |input| {
        let headers = headers(input);
        let bearer = bearer(&headers);
        let fate = Fate::accepted_if(bearer.is_ok());
        if let Ok(bearer) = bearer {
            let mut given = headers.get_all("authorization").iter();
            let one = given.next().unwrap().to_str().unwrap();
            assert!(
                given.next().is_none()
                    && one.contains(bearer.expose())
                    && !bearer.expose().is_empty()
            );
        }
        // Whoever is no proxy is who they are.
        let stranger: IpAddr = [192, 0, 2, 7].into();
        for (header, name) in [
            (ForwardedHeader::XForwardedFor, "x-forwarded-for"),
            (ForwardedHeader::Forwarded, "forwarded"),
        ] {
            let of = |peer| Source::of(peer, &headers, &proxies, header);
            assert_eq!(of(stranger), Ok(Source(stranger)));
            // Nobody comes as the proxy of whom it says anything, be it readable or not.
            let proxy = IpAddr::from([10, 0, 0, 1]);
            let last = headers.get_all(name).iter().next_back();
            let last = last.map(|line| line.to_str().unwrap_or_default());
            match (last.map(|line| line.rsplit(',').next().unwrap_or_default()), of(proxy)) {
                (None, behind) => assert_eq!(behind, Ok(Source(proxy))),
                (Some(last), Ok(Source(behind))) => assert!(
                    behind != proxy || last.contains("10.0.0.1") || last.contains("a00:1"),
                    "{last}"
                ),
                (Some(_), Err(_)) => {}
            }
        }
        let hosts = Hosts::Loopback(vec!["broker.example".into()]);
        if hosts.allow(&headers, None) {
            let mut given = headers.get_all("host").iter();
            let one: Authority = given.next().unwrap().to_str().unwrap().parse().unwrap();
            assert!(given.next().is_none() && !one.as_str().contains('@'));
            let host = one.host().trim_matches(['[', ']']).to_ascii_lowercase();
            let loopback = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
            assert!(loopback || host == "localhost" || host == "broker.example", "{host}");
        }
        fate
    });
}
