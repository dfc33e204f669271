//! A page on loopback that a browser is started with in place of another: everybody on
//! this machine can see with what address a browser is started.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// A page with a random name, which leads on once.
#[derive(Debug)]
pub struct StartPage {
    path: Secret<String>,
    to: Secret<String>,
}

impl StartPage {
    /// One that leads on to this address.
    ///
    /// # Errors
    /// Where this machine gives no random numbers.
    pub fn to(to: Secret<String>) -> Result<Self> {
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| Error::new(ErrorKind::Other, "this machine gives no random numbers"))?;
        Ok(Self { path: Secret::new(format!("/{}", URL_SAFE_NO_PAD.encode(random))), to })
    }

    /// Its path.
    pub fn path(&self) -> &Secret<String> {
        &self.path
    }

    /// Where it leads on to, for whoever asks for this path; it is there no more then.
    pub fn take(page: &mut Option<Self>, path: &str) -> Option<Secret<String>> {
        Some(page.take_if(|page| page.path.ct_eq(path))?.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leads_on_once_and_nobody_who_guesses() {
        let to = Secret::new("https://example.com/?x".to_string());
        let mut page = Some(StartPage::to(to).unwrap());
        let path = page.as_ref().unwrap().path().expose().clone();
        let other = StartPage::to(Secret::new(String::new())).unwrap();
        assert_ne!(other.path().expose(), &path);
        assert!(StartPage::take(&mut page, other.path().expose()).is_none());
        assert!(StartPage::take(&mut page, "/").is_none());
        assert_eq!(StartPage::take(&mut page, &path).unwrap().expose(), "https://example.com/?x");
        assert!(StartPage::take(&mut page, &path).is_none());
    }
}
