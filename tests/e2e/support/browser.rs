//! Browsers that a test sends to a page: as `$BROWSER` of a home, or directly.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use super::home::{BROWSER_LOG, Home};
use super::peer::{node_script, program};
use super::wait::wait_until;

/// How long a person may take for a login, on a machine that is busy.
const VISIT: Duration = Duration::from_secs(120);

const QUICK: &str = "http-browser.mjs";

/// How a browser behaves.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    script: &'static str,
    options: Value,
    authorities: Option<PathBuf>,
}

impl Browser {
    /// A browser without a window or scripts: quick. It logs in as `alice` and
    /// says yes to everything.
    pub(crate) fn http() -> Self {
        Self { script: QUICK, options: json!({}), authorities: None }
    }

    /// Chromium, which does the same in seconds.
    pub(crate) fn chromium() -> Self {
        drop(program("chromium"));
        Self { script: "chromium.mjs", ..Self::http() }
    }

    /// Logs in as this person.
    pub(crate) fn user(self, login: &str, password: &str) -> Self {
        self.with("user", json!(login)).with("password", json!(password))
    }

    /// Says no where somebody asks for consent.
    pub(crate) fn denies(self) -> Self {
        self.with("deny", json!(true))
    }

    /// Looks at the first page and leaves: nobody logs in.
    pub(crate) fn only_opens(self) -> Self {
        self.with("only_open", json!(true))
    }

    /// Takes this long before it opens the first page.
    pub(crate) fn delayed(self, by: Duration) -> Self {
        self.with("delay_ms", json!(by.as_millis()))
    }

    /// Trusts a server whose authority is in this PEM file. (Chromium, which has
    /// a list of its own, trusts every server then.)
    pub(crate) fn trusting(self, authorities: &Path) -> Self {
        let mut browser = self.with("trust_any_certificate", json!(true));
        browser.authorities = Some(authorities.to_path_buf());
        browser
    }

    /// Chromium only: takes a picture (PNG) of the last page.
    pub(crate) fn screenshot(self, path: &Path) -> Self {
        self.with("screenshot", json!(path))
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        // Only the quick one refuses what it does not know.
        if self.script == QUICK && name == "trust_any_certificate" {
            return self;
        }
        self.options[name] = value;
        self
    }

    /// Makes this the browser of `home`: what runs there finds it in `BROWSER`.
    pub(crate) fn install(self, home: &mut Home) -> Installed {
        let log = home.path(BROWSER_LOG);
        let command = self.with("log", json!(log)).script(home, "browser");
        home.set("BROWSER", &command);
        Installed { log }
    }

    /// Opens a page and waits until there is nothing more to do.
    #[track_caller]
    pub(crate) fn visit(self, home: &Home, url: &str) -> Visit {
        self.visit_with_code(home, url, None)
    }

    /// The same, and types the code of a device where a page asks for it.
    #[track_caller]
    pub(crate) fn visit_with_code(self, home: &Home, url: &str, code: Option<&str>) -> Visit {
        let directory = tempfile::tempdir_in(home.path("tmp")).unwrap();
        if home.uid().is_some() {
            std::os::unix::fs::chown(directory.path(), home.uid(), home.uid()).unwrap();
        }
        let log = directory.path().join("log");
        let command = self.with("log", json!(log)).with("code", json!(code)).script(home, "visit");
        home.command(command).args([url]).limit(VISIT).run();
        Installed { log }.ended().remove(0)
    }

    /// Writes a program that opens the page it is given.
    fn script(&self, home: &Home, name: &str) -> PathBuf {
        let quote = |text: String| format!("'{}'", text.replace('\'', r"'\''"));
        let path = |path: PathBuf| quote(path.display().to_string());
        let authorities = self.authorities.clone().map(path).unwrap_or_default();
        let mut script = node_script(self.script);
        if self.script == QUICK {
            // It needs no package: any user can have a copy.
            script = home.share(&script);
        }
        let text = format!(
            "#!/bin/sh\nNODE_EXTRA_CA_CERTS={authorities} exec {} {} {} \"$1\"\n",
            path(program("node")),
            path(script),
            quote(self.options.to_string()),
        );
        home.write_program(name, &text)
    }
}

/// Lets the browser of a home begin only once the file is there whose path this returns.
#[cfg(feature = "broker")]
pub(crate) fn gated(home: &mut Home) -> PathBuf {
    let gate = home.path("work/gate");
    let script = format!(
        "#!/bin/sh\nuntil [ -e {} ]; do sleep 0.05; done\nexec {} \"$1\"\n",
        gate.display(),
        home.path("bin/browser").display()
    );
    let gated = home.write_program("gated", &script);
    home.set("BROWSER", gated);
    gate
}

/// A browser that has its place in a home.
pub(crate) struct Installed {
    log: PathBuf,
}

/// How a visit ended.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    /// The last page's address.
    pub(crate) url: Url,
    /// Its status.
    pub(crate) status: u16,
    /// Its text, without markup.
    pub(crate) text: String,
}

impl Installed {
    /// The pages it was asked to open, oldest first: one for each tab.
    pub(crate) fn opened(&self) -> Vec<Url> {
        self.events()
            .iter()
            .filter_map(|event| event["opened"].as_str())
            .map(|url| Url::parse(url).unwrap())
            .collect()
    }

    /// The visits that have come to an end.
    ///
    /// # Panics
    /// Where one failed.
    #[track_caller]
    pub(crate) fn ended(&self) -> Vec<Visit> {
        self.events()
            .iter()
            .filter_map(|event| {
                assert!(event["failed"].is_null(), "the browser failed: {}", event["failed"]);
                Some(Visit {
                    url: Url::parse(event["ended"].as_str()?).unwrap(),
                    status: u16::try_from(event["status"].as_u64()?).unwrap(),
                    text: event["text"].as_str()?.into(),
                })
            })
            .collect()
    }

    /// Waits for the end of as many visits, and tells how the last one ended.
    #[track_caller]
    pub(crate) fn wait_for_visits(&self, number: usize) -> Visit {
        wait_until(&format!("{number} visits of the browser"), VISIT, || {
            self.ended().get(number - 1).cloned()
        })
    }

    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // The last one may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
