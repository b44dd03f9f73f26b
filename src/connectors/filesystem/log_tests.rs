//! Logs in files: what is read is what was committed, whatever became of the file's end.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{FileTransactions, LogFile};
use crate::connectors::JobLog;

fn files(path: &Path, length: u64) -> BTreeMap<PathBuf, u64> {
    BTreeMap::from([(path.to_owned(), length)])
}

/// The records of progress, the chunks of state, and the length of a file.
fn content(log: &LogFile, path: &Path) -> (Vec<(i64, String)>, Vec<(i64, usize)>, Option<u64>) {
    let records = log.read_progress().unwrap().into_iter();
    let records = records.map(|(offset, record)| (offset, String::from_utf8(record).unwrap())).collect();
    let mut chunks = Vec::new();
    let taken = log.read_state(0, &mut |offset, chunk| {
        assert!(chunk.iter().all(|byte| *byte == chunk[0]));
        chunks.push((offset, chunk.len()));
        Ok(())
    });
    taken.unwrap();
    (records, chunks, log.length_of(path))
}

#[test]
fn a_log_is_what_was_committed_wherever_it_is_cut_or_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let (out, path) = (directory.path().join("o.json"), directory.path().join(".o.json.tidemill"));
    assert_eq!(LogFile::path_of(&out), path);
    // Per number of transactions the length of the file, and what it says.
    let mut states = Vec::new();
    let mut log = LogFile::open(&path, "j").unwrap();
    for n in 0..6_u8 {
        states.push((fs::metadata(&path).unwrap().len(), content(&log, &out)));
        let chunks: Vec<_> = (0..n % 3).map(|at| vec![at; 50 * usize::from(n)]).collect();
        log.commit(&chunks, format!("record {n}").as_bytes(), files(&out, 10 * u64::from(n))).unwrap();
    }
    states.push((fs::metadata(&path).unwrap().len(), content(&log, &out)));
    assert_eq!(states[6].1.0.len(), 6);
    assert_eq!(states[6].1.2, Some(50));
    drop(log);

    let whole = fs::read(&path).unwrap();
    let said_of = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        content(&LogFile::open(&path, "j").unwrap(), &out)
    };
    let first = states[0].0;
    for length in 0..whole.len() {
        let want =
            states.iter().rev().find(|(end, _)| *end <= length as u64).map_or_else(Default::default, |s| s.1.clone());
        assert_eq!(said_of(&whole[..length]), want, "cut at {length}");
        // A flipped bit takes what is in its frame, and all that comes later.
        if first <= length as u64 {
            let mut damaged = whole.clone();
            damaged[length] ^= 1 << (length % 8);
            let want = states.iter().rev().find(|(end, _)| *end <= length as u64).unwrap();
            assert_eq!(said_of(&damaged), want.1, "damaged at {length}");
        }
    }
    // What comes next is behind what was left.
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let mut log = LogFile::open(&path, "j").unwrap();
    log.commit(&[], b"again", files(&out, 7)).unwrap();
    drop(log);
    let (records, _, length) = content(&LogFile::open(&path, "j").unwrap(), &out);
    assert_eq!((records.last().unwrap(), length), (&(5, "again".to_owned()), Some(7)));
}

#[test]
fn what_is_let_go_of_leaves_the_file_and_offsets_stay() {
    let directory = tempfile::tempdir().unwrap();
    let (out, path) = (directory.path().join("o"), directory.path().join("log"));
    let mut log = LogFile::open(&path, "j").unwrap();
    let mut greatest = 0;
    for n in 0..40_u8 {
        let chunks: Vec<_> = (0..4).map(|_| vec![n; 100_000]).collect();
        log.commit(&chunks, b"r", files(&out, u64::from(n))).unwrap();
        let [progress, state] = log.ends();
        log.delete_before([progress - 2, state - 3]).unwrap();
        greatest = greatest.max(fs::metadata(&path).unwrap().len());
        // Nobody else has the log, also when it is another file.
        assert!(LogFile::open(&path, "j").unwrap_err().message.contains("another process"));
    }
    assert!(greatest < 2_500_000, "{greatest}");
    let said = content(&log, &out);
    drop(log);
    assert_eq!(content(&LogFile::open(&path, "j").unwrap(), &out), said);
    assert_eq!(said.0, [(38, "r".to_owned()), (39, "r".to_owned())]);
    assert_eq!(said.1, [(157, 100_000), (158, 100_000), (159, 100_000)]);
    // Another job's takes its place.
    assert!(LogFile::look(&path, "other").unwrap().is_none());
    assert_eq!(LogFile::look(&path, "j").unwrap().unwrap().len(), 2);
    assert_eq!(LogFile::open(&path, "other").unwrap().ends(), [0, 0]);
}

#[test]
fn files_are_as_long_as_the_log_says_and_what_is_in_the_way_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (out, path) = (directory.path().join("o"), directory.path().join("log"));
    fs::write(&out, "before").unwrap();
    let transactions = FileTransactions::open(&path, "j").unwrap();
    let mut file = transactions.open_file(&out).unwrap();
    assert_eq!(fs::read_to_string(&out).unwrap(), "");
    assert!(transactions.open_file(&out).unwrap_err().message.contains("two writers"));
    file.write_all(b"one\n").unwrap();
    transactions.note_length(&out, 4);
    transactions.commit(b"r".to_vec()).unwrap();
    file.write_all(b"two\n").unwrap();
    drop(transactions);

    let transactions = FileTransactions::open(&path, "j").unwrap();
    // Before the files are opened, too.
    transactions.commit(b"up".to_vec()).unwrap();
    transactions.open_file(&out).unwrap().write_all(b"2\n").unwrap();
    assert_eq!(fs::read_to_string(&out).unwrap(), "one\n2\n");
    drop(transactions);

    fs::write(&out, "o").unwrap();
    let transactions = FileTransactions::open(&path, "j").unwrap();
    let error = transactions.open_file(&out).unwrap_err();
    assert!(error.message.contains("has 1 bytes, and the job had written 4"), "{error}");
    transactions.begin_anew();
    transactions.open_file(&out).unwrap();
    transactions.finish();
    assert!(!path.exists());

    fs::write(&path, "something else").unwrap();
    for error in [LogFile::open(&path, "j").unwrap_err(), LogFile::look(&path, "j").unwrap_err()] {
        assert!(error.message.contains("is no log of a job") && error.hint.is_some(), "{error}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "something else");
}
