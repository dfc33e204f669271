//! The key with which somebody signs.

use std::path::Path;

use crate::cache::Cache;
use crate::cli::args::SigningKey;
use crate::cli::{App, misuse, require_file};
use crate::error::Result;
use crate::host::{Host, files};
use crate::sshsig::{Agent, OwnKey, PublicKey, Signature};

/// How long a file with a public key may be, in bytes.
const MAX_KEY: u64 = 8 * 1024;

/// Something that signs.
pub(crate) enum Signer {
    /// The key of this program's own.
    Own(Box<OwnKey>),
    /// One of the SSH agent.
    Agent(Agent, PublicKey),
}

impl Signer {
    /// The key that was chosen; else the one that was enrolled last; else the program's own,
    /// which is made where `make` says so and there is none.
    pub(crate) fn of(
        app: &App,
        cache: &Cache,
        chosen: &SigningKey,
        enrolled: Option<&str>,
        make: bool,
    ) -> Result<Self> {
        if chosen.agent {
            return Self::in_agent(app, None);
        }
        if let Some(name) = &chosen.key {
            return Self::in_agent(app, Some(&fingerprint(name)?));
        }
        let own = cache.kept_signing_key()?;
        let is_own = |fingerprint: &str| {
            own.as_ref().is_some_and(|own| own.public().fingerprint() == fingerprint)
        };
        if let Some(enrolled) = enrolled.filter(|one| !chosen.keyring && !make && !is_own(one)) {
            return Self::in_agent(app, Some(enrolled));
        }
        match own {
            Some(own) => Ok(Self::Own(Box::new(own))),
            None if make => Ok(Self::Own(Box::new(cache.signing_key()?))),
            None => Err(misuse("you have no key in your keyring to sign with")
                .hint("while the identity provider is up: tmpcred elevate keys enroll")
                .hint("for one of your SSH agent: --agent, or --key FILE.pub")),
        }
    }

    fn in_agent(app: &App, fingerprint: Option<&str>) -> Result<Self> {
        let agent = Agent::of(&app.host.env)?;
        let key = agent.key(fingerprint)?;
        Ok(Self::Agent(agent, key.public))
    }

    /// Its public half.
    pub(crate) fn public(&self) -> &PublicKey {
        match self {
            Self::Own(own) => own.public(),
            Self::Agent(_, public) => public,
        }
    }

    /// Signs.
    pub(crate) fn sign(&self, host: &Host, text: &[u8]) -> Result<Signature> {
        match self {
            Self::Own(own) => own.sign(text),
            Self::Agent(agent, key) => {
                if key.kind().is_on_security_key() {
                    host.interact.note("touch your security key to sign");
                }
                agent.sign(key, text)
            }
        }
    }
}

/// The fingerprint of a key that is named by it, or by a file with its public half.
fn fingerprint(name: &str) -> Result<String> {
    if name.starts_with("SHA256:") {
        return Ok(name.to_string());
    }
    require_file(Path::new(name))?;
    let text = files::read_text(Path::new(name), MAX_KEY)?.unwrap_or_default();
    Ok(PublicKey::parse(&text)?.0.fingerprint())
}
