//! Credentials of one run, which are revoked at its end.

use futures_util::future::{join, join_all};
use time::Duration;

use crate::credential::{Assertion, Credential};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::process;
use crate::mint::Exchange;
use crate::plan::Plan;

/// A credential that only one run has.
#[derive(Clone, Debug)]
pub struct OwnCredential {
    /// The credential.
    pub credential: Credential,
    /// What it came of, and has to last as long as it.
    pub(super) steps: Vec<Exchanged>,
}

/// An exchange on the way, and what it yielded.
#[derive(Clone, Debug)]
pub(super) struct Exchanged {
    pub(super) exchange: Exchange,
    pub(super) yielded: Assertion,
}

impl Exchanged {
    /// Revokes what it yielded. Failing is told and no more: nobody else has it.
    pub(super) async fn revoke(&self, host: &Host) {
        if let Err(error) = self.exchange.revoke(host, &self.yielded).await {
            host.interact.warn(&format!(
                "the token for the role '{}', which was a step to the credential, could not be revoked and stays good until it ends: {error}",
                self.exchange.role
            ));
        }
    }
}

impl OwnCredential {
    /// Whether there is nothing left to revoke: it has ended by itself, and what it came of.
    pub fn is_over(&self, host: &Host) -> bool {
        let now = host.corrected_now();
        self.has_ended(host) && self.steps.iter().all(|step| step.yielded.expires_at <= now)
    }

    fn has_ended(&self, host: &Host) -> bool {
        self.credential.lifetime.remaining(host.clock.now()) <= Duration::ZERO
    }
}

/// Revokes credentials of this plan, and what each came of, all at the same time: that takes
/// as long as one does. What has ended by itself is left alone. What keeps one from being
/// revoked is the error in its place: it stays good until it ends.
pub fn revoke(host: &Host, plan: &Plan, all: &[OwnCredential]) -> Vec<Result<()>> {
    if all.iter().all(|own| own.is_over(host)) {
        return all.iter().map(|_| Ok(())).collect();
    }
    let ends = async || join_all(all.iter().map(|own| end(host, plan, own))).await;
    match process::runtime() {
        Ok(runtime) => runtime.block_on(ends()),
        Err(error) => all.iter().map(|_| Err(error.clone())).collect(),
    }
}

/// The same with one.
pub(super) async fn end(host: &Host, plan: &Plan, own: &OwnCredential) -> Result<()> {
    let target = plan.target.open();
    let itself = async {
        match target.revocation() {
            _ if own.has_ended(host) => Ok(()),
            Some(revocation) => revocation.revoke(host, &own.credential).await,
            None => Err(Error::new(ErrorKind::Config, "its target cannot revoke credentials")),
        }
    };
    // They may outlast it.
    let steps = join_all(own.steps.iter().map(|step| step.revoke(host)));
    join(itself, steps).await.0
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::credential::{Lifetime, Material, Principal};
    use crate::host::listener::{Exposure, bind};
    use crate::host::test_server;
    use crate::plan::{Request, plan};
    use crate::secret::Secret;

    fn of_broker(address: &str) -> Plan {
        let config = format!(
            "[identity.corp]\ntype = 'oidc'\nissuer = 'https://login.example.com'\n\
             client_id = 'x'\n[broker.main]\nurl = 'http://{address}'\n[profile.dev]\n\
             role = 'dev'\naudience = 'https://api.example.com'\n"
        );
        let request = Request { profile: Some("dev".into()), ..Request::default() };
        plan(&request, &crate::config::parse("config.toml", &config).unwrap()).unwrap()
    }

    fn own(host: &Host, token: &str) -> OwnCredential {
        let now = host.clock.now();
        let credential = Credential {
            material: Material::Bearer { token: Secret::new(token.into()) },
            role: "dev".into(),
            scope: Vec::new(),
            principal: Principal { issuer: "https://i.example".into(), subject: "a".into() },
            lifetime: Lifetime::new(now, now + Duration::MINUTE, None, now),
        };
        OwnCredential { credential, steps: Vec::new() }
    }

    #[test]
    fn all_are_revoked_at_the_same_time() {
        let socket = bind(([127, 0, 0, 1], 0).into(), Exposure::LoopbackOnly).unwrap();
        socket.set_nonblocking(false).unwrap();
        let plan = of_broker(&socket.local_addr().unwrap().to_string());
        let serving = std::thread::spawn(move || {
            // Nobody is answered before all have come.
            let all: Vec<_> = (0..3).map(|_| socket.accept().unwrap().0).collect();
            all.into_iter().for_each(|mut stream| {
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _some = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                stream.read_to_end(&mut Vec::new()).unwrap();
            });
        });
        let dir = tempfile::tempdir().unwrap();
        let host = test_server::host(dir.path(), Duration::ZERO);
        let all = ["one", "two", "three"].map(|token| own(&host, token));
        let revoked = revoke(&host, &plan, &all);
        assert_eq!(revoked, [const { Ok(()) }; 3]);
        serving.join().unwrap();
    }
}
