//! Records to rows: the value's decoder, the key's, and the metadata, kept in step.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;

use super::batch::{Record, TimestampKind};
use super::layout::{Field, Layout, Place};
use super::metadata::{self, Metadata};
use crate::connectors::{RawRecords, SourceColumn, SourceRows, SourceSpec};
use crate::error::{Error, Result};
use crate::formats::{BadRecord, DecodeColumn, RowDecoder};
use crate::limits::PAYLOAD_BYTES_MAX;

/// Reads records of one partition at a time into columns.
pub struct RowReader {
    value: Box<dyn RowDecoder>,
    key: Option<KeyReader>,
    metadata: Vec<Metadata>,
    /// Where each column comes from, in the order they were asked for.
    columns: Vec<Origin>,
    /// The records themselves and their timestamps, where somebody asks for them.
    raw: Option<RawRecords>,
    timestamps: Option<Vec<i64>>,
    rows: usize,
}

/// Keys may be absent, which decoders cannot say; so the rows of the decoder are placed afterwards.
struct KeyReader {
    decoder: Box<dyn RowDecoder>,
    /// Whether all key columns admit null.
    nullable: bool,
    /// Per row of the table its row in the decoder.
    placed: Vec<Option<u32>>,
    absent: bool,
}

#[derive(Clone, Copy)]
enum Origin {
    Value(usize),
    Key(usize),
    Metadata(usize),
}

impl RowReader {
    /// A reader that gives the columns of `spec`.
    pub fn new(spec: &SourceSpec, layout: &Layout) -> Result<Self> {
        let (mut in_value, mut in_key, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
        let mut columns = Vec::with_capacity(spec.columns.len());
        for column in &spec.columns {
            columns.push(match column {
                SourceColumn::Physical(name) => match layout.find(name) {
                    Some(Place::Value(i)) => Origin::Value(index_of(&mut in_value, i)),
                    Some(Place::Key(i)) => Origin::Key(index_of(&mut in_key, i)),
                    None => return Err(Error::bug(format!("\"{name}\" is no physical column"))),
                },
                SourceColumn::Metadata { key, data_type } => {
                    let Some(key) = metadata::KEYS.iter().find(|k| *k == key) else {
                        return Err(spec.no_metadata(key, metadata::KEYS));
                    };
                    metadata.push(Metadata::new(key, data_type)?);
                    Origin::Metadata(metadata.len() - 1)
                }
            });
        }
        let value = layout.value_format.decoder(&decode_columns(&layout.value), &in_value)?;
        // A key whose columns are all in the value as well is not looked at.
        let key = match &layout.key {
            Some((format, fields)) if !layout.value_has_key => Some(KeyReader {
                decoder: format.decoder(&decode_columns(fields), &in_key)?,
                nullable: fields.iter().all(|f| f.decode.nullable),
                placed: Vec::new(),
                absent: false,
            }),
            _ => None,
        };
        let raw = spec.keep_records.then(RawRecords::default);
        let timestamps = spec.keep_timestamps.then(Vec::new);
        Ok(Self { value, key, metadata, columns, raw, timestamps, rows: 0 })
    }

    /// Appends the row of a record with this value, or nothing and the reason.
    pub fn push(&mut self, record: &Record<'_>, payload: &[u8]) -> Result<(), BadRecord> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(BadRecord(format!("it has {} bytes, more than {PAYLOAD_BYTES_MAX}", payload.len())));
        }
        if !self.metadata.iter().all(|m| m.admits(record)) {
            return Err(BadRecord(format!("its timestamp, {} ms, is out of range", record.timestamp().0)));
        }
        self.value.decode(payload)?;
        if let Some(key) = &mut self.key
            && let Err(BadRecord(reason)) = key.push(record.key())
        {
            self.value.truncate(self.rows);
            return Err(BadRecord(format!("key: {reason}")));
        }
        for metadata in &mut self.metadata {
            metadata.push(record);
        }
        if let Some(raw) = &mut self.raw {
            raw.push(record.key(), payload);
        }
        if let Some(timestamps) = &mut self.timestamps {
            let (time, kind) = record.timestamp();
            timestamps.push(if kind == TimestampKind::None { i64::MAX } else { time });
        }
        self.rows += 1;
        debug_assert_eq!(self.value.len(), self.rows);
        Ok(())
    }

    /// Everything that was asked for; the reader is empty afterwards.
    pub fn take_into(&mut self, got: &mut SourceRows, topic: &str, partition: i32) -> Result<()> {
        got.columns = self.take(topic, partition)?;
        got.raw = self.raw.as_mut().map(RawRecords::take).transpose()?;
        got.timestamps = self.timestamps.as_mut().map(std::mem::take).unwrap_or_default();
        Ok(())
    }

    /// The columns in the order they were asked for.
    fn take(&mut self, topic: &str, partition: i32) -> Result<Vec<ArrayRef>> {
        let rows = std::mem::take(&mut self.rows);
        let value = self.value.take()?;
        let key = self.key.as_mut().map_or(Ok(Vec::new()), KeyReader::take)?;
        let metadata = self.metadata.iter_mut().map(|m| m.take(topic, partition, rows)).collect::<Result<Vec<_>>>()?;
        Ok(self
            .columns
            .iter()
            .map(|origin| match *origin {
                Origin::Value(i) => value[i].clone(),
                Origin::Key(i) => key[i].clone(),
                Origin::Metadata(i) => metadata[i].clone(),
            })
            .collect())
    }
}

impl KeyReader {
    fn push(&mut self, key: Option<&[u8]>) -> Result<(), BadRecord> {
        match key {
            Some(key) => {
                let row = self.decoder.len();
                self.decoder.decode(key)?;
                self.placed.push(Some(u32::try_from(row).map_err(|_| BadRecord("too many rows".to_owned()))?));
            }
            None if self.nullable => {
                self.placed.push(None);
                self.absent = true;
            }
            None => return Err(BadRecord("there is none, and a key column is NOT NULL".to_owned())),
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Vec<ArrayRef>> {
        let columns = self.decoder.take()?;
        let placed = std::mem::take(&mut self.placed);
        if !std::mem::take(&mut self.absent) {
            return Ok(columns);
        }
        let placed = UInt32Array::from(placed);
        Ok(columns.iter().map(|c| take(c, &placed, None)).collect::<Result<_, _>>()?)
    }
}

/// The place of `i` among the wanted ones, where it is put if it is not there yet.
fn index_of(wanted: &mut Vec<usize>, i: usize) -> usize {
    wanted.iter().position(|w| *w == i).unwrap_or_else(|| {
        wanted.push(i);
        wanted.len() - 1
    })
}

fn decode_columns(fields: &[Field]) -> Vec<DecodeColumn> {
    fields.iter().map(|f| f.decode.clone()).collect()
}
