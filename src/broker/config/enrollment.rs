//! The table `[enrollment]`: which keys people may enroll.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use crate::sshsig::{Demands, Kind};

/// The table `[enrollment]`: which keys people may enroll, for signatures while no provider can
/// say who they are.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Enrollment {
    /// The kinds of keys, as OpenSSH names them: `ssh-ed25519`, `ecdsa-sha2-nistp256`,
    /// `ecdsa-sha2-nistp384`, `ssh-rsa` (3072 bits or more), `sk-ssh-ed25519@openssh.com`,
    /// `sk-ecdsa-sha2-nistp256@openssh.com`. All of them where left out.
    #[serde(default = "all", deserialize_with = "kinds")]
    #[schemars(with = "Vec<String>")]
    pub kinds: Vec<Kind>,
    /// Whether security keys have to be told who holds them, by a PIN or a finger, each time they
    /// sign. That somebody touches them is asked in any case.
    #[serde(default)]
    pub user_verification: bool,
}

impl Default for Enrollment {
    fn default() -> Self {
        Self { kinds: all(), user_verification: false }
    }
}

impl Enrollment {
    /// What is asked of keys and signatures.
    pub fn demands(&self) -> Demands<'_> {
        Demands { kinds: &self.kinds, user_verified: self.user_verification }
    }
}

fn all() -> Vec<Kind> {
    Kind::ALL.to_vec()
}

fn kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Kind>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    if names.is_empty() {
        return Err(de::Error::custom("there is no kind of keys in it; leave it out for all"));
    }
    let known = |name: &String| {
        Kind::from_name(name).ok_or_else(|| {
            let all = Kind::ALL.map(Kind::name).join(", ");
            de::Error::custom(format!("there is no kind '{name}' of keys among {all}"))
        })
    };
    names.iter().map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Enrollment, String> {
        crate::config::read_str::<Enrollment>("broker.toml", text)
            .map_err(|error| format!("{error} {:?}", error.causes()))
    }

    #[test]
    fn kinds_are_named_as_openssh_names_them() {
        assert_eq!(read("").unwrap(), Enrollment::default());
        let text = "kinds = [\"sk-ssh-ed25519@openssh.com\"]\nuser_verification = true";
        let kinds = vec![Kind::SkEd25519];
        assert_eq!(read(text).unwrap(), Enrollment { kinds, user_verification: true });
        for (text, says) in [
            ("kinds = []", "leave it out for all"),
            ("kinds = [\"ssh-dss\"]", "no kind 'ssh-dss'"),
            ("kinds = [\"ssh-ed25519\"]\nother = 1", "other"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
    }
}
