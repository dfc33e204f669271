//! `tmpcred token`

use crate::cli::args::{ProofFormat, Token, TokenProof};
use crate::cli::hide::{Hiding, hide};
use crate::cli::prepare::{Prepared, prepare};
use crate::cli::{App, misuse};
use crate::credential::Credential;
use crate::deliver;
use crate::deliver::proof::Headers;
use crate::dpop::{Signing, Target, is_nonce};
use crate::error::Result;
use crate::secret::Secret;

pub(super) fn run(app: &App, args: &Token) -> Result<()> {
    let request = Request::read(&args.proof)?;
    let prepared = prepare(app, &args.wanted)?;
    // Nobody logs in for what cannot be printed.
    if prepared.plan.target.yields_aws() {
        return Err(deliver::token::no_token());
    }
    match &request {
        Some(_) if !prepared.plan.wants_key() => return Err(deliver::proof::not_bound()),
        Some(_) => {}
        None => prepared.can_be_handed_on()?,
    }
    let credential = prepared.credential(&args.fresh)?;
    let text = match &request {
        Some(request) => request.headers(&prepared, &credential)?,
        None => deliver::token::line(&credential)?,
    };
    hide(app, &prepared.handout(&credential), Hiding::Printed)?;
    app.ui.secret(&text)?;
    if request.is_none() && credential.material.key().is_some() {
        app.host.interact.note(
            "this token is good only with a proof by the key of this device: `tmpcred token --dpop METHOD URL` prints both",
        );
    }
    Ok(())
}

/// The request that the key is to be proved for.
struct Request<'a> {
    method: &'a str,
    target: Target,
    nonce: Option<&'a str>,
    format: ProofFormat,
}

impl<'a> Request<'a> {
    /// `None` where no proof is asked for.
    fn read(args: &'a TokenProof) -> Result<Option<Self>> {
        let Some([method, url]) = args.dpop.as_deref() else { return Ok(None) };
        let nonce = args.nonce.as_deref();
        if let Some(nonce) = nonce
            && !is_nonce(nonce)
        {
            return Err(misuse("--nonce is not what a server gives in DPoP-Nonce"));
        }
        let (method, target) = parse(method, url)?;
        Ok(Some(Self { method, target, nonce, format: args.format.unwrap_or_default() }))
    }

    fn headers(&self, prepared: &Prepared, credential: &Credential) -> Result<Secret<String>> {
        let (method, target, nonce) = (self.method, &self.target, self.nonce);
        let key = prepared.cache.device_key()?;
        // This machine's clock may be off, as far as it was seen at the broker.
        let clock = &prepared.host.clock;
        let skew = credential.lifetime.skew(clock.machine_started());
        let now = clock.now().saturating_add(skew);
        let signing = Signing { method, target, token: None, nonce };
        let headers = Headers::of(credential, &key, signing, now)?;
        Ok(match self.format {
            ProofFormat::Headers => headers.lines(),
            ProofFormat::Json => headers.json(),
        })
    }
}

/// Reads the method and the address of a request.
pub(crate) fn parse<'a>(method: &'a str, url: &str) -> Result<(&'a str, Target)> {
    // RFC 9110 section 9.1.
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if method.is_empty() || !method.bytes().all(token) {
        return Err(misuse("--dpop: the method is none, such as GET"));
    }
    let target = Target::parse(url).ok_or_else(|| {
        misuse("--dpop: the address is none, such as https://api.example.com/path")
            .hint("the method comes first: --dpop METHOD URL")
    })?;
    Ok((method, target))
}
