//! For whom access tokens are asked, and which of them a provider takes.

use url::Url;

/// The first of a list, as a list.
pub(super) fn first(audiences: &[String]) -> &[String] {
    &audiences[..audiences.len().min(1)]
}

/// What to ask for, and what counts as refused, when the provider has refused
/// a list of audiences: the first is the new one, the others were granted once;
/// should these fail too, none is asked for.
pub(super) fn without_refused(
    mut asked: Vec<String>,
    mut refused: Vec<String>,
) -> (Vec<String>, Vec<String>) {
    if !refused.is_empty() {
        refused.append(&mut asked);
    } else if !asked.is_empty() {
        refused.push(asked.remove(0));
    }
    (asked, refused)
}

/// Whether an audience can be a `resource`: an absolute URI without a fragment
/// (RFC 8707 section 2).
pub(super) fn is_resource(audience: &str) -> bool {
    Url::parse(audience).is_ok_and(|url| url.fragment().is_none())
}
