use super::super::info::OperatorInfo;
use super::*;

/// 10:00:00 on the first of January 2013.
const TEN: TimeMs = 1_357_034_400_000;

/// A partition at this offset of an end, with its watermark so many seconds behind ten o'clock.
fn partition(number: i32, next: i64, end: i64, watermark_s: Option<i64>, state: PartitionState) -> PartitionInfo {
    let has_come = 0 < next;
    PartitionInfo {
        topic: "c".to_owned(),
        partition: number,
        next_offset: next,
        end_offset: Some(end),
        watermark: watermark_s.map(|s| TEN + s * 1_000),
        state,
        silent_ms: has_come.then_some(40_000),
        at_end_ms: matches!(state, PartitionState::AtEnd | PartitionState::Idle).then_some(8_000),
        ..PartitionInfo::default()
    }
}

fn source(partitions: Vec<PartitionInfo>) -> SourceInfo {
    let records_in = partitions.iter().map(|p| u64::try_from(p.next_offset).unwrap()).sum();
    let mut source = SourceInfo {
        table: "clicks".to_owned(),
        records_in,
        has_event_time: true,
        idle_timeout_ms: Some(10_000),
        advances_when_idle: true,
        partitions,
        ..SourceInfo::default()
    };
    source.mark_holders();
    source
}

/// A job of one statement with windows of ten minutes, the first of which is open.
fn job(source: SourceInfo) -> JobInfo {
    let counting = source.partitions.iter().filter(|p| p.state.counts());
    let watermark = counting.map(|p| p.watermark).min().flatten();
    let statement = StatementInfo {
        sink: "per_minute".to_owned(),
        records_in: source.records_in,
        used: source.records_in,
        sources: vec![0],
        has_windows: true,
        watermark,
        open_windows: 1,
        next_close: Some(TEN + 600_000),
        ..StatementInfo::default()
    };
    JobInfo {
        status: "running".to_owned(),
        sources: vec![source],
        statements: vec![statement],
        operators: vec![OperatorInfo::default()],
        ..JobInfo::default()
    }
}

/// Two partitions, of which the second is silent and behind.
fn one_is_silent() -> JobInfo {
    use PartitionState::{AtEnd, Reading};
    job(source(vec![partition(0, 90, 100, Some(577), Reading), partition(2, 5, 5, Some(3), AtEnd)]))
}

fn with(mut info: JobInfo, change: impl FnOnce(&mut JobInfo)) -> JobInfo {
    change(&mut info);
    info
}

fn check(info: &JobInfo, want: &[&str]) {
    assert_eq!(diagnose(info, TEN + 700_000), want, "{info:#?}");
}

#[test]
fn a_job_that_has_ended_or_is_hindered_says_nothing_else() {
    let status = |status: &str| with(one_is_silent(), |info| info.status = status.to_owned());
    check(
        &with(status("failed"), |info| info.error = Some("the disk is full".to_owned())),
        &["the job has failed: the disk is full"],
    );
    check(&status("finished"), &["the job has finished: everything is read, and every window has closed"]);
    check(&status("stopped"), &["the job was stopped; windows that were open have given no rows"]);
    let away = "broker h:9092 is away since 10:00; waiting";
    check(&with(one_is_silent(), |info| info.trouble = Some(away.to_owned())), &[away]);
    check(
        &with(one_is_silent(), |info| info.replay = Some((3, 20))),
        &[
            "the job is being restored: it reads again what led to boundary 3 of 20, and writes nothing before it is there",
        ],
    );
    check(
        &with(one_is_silent(), |info| info.under_way = Some((17, 40_000))),
        &["boundary 17 was called 40 s ago and is not committed: what came before it is still being computed, or the \
           sinks are slow to take it"],
    );
    check(
        &with(one_is_silent(), |info| info.overdue_ms = Some(40_000)),
        &["the sinks do not take the rows that are to be written: the next boundary is 40 s late"],
    );
    // A boundary takes a moment.
    assert_eq!(diagnose(&with(one_is_silent(), |info| info.under_way = Some((17, 400))), TEN).len(), 2);
    check(&JobInfo { status: "running".to_owned(), records_in: 1, ..JobInfo::default() }, &["1 record read so far"]);
    check(
        &with(one_is_silent(), |info| (info.records_in, info.operators) = (5, Vec::new())),
        &["5 records read so far; what has become of them is told at the first commit"],
    );
}

#[test]
fn windows_wait_for_the_watermark_and_the_watermark_for_somebody() {
    use PartitionState::{Ahead, AtEnd, Ended, Idle, Reading};
    let close = "the next window closes when the watermark reaches 2013-01-01 10:10:00Z";
    let far = &*format!("{close}: 9 min 57 s more of event time");
    check(
        &one_is_silent(),
        &[
            far,
            "partition 2 of clicks holds the watermark back at 2013-01-01 10:00:03Z: its last record came 40 s ago; one \
             that is silent for 10 s holds nothing back",
        ],
    );
    check(
        &with(one_is_silent(), |info| info.sources[0].idle_timeout_ms = None),
        &[
            far,
            "partition 2 of clicks holds the watermark back at 2013-01-01 10:00:03Z: its last record came 40 s ago; \
             'scan.watermark.idle-timeout' = '0' waits for ever",
        ],
    );
    // Another topic has a partition of that number, too.
    let other_topic = |info: &mut JobInfo| info.sources[0].partitions[0].topic = "d".to_owned();
    assert!(diagnose(&with(one_is_silent(), other_topic), TEN)[1].starts_with("partition c/2 of clicks holds"));
    let cases: [(Vec<PartitionInfo>, &str, &str); 7] = [
        (
            vec![partition(0, 90, 100, Some(577), Ahead), partition(1, 5, 12_005, Some(3), Reading)],
            ": 9 min 57 s more of event time",
            "partition 1 of clicks holds the watermark back at 2013-01-01 10:00:03Z: 12,000 records are still to be read \
             there",
        ),
        (
            vec![
                partition(0, 90, 90, Some(577), AtEnd),
                partition(1, 0, 0, None, AtEnd),
                partition(2, 0, 0, None, AtEnd),
            ],
            "; there is none yet",
            "partitions 1 and 2 of clicks hold the watermark back: no record has come from them yet; one that is \
             silent for 10 s holds nothing back",
        ),
        (
            vec![
                partition(0, 90, 90, Some(577), AtEnd),
                partition(1, 0, 0, None, Reading),
                partition(2, 9, 9, None, Idle),
            ],
            "; there is none yet",
            "partition 1 of clicks holds the watermark back: no record has come from it yet",
        ),
        (
            vec![partition(0, 90, 90, Some(577), Reading), partition(1, 0, 0, Some(-60), Idle)],
            ": 23 s more of event time",
            "partition 0 of clicks holds the watermark back at 2013-01-01 10:09:37Z: its last record came 40 s ago",
        ),
        (
            (0..5).map(|n| partition(n, 9, 9, Some(577), AtEnd)).collect(),
            ": 23 s more of event time",
            "5 partitions of clicks hold the watermark back at 2013-01-01 10:09:37Z: their last record came 40 s ago; \
             one that is silent for 10 s holds nothing back",
        ),
        (
            vec![partition(0, 9, 9, Some(577), Idle), partition(1, 9, 9, Some(577), Ended)],
            "; there is none yet",
            "all partitions are idle: until a record comes, the watermark moves on with the clock",
        ),
        (vec![partition(0, 9, 9, Some(577), Ended)], "; there is none yet", ""),
    ];
    for (partitions, end, want) in cases {
        let want: Vec<String> =
            [format!("{close}{end}"), want.to_owned()].into_iter().filter(|s| !s.is_empty()).collect();
        check(&job(source(partitions)), &want.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let mut stays = source(vec![partition(0, 9, 9, Some(577), Idle)]);
    stays.advances_when_idle = false;
    assert_eq!(
        diagnose(&job(stays), TEN)[1],
        "all partitions are idle, and 'scan.watermark.idle-advance' = 'none': the watermark moves on with the next record"
    );
}

#[test]
fn nothing_comes() {
    use PartitionState::{AtEnd, Idle, Reading};
    let at = |start: i64, next: i64, end: i64, state| {
        let at_end_ms = (state != Reading).then_some(8_000);
        let one = PartitionInfo {
            start_offset: start,
            next_offset: next,
            at_end_ms,
            silent_ms: None,
            ..partition(1, 0, end, None, state)
        };
        with(job(source(vec![one])), |info| {
            info.sources[0].records_in = 0;
            info.statements[0].records_in = 0;
        })
    };
    check(&at(0, 0, 0, Idle), &["no record has come yet: clicks is empty"]);
    check(
        &at(300, 300, 300, AtEnd),
        &[
            "no record has come yet: reading of clicks began at the end of what was there, as 'scan.startup.mode' or the \
           group's offsets say, and nothing has been written since",
        ],
    );
    check(&at(0, 0, 1_234, Reading), &["no record has come yet, though 1,234 are there: the first are being fetched"]);
    let open = "7 offsets behind the position in partition 1 of clicks cannot be read yet: a transaction of their producer is \
                still open";
    assert_eq!(diagnose(&at(0, 0, 7, AtEnd), TEN)[0], open);
    check(&with(at(0, 0, 0, Idle), |info| info.sources[0].partitions.clear()), &["no record has come yet"]);
}

#[test]
fn nothing_is_left_of_what_comes() {
    let of = |terms: Terms, lately: Terms| {
        with(one_is_silent(), |info| {
            let Terms { used, filtered, late, lost_to_idleness, errors, dead_lettered, tombstones, rows_out } = terms;
            let before = info.statements[0].clone();
            info.statements[0] = StatementInfo {
                records_in: used + lost(&terms),
                used,
                filtered,
                late,
                lost_to_idleness,
                errors,
                dead_lettered,
                tombstones,
                rows_out,
                lately,
                ..before
            };
        })
    };
    let none = Terms::default();
    let cases: [(Terms, Terms, &str); 8] = [
        (
            Terms { filtered: 1_000, ..none },
            none,
            "all 1,000 records were filtered out: no record meets the query's condition",
        ),
        (
            Terms { late: 2, ..none },
            none,
            "all 2 records were late: the windows of such event times had closed before; the watermark is at 2013-01-01 \
             10:00:03Z",
        ),
        (
            Terms { lost_to_idleness: 2, ..none },
            none,
            "all 2 records were lost: the partition had been idle, and the window has closed without it",
        ),
        (Terms { errors: 1, ..none }, none, "the only record was bad: skipped, as 'scan.on-error' says"),
        (
            Terms { dead_lettered: 3, ..none },
            none,
            "all 3 records were bad: written to the topic that 'scan.dead-letter.topic' names",
        ),
        (Terms { tombstones: 3, ..none }, none, "all 3 records were without a value: such records are no rows"),
        (
            Terms { filtered: 900, late: 90, errors: 10, ..none },
            none,
            "of 1,000 records none was used: 900 filtered out, 90 late and 10 bad",
        ),
        (
            Terms { used: 5, filtered: 8, rows_out: 1, ..none },
            Terms { filtered: 7, ..none },
            "all 7 records of the last ten seconds were filtered out: no record meets the query's condition",
        ),
    ];
    for (terms, lately, want) in cases {
        check(&of(terms, lately), &[want]);
    }
    // One of them counts.
    assert_eq!(diagnose(&of(Terms { used: 1, late: 1_000, ..none }, none), TEN).len(), 2);
    // Somebody has sent a time that is not yet.
    let future = with(of(Terms { used: 1, late: 100, ..none }, Terms { late: 100, ..none }), |info| {
        info.statements[0].watermark = Some(TEN + 86_400_000);
        info.sources[0].partitions[1].watermark = Some(TEN + 86_400_000);
    });
    assert_eq!(
        diagnose(&future, TEN),
        [
            "all 100 records of the last ten seconds were late: the windows of such event times had closed before; the watermark is at 2013-01-02 10:00:00Z",
            "the watermark is 1 d ahead of the clock: partition 2 of clicks has had a record of such a time, and whatever \
             is older is late; 'scan.event-time.max-ahead' turns such records away",
        ]
    );
}

#[test]
fn all_is_well_or_waits_for_the_next_record() {
    let flows = |info: &mut JobInfo| info.statements[0].lately.rows_out = 1_200;
    let close = "the next window closes when the watermark reaches 2013-01-01 10:10:00Z: 9 min 57 s more of event time";
    let told = diagnose(&with(one_is_silent(), flows), TEN);
    assert_eq!(told[..2], ["rows come out: 1,200 in the last ten seconds", close]);
    assert!(told[2].starts_with("partition 2 of clicks holds the watermark back"), "{told:?}");
    let lively = |info: &mut JobInfo| info.sources[0].partitions[1].silent_ms = Some(30);
    assert_eq!(diagnose(&with(with(one_is_silent(), flows), lively), TEN).len(), 2);

    let no_windows = |info: &mut JobInfo| {
        (info.statements[0].has_windows, info.statements[0].next_close) = (false, None);
        info.statements[0].rows_out = 95;
    };
    let last = "every row has been written; the next come with the next records; the last one came 40 s ago";
    check(&with(one_is_silent(), no_windows), &[last]);

    let closed = |info: &mut JobInfo| {
        (info.statements[0].open_windows, info.statements[0].next_close) = (0, None);
        info.silent_ms = Some(61_000);
    };
    check(
        &with(one_is_silent(), closed),
        &["no window is open: the next record in time opens one; the last rows came out 1 min 1 s ago"],
    );
    let left_out = |info: &mut JobInfo| {
        closed(info);
        info.statements[0].window_rows = 12;
    };
    check(
        &with(one_is_silent(), left_out),
        &["windows have closed and given 12 rows, and none of them met the conditions behind (HAVING, WHERE)"],
    );

    // Several statements are told apart.
    let two = with(one_is_silent(), |info| {
        let mut second = info.statements[0].clone();
        (second.sink, second.has_windows) = ("all_of_them".to_owned(), false);
        info.statements.push(second);
    });
    let told = diagnose(&two, TEN);
    assert!(
        told[0].starts_with("per_minute: the next window") && told[2] == format!("all_of_them: {last}"),
        "{told:?}"
    );
}
