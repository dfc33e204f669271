//! Clients that come to an endpoint: those that the configuration has a table of do what
//! stands there, or they are refused (RFC 6749 section 2.3, RFC 7521 section 4.2).
//!
//! An assertion is good once, at whichever process and whichever endpoint. That it was
//! used is in the store before the token is looked at that the request is about.

use super::Broker;
use super::authenticate::Caller;
use super::authenticate::client::{Assertion, Unproved, admit};
use super::config::Clients;
use super::metrics::ClientAuthentication;
use super::rulebook::Rulebook;
use super::store::{Consumed, Effect, Once, Unit};
use crate::error::{Error, ErrorKind};
use crate::secret::Secret;

/// The only kind of assertion (RFC 7523 section 2.2).
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What a request says of the client that it comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presented<'a> {
    /// Its `client_id`.
    pub client_id: Option<&'a str>,
    /// Its `client_assertion`.
    pub assertion: Option<&'a Secret<String>>,
    /// The `client_assertion_type`.
    pub assertion_type: Option<&'a str>,
    /// Whether it has other credentials of a client besides.
    pub otherwise: bool,
    /// Whether its header has a name and a secret (RFC 7617), as no client has one.
    pub basic: bool,
    /// Whether its body has a secret.
    pub secret: bool,
}

/// Why nobody is taken for a client.
#[derive(Debug)]
pub struct Refused {
    /// What it counts as.
    pub why: ClientAuthentication,
    /// What whoever asks is told.
    pub error: Error,
    /// Whether they have tried a secret in the header `Authorization`, whose scheme the answer
    /// has to name (RFC 6749 section 5.2).
    pub basic: bool,
}

impl Refused {
    fn new(why: ClientAuthentication, error: Error) -> Self {
        Self { why, error, basic: false }
    }

    /// Somebody shows a secret, in the header or elsewhere: a method that is not supported is an
    /// `invalid_client` (RFC 6749 section 5.2).
    fn by_secret(basic: bool) -> Self {
        let why = "no client has a secret here: leave it out, and authenticate by a client_assertion where you have to";
        let error = Error::new(ErrorKind::Verification, why);
        Self { basic, ..Self::new(ClientAuthentication::Invalid, error) }
    }

    fn malformed(why: &str) -> Self {
        Self::new(ClientAuthentication::Malformed, Error::new(ErrorKind::Usage, why))
    }

    fn missing(error: Error) -> Self {
        Self::new(ClientAuthentication::Missing, error)
    }
}

impl From<Unproved> for Refused {
    fn from(unproved: Unproved) -> Self {
        match unproved {
            Unproved::Unknown(error) => Self::new(ClientAuthentication::Unknown, error),
            Unproved::Invalid(error) => Self::new(ClientAuthentication::Invalid, error),
            Unproved::Unavailable(error) => Self::new(ClientAuthentication::Unavailable, error),
        }
    }
}

/// Why a caller does not come through a client.
#[derive(Debug)]
pub enum NotThrough {
    /// Their token was issued to a client that has to show that it is the one.
    Client(Refused),
    /// The client has shown that, and their token was issued to another one. It is the token
    /// that is not acceptable then (RFC 8693 section 2.2.2).
    Token(Error),
}

impl From<NotThrough> for Error {
    fn from(why: NotThrough) -> Self {
        match why {
            NotThrough::Client(refused) => refused.error,
            NotThrough::Token(error) => error,
        }
    }
}

/// A client that has authenticated, or nobody in particular.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proved(Option<String>);

impl Proved {
    /// The id of the client.
    pub fn id(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl Broker {
    /// Which client a request comes from, as far as it shows. `key_bound` says whether it
    /// proves a key as well. When this returns, the assertion is used up.
    pub async fn client(
        &self,
        book: &Rulebook,
        presented: Presented<'_>,
        key_bound: bool,
    ) -> Result<Proved, Refused> {
        let outcome = self.prove(book, presented, key_bound).await;
        if presented.assertion.is_some() || outcome.is_err() {
            self.metrics.client_authenticated(match &outcome {
                Ok(_) => ClientAuthentication::Authenticated,
                Err(refused) => refused.why,
            });
        }
        outcome
    }

    async fn prove(
        &self,
        book: &Rulebook,
        presented: Presented<'_>,
        key_bound: bool,
    ) -> Result<Proved, Refused> {
        let Some(assertion) = presented.assertion else {
            // Whoever shows one counts on being somebody by it.
            if presented.basic || presented.secret {
                return Err(Refused::by_secret(presented.basic));
            }
            if presented.assertion_type.is_some() {
                let why = "there is a client_assertion_type, and no client_assertion";
                return Err(Refused::malformed(why));
            }
            if let Some(id) = presented.client_id {
                admit(book.clients(), id, false, key_bound).map_err(Refused::missing)?;
            }
            return Ok(Proved::default());
        };
        // RFC 6749 section 2.3.
        if presented.otherwise {
            let why = "a client authenticates in one way, not in several at once";
            return Err(Refused::malformed(why));
        }
        let invalid = |why: String| {
            let error = Error::new(ErrorKind::Verification, why);
            Refused::new(ClientAuthentication::Invalid, error)
        };
        if presented.assertion_type != Some(ASSERTION_TYPE) {
            return Err(invalid(format!("the client_assertion_type must be {ASSERTION_TYPE}")));
        }
        let assertion = book.authenticator().clients().verify(assertion).await?;
        // RFC 7521 section 4.2: where both are there, they are the same.
        if presented.client_id.is_some_and(|id| id != assertion.client) {
            let why = "the client_id and the client_assertion are of two clients";
            return Err(invalid(why.into()));
        }
        admit(book.clients(), &assertion.client, true, key_bound).map_err(Refused::missing)?;
        self.use_up_assertion(&assertion).await?;
        Ok(Proved(Some(assertion.client)))
    }

    /// Uses an assertion up, durably and for all processes of this broker.
    async fn use_up_assertion(&self, assertion: &Assertion) -> Result<(), Refused> {
        let now = self.clock.now();
        let used = Effect::Consume(Consumed {
            kind: Once::ClientAssertion,
            id: assertion.id.clone(),
            at: now,
            keep_until: assertion.until,
        });
        match self.audit.commit(Unit::default().with(used)).await {
            Ok(Some(_)) => {
                self.sweep(now);
                Ok(())
            }
            Ok(None) => {
                let why = "the client assertion was used before";
                let error = Error::new(ErrorKind::Verification, why)
                    .hint("each request needs one of its own, with another jti");
                Err(Refused::new(ClientAuthentication::Replayed, error))
            }
            Err(error) => {
                tracing::error!(%error, "it cannot be kept that a client assertion was used");
                let why = "the broker cannot tell at present whether the client assertion was used";
                let error = Error::new(ErrorKind::Io, why);
                Err(Refused::new(ClientAuthentication::Unavailable, error))
            }
        }
    }

    /// The caller, through the client that has authenticated. Where none has, nobody comes
    /// under the name of one that has to: the client that a token was issued to stands in
    /// records and tokens, too. That goes for the token of who acts as well as for the
    /// subject's.
    ///
    /// # Errors
    /// What the caller is told, where their token is of a client that has to do more.
    pub fn through(
        &self,
        book: &Rulebook,
        caller: Caller,
        client: &Proved,
        key_bound: bool,
    ) -> Result<Caller, NotThrough> {
        let outcome = through(book.clients(), caller, client.id(), key_bound);
        outcome.map_err(|error| match client.id() {
            Some(_) => NotThrough::Token(error),
            None => {
                self.metrics.client_authenticated(ClientAuthentication::Missing);
                NotThrough::Client(Refused::missing(error))
            }
        })
    }
}

/// Refuses a token that was issued to another client of whom something is asked, unless the
/// one that has authenticated may show it: what is asked of the other would be asked of nobody.
fn require_own(clients: &Clients, authenticated: &str, issued_to: &str) -> Result<(), Error> {
    let may_show = || {
        let own = clients.get(authenticated);
        own.is_some_and(|client| client.tokens_of.contains(issued_to))
    };
    if issued_to == authenticated || !clients.contains_key(issued_to) || may_show() {
        return Ok(());
    }
    let why = format!(
        "the token was issued to the client '{issued_to}', and '{authenticated}' may not show it"
    );
    let hint = format!(
        "whoever runs the broker lets it, by tokens_of = [\"{issued_to}\"] in [client.{authenticated}]"
    );
    Err(Error::new(ErrorKind::Verification, why).hint(hint))
}

/// The caller, through this client where it has authenticated.
pub fn through(
    clients: &Clients,
    caller: Caller,
    authenticated: Option<&str>,
    key_bound: bool,
) -> Result<Caller, Error> {
    match authenticated {
        Some(client) => {
            for party in caller.proven() {
                require_own(clients, client, party.client())?;
            }
            Ok(caller.through(client))
        }
        None => {
            for party in caller.proven() {
                admit(clients, party.client(), false, key_bound)?;
            }
            Ok(caller)
        }
    }
}
