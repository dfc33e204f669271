//! Which standard streams this process was started without.
//!
//! Rust puts `/dev/null` in the place of each one that is closed, before `main` begins:
//! what is written there is lost, and nobody hears of it. So this looks before Rust does.

use std::sync::atomic::{AtomicBool, Ordering};

static NO_STDOUT: AtomicBool = AtomicBool::new(false);

/// Whether this process was started with its standard output closed.
pub(super) fn stdout_was_closed() -> bool {
    NO_STDOUT.load(Ordering::Relaxed)
}

/// The C library calls what stands in this section before it calls `main`.
#[expect(unsafe_code, reason = "what has to run before Rust does is named to the linker")]
#[used]
#[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(not(target_os = "macos"), unsafe(link_section = ".init_array"))]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    #[expect(unsafe_code, reason = "the descriptor may be closed, which no safe wrapper allows")]
    // SAFETY: the call takes two numbers and touches no memory.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    NO_STDOUT.store(flags == -1, Ordering::Relaxed);
}
