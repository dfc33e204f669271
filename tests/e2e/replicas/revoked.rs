//! Tokens that are revoked under load: from the answer on, nobody accepts them, in any way
//! that there is to ask.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::support::broker::API;
use super::super::support::http::Http;
use super::super::support::wait::wait_until;
use super::SOON;
use super::load::A_WHILE;
use super::site::{Database, Site};

/// Of how many tokens one is revoked.
pub(super) const EVERY: usize = 12;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// How a process of the broker can be asked whether it accepts a token.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// A resource owner asks.
    Introspection,
    /// A proxy asks.
    Authorization,
    /// Whoever has the token asks for another one with it.
    Exchange,
}

const WAYS: [Way; 3] = [Way::Introspection, Way::Authorization, Way::Exchange];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accepted,
    Refused,
    /// Nobody answered, or that it cannot be told at present.
    None,
}

impl Way {
    #[track_caller]
    fn ask(self, http: &mut Http, url: &str, token: &str) -> Answer {
        let reply = match self {
            Self::Introspection => {
                http.form_as(token, &format!("{url}/introspect"), &[("token", token)])
            }
            Self::Authorization => http.get_as(
                token,
                &format!("{url}/v1/authz/api"),
                &[
                    ("X-Original-Method", "GET"),
                    ("X-Original-Host", API.strip_prefix("https://").unwrap()),
                    ("X-Original-URI", "/"),
                ],
            ),
            Self::Exchange => http.form(
                &format!("{url}/token"),
                &[
                    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                    ("subject_token", token),
                    ("subject_token_type", ACCESS_TOKEN),
                    ("audience", API),
                    ("role", "reader"),
                ],
            ),
        };
        let Ok(reply) = reply else { return Answer::None };
        let active = || reply.json()["active"] == true;
        match (self, reply.status) {
            (_, 429 | 503) => Answer::None,
            (Self::Introspection, 200) if !active() => Answer::Refused,
            (_, 200) => Answer::Accepted,
            (Self::Authorization, 401) => Answer::Refused,
            (Self::Exchange, 400) => {
                assert!(reply.body.contains("the token is not acceptable"), "{}", reply.body);
                Answer::Refused
            }
            _ => panic!("{self:?} at {url}: {} {}", reply.status, reply.body),
        }
    }
}

/// Those whose revocation was answered, and what came of looking.
#[derive(Default)]
pub(super) struct Revoked {
    tokens: Mutex<Vec<String>>,
    /// Who accepted one afterwards, and how.
    accepted: Mutex<Vec<String>>,
    /// How long it was until all had refused one, where all of them could be asked.
    took: Mutex<Vec<Duration>>,
}

impl Revoked {
    pub(super) fn count(&self) -> usize {
        self.tokens.lock().unwrap().len()
    }

    pub(super) fn tokens(&self) -> Vec<String> {
        self.tokens.lock().unwrap().clone()
    }

    /// Revokes a token, wherever that can be had, and looks at once, everywhere.
    #[track_caller]
    pub(super) fn revoke(&self, http: &mut Http, urls: &[String], token: String) {
        wait_until("a revocation", A_WHILE, || {
            urls.iter().find(|url| {
                let reply = http.form(&format!("{url}/revoke"), &[("token", &token)]);
                let Ok(reply) = reply else { return false };
                assert!([200, 429, 503].contains(&reply.status), "{}", reply.body);
                reply.status == 200
            })
        });
        let answered = Instant::now();
        self.tokens.lock().unwrap().push(token.clone());
        if self.look(http, urls, &token) {
            self.took.lock().unwrap().push(answered.elapsed());
        }
    }

    /// Looks for whoever accepts it. Returns whether all could be asked, and refused.
    fn look(&self, http: &mut Http, urls: &[String], token: &str) -> bool {
        let mut all = true;
        for url in urls {
            for way in WAYS {
                let answer = way.ask(http, url, token);
                all &= answer == Answer::Refused;
                if answer == Answer::Accepted {
                    self.accepted.lock().unwrap().push(format!("{way:?} at {url}: {token}"));
                }
            }
        }
        all
    }

    /// Looks at one after the other, until it is told to stop.
    pub(super) fn watch(&self, urls: &[String], stop: &AtomicBool) {
        let mut http = Http::new();
        let is_over = || stop.load(Ordering::Relaxed);
        wait_until("a token that was revoked", SOON, || {
            (is_over() || !self.tokens().is_empty()).then_some(())
        });
        for n in 0.. {
            if is_over() {
                return;
            }
            let tokens = self.tokens();
            self.look(&mut http, urls, &tokens[n % tokens.len()]);
        }
    }

    /// A token that is good is accepted everywhere in each way: so it would be seen if one
    /// were that is not.
    #[track_caller]
    pub(super) fn would_be_seen<D: Database>(&self, site: &Site<D>, urls: &[String]) {
        let mut http = Http::new();
        let assertion = site.assertion("good");
        let token = wait_until("a token", SOON, || site.ask(&mut http, &urls[0], &assertion));
        for url in urls {
            for way in WAYS {
                let answer = wait_until("an answer", SOON, || {
                    Some(way.ask(&mut http, url, &token)).filter(|answer| *answer != Answer::None)
                });
                assert_eq!(answer, Answer::Accepted, "{way:?} at {url}");
            }
        }
    }

    /// Whatever was under way meanwhile.
    #[track_caller]
    #[expect(clippy::print_stderr, reason = "how long it took is for whoever reads along")]
    pub(super) fn were_never_good(&self) {
        assert_eq!(*self.accepted.lock().unwrap(), Vec::<String>::new());
        let took = self.took.lock().unwrap();
        assert!(!took.is_empty(), "none was refused everywhere at once");
        let (worst, looks) = (took.iter().max().unwrap(), took.len());
        eprintln!("{looks} revocations of {}: at the first look, {worst:?} at most", self.count());
    }

    /// At the end all of these say of each of them that it is not good.
    #[track_caller]
    pub(super) fn are_refused_at(&self, urls: &[String]) {
        let mut http = Http::new();
        for token in self.tokens() {
            for url in urls {
                for way in WAYS {
                    let answer = wait_until("an answer", SOON, || {
                        let answer = way.ask(&mut http, url, &token);
                        Some(answer).filter(|answer| *answer != Answer::None)
                    });
                    assert_eq!(answer, Answer::Refused, "{way:?} at {url}: {token}");
                }
            }
        }
    }
}
