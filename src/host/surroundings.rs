//! What kind of place this run happens in, told from environment and files only.

use super::env::Env;
use super::files;

/// Facts about the place of a run. Planning takes them as an argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The session came over SSH.
    pub ssh: bool,
    /// Windows Subsystem for Linux.
    pub wsl: bool,
    /// Inside a container.
    pub container: bool,
    /// A desktop session is there to show a browser, or the person named one in `BROWSER`.
    pub display: bool,
    /// A CI job.
    pub ci: bool,
}

impl Surroundings {
    /// Looks around, without the network.
    pub fn detect(env: &Env) -> Self {
        let desktop = cfg!(any(target_os = "macos", windows))
            || env.get_os("DISPLAY").is_some()
            || env.get_os("WAYLAND_DISPLAY").is_some();
        Self {
            ssh: env.get_os("SSH_CONNECTION").is_some() || env.get_os("SSH_TTY").is_some(),
            wsl: env.get_os("WSL_DISTRO_NAME").is_some() || env.get_os("WSL_INTEROP").is_some(),
            container: env.get_os("container").is_some()
                || env.get_os("KUBERNETES_SERVICE_HOST").is_some()
                || files::exists("/.dockerenv")
                || files::exists("/run/.containerenv"),
            display: desktop || env.get_os("BROWSER").is_some(),
            ci: is_ci(env),
        }
    }

    /// Why a browser window here would not reach the person, or `None` where it would.
    pub fn no_browser_because(&self) -> Option<&'static str> {
        if self.ssh {
            Some("this is an SSH session")
        } else if self.display {
            None
        } else if self.wsl {
            Some("this is WSL without a browser")
        } else if self.container {
            Some("this is a container without a browser")
        } else {
            Some("there is no desktop session and BROWSER is not set")
        }
    }
}

/// Whether this is a CI job. Azure Pipelines has a variable of its own for it.
pub fn is_ci(env: &Env) -> bool {
    env.flag("CI") || env.flag("TF_BUILD")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_wins_over_a_display() {
        let s = Surroundings { ssh: true, display: true, ..Default::default() };
        assert_eq!(s.no_browser_because(), Some("this is an SSH session"));
        let s = Surroundings { display: true, container: true, ..Default::default() };
        assert_eq!(s.no_browser_because(), None);
    }
}
