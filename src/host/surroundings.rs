//! What kind of place this run happens in, told from environment and files only.

use std::path::Path;

use super::env::Env;
use super::{browser, files};

/// Facts about the place of a run. Planning takes them as an argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The session came over SSH.
    pub ssh: bool,
    /// Windows Subsystem for Linux.
    pub wsl: bool,
    /// Inside a container.
    pub container: bool,
    /// A desktop session is there to show a browser, or the person named one in `BROWSER`
    /// that is no text browser.
    pub display: bool,
    /// The browser that the person named is a text browser, which is not started.
    pub text_browser: bool,
    /// A CI job.
    pub ci: bool,
}

impl Surroundings {
    /// Looks around, without the network.
    pub fn detect(env: &Env) -> Self {
        Self::detect_below(Path::new("/"), env)
    }

    /// The same with the files below another root.
    fn detect_below(root: &Path, env: &Env) -> Self {
        let desktop = cfg!(any(target_os = "macos", windows))
            || env.get_os("DISPLAY").is_some()
            || env.get_os("WAYLAND_DISPLAY").is_some();
        let text_browser = browser::text_browser(env).is_some();
        Self {
            ssh: env.get_os("SSH_CONNECTION").is_some() || env.get_os("SSH_TTY").is_some(),
            wsl: env.get_os("WSL_DISTRO_NAME").is_some() || env.get_os("WSL_INTEROP").is_some(),
            container: env.get_os("container").is_some()
                || env.get_os("KUBERNETES_SERVICE_HOST").is_some()
                || files::exists(root.join(".dockerenv"))
                || files::exists(root.join("run/.containerenv")),
            display: desktop || (env.get_os("BROWSER").is_some() && !text_browser),
            text_browser,
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
        } else if self.text_browser {
            Some("there is no desktop session and BROWSER names a text browser")
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

    fn detected(root: &Path, pairs: &[(&str, &str)]) -> Surroundings {
        Surroundings::detect_below(root, &Env::from_pairs(pairs.to_vec()))
    }

    #[test]
    fn variables_tell_of_the_place() {
        let empty = tempfile::tempdir().unwrap();
        let desktop = cfg!(any(target_os = "macos", windows));
        let nothing = Surroundings { display: desktop, ..Default::default() };
        assert_eq!(detected(empty.path(), &[]), nothing);
        let ssh = Surroundings { ssh: true, ..nothing.clone() };
        let wsl = Surroundings { wsl: true, ..nothing.clone() };
        let container = Surroundings { container: true, ..nothing.clone() };
        let display = Surroundings { display: true, ..nothing.clone() };
        let ci = Surroundings { ci: true, ..nothing.clone() };
        for (name, value, expected) in [
            ("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22", &ssh),
            ("SSH_TTY", "/dev/pts/0", &ssh),
            ("WSL_DISTRO_NAME", "Debian", &wsl),
            ("WSL_INTEROP", "/run/WSL/8_interop", &wsl),
            ("container", "podman", &container),
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1", &container),
            ("DISPLAY", ":0", &display),
            ("WAYLAND_DISPLAY", "wayland-0", &display),
            ("BROWSER", "firefox", &display),
            ("CI", "true", &ci),
            ("TF_BUILD", "True", &ci),
            // What is empty is as good as not set, and other names say nothing.
            ("SSH_CONNECTION", "", &nothing),
            ("DISPLAY", "", &nothing),
            ("CI", "false", &nothing),
            ("SSH_CLIENT_VERSION", "9", &nothing),
        ] {
            assert_eq!(&detected(empty.path(), &[(name, value)]), expected, "{name}={value}");
        }
    }

    #[test]
    #[cfg(not(any(target_os = "macos", windows)))]
    fn a_text_browser_makes_no_display() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("w3m");
        files::write_private(&program, b"").unwrap();
        let browser = ("BROWSER", program.to_str().unwrap());
        let alone = detected(root.path(), &[browser]);
        assert_eq!(alone, Surroundings { text_browser: true, ..Default::default() });
        assert_eq!(
            alone.no_browser_because(),
            Some("there is no desktop session and BROWSER names a text browser")
        );
        let shown = detected(root.path(), &[browser, ("DISPLAY", ":0")]);
        assert!(shown.display && shown.no_browser_because().is_none());
    }

    #[test]
    fn files_tell_of_a_container() {
        for file in [".dockerenv", "run/.containerenv"] {
            let root = tempfile::tempdir().unwrap();
            assert!(!detected(root.path(), &[]).container);
            files::write_private(&root.path().join(file), b"").unwrap();
            assert!(detected(root.path(), &[]).container, "{file}");
        }
    }

    #[test]
    fn ssh_wins_over_a_display() {
        let s = Surroundings { ssh: true, display: true, ..Default::default() };
        assert_eq!(s.no_browser_because(), Some("this is an SSH session"));
        let s = Surroundings { display: true, container: true, ..Default::default() };
        assert_eq!(s.no_browser_because(), None);
    }

    #[test]
    fn without_a_desktop_the_place_is_named() {
        let nothing = Surroundings::default();
        let wsl = Surroundings { wsl: true, ..nothing.clone() };
        let container = Surroundings { container: true, ..nothing.clone() };
        for (place, why) in [
            (&wsl, "this is WSL without a browser"),
            (&Surroundings { container: true, ..wsl.clone() }, "this is WSL without a browser"),
            (&container, "this is a container without a browser"),
            (&nothing, "there is no desktop session and BROWSER is not set"),
        ] {
            assert_eq!(place.no_browser_because(), Some(why));
            let shown = Surroundings { display: true, ..place.clone() };
            assert_eq!(shown.no_browser_because(), None, "{place:?}");
        }
    }
}
