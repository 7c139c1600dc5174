//! How the databases are tuned.
//!
//! Telemetry overwrites few keys often and is read seldom; a router may hold thousands of
//! databases, most of them small and idle, on two cores and in 256 MiB.

use rocksdb::{
    BlockBasedOptions, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, InfoLogger,
    LogLevel, Options,
};

use crate::RocksdbVolume;

/// The column families; the first is RocksDB's own.
pub const TABLES: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
/// See the crate's documentation.
pub const LATEST: &str = "latest";
/// See the crate's documentation.
pub const HISTORY: &str = "history";

/// Options that the crate has no setters for.
///
/// - `allow_fallocate`: every database would reserve the size of a write buffer on the disk for
///   its log, 50 GB for 3,000 databases that hold nothing.
/// - `avoid_flush_during_recovery`: every open would write the rows in the log to a table file.
const UNNAMED: &str = "allow_fallocate=false;avoid_flush_during_recovery=true";

/// Options of a column family that the crate has no setters for.
///
/// - `memtable_insert_with_hint_prefix_extractor`: the place of a row in the buffer is looked for from that
///   of the row before on, whatever its prefix: a batch comes in key order, so it is near.
const UNNAMED_OF_FAMILY: &str = "memtable_insert_with_hint_prefix_extractor=rocksdb.CappedPrefix.0";

/// Options of the database.
pub fn database(volume: &RocksdbVolume, name: &str) -> Result<Options, rocksdb::Error> {
    let settings = &volume.settings;
    let mut options = Options::default().get_options_from_string(UNNAMED)?;
    options.set_write_buffer_manager(&volume.buffers);
    options.set_max_open_files(i32::from(settings.open_files_max));
    // Each database would start 16 threads to open its files.
    options.set_max_file_opening_threads(1);
    // RocksDB's threads are shared by the process: one flushes, one compacts.
    options.set_max_background_jobs(2);
    // A store has one writer. What several need costs that one some 5 %.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    // A process that dies tears at most the end of the log. Anything else is damage, and what was
    // synced behind it must not vanish silently.
    options.set_wal_recovery_mode(if settings.recover_damaged {
        DBRecoveryMode::PointInTime
    } else {
        DBRecoveryMode::TolerateCorruptedTailRecords
    });
    // The tables are written seldom, so their buffer alone would keep logs for ever.
    options.set_max_total_wal_size(4 * settings.buffer_bytes as u64);
    options.set_bytes_per_sync(1 << 20);
    options.set_manifest_preallocation_size(64 << 10);
    options.set_max_manifest_file_size(4 << 20);
    options.set_table_cache_num_shard_bits(2);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_info_logger(logger(name));
    Ok(options)
}

/// The column families with their options.
pub fn families(volume: &RocksdbVolume) -> Result<Vec<ColumnFamilyDescriptor>, rocksdb::Error> {
    let buffer_bytes = volume.settings.buffer_bytes;
    let table = table(volume);
    [
        (TABLES, buffer_bytes / 4),
        (LATEST, buffer_bytes),
        (HISTORY, buffer_bytes),
    ]
    .into_iter()
    .map(|(name, buffer_bytes)| {
        let options = family(&table, buffer_bytes)?;
        Ok(ColumnFamilyDescriptor::new(name, options))
    })
    .collect()
}

fn family(table: &BlockBasedOptions, buffer_bytes: usize) -> Result<Options, rocksdb::Error> {
    let mut options = Options::default().get_options_from_string(UNNAMED_OF_FAMILY)?;
    options.set_block_based_table_factory(table);
    options.set_write_buffer_size(buffer_bytes);
    // One is written, one is flushed, two wait for a slow disk before the writer does.
    options.set_max_write_buffer_number(4);
    // The default, 1 MiB, is taken by the first row of each family and counts against the budget
    // of all stores.
    options.set_arena_block_size(16 << 10);
    options.set_target_file_size_base(32 << 20);
    options.set_max_bytes_for_level_base(64 << 20);
    // On every level: what zstd saves on the last one costs a third of a busy router's time.
    options.set_compression_type(DBCompressionType::Lz4);
    Ok(options)
}

fn table(volume: &RocksdbVolume) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&volume.cache);
    table.set_block_size(8 << 10);
    table.set_format_version(6);
    // 1 % of the reads for keys that are not there touch a block.
    table.set_bloom_filter(10.0, false);
    // In the cache, so that its size bounds the memory whatever the number of keys.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table
}

/// RocksDB's warnings go to the router's log, so that no database keeps a log file of its own.
fn logger(name: &str) -> InfoLogger {
    let store = name.to_owned();
    InfoLogger::new_callback_logger(LogLevel::Warn, move |level, message| {
        let message = message.trim_end();
        match level {
            LogLevel::Warn => tracing::info!(store, "rocksdb: {message}"),
            LogLevel::Error | LogLevel::Fatal => tracing::warn!(store, "rocksdb: {message}"),
            // Every option of the database at every start, which comes whatever level is asked for.
            _ => tracing::trace!(store, "rocksdb: {message}"),
        }
    })
}
