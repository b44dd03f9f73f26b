//! What becomes of records that cannot be used: what a table says about them, and the bytes that are kept for it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BinaryViewArray, make_view};
use arrow::buffer::Buffer;

use super::connector_of;
use super::kafka::check_topic_name;
use crate::catalog::Table;
use crate::catalog::options::Options;
use crate::error::{Error, Result};

/// Where late rows go.
pub(crate) const LATE_TOPIC: &str = "scan.late.topic";
/// Where bad records go.
pub(crate) const DEAD_LETTER_TOPIC: &str = "scan.dead-letter.topic";
/// How far an event time may be ahead of its record.
pub(crate) const MAX_AHEAD: &str = "scan.event-time.max-ahead";

/// Kept records lie in blocks of this size, or of one record: offsets into a block have 32 bits.
const BLOCK_BYTES_MAX: usize = 256 << 20;

/// What happens to a record that does not decode, and to a row over which an expression fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The job stops at it.
    #[default]
    Fail,
    /// It is counted, and reading goes on.
    Skip,
    /// It is written to a topic and counted, and reading goes on.
    DeadLetter,
}

/// What a table says about records that cannot be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejects {
    /// `'scan.on-error'`, or what a format's own option says in Flink's words.
    pub on_error: OnError,
    /// `'scan.dead-letter.topic'`; there if, and only if, that is where bad records go.
    pub dead_letter_topic: Option<String>,
    /// `'scan.late.topic'`.
    pub late_topic: Option<String>,
    /// `'scan.event-time.max-ahead'`: a record whose event time is ahead of its own timestamp by more is bad.
    pub max_ahead: Option<Duration>,
}

impl Rejects {
    /// What a table says.
    pub fn of(table: &Table) -> Result<Self> {
        let options = &table.options;
        let only_kafka = [LATE_TOPIC, DEAD_LETTER_TOPIC, MAX_AHEAD];
        let connector = connector_of(table)?;
        if connector != "kafka" {
            let wants_topic = options.get("scan.on-error").is_some_and(|v| v.eq_ignore_ascii_case("dead-letter"));
            let key = only_kafka.iter().copied().find(|key| options.get(key).is_some());
            if let Some(key) = key.or(wants_topic.then_some("scan.on-error")) {
                let value = options.get(key).unwrap_or_default();
                return Err(Error::statement(format!("'{key}' = '{value}' is not for connector '{connector}'")).hint(
                    "only the records of a Kafka table have a cluster to go back to, and timestamps of their own",
                ));
            }
        }
        let format_skips = options
            .iter()
            .filter(|(key, _)| key.ends_with(".ignore-parse-errors"))
            .try_fold(false, |any, (key, _)| Ok::<_, Error>(any | options.bool(key, false)?))?;
        let on_error = match options.get("scan.on-error") {
            None if format_skips => OnError::Skip,
            None => OnError::Fail,
            Some(_) => match options.choice("scan.on-error", &["fail", "skip", "dead-letter"])? {
                "skip" => OnError::Skip,
                "dead-letter" => OnError::DeadLetter,
                _ => OnError::Fail,
            },
        };
        let dead_letter_topic = topic(options, DEAD_LETTER_TOPIC)?;
        match (on_error, &dead_letter_topic) {
            (OnError::DeadLetter, None) => {
                return Err(Error::statement(format!(
                    "'scan.on-error' = 'dead-letter' needs '{DEAD_LETTER_TOPIC}', the topic that bad records go to"
                ))
                .hint(format!("add '{DEAD_LETTER_TOPIC}' = '..' to WITH (..)")));
            }
            (OnError::Fail | OnError::Skip, Some(_)) => {
                return Err(Error::statement(format!("'{DEAD_LETTER_TOPIC}' is set, but nothing would go there"))
                    .hint("add 'scan.on-error' = 'dead-letter', or remove it"));
            }
            _ => {}
        }
        let late_topic = topic(options, LATE_TOPIC)?;
        let max_ahead = options.duration(MAX_AHEAD)?;
        let about_time = [(LATE_TOPIC, late_topic.is_some()), (MAX_AHEAD, max_ahead.is_some())];
        if let (Some((key, _)), None) = (about_time.iter().find(|(_, is_set)| *is_set), &table.watermark) {
            return Err(Error::statement(format!("'{key}' is set, but table {} has no event time", table.name))
                .hint("declare one with WATERMARK FOR .. AS .., or remove the option"));
        }
        Ok(Self { on_error, dead_letter_topic, late_topic, max_ahead })
    }

    /// The same for a statement that only reads: it counts what it cannot use, and writes nothing.
    #[must_use]
    pub fn without_topics(self) -> Self {
        let on_error = if self.on_error == OnError::DeadLetter { OnError::Skip } else { self.on_error };
        Self { on_error, dead_letter_topic: None, late_topic: None, ..self }
    }
}

/// Whether a table reads a topic because its pattern matches.
pub fn matches_pattern(options: &Options, topic: &str) -> bool {
    let pattern = options.get("topic-pattern").and_then(|p| regex::Regex::new(&format!("^(?:{p})$")).ok());
    pattern.is_some_and(|pattern| pattern.is_match(topic))
}

/// The topic that an option names: not one that the table reads, or it would read again what it has turned away.
fn topic(options: &Options, key: &str) -> Result<Option<String>> {
    let Some(name) = options.get(key).map(str::trim) else { return Ok(None) };
    check_topic_name(name).map_err(|e| Error { message: format!("'{key}': {}", e.message), ..e })?;
    let listed = options.get("topic").is_some_and(|topics| topics.split(';').any(|t| t.trim() == name));
    let matched = matches_pattern(options, name);
    if listed || matched {
        let by = if listed { "'topic'" } else { "'topic-pattern'" };
        return Err(Error::statement(format!("'{key}' = '{name}' is a topic that the table itself reads, by {by}"))
            .hint("rows that are turned away would come back for ever: name another topic"));
    }
    Ok(Some(name.to_owned()))
}

/// A record as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRecord {
    /// The key's bytes, if it has any.
    pub key: Option<Vec<u8>>,
    /// The value's bytes.
    pub value: Vec<u8>,
}

impl RawRecord {
    /// A copy of what was read.
    pub fn new(key: Option<&[u8]>, value: &[u8]) -> Self {
        Self { key: key.map(<[u8]>::to_vec), value: value.to_vec() }
    }

    /// Appends a record as the hidden column keeps it: the length of the key (or the greatest number for none), the key,
    /// the value.
    pub fn write(key: Option<&[u8]>, value: &[u8], to: &mut Vec<u8>) {
        let length = key.map_or(u32::MAX, |key| u32::try_from(key.len()).unwrap_or(u32::MAX - 1));
        to.extend_from_slice(&length.to_be_bytes());
        to.extend_from_slice(key.unwrap_or_default());
        to.extend_from_slice(value);
    }

    /// From such bytes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        match u32::from_be_bytes(*length) {
            u32::MAX => Some(Self { key: None, value: rest.to_vec() }),
            length => {
                let (key, value) = rest.split_at_checked(length as usize)?;
                Some(Self { key: Some(key.to_vec()), value: value.to_vec() })
            }
        }
    }
}

/// Keeps records for the hidden column: one copy, which the column then shares.
#[derive(Debug, Default)]
pub struct RawRecords {
    blocks: Vec<Vec<u8>>,
    views: Vec<u128>,
}

impl RawRecords {
    /// Keeps a record.
    pub fn push(&mut self, key: Option<&[u8]>, value: &[u8]) {
        let bytes = 4 + key.map_or(0, <[u8]>::len) + value.len();
        if self.blocks.last().is_none_or(|block| BLOCK_BYTES_MAX < block.len() + bytes) {
            self.blocks.push(Vec::new());
        }
        let index = self.blocks.len() - 1;
        let block = &mut self.blocks[index];
        let start = block.len();
        RawRecord::write(key, value, block);
        self.views.push(make_view(&block[start..], index as u32, start as u32));
    }

    /// All records since the last time, as a column.
    pub fn take(&mut self) -> Result<BinaryViewArray> {
        let views = std::mem::take(&mut self.views);
        let blocks: Vec<Buffer> = std::mem::take(&mut self.blocks).into_iter().map(Buffer::from_vec).collect();
        Ok(BinaryViewArray::try_new(views.into(), blocks, None)?)
    }
}

/// A record that does not decode, for the topic of such records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecoded {
    /// Its offset.
    pub offset: i64,
    /// The record.
    pub record: RawRecord,
    /// Why.
    pub reason: String,
}

/// What a job keeps of the records of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: nobody will ask.
    #[default]
    Nothing,
    /// Those of rows that may be late.
    Disordered,
    /// All: an expression may fail over any row.
    All,
}

impl Keep {
    /// What topics like these want.
    pub fn of(rejects: &Rejects) -> Self {
        match (rejects.on_error, &rejects.late_topic) {
            (OnError::DeadLetter, _) => Self::All,
            (_, Some(_)) => Self::Disordered,
            _ => Self::Nothing,
        }
    }
}

/// What operators must know of what a table says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What happens to rows over which an expression fails.
    pub on_error: OnError,
    /// Whether late rows go anywhere.
    pub wants_late: bool,
}

impl From<&Rejects> for Policy {
    fn from(rejects: &Rejects) -> Self {
        Self { on_error: rejects.on_error, wants_late: rejects.late_topic.is_some() }
    }
}

/// The policy of each source of a plan, by its ordinal.
#[derive(Clone, Debug, Default)]
pub struct Policies(Option<Arc<[Policy]>>);

impl Policies {
    /// The policies of all sources, in their order.
    pub fn new(of_sources: impl IntoIterator<Item = Policy>) -> Self {
        Self(Some(of_sources.into_iter().collect()))
    }

    /// The policy of a source.
    pub fn of(&self, source: u16) -> Policy {
        self.0.as_ref().and_then(|all| all.get(usize::from(source)).copied()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;
    use crate::catalog::Watermark;

    fn table(pairs: &[(&str, &str)], has_time: bool) -> Table {
        let expr = Box::new(sqlparser::ast::Expr::Identifier("ts".into()));
        Table {
            name: "t".to_owned(),
            columns: Vec::new(),
            watermark: has_time.then(|| Watermark { column: "ts".to_owned(), expr }),
            primary_key: Vec::new(),
            options: Options::from_pairs(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))),
            comment: None,
            temporary: false,
        }
    }

    #[test]
    fn what_a_table_says() {
        let kafka = [("connector", "kafka"), ("topic", "in; more")];
        let of = |pairs: &[(&str, &str)]| Rejects::of(&table(&[&kafka, pairs].concat(), true)).unwrap();
        assert_eq!((of(&[]), Keep::of(&of(&[]))), (Rejects::default(), Keep::Nothing));
        assert_eq!(of(&[("json.ignore-parse-errors", "true")]).on_error, OnError::Skip);
        assert_eq!(of(&[("json.ignore-parse-errors", "true"), ("scan.on-error", "fail")]).on_error, OnError::Fail);
        let late = of(&[("scan.late.topic", " late "), ("scan.event-time.max-ahead", "1 h")]);
        assert_eq!((late.late_topic.as_deref(), Keep::of(&late)), (Some("late"), Keep::Disordered));
        assert_eq!(late.max_ahead, Some(Duration::from_secs(3_600)));
        let both = [("scan.on-error", "dead-letter"), ("scan.dead-letter.topic", "bad"), ("scan.late.topic", "late")];
        assert_eq!((of(&both).dead_letter_topic.as_deref(), Keep::of(&of(&both))), (Some("bad"), Keep::All));
        let reader = of(&both).without_topics();
        assert_eq!(reader, Rejects { on_error: OnError::Skip, ..Rejects::default() });
    }

    #[test]
    fn what_a_table_cannot_say() {
        let kafka = ("connector", "kafka");
        let dead = ("scan.on-error", "dead-letter");
        let cases: [(&[(&str, &str)], bool, &str); 11] = [
            (&[kafka, dead], true, "needs 'scan.dead-letter.topic'"),
            (&[kafka, ("scan.dead-letter.topic", "d")], true, "nothing would go there"),
            (&[kafka, ("scan.dead-letter.topic", "d"), ("scan.on-error", "skip")], true, "nothing would go there"),
            (&[kafka, dead, ("scan.dead-letter.topic", "a b")], true, "cannot be the name of a topic"),
            (&[kafka, ("topic", "a; b"), ("scan.late.topic", "b")], true, "the table itself reads, by 'topic'"),
            (&[kafka, ("topic-pattern", "l.*e"), ("scan.late.topic", "late")], true, "by 'topic-pattern'"),
            (&[kafka, ("scan.late.topic", "l")], false, "table t has no event time"),
            (&[kafka, ("scan.event-time.max-ahead", "1 h")], false, "table t has no event time"),
            (&[kafka, ("scan.event-time.max-ahead", "soon")], true, "is not valid"),
            (&[("connector", "filesystem"), dead], true, "is not for connector 'filesystem'"),
            (&[("connector", "datagen"), ("scan.late.topic", "l")], true, "is not for connector 'datagen'"),
        ];
        for (pairs, has_time, want) in cases {
            let error = Rejects::of(&table(pairs, has_time)).unwrap_err();
            assert!(error.message.contains(want) && error.hint.is_some(), "{pairs:?}: {error:?}");
        }
    }

    #[test]
    fn records_are_kept_as_they_are() {
        let records: [(Option<&[u8]>, &[u8]); 4] =
            [(None, b""), (Some(b""), b"v"), (Some(b"key"), b"a value that is longer than a view"), (None, &[0, 255])];
        let mut kept = RawRecords::default();
        for _ in 0..2 {
            records.iter().for_each(|(key, value)| kept.push(*key, value));
            let column = kept.take().unwrap();
            assert_eq!(column.len(), records.len());
            for (i, (key, value)) in records.iter().enumerate() {
                assert_eq!(RawRecord::read(column.value(i)), Some(RawRecord::new(*key, value)));
            }
        }
        assert_eq!(RawRecord::read(&[0, 0, 0, 9, 1]), None);
    }
}
