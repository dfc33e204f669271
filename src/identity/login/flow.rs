//! Which way to log in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::surroundings::Surroundings;

/// How a person logs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Flow {
    /// The browser where one can be shown, else the device flow.
    #[default]
    Auto,
    /// In a browser on this machine: authorization code with PKCE (RFC 7636, RFC 8252).
    Browser,
    /// In a browser on any device: a code to type (RFC 8628).
    Device,
}

/// The flow to use, and why. It is never [`Flow::Auto`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::identity) struct Choice {
    pub(in crate::identity) flow: Flow,
    pub(in crate::identity) why: String,
    /// Nobody named the flow, so the other may be tried.
    pub(in crate::identity) automatic: bool,
}

impl Choice {
    /// Chooses: what was asked for, else what the settings say, else what fits
    /// the place.
    pub(in crate::identity) fn make(
        asked: Option<Flow>,
        configured: Flow,
        surroundings: &Surroundings,
    ) -> Self {
        let named = |flow, why: &str| Self { flow, why: why.into(), automatic: false };
        match (asked, configured) {
            (Some(flow @ (Flow::Browser | Flow::Device)), _) => named(flow, "it was asked for"),
            (None, flow @ (Flow::Browser | Flow::Device)) => {
                named(flow, "the configuration says so")
            }
            (Some(Flow::Auto), _) | (None, Flow::Auto) => {
                let (flow, why) = match surroundings.no_browser_because() {
                    Some(why) => (Flow::Device, why),
                    None => (Flow::Browser, "a browser can be shown here"),
                };
                Self { flow, why: why.into(), automatic: true }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_wins_then_the_settings_then_the_place() {
        let desktop = Surroundings { display: true, ..Default::default() };
        let ssh = Surroundings { ssh: true, ..desktop.clone() };
        let flow = |asked, configured, place: &Surroundings| {
            let choice = Choice::make(asked, configured, place);
            (choice.flow, choice.automatic)
        };
        assert_eq!(flow(None, Flow::Auto, &desktop), (Flow::Browser, true));
        assert_eq!(flow(None, Flow::Auto, &ssh), (Flow::Device, true));
        assert_eq!(flow(Some(Flow::Browser), Flow::Auto, &ssh), (Flow::Browser, false));
        assert_eq!(flow(None, Flow::Device, &desktop), (Flow::Device, false));
        assert_eq!(flow(Some(Flow::Auto), Flow::Device, &desktop), (Flow::Browser, true));
        let wsl = Surroundings { wsl: true, ..Default::default() };
        let container = Surroundings { container: true, ..Default::default() };
        for place in [&wsl, &container] {
            assert_eq!(flow(None, Flow::Auto, place), (Flow::Device, true), "{place:?}");
            assert_eq!(flow(Some(Flow::Browser), Flow::Auto, place), (Flow::Browser, false));
            let shown = Surroundings { display: true, ..place.clone() };
            assert_eq!(flow(None, Flow::Auto, &shown), (Flow::Browser, true), "{shown:?}");
        }
        assert!(Choice::make(Some(Flow::Auto), Flow::Device, &ssh).why.contains("SSH"));
    }
}
