//! Access keys, from the keyring and from the environment.
