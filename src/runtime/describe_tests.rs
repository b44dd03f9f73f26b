use super::super::info::{CheckpointInfo, CommitInfo, PartitionState, RestartInfo};
use super::*;

fn info() -> JobInfo {
    let ten = 1_357_034_400_000;
    let partition = |partition, next_offset, watermark, state| PartitionInfo {
        topic: "clicks".to_owned(),
        partition,
        start_offset: 12,
        next_offset,
        end_offset: Some(6_020),
        watermark,
        state,
        ..PartitionInfo::default()
    };
    let partitions = vec![
        partition(0, 6_000, Some(ten + 597_500), PartitionState::Ahead),
        PartitionInfo {
            holds_back: true,
            at_end_ms: Some(7_000),
            ..partition(10, 6_020, Some(ten), PartitionState::AtEnd)
        },
    ];
    JobInfo {
        name: "per_minute".to_owned(),
        statement: "INSERT INTO per_minute SELECT window_start, COUNT(*) FROM TUMBLE(clicks, ts, ..)".to_owned(),
        status: "running".to_owned(),
        diagnosis: vec!["this is why".to_owned(), "and this".to_owned()],
        records_in: 12_008,
        bytes_in: 1_200_800,
        rows_out: 1_204,
        records_per_second: 104.4,
        rows_per_second: 0.3,
        lag: Some(20),
        watermark: Some(ten),
        open_windows: 3,
        next_close: Some(ten + 600_000),
        state_bytes: 4_096,
        sources: vec![SourceInfo { table: "clicks".to_owned(), partitions, ..SourceInfo::default() }],
        statements: vec![StatementInfo {
            sink: "per_minute".to_owned(),
            records_in: 12_008,
            used: 12_000,
            late: 8,
            rows_out: 1_204,
            has_windows: true,
            ..StatementInfo::default()
        }],
        commit: Some(CommitInfo { sequence: 665, age_ms: 120, duration_ms: 12 }),
        checkpoint: Some(CheckpointInfo { sequence: 600, age_ms: 13_120, duration_ms: 40, bytes: 2_048 }),
        restarts: 2,
        last_restart: Some(RestartInfo { age_ms: 180_000, reason: "the broker was away".to_owned() }),
        silent_ms: Some(4_200),
        elapsed_ms: 133_000,
        ..JobInfo::default()
    }
}

#[test]
fn a_job_is_described() {
    let want = "\
job         per_minute
status      running, 2 min 13 s
statement   INSERT INTO per_minute SELECT window_start, COUNT(*) FROM TUMBLE(clicks, ts, ..)
diagnosis   this is why
            and this
read        12,008 records (1.1 MB), 104 a second lately; 20 to read
written     1,204 rows, 0.3 a second lately; the last 4.2 s ago
watermark   2013-01-01 10:00:00Z
windows     3 open; the next closes at 2013-01-01 10:10:00Z
state       4.0 KB in memory, 2.0 KB in the log
commit      boundary 665, 120 ms ago, took 12 ms
checkpoint  boundary 600, 13 s ago, took 40 ms
restarts    2; the last 3 min ago: the broker was away

source clicks
  partition  began at  next   end  to read  watermark                 state
  0                12  6000  6020       20  2013-01-01 10:09:57.500Z  ahead, waits for others
  10               12  6020  6020        0  2013-01-01 10:00:00Z      at its end for 7 s; holds the watermark back

what became of the records
  into          read    used  filtered  late  rows out
  per_minute  12,008  12,000         0     8     1,204
";
    assert_eq!(describe(&info()), want);
    let skipped = StatementInfo { errors: 1, ..info().statements.remove(0) };
    let two = JobInfo { statements: vec![info().statements.remove(0), skipped], ..info() };
    let want = "\
  into          read    used  filtered  late  skipped  rows out
  per_minute  12,008  12,000         0     8        0     1,204
  per_minute  12,008  12,000         0     8        1     1,204
";
    assert!(describe(&two).ends_with(want), "{}", describe(&two));
    let restored = JobInfo { commit: None, replay: Some((3, 20)), checkpoint: None, last_restart: None, ..info() };
    let text = describe(&restored);
    assert!(
        text.contains("\ncommit      none yet; going through boundary 3 of 20 again\nrestarts    none\n\nsource"),
        "{text}"
    );
    let waits = JobInfo { under_way: Some((666, 3_000)), ..info() };
    assert!(describe(&waits).contains("took 12 ms; boundary 666 is under way for 3 s\n"));
}

#[test]
fn a_job_is_a_line() {
    let statement = "INSERT INTO per_minute SELECT window_start, COUNT(*) FROM TU ..";
    let want = ["per_minute", "running", "104", "0.3", "20", "2013-01-01 10:00:00Z", "2", statement];
    assert_eq!(row(&info()), want);
    let failed = JobInfo { status: "failed".to_owned(), error: Some("why".to_owned()), watermark: None, ..info() };
    assert_eq!(row(&failed)[1..6], ["failed (why)", "", "", "20", ""]);
}
