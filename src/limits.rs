//! Every bound in one place.

/// Rows that a source reader hands over at once, at most.
pub const BATCH_ROWS_MAX: usize = 8_192;

/// Batches that wait in a channel between two threads, at most: a slow consumer slows its producers.
pub const CHANNEL_BATCHES_MAX: usize = 4;

/// The same on the way to the committing thread, which takes nothing while it commits: what workers give out meanwhile, so
/// that they need not wait.
pub const COMMIT_BATCHES_MAX: usize = 16;

/// Bytes of a bad record that an error message shows.
pub const BAD_RECORD_BYTES_SHOWN: usize = 80;

/// Depth of nested JSON values that is followed before a record is called bad.
pub const JSON_DEPTH_MAX: usize = 128;

/// A payload larger than this is a bad record (Kafka's own default limit is 1 MiB).
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(BATCH_ROWS_MAX * COMMIT_BATCHES_MAX <= 1 << 20);
