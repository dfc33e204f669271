//! The least that a warm `tmpcred token` could do: reads one key of the user's
//! kernel keyring and prints it.
//!
//!     floor-kernel DESCRIPTION

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write;

    use linux_keyutils::{KeyRing, KeyRingIdentifier};

    let description = std::env::args().nth(1).ok_or("the description of the key is missing")?;
    let user = KeyRing::from_special_id(KeyRingIdentifier::User, false)?;
    let mut value = vec![0; 4096];
    let length = user.search(&description)?.read(&mut value)?;
    std::io::stdout().write_all(value.get(..length).ok_or("the key is too long")?)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
