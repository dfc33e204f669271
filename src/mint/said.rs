//! What every answer of a broker says besides what it was asked for.

use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::http::Response;
use crate::wire::{TokenRefusal, VERSION, VERSION_HEADER};

/// A broker of another version says so; one that says nothing is judged by its answer.
///
/// # Errors
/// [`ErrorKind::Verification`] where it speaks another one.
pub(crate) fn check_version(response: &Response) -> Result<()> {
    match response.headers.get(VERSION_HEADER) {
        Some(version) if version.as_bytes() != VERSION.to_string().as_bytes() => {
            let version = foreign(&String::from_utf8_lossy(version.as_bytes()));
            Err(Error::new(ErrorKind::Verification, "the broker speaks another version")
                .because_of(format!("it speaks version '{version}', this is version {VERSION}"))
                .hint("upgrade the older of the two"))
        }
        _ => Ok(()),
    }
}

/// An outage, with the broker's own words for it where it has any.
pub(crate) fn with_refusal_of(response: &Response, outage: Error) -> Error {
    match response.json::<TokenRefusal>("the answer of the broker") {
        Ok(refusal) => words(outage, &refusal),
        Err(_) => outage,
    }
}

/// An error, with the broker's own words and the id under which it has the request.
pub(crate) fn words(error: Error, refusal: &TokenRefusal) -> Error {
    let error = match refusal.error_description.as_str() {
        "" => error,
        description => error.because_of(foreign(description)),
    };
    match &refusal.request_id {
        Some(id) => error.because_of(format!("the request is {}", foreign(id))),
        None => error,
    }
}
