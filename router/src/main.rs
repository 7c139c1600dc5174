//! The `weir` program.

use std::process::ExitCode;

/// A sample is allocated on the thread that receives it and freed on its storage's: glibc's arenas
/// make the two wait for each other, which cost a storage in memory a quarter of its ingest rate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weir::cli::main()
}
