//! The host of policies: WebAssembly modules that decide shards, conflicts and the order of a backlog.
