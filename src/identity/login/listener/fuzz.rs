//! What comes to the page of a login.

use super::*;
use crate::fuzz::{
    Fate::{Accepted, Refused},
    hold,
};

#[test]
fn callback() {
    let seeds = [
        "code=c&state=s&iss=https%3A%2F%2Fi.example",
        "error=access_denied&error_description=x&state=s",
    ];
    hold("callback", seeds.map(|seed| seed.into()), |input| {
        let Ok(query) = std::str::from_utf8(input) else { return Refused };
        let count = |wanted: &str| {
            form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == wanted).count()
        };
        let names = ["state", "code", "error", "error_description", "iss"];
        match Parameters::read(query) {
            Ok(read) => {
                let there = [
                    read.state.is_some(),
                    read.code.is_some(),
                    read.error.is_some(),
                    read.error_description.is_some(),
                    read.iss.is_some(),
                ];
                assert_eq!(names.map(&count), there.map(usize::from));
                Accepted
            }
            Err(status) => {
                assert_eq!(status, StatusCode::BAD_REQUEST);
                assert!(names.iter().any(|name| count(name) > 1));
                Refused
            }
        }
    });
}
