//! Jobs from files to files that are killed: what is written is what would have been written, each row once.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use signal_hook::consts::SIGABRT;

use crate::common::program::{Finished, start_tidemill_with, tidemill};

const RECORDS: u64 = 400_000;

/// Two files of records, the second one behind the first.
fn write_input(directory: &Path) {
    fs::create_dir(directory).expect("a folder");
    for part in 0..2 {
        let mut file = BufWriter::new(File::create(directory.join(format!("{part}.json"))).expect("a file"));
        for n in 0..RECORDS / 2 {
            let ts = 20 * n + part;
            writeln!(file, "{{\"ts\":{ts},\"k\":\"k{}\",\"n\":{n}}}", n % 7).expect("a record");
        }
    }
}

/// Runs the job, which dies at a point if one is given.
fn run(directory: &Path, out: &str, options: &str, abort_at: Option<&str>) -> Finished {
    let text = format!(
        "CREATE TABLE i (ts TIMESTAMP(3), k STRING, n BIGINT, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) WITH (
           'connector' = 'filesystem', 'path' = '{0}/in', 'format' = 'json');
         CREATE TABLE o (w TIMESTAMP(3), k STRING, c BIGINT, s BIGINT) WITH (
           'connector' = 'filesystem', 'path' = '{0}/{out}', 'format' = 'json'{options});
         SET 'pipeline.name' = 'files'; SET 'sink.commit-interval' = '1 ms';
         SET 'execution.checkpointing.interval' = '10 ms';
         INSERT INTO o SELECT window_start, k, count(*), sum(n) FROM TUMBLE(i, ts, INTERVAL '0.5' SECOND)
         GROUP BY window_start, window_end, k;",
        directory.display()
    );
    let file = directory.join(format!("{out}.sql"));
    fs::write(&file, text).expect("a script");
    let variables: Vec<_> = abort_at.map(|point| ("TIDEMILL_ABORT_AT", point)).into_iter().collect();
    start_tidemill_with(&variables, &["run".as_ref(), file.as_os_str()]).finish(std::time::Duration::from_secs(60))
}

fn sorted(path: &Path) -> Vec<String> {
    let mut text = String::new();
    match path.extension().is_some_and(|e| e == "gz") {
        true => MultiGzDecoder::new(File::open(path).expect("a file")).read_to_string(&mut text),
        false => File::open(path).expect("a file").read_to_string(&mut text),
    }
    .expect("text");
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_job_from_files_to_a_file_that_is_killed_goes_on_where_it_was() {
    let directory = tempfile::tempdir().expect("a folder");
    write_input(&directory.path().join("in"));
    let finished = run(directory.path(), "once.json", "", None);
    assert_eq!(finished.code, 0, "{finished:?}");
    let want = sorted(&directory.path().join("once.json"));
    assert_eq!(want.len(), 8_000 * 7);
    let exactly_once = ", 'sink.delivery-guarantee' = 'exactly-once'";
    for out in ["out.json", "out.json.gz"] {
        // It dies at one point after the other; each time the next process goes on.
        for point in [
            "after-poll:3",
            "before-write:2",
            "mid-checkpoint:1",
            "before-commit:3",
            "after-fence:1",
            "mid-restore:1",
            "after-commit:2",
        ] {
            let killed = run(directory.path(), out, exactly_once, Some(point));
            assert_eq!(killed.signal, Some(SIGABRT), "{out}, {point}: {killed:?}");
        }
        let finished = run(directory.path(), out, exactly_once, None);
        assert_eq!(finished.code, 0, "{finished:?}");
        // On a slow machine the commit after which it died last may have been that of its end.
        let ways = ["it goes on from boundary", "it had finished"];
        assert!(ways.iter().any(|way| finished.stderr.contains(way)), "{}", finished.stderr);
        assert_eq!(sorted(&directory.path().join(out)), want, "{out}");
        assert!(!directory.path().join(format!(".{out}.tidemill")).exists());
    }
}

#[test]
fn a_file_has_one_writer() {
    let directory = tempfile::tempdir().expect("a folder");
    fs::write(directory.path().join("in.json"), "{\"n\":1}\n").expect("a file");
    let table = |name: &str, file: &str| {
        let path = directory.path().join(file);
        format!(
            "CREATE TABLE {name} (n INT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');\n",
            path.display()
        )
    };
    let tables = table("i", "in.json") + &table("o", "out.json") + &table("p", "out.json");
    for mode in ["streaming", "batch"] {
        let set = "BEGIN STATEMENT SET; INSERT INTO o SELECT n FROM i; INSERT INTO p SELECT n FROM i; END;";
        let ended = tidemill(&["-c", &format!("SET 'execution.runtime-mode' = '{mode}'; {tables} {set}")]);
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.stderr.contains("two statements of the job write to"), "{ended:?}");
    }
}
