//! The test bed itself works: what the other tests rely on is shown here.

mod home;
mod keyring;
mod peers;
mod providers;
mod secrets;
