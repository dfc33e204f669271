//! Whoever logs in. Nobody is known here: they say who they are.

use crate::broker::http::form::Form;

/// The longest name, in bytes.
const MAX_NAME: usize = 128;

/// How many groups somebody may be in.
const MAX_GROUPS: usize = 50;

/// Somebody, as tokens name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker::dev) struct Person {
    /// The `sub`, and `preferred_username`.
    pub(in crate::broker::dev) login: String,
    /// The `name`.
    pub(in crate::broker::dev) name: String,
    /// The `groups`.
    pub(in crate::broker::dev) groups: Vec<String>,
}

impl Person {
    /// Who the form says. The error is for the page.
    pub(super) fn of_form(form: &Form) -> Result<Self, &'static str> {
        let login = form.optional("login").unwrap_or_default().trim();
        if !is_name(login) {
            return Err(
                "The user name is missing, too long, or has characters that cannot be shown.",
            );
        }
        let name = form.optional("name").unwrap_or(login).trim();
        if !is_name(name) {
            return Err("The full name is too long, or has characters that cannot be shown.");
        }
        let groups: Vec<String> = form
            .optional("groups")
            .unwrap_or_default()
            .split([' ', ',', '\t'])
            .filter(|group| !group.is_empty())
            .map(String::from)
            .collect();
        if groups.len() > MAX_GROUPS || !groups.iter().all(|group| is_name(group)) {
            return Err("The groups are too many, or one of them is too long.");
        }
        Ok(Self { login: login.into(), name: name.into(), groups })
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control)
}
