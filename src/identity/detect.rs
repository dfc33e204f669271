//! Which identity sources could be used here, told from environment and files
//! only. Which of them is used, planning decides.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::{Readiness, Settings};
use crate::host::Host;
use crate::host::surroundings::is_ci;

/// An identity source, and whether it can be used here.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its name in the configuration; that of its kind where it is built in.
    pub name: String,
    /// Its settings.
    pub settings: Settings,
    /// Whether it can be used.
    pub readiness: Readiness,
}

impl Candidate {
    /// What `explain` calls its state, and why it is so.
    pub fn state(&self) -> (&'static str, &str) {
        match &self.readiness {
            Readiness::Ready(why) => ("ready", why),
            Readiness::Absent(why) => ("absent", why),
            Readiness::Misconfigured { why, .. } => ("misconfigured", why),
        }
    }
}

impl Serialize for Candidate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (state, why) = self.state();
        let mut shown = serializer.serialize_struct("Candidate", 4)?;
        shown.serialize_field("name", &self.name)?;
        shown.serialize_field("type", self.settings.kind())?;
        shown.serialize_field("state", state)?;
        shown.serialize_field("because", why)?;
        shown.end()
    }
}

/// Looks at the identities of the configuration; where there are none, at those
/// of CI platforms with their default settings.
///
/// Where there are several, those at which people log in do not count in a CI
/// job: nobody is there to log in, and the job has an identity of its own.
pub fn detect<'a>(
    host: &Host,
    configured: impl ExactSizeIterator<Item = (&'a String, &'a Settings)>,
) -> Vec<Candidate> {
    let several = configured.len() > 1;
    let mut candidates: Vec<_> = configured
        .map(|(name, settings)| candidate(host, name, settings.clone(), several))
        .collect();
    if candidates.is_empty() {
        let built_in = Settings::built_in().into_iter();
        candidates.extend(built_in.map(|own| candidate(host, own.kind(), own.clone(), true)));
    }
    candidates
}

fn candidate(host: &Host, name: &str, settings: Settings, several: bool) -> Candidate {
    let source = settings.open(name);
    let readiness = if several && is_ci(&host.env) && source.session().is_some() {
        Readiness::Absent("people log in there, and this is a CI job".into())
    } else {
        source.readiness(host)
    };
    Candidate { name: name.into(), settings, readiness }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::host::env::Env;
    use crate::host::test_server;

    /// The names of those in each state: ready, absent, misconfigured.
    fn states(env: &[(&str, &str)], configured: &BTreeMap<String, Settings>) -> [Vec<String>; 3] {
        let root = tempfile::tempdir().unwrap();
        let mut host = test_server::host(root.path(), time::Duration::ZERO);
        host.env = Env::from_pairs(env.iter().copied());
        let detected = detect(&host, configured.iter());
        ["ready", "absent", "misconfigured"].map(|state| {
            let these = detected.iter().filter(|candidate| candidate.state().0 == state);
            these.map(|candidate| candidate.name.clone()).collect()
        })
    }

    #[test]
    fn a_platform_is_known_by_its_variables_and_no_other_is() {
        let none = BTreeMap::new();
        let [ready, absent, broken] = states(&[("CI", "true")], &none);
        assert_eq!((ready.len(), absent.len(), broken.len()), (0, 5, 0));
        let url = ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://t.example/x?a=b");
        let token = ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t");
        for (good, name, needs) in [
            (&[("GITHUB_ACTIONS", "true"), url, token][..], "github-actions", 1),
            (&[("GITHUB_ACTIONS", "true"), url, token], "github-actions", 2),
            (&[("GITLAB_CI", "true"), ("TMPCRED_ID_TOKEN", "t")], "gitlab", 1),
            (&[("BUILDKITE", "true"), ("BUILDKITE_JOB_ID", "j")], "buildkite", 1),
            (&[("CIRCLECI", "true"), ("CIRCLE_OIDC_TOKEN_V2", "t")], "circleci", 1),
            (
                &[
                    ("TF_BUILD", "True"),
                    ("SYSTEM_OIDCREQUESTURI", "https://t.example/x"),
                    ("SYSTEM_ACCESSTOKEN", "t"),
                ],
                "azure-pipelines",
                2,
            ),
        ] {
            assert_eq!(states(good, &none)[0], [name]);
            let mut bad = good.to_vec();
            bad.remove(needs);
            assert_eq!(states(&bad, &none)[2], [name], "{bad:?}");
        }
        let plain = ("ACTIONS_ID_TOKEN_REQUEST_URL", "http://t.example/");
        assert_eq!(states(&[plain, token], &none)[2], ["github-actions"]);
    }

    #[test]
    fn a_login_does_not_count_in_a_job_that_has_an_identity_of_its_own() {
        let settings =
            |json: serde_json::Value, kind| Settings::from_kind(kind, json).unwrap().unwrap();
        let oidc = serde_json::json!({ "issuer": "https://i.example", "client_id": "c" });
        let mut configured = BTreeMap::from([("corp".to_string(), settings(oidc, "oidc"))]);
        let ci = [("CI", "true"), ("T", "t")];
        assert_eq!(states(&ci, &configured)[0], ["corp"]);
        let env = settings(serde_json::json!({ "variable": "T" }), "env");
        configured.insert("job".into(), env);
        assert_eq!(states(&ci, &configured)[0], ["job"]);
        assert_eq!(states(&[("TF_BUILD", "True"), ("T", "t")], &configured)[0], ["job"]);
        assert_eq!(states(&[], &configured)[0], ["corp"]);
        assert_eq!(states(&[("T", "t")], &configured)[0], ["corp", "job"]);
    }
}
