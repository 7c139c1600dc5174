//! What a policy may use, and what happens beyond it. Every limit of the host stands here.

use std::time::Duration;

/// Samples in one call of `route` or `prioritize`; a longer batch is asked in pieces.
pub const BATCH_SAMPLES_MAX: usize = 1024;
/// Bytes of keys, payload prefixes and attachments in one call; what is longer is asked in pieces,
/// but a sample is never cut in two.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Bytes of each payload that a policy can ask for. A manifest that wants more is refused.
pub const PAYLOAD_PREFIX_MAX: u32 = 4096;
/// Shards in one answer of `route`. More fail the call.
pub const COPIES_MAX: usize = 16;
/// Counters that a manifest may name. One that names more is refused.
pub const COUNTERS_MAX: usize = 64;
/// Reasons that a manifest may name. One that names more is refused.
pub const REASONS_MAX: usize = 64;
/// Bytes of one name in a manifest. A manifest with a longer one is refused.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of one line of a policy's log; what is longer is cut.
pub const LOG_BYTES_MAX: usize = 1024;
/// Core instances inside a policy: a component made by linking Python's libraries has some thirty.
pub(crate) const CORE_INSTANCES_MAX: usize = 128;
/// Memories and tables inside a policy.
pub(crate) const MEMORIES_MAX: usize = 16;
pub(crate) const TABLES_MAX: usize = 64;
/// Table elements over all tables: 8 MiB of the host's memory.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 1 << 20;

/// The limits that settings can change.
///
/// `resolve` has to end alike on every replica: give routers that mirror each other the same
/// `resolve_fuel`, `memory_bytes_max` and `stack_bytes_max`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of a module; a longer one is refused unread.
    pub module_bytes_max: usize,
    /// Bytes of memory that an instance may have, over all its memories. Growing beyond fails in the
    /// guest; if it then traps, the cause is `memory`.
    pub memory_bytes_max: usize,
    /// Bytes of stack. Deeper recursion traps.
    pub stack_bytes_max: usize,
    /// CPU time of one call of `route` or `prioritize`. Time in which the thread does not run is not
    /// counted. A call that runs longer is cut within [`crate::TICK`] of CPU time.
    pub batch_cpu_max: Duration,
    /// CPU time of starting an instance: its start functions and `init`.
    pub init_cpu_max: Duration,
    /// Fuel of one `resolve`, with the start and `init` of its instance: about one unit an
    /// instruction, one more for each byte that is copied, filled or logged in bulk.
    pub resolve_fuel: u64,
    /// How long one `resolve` may take on the wall clock before it is interrupted. This never decides
    /// anything: the question is asked again later.
    pub resolve_patience: Duration,
    /// Keys whose route is remembered, in each of two generations, for policies that depend on the
    /// key alone. The generation that was not used longest is forgotten.
    pub memo_keys_max: usize,
    /// Lines that a policy may log in a second; more are dropped and counted.
    pub log_lines_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            module_bytes_max: 64 << 20,
            memory_bytes_max: 64 << 20,
            stack_bytes_max: 512 << 10,
            batch_cpu_max: Duration::from_millis(20),
            // Interpreters start slowly.
            init_cpu_max: Duration::from_millis(500),
            resolve_fuel: 100_000_000,
            // 100 million instructions take a fraction of a second; only a stalled machine gets here.
            resolve_patience: Duration::from_secs(10),
            memo_keys_max: 1 << 16,
            log_lines_per_second: 10,
        }
    }
}
