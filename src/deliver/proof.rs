//! The way out `token --dpop`: the headers of one request with a token that is bound to
//! the key of this device (RFC 9449 section 7.1).

use serde::Serialize;

use super::text::Text;
use crate::credential::{Credential, Material};
use crate::dpop::{DeviceKey, SCHEME, Signing};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// The headers of one request.
#[derive(Debug)]
pub struct Headers {
    authorization: Secret<String>,
    proof: Secret<String>,
}

impl Headers {
    /// Proves the key for one request, which is made `now`. The token goes into it.
    ///
    /// # Errors
    /// A credential that is not bound to this key.
    pub fn of(
        credential: &Credential,
        key: &DeviceKey,
        request: Signing<'_>,
        now: time::OffsetDateTime,
    ) -> Result<Self> {
        let token = match &credential.material {
            Material::Bound { token, thumbprint } if thumbprint == key.thumbprint() => token,
            Material::Bound { .. } => {
                return Err(Error::new(ErrorKind::Other, "the token is bound to another key")
                    .because_of("the key of this device was lost, and another one made")
                    .hint("`--refresh` gets a token that is bound to the key of now"));
            }
            Material::Bearer { .. } | Material::Aws { .. } => return Err(not_bound()),
        };
        // RFC 6750 section 2.1: nothing else goes into a header.
        if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::new(ErrorKind::Other, "the token cannot be printed")
                .because_of("it has characters that no token has"));
        }
        let proof = key.sign(Signing { token: Some(token), ..request }, now)?;
        let mut authorization = Text::default();
        authorization.push_str(SCHEME);
        authorization.push_str(" ");
        authorization.push_str(token.expose());
        Ok(Self { authorization: authorization.into_secret(), proof })
    }

    /// A line for each, as `curl -H @-` reads them.
    pub fn lines(&self) -> Secret<String> {
        let mut text = Text::default();
        for (name, value) in [("Authorization", &self.authorization), ("DPoP", &self.proof)] {
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value.expose());
            text.push_str("\n");
        }
        text.into_secret()
    }

    /// A JSON object.
    pub fn json(&self) -> Secret<String> {
        #[derive(Serialize)]
        struct Object<'a> {
            #[serde(rename = "Authorization")]
            authorization: &'a str,
            #[serde(rename = "DPoP")]
            proof: &'a str,
        }
        let object =
            Object { authorization: self.authorization.expose(), proof: self.proof.expose() };
        let mut text = Text::default();
        // Texts always have a JSON form, and memory takes them.
        let _ = serde_json::to_writer(&mut text, &object);
        text.push('\n');
        text.into_secret()
    }
}

/// The error for a credential that is bound to nothing.
pub fn not_bound() -> Error {
    Error::new(ErrorKind::Usage, "the profile's credential is not bound to a key")
        .because_of("no proof goes with it: whoever has it may use it")
        .hint("`dpop = true` in the broker's table lets its tokens be bound")
        .hint("`tmpcred token` prints the token alone")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::super::tests::bearer;
    use super::*;
    use crate::dpop::{Expected, Shown, Target, verify};

    #[test]
    fn both_headers_are_good_for_that_request() {
        let now = datetime!(2026-01-01 12:00 UTC);
        let key = DeviceKey::from_pkcs8(&DeviceKey::generate().unwrap()).unwrap();
        let target = Target::parse("https://api.example.com/a?b=c").unwrap();
        let request = Signing { method: "GET", target: &target, token: None, nonce: None };
        let thumbprint = key.thumbprint().to_string();
        let material = Material::Bound { token: Secret::new("t0ken".into()), thumbprint };
        let credential = Credential { material, ..bearer("x") };
        let headers = Headers::of(&credential, &key, request, now).unwrap();
        let lines = headers.lines();
        let [authorization, proof] = lines.expose().lines().collect::<Vec<_>>()[..] else {
            panic!("{:?}", lines.expose());
        };
        assert_eq!(authorization, "Authorization: DPoP t0ken");
        let targets = [target.clone()];
        let expected =
            Expected { method: "GET", targets: &targets, shown: Shown::With("t0ken"), now };
        verify(proof.strip_prefix("DPoP: ").unwrap(), &expected).unwrap();
        let json: serde_json::Value = serde_json::from_str(headers.json().expose()).unwrap();
        assert_eq!(json["Authorization"], "DPoP t0ken");
        assert!(json["DPoP"].is_string() && json.as_object().unwrap().len() == 2);
        assert!(!format!("{headers:?}").contains("t0ken"));

        let other = DeviceKey::from_pkcs8(&DeviceKey::generate().unwrap()).unwrap();
        let request = Signing { target: &targets[0], ..request };
        assert!(Headers::of(&credential, &other, request, now).is_err());
        assert!(Headers::of(&bearer("x"), &key, request, now).is_err());
    }
}
