//! What a profile says of its sessions, and what AWS would refuse of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mfa::Mfa;
use super::names::{self, AccountId, EndpointUrl, PolicyArn, Region, RoleArn, SessionName, Start};
use super::policy::{Place, SessionPolicy};
use crate::credential::Proof;
use crate::error::Result;
use crate::mint::{Narrowing, Refusal};

/// The audience that AWS's own tools and guides use for web identities.
const AUDIENCE: &str = "sts.amazonaws.com";
/// The shortest session:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>.
pub(super) const TTL_MIN: Duration = Duration::from_secs(900);
/// What sessions of roles last where nobody says how long.
pub(super) const TTL_USUAL: Duration = Duration::from_secs(3_600);
/// What sessions of users last then.
const TTL_USUAL_OF_USER: Duration = Duration::from_secs(43_200);
/// The longest session. A role may allow less.
const TTL_MAX: Duration = Duration::from_secs(43_200);
/// The longest session of a role that was assumed with another role's session.
const TTL_CHAINED_MAX: Duration = Duration::from_secs(3_600);
/// The longest session of a user:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html>.
const TTL_USER_MAX: Duration = Duration::from_secs(129_600);

/// Declares settings that end in those of one session, so that each is said once.
macro_rules! with_session {
    ($(#[$meta:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$of_field])* pub $field: $type,)*
            /// What the role's trust policy asks for where the role is somebody else's.
            #[serde(default)]
            pub external_id: Option<String>,
            /// The name of the session; `{subject}` stands for whoever is calling.
            #[serde(default)]
            pub session_name: Option<SessionName>,
            /// Who acts, for the logs of AWS. It stays with the session.
            #[serde(default)]
            pub source_identity: Option<String>,
            /// Session tags.
            #[serde(default)]
            pub tags: BTreeMap<String, String>,
            /// The keys of the tags that go on to the roles behind this one.
            #[serde(default)]
            pub transitive_tags: Vec<String>,
            /// A session policy: what of the role's permissions the session keeps.
            #[serde(default)]
            pub policy: Option<String>,
            /// A JSON file with the session policy.
            #[serde(default)]
            pub policy_file: Option<PathBuf>,
            /// The ARNs of managed policies that are session policies.
            #[serde(default)]
            pub policy_arns: Vec<PolicyArn>,
            /// The MFA device of the user who asks.
            #[serde(default)]
            pub mfa: Option<Mfa>,
        }

        impl $name {
            /// What is said of the session.
            pub(super) fn session(&self) -> Session<'_> {
                Session {
                    external_id: self.external_id.as_deref(),
                    name: self.session_name.clone().unwrap_or_default(),
                    is_named: self.session_name.is_some(),
                    source_identity: self.source_identity.as_deref(),
                    tags: &self.tags,
                    transitive_tags: &self.transitive_tags,
                    policy: SessionPolicy {
                        text: self.policy.as_deref(),
                        file: self.policy_file.as_deref(),
                        arns: &self.policy_arns,
                    },
                    mfa: self.mfa.as_ref(),
                }
            }

            fn policies(&mut self) -> Place<'_> {
                Place {
                    policy: &mut self.policy,
                    file: &self.policy_file,
                    policy_arns: &mut self.policy_arns,
                }
            }
        }
    };
}

with_session! {
    /// A profile's target: roles in AWS. The first is the profile's `role`.
    #[derive(Default)]
    Settings {
        /// The region whose endpoint is asked, and that commands are told. Where left
        /// out: the global endpoint.
        #[serde(default)]
        region: Option<Region>,
        /// Whether to use endpoints that comply with FIPS 140.
        #[serde(default)]
        use_fips: bool,
        /// Another server that speaks the protocol of STS.
        #[serde(default)]
        endpoint_url: Option<EndpointUrl>,
        /// A PEM file with certificate authorities to trust besides the system's.
        #[serde(default)]
        ca_file: Option<PathBuf>,
        /// The audience that assertions are bound to. Where left out: `sts.amazonaws.com`.
        #[serde(default)]
        audience: Option<String>,
        /// Further roles, each assumed with the session of the one before.
        #[serde(default)]
        chain: Vec<Step>,
        /// The accounts of which one must be that of the credential.
        #[serde(default)]
        expect_account: Vec<AccountId>,
    }
}

with_session! {
    /// A role that is assumed with the session of another.
    Step {
        /// The role.
        role_arn: RoleArn,
    }
}

/// What is said of one session.
pub(super) struct Session<'a> {
    pub(super) external_id: Option<&'a str>,
    pub(super) name: SessionName,
    is_named: bool,
    pub(super) source_identity: Option<&'a str>,
    pub(super) tags: &'a BTreeMap<String, String>,
    pub(super) transitive_tags: &'a [String],
    pub(super) policy: SessionPolicy<'a>,
    pub(super) mfa: Option<&'a Mfa>,
}

impl Session<'_> {
    /// Which of these is said, of those that an assertion has or nobody.
    fn of_the_asker(&self) -> Option<&'static str> {
        let said = [
            ("tags", !self.tags.is_empty()),
            ("transitive_tags", !self.transitive_tags.is_empty()),
            ("source_identity", self.source_identity.is_some()),
            ("external_id", self.external_id.is_some()),
        ];
        said.into_iter().find(|(_, said)| *said).map(|(what, _)| what)
    }

    fn shown(&self) -> String {
        let mfa = self.mfa.map(Mfa::shown).unwrap_or_default();
        let source = self.source_identity.map(|who| format!(", source identity {who}"));
        let tags: Vec<_> = self.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let tags = if tags.is_empty() { String::new() } else { format!(", tagged {}", tags.join(" ")) };
        let source = source.unwrap_or_default();
        format!("as {}{source}{tags}{}{mfa}", self.name, self.policy.shown())
    }
}

impl Settings {
    /// The audience that an assertion must be bound to.
    pub fn audience(&self) -> String {
        self.audience.clone().unwrap_or_else(|| AUDIENCE.to_string())
    }

    /// Tells what of a request cannot be had, before anybody is asked. `proof` is
    /// how the caller proves who they are, where that is known.
    ///
    /// # Errors
    /// With the name of the value that is wrong.
    pub fn check(
        &self,
        role: &str,
        role_is_option: bool,
        ttl: Option<Duration>,
        proof: Option<Proof>,
    ) -> Result<(), Refusal> {
        let start = Start::parse(role).map_err(|why| Refusal::new("role", why))?;
        if role_is_option && !self.chain.is_empty() {
            let why = "this profile goes through a chain of roles, and it is not said which one to replace";
            return Err(Refusal::new("role", why).hint("write a profile of its own for that role"));
        }
        if matches!(start, Start::User(_)) && proof == Some(Proof::Token) {
            let why = "a session of a user is given for that user's access keys, and for no token";
            return Err(Refusal::new("role", why)
                .hint("name a role, or an identity of the type `aws-keys`"));
        }
        self.check_sessions(&start, proof)?;
        self.check_ttl(&start, ttl)?;
        self.check_endpoint(names::partition(start.as_str()))?;
        let account = names::account(self.last(&start));
        if !self.expects(account) {
            let account = account.unwrap_or("none");
            return Err(Refusal::new("role", format!("its account is {account}"))
                .hint(super::EXPECTED));
        }
        Ok(())
    }

    /// The ARN that the credential is of.
    pub(super) fn last<'a>(&'a self, start: &'a Start) -> &'a str {
        self.chain.last().map_or(start.as_str(), |step| step.role_arn.as_str())
    }

    fn check_sessions(&self, start: &Start, proof: Option<Proof>) -> Result<(), Refusal> {
        let wrong = |why: String| Refusal::new("target", why);
        let first = self.session();
        if matches!(start, Start::User(_)) {
            let named = first.is_named.then_some("session_name");
            let policy = (!first.policy.is_empty()).then_some("session policy");
            if let Some(what) = first.of_the_asker().or(named).or(policy) {
                return Err(wrong(format!("the session of a user takes no {what}")));
            }
        } else if proof == Some(Proof::Token) {
            if let Some(what) = first.of_the_asker() {
                let why = format!("AWS takes no `{what}` together with an assertion");
                let hint = "tags and the source identity are claims of the assertion: a broker puts them there";
                return Err(wrong(why).hint(hint));
            }
            if first.mfa.is_some() {
                let why = "AWS asks for no MFA code together with an assertion";
                return Err(wrong(why.into()).hint("let the identity provider ask for a second factor"));
            }
        }
        for (index, step) in self.chain.iter().enumerate() {
            let by_user = index == 0 && matches!(start, Start::User(_));
            if step.mfa.is_some() && !by_user {
                let why = format!(
                    "the role {} is assumed with the session of a role, and roles have no MFA device",
                    step.role_arn
                );
                return Err(wrong(why).hint("say `mfa` where the user asks, first of all"));
            }
        }
        let sessions = self.chain.iter().map(Step::session);
        for session in std::iter::once(first).chain(sessions) {
            let missing = session.transitive_tags.iter().find(|key| !session.tags.contains_key(*key));
            if let Some(key) = missing {
                return Err(wrong(format!("the transitive tag `{key}` is not among the tags")));
            }
        }
        Ok(())
    }

    fn check_endpoint(&self, partition: &str) -> Result<(), Refusal> {
        let wrong = |why: String| Refusal::new("target", why);
        if self.endpoint_url.is_some() {
            if self.use_fips {
                let why = "`use_fips` takes endpoints of AWS, and `endpoint_url` names another server";
                return Err(wrong(why.into()).hint("leave one of the two out"));
            }
            return Ok(());
        }
        if self.region.is_none() {
            let say = "say `region` in the profile's target";
            if partition != "aws" {
                let why = format!("the partition `{partition}` has no global endpoint");
                return Err(wrong(why).hint(say));
            }
            if self.use_fips {
                let why = "no global endpoint complies with FIPS 140";
                return Err(wrong(why.into()).hint(say));
            }
        }
        Ok(())
    }

    /// How long a credential is good where nobody says how long: as the references of
    /// `AssumeRole` and `GetSessionToken` tell.
    pub fn usual_ttl(&self, role: &str) -> Duration {
        let is_user = matches!(Start::parse(role), Ok(Start::User(_)));
        if is_user && self.chain.is_empty() { TTL_USUAL_OF_USER } else { TTL_USUAL }
    }

    fn check_ttl(&self, start: &Start, ttl: Option<Duration>) -> Result<(), Refusal> {
        let Some(ttl) = ttl else { return Ok(()) };
        let shown = humantime::format_duration;
        let is_user = matches!(start, Start::User(_));
        let max = if is_user && self.chain.is_empty() { TTL_USER_MAX } else { TTL_MAX };
        // Another server may grant less; it will tell.
        let min = if self.endpoint_url.is_some() { Duration::ZERO } else { TTL_MIN };
        if !(min..=max).contains(&ttl) {
            let why = format!("sessions of AWS last from {} to {}", shown(TTL_MIN), shown(max));
            return Err(Refusal::new("ttl", why));
        }
        let roles = self.chain.len() + usize::from(!is_user);
        if roles > 1 && ttl > TTL_CHAINED_MAX {
            let why = format!(
                "AWS ends the session of a role that another role assumed after {}, whatever the role allows",
                shown(TTL_CHAINED_MAX)
            );
            let hint = "ask for less, or let the identity provider's assertion assume the last role directly";
            return Err(Refusal::new("ttl", why).hint(hint));
        }
        Ok(())
    }

    /// Whether a credential of this account is one that is expected.
    pub(in crate::mint) fn expects(&self, account: Option<&str>) -> bool {
        self.expect_account.is_empty()
            || account.is_some_and(|is| self.expect_account.iter().any(|e| e.as_str() == is))
    }

    /// Makes the credential good for less than the role is.
    ///
    /// # Errors
    /// Where the profile has session policies already: what several of them allow
    /// adds up. Where the credential is a user's, and takes none.
    pub fn narrow(&mut self, role: &str, by: &Narrowing) -> Result<(), Refusal> {
        if by.is_empty() {
            return Ok(());
        }
        let refused = |why: String| Refusal::new("policy", why);
        let mut arns = Vec::new();
        for arn in &by.policy_arns {
            arns.push(PolicyArn::parse(arn).map_err(|why| Refusal::new("policy-arn", why))?);
        }
        let start = Start::parse(role).map_err(|why| Refusal::new("role", why))?;
        if self.chain.is_empty() && matches!(start, Start::User(_)) {
            return Err(refused("the session of a user takes no session policy".into())
                .hint("let the user assume a role"));
        }
        if by.read_only {
            let partition = names::partition(self.last(&start));
            let arn = format!("arn:{partition}:iam::aws:policy/ReadOnlyAccess");
            arns.push(PolicyArn::parse(&arn).map_err(refused)?);
        }
        let place = match self.chain.last_mut() {
            Some(step) => step.policies(),
            None => self.policies(),
        };
        if !place.is_empty() {
            let why = "the profile has a session policy already, and another one would widen it";
            return Err(refused(why.into()));
        }
        *place.policy = by.policy.clone();
        *place.policy_arns = arns;
        place.as_policy().check().map_err(refused)
    }

    /// Reads the files that the settings name, and checks all session policies.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config).
    pub fn complete(&mut self) -> Result<()> {
        self.policies().complete()?;
        self.chain.iter_mut().try_for_each(|step| step.policies().complete())
    }

    /// The steps, for people.
    pub fn steps(&self, role: &str, proof: Proof) -> Vec<String> {
        let first = match (proof, Start::parse(role)) {
            (_, Ok(Start::User(user))) => {
                let mfa = self.mfa.as_ref().map(Mfa::shown).unwrap_or_default();
                format!("GetSessionToken of {user}{mfa}")
            }
            (Proof::Token, _) => {
                format!("AssumeRoleWithWebIdentity of {role}, {}", self.session().shown())
            }
            (Proof::AwsAccessKeys, _) => {
                format!("AssumeRole of {role}, {}", self.session().shown())
            }
        };
        std::iter::once(first).chain(self.further_steps()).collect()
    }

    /// The steps behind the first.
    pub fn further_steps(&self) -> impl Iterator<Item = String> {
        let shown = |step: &Step| format!("AssumeRole of {}, {}", step.role_arn, step.session().shown());
        self.chain.iter().map(shown)
    }

    /// The address that is asked, as the SDK makes it.
    pub fn address(&self) -> String {
        // In GovCloud all of them comply.
        let is_gov = self.region.as_ref().is_some_and(|region| region.partition() == "aws-us-gov");
        let service = if self.use_fips && !is_gov { "sts-fips" } else { "sts" };
        match (&self.endpoint_url, &self.region) {
            (Some(url), _) => url.to_string(),
            (None, Some(region)) => format!("https://{service}.{region}.{}", region.dns_suffix()),
            (None, None) => format!("https://{service}.amazonaws.com"),
        }
    }

    /// Who is asked, for people.
    pub fn place(&self) -> String {
        match (&self.endpoint_url, &self.region) {
            (Some(url), _) => url.to_string(),
            (None, Some(region)) => region.to_string(),
            (None, None) => "global endpoint".to_string(),
        }
    }
}
