//! Pages on which people approve from a browser: signing in, and staying signed in.
//!
//! [`provider`] asks the organisation's OpenID provider who somebody is; [`session`] is what
//! their browser carries from then on, sealed by [`seal`]. The store knows nothing of either,
//! so that strangers make no rows, and each process that has the key-encryption key can go on
//! with what another one began.
//!
//! A session is no permission: with each request the person is looked up again, and asked of
//! policy, as with a token. The pages themselves are in `http::web`.

mod provider;
mod seal;
mod session;

pub(in crate::broker) use provider::{Callback, Got, Pages, SignIn};
pub(in crate::broker) use seal::{PageSeal, Purpose};
pub(in crate::broker) use session::{Ended, Session};

/// Where the pages are, below the path of the broker's issuer.
pub(in crate::broker) const PAGES_PATH: &str = "elevations";
