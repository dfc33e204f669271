//! Renewing a credential in the background, before anybody has to wait for it, and looking
//! there whether it was revoked.

use std::ffi::OsString;

use super::args::Wanted;
use super::prepare::Prepared;
use crate::credential::Credential;
use crate::error::{Error, ErrorKind, Result};
use crate::host::process;

/// What is to be done for a cached credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// It will soon be due.
    Renew,
    /// It may have been revoked.
    Check,
}

impl Prepared {
    /// Starts a process that does this for a credential. It asks nobody anything, and where
    /// it fails nothing is lost: the credential is renewed when it is due.
    pub(super) fn in_background(&self, credential: &Credential, what: Ahead) {
        if let Err(error) = self.start(credential, what) {
            tracing::debug!(%error, ?what, "cannot see to the credential in the background");
        }
    }

    fn start(&self, credential: &Credential, what: Ahead) -> Result<()> {
        let Some(wanted) = &self.ahead else { return Ok(()) };
        let ends = credential.lifetime.expires_at.unix_timestamp();
        let mut command = process::command(process::own_program()?);
        command.arg("renew-ahead").arg("--quiet").arg("--no-input").arg(format!("--ends={ends}"));
        if what == Ahead::Check {
            command.arg("--if-revoked");
        }
        command.args(arguments(wanted, &self.plan.profile));
        tracing::debug!(
            profile = self.plan.profile,
            ?what,
            "seeing to the credential in the background"
        );
        process::detach(command).map_err(|cause| {
            Error::new(ErrorKind::Io, "cannot start what sees to the credential").because(cause)
        })
    }
}

/// The arguments that ask for the same credential, from the same directory.
fn arguments(wanted: &Wanted, profile: &str) -> Vec<OsString> {
    let Wanted { profile: _, role, scope, audience, ttl, policy, policy_arn, read_only } = wanted;
    let mut arguments = Vec::new();
    // A value may begin with a hyphen.
    let mut option = |name: &str, value: OsString| {
        let mut argument = OsString::from(format!("--{name}="));
        argument.push(value);
        arguments.push(argument);
    };
    role.iter().for_each(|role| option("role", role.into()));
    scope.iter().for_each(|scope| option("scope", scope.into()));
    audience.iter().for_each(|audience| option("audience", audience.into()));
    ttl.iter().for_each(|ttl| option("ttl", humantime::format_duration(*ttl).to_string().into()));
    policy.iter().for_each(|file| option("policy", file.into()));
    policy_arn.iter().for_each(|arn| option("policy-arn", arn.into()));
    if *read_only {
        arguments.push("--read-only".into());
    }
    arguments.push(profile.into());
    arguments
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::args::Command;
    use crate::cli::parse::parse;

    #[test]
    fn the_arguments_ask_for_the_same() {
        let wanted = Wanted {
            profile: None,
            role: Some("--role".into()),
            scope: vec!["deploy:read".into(), "deploy:write".into()],
            audience: Some("https://api.example.com/?a=b c".into()),
            ttl: Some(Duration::from_millis(5_432_100)),
            policy: Some("a policy.json".into()),
            policy_arn: vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".into()],
            read_only: true,
        };
        let mut line: Vec<OsString> =
            ["tmpcred", "renew-ahead", "--ends=1800000000"].map(Into::into).to_vec();
        line.extend(arguments(&wanted, "deploy"));
        let Command::RenewAhead(args) = parse(line).unwrap().command else { panic!() };
        let same = Wanted { profile: Some("deploy".into()), ..wanted };
        assert_eq!(format!("{:?}", args.wanted), format!("{same:?}"));
        assert_eq!(args.ends, 1_800_000_000);
    }
}
