//! The domain's own types: what an identity source yields and what a target mints.

mod access_keys;
mod caller;
mod lifetime;
mod record;
mod template;

pub use access_keys::AccessKeys;
pub use caller::{Caller, Job};
pub use lifetime::{Lifetime, REFRESH_WINDOW_MAX};
pub use record::{decode, encode};
pub use template::{PARTS, TOKEN_FILE_PART, Template, TemplateError};

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::error::foreign;
use crate::secret::Secret;

/// Who somebody is: names and addresses are labels, only this pair identifies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Principal {
    /// Who says so: the `iss` of OpenID Connect.
    pub issuer: String,
    /// The issuer's own name for the caller: the `sub` of OpenID Connect.
    pub subject: String,
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", foreign(&self.subject), foreign(&self.issuer))
    }
}

/// What kind of token an assertion is (RFC 8693 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenType {
    /// An OAuth 2.0 access token.
    AccessToken,
    /// An OpenID Connect ID token.
    IdToken,
    /// Another signed JWT.
    Jwt,
    /// Statements that somebody signed by a key which a broker knows.
    Statement,
    /// No token at all: [`AccessKeys`], written down. They sign requests of AWS, and
    /// are sent to nobody.
    AwsAccessKeys,
}

impl TokenType {
    /// The identifier that token exchange uses (RFC 8693 section 3).
    pub const fn urn(self) -> &'static str {
        match self {
            Self::AccessToken => "urn:ietf:params:oauth:token-type:access_token",
            Self::IdToken => "urn:ietf:params:oauth:token-type:id_token",
            Self::Jwt => "urn:ietf:params:oauth:token-type:jwt",
            Self::Statement => "urn:tmpcred:token-type:statement",
            // Nobody would know what to do with one.
            Self::AwsAccessKeys => "urn:tmpcred:not-a-token",
        }
    }

    /// The type with this identifier.
    pub fn from_urn(urn: &str) -> Option<Self> {
        [Self::AccessToken, Self::IdToken, Self::Jwt].into_iter().find(|t| t.urn() == urn)
    }
}

/// How an identity source proves who is calling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// With a token, which is shown.
    Token,
    /// With [`AccessKeys`], which sign.
    AwsAccessKeys,
}

/// Proof of who is calling, bound to one audience.
#[derive(Clone, Debug)]
pub struct Assertion {
    /// The proof itself.
    pub token: Secret<String>,
    /// What kind of token it is.
    pub token_type: TokenType,
    /// Whom it is about.
    pub principal: Principal,
    /// When it ceases to be good.
    pub expires_at: OffsetDateTime,
    /// When the grant ends under which it was issued, where it was: what comes of it may last no
    /// longer.
    pub grant_ends: Option<OffsetDateTime>,
}

impl Assertion {
    /// How it proves who is calling.
    pub fn proof(&self) -> Proof {
        match self.token_type {
            TokenType::AwsAccessKeys => Proof::AwsAccessKeys,
            TokenType::AccessToken | TokenType::IdToken | TokenType::Jwt | TokenType::Statement => {
                Proof::Token
            }
        }
    }
}

/// The secret part of a credential.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Material {
    /// A token that whoever bears it may use (RFC 6750).
    Bearer {
        /// The token.
        token: Secret<String>,
    },
    /// A token that is good only together with a proof, for each request, by the key of
    /// this device (RFC 9449).
    Bound {
        /// The token.
        token: Secret<String>,
        /// The thumbprint of the key.
        thumbprint: String,
    },
    /// Temporary security credentials of AWS, named as in the STS API's
    /// [Credentials](https://docs.aws.amazon.com/STS/latest/APIReference/API_Credentials.html).
    Aws {
        /// The access key ID.
        access_key_id: Secret<String>,
        /// The secret access key, with which requests are signed.
        secret_access_key: Secret<String>,
        /// The session token, which goes with each request.
        session_token: Secret<String>,
        /// The region that it is to be used in, where one is configured.
        region: Option<String>,
    },
}

impl Material {
    /// The parts that a profile's `env` mapping can name, and their values.
    pub fn parts(&self) -> Vec<(&'static str, &Secret<String>)> {
        match self {
            Self::Bearer { token } | Self::Bound { token, .. } => vec![("token", token)],
            Self::Aws { access_key_id, secret_access_key, session_token, .. } => vec![
                ("access_key_id", access_key_id),
                ("secret_access_key", secret_access_key),
                ("session_token", session_token),
            ],
        }
    }

    /// The one secret that `tmpcred token` prints, where there is one.
    pub fn token(&self) -> Option<&Secret<String>> {
        match self {
            Self::Bearer { token } | Self::Bound { token, .. } => Some(token),
            Self::Aws { .. } => None,
        }
    }

    /// The thumbprint of the key that it is bound to.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Bound { thumbprint, .. } => Some(thumbprint),
            Self::Bearer { .. } | Self::Aws { .. } => None,
        }
    }

    /// A secret that no other credential has, to tell two of them apart.
    pub fn secret(&self) -> &Secret<String> {
        match self {
            Self::Bearer { token } | Self::Bound { token, .. } => token,
            Self::Aws { secret_access_key, .. } => secret_access_key,
        }
    }

    /// The variables a child gets for this kind of credential, which ends at
    /// `expires_at` (RFC 3339). For AWS they are those that the
    /// [SDKs](https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html) read.
    pub fn variables(&self, expires_at: &str) -> Vec<(&'static str, Secret<String>)> {
        match self {
            Self::Bearer { token } => vec![("TMPCRED_TOKEN", token.clone())],
            Self::Bound { token, .. } => vec![
                ("TMPCRED_TOKEN", token.clone()),
                ("TMPCRED_TOKEN_TYPE", Secret::new("DPoP".to_string())),
            ],
            Self::Aws { access_key_id, secret_access_key, session_token, region } => {
                let mut variables = vec![
                    ("AWS_ACCESS_KEY_ID", access_key_id.clone()),
                    ("AWS_SECRET_ACCESS_KEY", secret_access_key.clone()),
                    ("AWS_SESSION_TOKEN", session_token.clone()),
                    ("AWS_CREDENTIAL_EXPIRATION", Secret::new(expires_at.to_string())),
                ];
                if let Some(region) = region {
                    // Some tools know one of these names only.
                    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
                        variables.push((name, Secret::new(region.clone())));
                    }
                }
                variables
            }
        }
    }
}

/// What a target minted: good for one role until a fixed end.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The secret part.
    pub material: Material,
    /// The role it is scoped to.
    pub role: String,
    /// What of the role it covers, as the target granted it.
    pub scope: Vec<String>,
    /// Whom it is for: the caller, as the identity source knows them.
    pub principal: Principal,
    /// From when to when it is good.
    pub lifetime: Lifetime,
}

impl Credential {
    /// When to fetch a new one: this long before its end.
    pub fn refresh_window(&self) -> Duration {
        self.lifetime.refresh_window(self.jitter())
    }

    /// A number between 0 and 1 that stays the same for one credential and differs
    /// between credentials: the fraction of its own token's characters.
    fn jitter(&self) -> f64 {
        let bytes = self.material.secret().expose().as_bytes();
        let sum = bytes
            .iter()
            .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
        f64::from(sum % 1000) / 1000.0
    }
}
