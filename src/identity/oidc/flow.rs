//! Which way to log in.

use super::{Flow, Settings};
use crate::host::surroundings::Surroundings;

/// The flow to use, and why. It is never [`Flow::Auto`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) flow: Flow,
    pub(super) why: String,
    /// Nobody named the flow, so the other may be tried.
    pub(super) automatic: bool,
}

impl Choice {
    /// Chooses: what was asked for, else what the settings say, else what fits
    /// the place.
    pub(super) fn make(
        asked: Option<Flow>,
        settings: &Settings,
        surroundings: &Surroundings,
    ) -> Self {
        let named = |flow, why: &str| Self { flow, why: why.into(), automatic: false };
        match (asked, settings.flow) {
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
    use crate::identity::oidc::tests::settings;

    #[test]
    fn what_was_asked_for_wins_then_the_settings_then_the_place() {
        let desktop = Surroundings { display: true, ..Default::default() };
        let ssh = Surroundings { ssh: true, ..desktop.clone() };
        let mut settings = settings("https://i.example");
        let flow = |asked, settings: &Settings, place: &Surroundings| {
            let choice = Choice::make(asked, settings, place);
            (choice.flow, choice.automatic)
        };
        assert_eq!(flow(None, &settings, &desktop), (Flow::Browser, true));
        assert_eq!(flow(None, &settings, &ssh), (Flow::Device, true));
        assert_eq!(flow(Some(Flow::Browser), &settings, &ssh), (Flow::Browser, false));
        settings.flow = Flow::Device;
        assert_eq!(flow(None, &settings, &desktop), (Flow::Device, false));
        assert_eq!(flow(Some(Flow::Auto), &settings, &desktop), (Flow::Browser, true));
        assert!(Choice::make(Some(Flow::Auto), &settings, &ssh).why.contains("SSH"));
    }
}
