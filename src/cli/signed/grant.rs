//! A grant that is asked for, begun, used and given back by signatures.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use time::OffsetDateTime;

use super::{Desk, Kept, Known, SHORT, Signer, person, read, say};
use crate::api::Failure;
use crate::api::elevations::Wanted;
use crate::cli::App;
use crate::cli::args::{Because, Patience, ProviderDown};
use crate::cli::commands::elevate::request;
use crate::cli::misuse;
use crate::cli::prepare::Prepared;
use crate::cli::show::printable;
use crate::credential::{Assertion, Principal, TokenType};
use crate::deliver::supervisor::Beginning;
use crate::error::{Error, ErrorKind, Result};
use crate::host::{Host, files};
use crate::secret::Secret;
use crate::sshsig::{LONGEST, Named, Said, Signed, Subject, write};
use crate::wire::elevation::Elevation;

/// How much is read of what was handed to others.
const LIMIT: u64 = 64 * 1024;

/// What is waited for where people sign.
const SIGNATURES: &str = "signatures";

/// How often it is looked whether enough have approved.
const EVERY: Duration = Duration::from_secs(2);

/// How long a request is good: others have to find their keys.
const REQUEST: time::Duration = time::Duration::hours(4);

/// For how long a role is asked for where nobody says.
const USUAL: Duration = Duration::from_secs(30 * 60);

/// What is asked for.
pub(crate) struct Ask<'a> {
    pub(crate) role: &'a str,
    pub(crate) because: &'a Because,
    pub(crate) down: &'a ProviderDown,
    pub(crate) audience: Option<&'a str>,
    pub(crate) scope: Option<String>,
    /// The rules, where they were named.
    pub(crate) rules: Option<&'a str>,
    /// Whether it only is practised.
    pub(crate) drill: bool,
}

/// A request that somebody signed, and with what they go on.
pub(crate) struct SignedGrant {
    desk: Desk,
    signer: Signer,
    person: String,
    request: Signed,
}

impl SignedGrant {
    /// Signs a request, and keeps it.
    pub(crate) fn ask(app: &App, desk: Desk, prepared: &Prepared, ask: &Ask<'_>) -> Result<Self> {
        let known = Known::of(&app.host, desk.broker());
        let person = person(ask.down.person.as_deref(), &known)?;
        let signer = Signer::of(app, &prepared.cache, &ask.down.key, known.key.as_deref(), false)?;
        let wanted = request::wanted(ask.role, ask.because)?;
        if !prepared.plan.exchanges.is_empty() {
            return Err(misuse("a profile with exchanges is of no use while the provider is down")
                .because_of("what is signed is for the broker, and not for whoever comes before it")
                .hint("name a profile that asks the broker first of all"));
        }
        let bound_to = match prepared.plan.wants_key() {
            true => Some(prepared.cache.device_key()?.thumbprint().to_string()),
            false => None,
        };
        let rules = match ask.rules {
            Some(rules) => rules.to_string(),
            None => desk.rules()?,
        };
        let seconds = wanted.ttl.unwrap_or(USUAL.as_secs());
        let subject = Subject {
            role: ask.role.into(),
            audience: ask.audience.map(String::from),
            scope: ask.scope.clone(),
            seconds,
            bound_to,
            drill: ask.drill,
        };
        let ticket = wanted.ticket.map(String::from);
        let said = Said::Request { subject, rules, ticket, reason: wanted.reason.into() };
        // It tells what came of it as long as it is good, so that is as long as the grant may be.
        let lasting = time::Duration::try_from(Duration::from_secs(seconds)).unwrap_or(LONGEST);
        let lasting = REQUEST.saturating_add(lasting).min(LONGEST);
        let request = say(&app.host, desk.broker(), (&person, &signer), said, lasting)?;
        let until = request.statement.expires.unix_timestamp();
        let text = write(std::slice::from_ref(&request))?;
        let (role, audience) = (ask.role.to_string(), ask.audience.map(String::from));
        Known::change(&app.host, desk.broker(), |known| {
            known.requests.push(Kept { role, audience, text, until });
        })?;
        Ok(Self { desk, signer, person, request })
    }

    /// The broker that it is asked of.
    pub(crate) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// The request as it was signed.
    pub(crate) fn text(&self) -> Result<String> {
        write(std::slice::from_ref(&self.request))
    }

    /// Brings it to the broker; once it is there, that tells what came of it.
    pub(crate) fn bring(&self) -> Result<Elevation> {
        self.bring_to(&self.desk)
    }

    fn bring_to(&self, desk: &Desk) -> Result<Elevation> {
        let text = self.text()?;
        desk.ask(async |client| client.bring(&text).await)
    }

    /// Waits until enough have approved, and begins. That it begins is told to `beginning`.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] where it is not had any more, [`ErrorKind::ApprovalPending`] where
    /// that takes too long.
    pub(crate) fn wait(
        &self,
        app: &App,
        asked: Elevation,
        patience: Patience,
        beginning: Option<&Beginning>,
    ) -> Result<Elevation> {
        let mut latest = asked;
        let desk = self.desk.looking();
        let is_late = request::lateness(app, patience);
        let mut shown = request::Shown::new(app, SIGNATURES);
        let mut silent = None::<Instant>;
        loop {
            if let Some(end) = request::over(&latest) {
                return Err(end);
            }
            match latest.access.as_str() {
                "active" => {
                    // Whoever began it.
                    beginning.map_or(Ok(()), Beginning::enter)?;
                    return Ok(latest);
                }
                _ if is_late() => return Err(pending(&latest)),
                // Each time somebody may have to touch their key: not in vain.
                "approved" if latest.needs.iter().all(|need| need.missing() == 0) => {
                    if let Some(begun) = self.begin(app, beginning)? {
                        latest = begun;
                        continue;
                    }
                }
                _ => {}
            }
            if silent.is_none() {
                shown.tell(&latest);
            }
            std::thread::sleep(EVERY);
            match self.bring_to(&desk) {
                Ok(found) => {
                    latest = found;
                    silent = None;
                }
                Err(error) if error.kind() == ErrorKind::Unreachable => {
                    if app.host.corrected_now() >= self.request.statement.expires {
                        return Err(error);
                    }
                    if silent.get_or_insert_with(Instant::now).elapsed() > request::SILENT {
                        shown.silent(request::BROKER);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Begins; nothing where not enough approve any more, so that others have to.
    fn begin(&self, app: &App, beginning: Option<&Beginning>) -> Result<Option<Elevation>> {
        let text = write(&[self.uses(&app.host, None)?])?;
        let begun = self.desk.ask(async |client| {
            match request::begins(beginning, client.bring(&text)).await {
                Err(Failure::Short(error)) => {
                    tracing::info!(%error, "it is waited for others to approve");
                    Ok(None)
                }
                begun => begun.map(Some),
            }
        });
        match begun {
            // Whether it has begun all the same is told by the next look.
            Err(error) if error.kind() == ErrorKind::Unreachable => {
                tracing::info!(%error, "the broker does not answer");
                Ok(None)
            }
            begun => begun,
        }
    }

    fn uses(&self, host: &Host, bound_to: Option<String>) -> Result<Signed> {
        let said = Said::Use { request: self.request.statement.hash()?, bound_to };
        say(host, self.desk.broker(), (&self.person, &self.signer), said, SHORT)
    }

    /// What proves that its token is for whoever asked, wherever that is signed: in place of what
    /// an identity provider says.
    pub(crate) fn proving(
        self: &Arc<Self>,
        app: &App,
        prepared: &Prepared,
    ) -> Result<impl FnOnce() -> Result<Assertion> + Send + use<>> {
        let bound_to = match prepared.plan.wants_key() {
            true => Some(prepared.cache.device_key()?.thumbprint().to_string()),
            false => None,
        };
        let (grant, host) = (Arc::clone(self), app.host.clone());
        Ok(move || grant.assertion(&host, bound_to))
    }

    fn assertion(&self, host: &Host, bound_to: Option<String>) -> Result<Assertion> {
        let signed = self.uses(host, bound_to)?;
        Ok(Assertion {
            token: Secret::new(write(std::slice::from_ref(&signed))?),
            token_type: TokenType::Statement,
            // As whom they are known to the broker, which it tells nobody but in the token.
            principal: Principal {
                issuer: self.desk.broker().as_str().into(),
                subject: self.person.clone(),
            },
            expires_at: signed.statement.expires,
            grant_ends: None,
        })
    }

    /// Gives it back, and says why.
    pub(crate) fn end(&self, app: &App, reason: &str) -> Result<Elevation> {
        let of = Named::Request(self.request.statement.hash()?);
        let said = Said::Ending { of, reason: reason.into() };
        let text = write(&[say(
            &app.host,
            self.desk.broker(),
            (&self.person, &self.signer),
            said,
            SHORT,
        )?])?;
        self.desk.ending().ask(async |client| client.bring(&text).await)
    }

    /// The hash of the request, as signatures about it name it.
    pub(crate) fn hash(&self) -> Result<String> {
        Ok(HEXLOWER.encode(&self.request.statement.hash()?))
    }

    /// Whether it is by other rules than are in force now.
    fn is_by_other_rules(&self) -> Result<bool> {
        match &self.request.statement.said {
            Said::Request { rules, .. } => Ok(*rules != self.desk.rules()?),
            _ => Ok(false),
        }
    }

    /// Goes on with what was asked for before, where something may still come of it.
    fn known(app: &App, prepared: &Prepared, ask: &Ask<'_>) -> Result<Option<(Self, Elevation)>> {
        let desk = Desk::of(prepared)?;
        let known = Known::of(&app.host, desk.broker());
        let audience = ask.audience.unwrap_or_default();
        let live = ["pending", "approved", "active"];
        let bound_to = match prepared.plan.wants_key() {
            true => Some(prepared.cache.device_key()?.thumbprint().to_string()),
            false => None,
        };
        let covers = |scope: &str| {
            let mut wanted = ask.scope.iter().flat_map(|scope| scope.split(' '));
            wanted.all(|one| scope.split(' ').any(|covered| covered == one))
        };
        let mut void = None;
        for kept in known.requests(ask.role, audience, app.host.clock.now()) {
            let Ok([request]) =
                read(&kept.text).map_or_else(|_| Err(Vec::new()), <[Signed; 1]>::try_from)
            else {
                continue;
            };
            let text = kept.text.clone();
            let told = desk.ask(async |client| client.bring(&text).await);
            let Ok(elevation) = told else { continue };
            let serves = live.contains(&elevation.access.as_str())
                && !request::is_past(&elevation, app.host.corrected_now())
                && elevation.drill == ask.drill
                && elevation.scope.as_deref().is_none_or(covers)
                && (elevation.key.is_none() || elevation.key == bound_to);
            if serves {
                let person = request.statement.person.clone();
                let key = request.signatures.first().map(|one| one.key().fingerprint());
                let chosen = &ask.down.key;
                let signer = Signer::of(app, &prepared.cache, chosen, key.as_deref(), false)?;
                let desk = Desk::of(prepared)?;
                let grant = Self { desk, signer, person, request };
                if elevation.access == "pending" && grant.is_by_other_rules()? {
                    void.get_or_insert((grant, elevation));
                    continue;
                }
                return Ok(Some((grant, elevation)));
            }
        }
        let Some((grant, elevation)) = void else { return Ok(None) };
        app.host.interact.note(&format!(
            "the request {} was by other rules than are in force now, so nobody can approve it any more: it is taken back, and asked for anew",
            printable(&elevation.id)
        ));
        grant.end(app, "it was by other rules")?;
        Ok(None)
    }
}

/// Asks for the role of a run, waits until enough have signed, and begins. Returns also until
/// when it is had, and whether it is this run's own.
pub(crate) fn begin(
    app: &App,
    prepared: &Prepared,
    ask: &Ask<'_>,
    patience: Patience,
    beginning: Option<&Beginning>,
) -> Result<(SignedGrant, Elevation, bool)> {
    let (grant, asked) = match SignedGrant::known(app, prepared, ask)? {
        Some((grant, known)) => {
            let wanted = request::wanted(ask.role, ask.because)?;
            let wanted = Wanted { scope: ask.scope.clone(), ..wanted };
            app.host.interact.note(&request::goes_on(&known, &wanted));
            (grant, known)
        }
        None => {
            let grant = SignedGrant::ask(app, Desk::of(prepared)?, prepared, ask)?;
            let asked = grant.bring()?;
            (grant, asked)
        }
    };
    let own = asked.access != "active";
    if asked.access == "pending" {
        tell(app, &grant)?;
    }
    let elevation = grant.wait(app, asked, patience, beginning)?;
    Ok((grant, elevation, own))
}

/// Tells how others get to sign.
pub(crate) fn tell(app: &App, grant: &SignedGrant) -> Result<()> {
    let dir = app.host.dirs.state.join("provider-down");
    tidy(&dir, app.host.corrected_now());
    let path = dir.join(format!("{}.txt", grant.hash()?));
    files::write_private(&path, grant.text()?.as_bytes())?;
    app.host.interact.note(&format!(
        "hand this file to those who approve, who sign it with `tmpcred elevate sign FILE --approve`: {}",
        path.display()
    ));
    app.host.interact.note(&format!(
        "its hash is {}; bring what they sign with `tmpcred elevate submit FILE`",
        grant.hash()?
    ));
    Ok(())
}

/// Removes the requests that were handed to others, and of which nothing may come any more.
fn tidy(dir: &Path, now: OffsetDateTime) {
    for path in files::list(dir).unwrap_or_default() {
        let is_request = path.extension().is_some_and(|extension| extension == "txt");
        let text = is_request.then(|| files::read_text(&path, LIMIT).ok().flatten()).flatten();
        let signed = text.and_then(|text| read(&text).ok());
        if signed.is_some_and(|all| all.iter().all(|one| one.statement.expires <= now)) {
            // Where it cannot be, it says nothing that others may not know.
            let _ = files::remove(&path);
        }
    }
}

/// That it is not had yet.
fn pending(elevation: &Elevation) -> Error {
    let role = &elevation.role;
    request::unhad(elevation, SIGNATURES).hint(format!(
        "`tmpcred exec --elevate {role} --provider-down --reason WHY -- COMMAND` goes on with it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oidc::Issuer;
    use crate::sshsig::{Nonce, OwnKey, Statement};

    /// A request that is good for so many seconds.
    fn request(now: OffsetDateTime, seconds: i64) -> String {
        let key = OwnKey::from_pkcs8(&OwnKey::generate().unwrap()).unwrap();
        let subject = Subject {
            role: "admin".into(),
            audience: None,
            scope: None,
            seconds: 60,
            bound_to: None,
            drill: false,
        };
        let (rules, reason) = ("ab".repeat(32), "INC-4711".into());
        let statement = Statement {
            broker: Issuer::parse("https://broker.example").unwrap(),
            nonce: Nonce::random().unwrap(),
            person: "alice".into(),
            said: Said::Request { subject, rules, ticket: None, reason },
            made: now - time::Duration::HOUR,
            expires: now + time::Duration::seconds(seconds),
        };
        write(&[Signed::make(statement, |text| key.sign(text)).unwrap()]).unwrap()
    }

    #[test]
    fn what_was_handed_to_others_is_removed_once_nothing_may_come_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let now = time::macros::datetime!(2026-01-01 12:00 UTC);
        for (name, text) in [
            ("over.txt", request(now, 0)),
            ("good.txt", request(now, 60)),
            ("other.txt", "what somebody else wrote".into()),
            ("known", request(now, 0)),
        ] {
            files::write_private(&dir.path().join(name), text.as_bytes()).unwrap();
        }
        tidy(dir.path(), now);
        let left = files::list(dir.path()).unwrap();
        let left: Vec<_> = left.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(left, ["good.txt", "known", "other.txt"]);
        // Where nothing was handed to anybody there is nothing to remove.
        tidy(&dir.path().join("none"), now);
    }
}
