//! What a policy can ask of the host.

use crate::Level;

/// A line for the router's log. The host cuts it at 1 KiB and drops lines that come too fast. In a
/// native test the line goes to the standard error.
pub fn log(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::weir::policy::host::log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    #[expect(
        clippy::print_stderr,
        reason = "a test's output is where an author looks"
    )]
    {
        eprintln!("{level:?}: {message}");
    }
}

/// Adds to the counter at this place in the manifest's counters. In a native test nobody counts.
pub fn count(id: u32, n: u64) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::weir::policy::host::count(id, n);
    #[cfg(not(target_arch = "wasm32"))]
    let _ = (id, n);
}
