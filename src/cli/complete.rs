//! Completions: the scripts, and the live values in them.

use clap_complete::CompletionCandidate;

use crate::config;
use crate::host::Host;
use crate::host::env::Env;
use crate::host::interact::Silent;

use super::renewal::SIGNALS;

/// The shells for which there is a script.
pub(crate) const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

/// The variable by which a completion script asks the program.
pub(crate) const VARIABLE: &str = "TMPCRED_COMPLETE";

/// Where zsh loads the script from its `fpath`, it does so as the first call of
/// the completer, which has to complete something then.
const ZSH_AUTOLOAD: &[u8] =
    b"[[ $funcstack[1] == _tmpcred ]] && _clap_dynamic_completer_tmpcred \"$@\"\n";

/// Writes a shell's completion script. It asks the program found as `tmpcred`.
pub(crate) fn write_script(shell: &str, out: &mut dyn std::io::Write) -> std::io::Result<()> {
    match clap_complete::env::Shells::builtins().completer(shell) {
        Some(completer) => {
            completer.write_registration(VARIABLE, "tmpcred", "tmpcred", "tmpcred", out)?;
            out.write_all(if shell == "zsh" { ZSH_AUTOLOAD } else { b"" })
        }
        None => Err(std::io::Error::other(format!("no completion script for {shell}"))),
    }
}

/// The names of the profiles, for completing them as they are now.
pub(crate) fn profiles() -> Vec<CompletionCandidate> {
    let Some(config) = config() else { return Vec::new() };
    config
        .profiles
        .iter()
        .map(|(name, profile)| {
            CompletionCandidate::new(name).help(profile.role.clone().map(Into::into))
        })
        .collect()
}

/// The names of the identities.
pub(crate) fn identities() -> Vec<CompletionCandidate> {
    let Some(config) = config() else { return Vec::new() };
    config.identities.keys().map(CompletionCandidate::new).collect()
}

/// What can be done with a command whose credential was renewed.
pub(crate) fn on_renewal() -> Vec<CompletionCandidate> {
    let signals = SIGNALS.iter().map(|(name, _)| format!("signal:{name}"));
    signals.chain(["restart".into()]).map(CompletionCandidate::new).collect()
}

/// The configuration, as far as it can be read. Completing says nothing of errors.
fn config() -> Option<config::Config> {
    let host = Host::real(Env::of_process(), std::sync::Arc::new(Silent)).ok()?;
    config::load(&host).ok()
}
