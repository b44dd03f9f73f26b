//! The SQL files of tests/peers/flink give the rows that Flink gave for them: as many, with the same checksum.
//!
//! `tests/peers/flink/compare` runs Flink, shows which rows differ, and writes the checksums.

use std::fs;
use std::path::Path;

use flate2::Crc;

use crate::common::broker::repository;
use crate::common::flights;
use crate::common::program::start_tidemill;

const RUN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(300);

/// Runs a case in a folder of its own and compares each of its tables.
fn check(case: &str) {
    let peers = repository().join("tests/peers/flink");
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let directory = tempfile::tempdir().expect("a directory");
    let folder = directory.path();
    fs::create_dir(folder.join("rows")).expect("a directory");
    let lines: Vec<&str> = flights::all().iter().map(|flight| flight.line.as_str()).collect();
    fs::write(folder.join("flights.jsonl"), lines.join("\n") + "\n").expect("a file");
    // Paths in the files are relative; the program runs where the tests do.
    let script = read(&peers.join("tables.sql")) + &read(&peers.join(format!("{case}.sql")));
    let script = script.replace("'path' = '", &format!("'path' = '{}/", folder.display()));
    fs::write(folder.join("case.sql"), script).expect("a file");

    let file = folder.join("case.sql");
    let finished = start_tidemill(&["run", file.to_str().expect("UTF-8")]).finish(RUN_TIMEOUT);
    assert_eq!(finished.code, 0, "{finished:#?}");

    let expected = read(&peers.join("expected.tsv"));
    let mut tables: Vec<_> = fs::read_dir(folder.join("rows"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .map(|table| {
            let (rows, checksum) = sum(&read(&folder.join("rows").join(&table)));
            format!("{case}\t{table}\t{rows}\t{checksum:08x}")
        })
        .collect();
    tables.sort_unstable();
    let want: Vec<_> = expected.lines().filter(|line| line.starts_with(&format!("{case}\t"))).collect();
    assert!(!want.is_empty(), "{case} is not in expected.tsv");
    assert_eq!(tables, want);
}

/// The number of lines and a checksum of them in order, as the script has it.
fn sum(text: &str) -> (usize, u32) {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let mut crc = Crc::new();
    for line in &lines {
        crc.update(line.as_bytes());
        crc.update(b"\n");
    }
    (lines.len(), crc.sum())
}

/// A test per case, and one that says which file has none.
macro_rules! cases {
    ($($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                check(stringify!($case));
            }
        )*

        #[test]
        fn every_case_is_run() {
            let files = fs::read_dir(repository().join("tests/peers/flink")).expect("a directory");
            let mut cases: Vec<_> = files
                .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
                .filter_map(|name| name.strip_suffix(".sql").filter(|case| *case != "tables").map(str::to_owned))
                .collect();
            cases.sort_unstable();
            let run: [&str; [$(stringify!($case)),*].len()] = [$(stringify!($case)),*];
            assert_eq!(cases, run.map(String::from));
        }
    };
}

cases! { cascade cumulate grouping hop join late offset session topn tumble }
