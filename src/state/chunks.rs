//! Pieces of state as bytes: the records of a log of checkpoints.
//!
//! Pieces of one operator and kind are put together to *messages*, which hold their rows as an Arrow IPC stream with the
//! pieces' keys in two columns in front. A message is cut into *chunks* that fit a record of a log:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `TMst` |
//! | 1 | the version of the format |
//! | 4 | CRC-32 of all that follows |
//! | 8 | the checkpoint: the number of its boundary |
//! | 4 | the chunk's number in the checkpoint, from 0 |
//! | 1 | whether the message ends with this chunk |
//! | .. | a part of the message: operator (4), kind (1), whether it has rows (1); then the stream, or keys of 16 bytes |
//!
//! Numbers are little-endian. Whoever reads checks all of it: what does not fit is an error, never a guess.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;

use super::piece::{Piece, PieceKind};
use super::spill::{Spill, Stored, compacted};
use crate::error::{Error, Result};

const MAGIC: &[u8; 4] = b"TMst";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 22;
const MESSAGE_HEAD_BYTES: usize = 6;

/// A broker takes records of a million bytes, unless it is told otherwise.
const CHUNK_BYTES_MAX: usize = 900_000;

/// Pieces are put together up to about so many bytes.
const MESSAGE_BYTES: usize = 4 << 20;

/// The columns in front of a piece's own.
const PREFIX: usize = 2;

/// The pieces of a checkpoint, on their way into chunks.
pub struct ChunkWriter {
    checkpoint: u64,
    waiting: VecDeque<(u32, Piece)>,
    /// Bytes of what waits, about.
    waiting_bytes: usize,
    chunks: u32,
    bytes: u64,
}

impl ChunkWriter {
    /// Of a checkpoint, with what operators have given out.
    pub fn new(checkpoint: u64, pieces: impl IntoIterator<Item = (u32, Piece)>) -> Self {
        let waiting: VecDeque<(u32, Piece)> = pieces.into_iter().collect();
        let waiting_bytes = waiting.iter().map(|(_, piece)| size_of_piece(piece)).sum();
        Self { checkpoint, waiting, waiting_bytes, chunks: 0, bytes: 0 }
    }

    /// Bytes that wait, about: some, as long as anything does.
    pub fn waiting_bytes(&self) -> usize {
        if self.waiting.is_empty() { 0 } else { self.waiting_bytes.max(1) }
    }

    /// Chunks and bytes that have been made.
    pub fn written(&self) -> (u32, u64) {
        (self.chunks, self.bytes)
    }

    /// The chunks of the next message; `None` when all have been made.
    pub fn next_message(&mut self) -> Result<Option<Vec<Vec<u8>>>> {
        let Some((operator, first)) = self.waiting.pop_front() else { return Ok(None) };
        let is_like = |piece: &Piece| {
            let schema = |piece: &Piece| piece.batch.as_ref().map(|rows| Arc::clone(rows.schema()));
            piece.kind == first.kind && schema(piece) == schema(&first)
        };
        let mut pieces = vec![];
        let mut bytes = size_of_piece(&first);
        while let Some((_, next)) = self.waiting.front().filter(|(of, next)| *of == operator && is_like(next)) {
            bytes += size_of_piece(next);
            if MESSAGE_BYTES < bytes {
                bytes -= size_of_piece(next);
                break;
            }
            pieces.extend(self.waiting.pop_front().map(|(_, piece)| piece));
        }
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        pieces.insert(0, first);
        let message = message(operator, pieces)?;
        let parts = message.chunks(CHUNK_BYTES_MAX).collect::<Vec<_>>();
        let mut chunks = Vec::with_capacity(parts.len());
        for (at, part) in parts.iter().enumerate() {
            let mut chunk = Vec::with_capacity(HEAD_BYTES + part.len());
            chunk.extend_from_slice(MAGIC);
            chunk.push(VERSION);
            chunk.extend_from_slice(&[0; 4]);
            chunk.extend_from_slice(&self.checkpoint.to_le_bytes());
            chunk.extend_from_slice(&self.chunks.to_le_bytes());
            chunk.push(u8::from(at + 1 == parts.len()));
            chunk.extend_from_slice(part);
            let sum = crc32fast::hash(&chunk[9..]);
            chunk[5..9].copy_from_slice(&sum.to_le_bytes());
            self.chunks += 1;
            self.bytes += chunk.len() as u64;
            chunks.push(chunk);
        }
        Ok(Some(chunks))
    }
}

/// What a piece weighs, about.
fn size_of_piece(piece: &Piece) -> usize {
    let bytes = |column: &ArrayRef| match column.to_data().get_slice_memory_size() {
        Ok(bytes) => bytes,
        Err(_) => column.get_array_memory_size(),
    };
    16 + match &piece.batch {
        None => 0,
        Some(Stored::Batch(batch)) => batch.columns().iter().map(bytes).sum::<usize>(),
        Some(Stored::Spilled(spilled)) => spilled.bytes(),
    }
}

fn message(operator: u32, pieces: Vec<Piece>) -> Result<Vec<u8>> {
    let kind = pieces[0].kind as u8;
    let mut bytes = operator.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[kind, u8::from(pieces[0].batch.is_some())]);
    let Some(first) = &pieces[0].batch else {
        for Piece { key: (a, b), .. } in &pieces {
            bytes.extend_from_slice(&a.to_le_bytes());
            bytes.extend_from_slice(&b.to_le_bytes());
        }
        return Ok(bytes);
    };
    let fields = ["a", "b"].map(|name| Arc::new(Field::new(name, DataType::Int64, false)));
    let fields = fields.into_iter().chain(first.schema().fields().iter().cloned()).collect::<Vec<_>>();
    let schema = Arc::new(Schema::new_with_metadata(fields, first.schema().metadata().clone()));
    let mut rows = Vec::with_capacity(pieces.len());
    for Piece { key: (a, b), batch, .. } in pieces {
        let Some(batch) = batch else { return Err(Error::bug("pieces with rows and without in one message")) };
        let batch = batch.load()?;
        let constant = |value: i64| Arc::new(Int64Array::from_value(value, batch.num_rows())) as ArrayRef;
        let columns = [constant(a), constant(b)].into_iter().chain(batch.columns().iter().map(compacted)).collect();
        rows.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
    }
    let mut writer = StreamWriter::try_new(&mut bytes, &schema)?;
    writer.write(&concat_batches(&schema, &rows)?)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// Takes chunks in the order of their log, and makes pieces of them again.
#[derive(Default)]
pub struct ChunkReader {
    /// What is wanted, and how far it has come. Others are what a crash has left.
    checkpoints: BTreeMap<u64, Unfinished>,
    /// Where rows go once there are more than a worker takes as a whole, and their bytes.
    spill: Option<(Arc<Spill>, usize)>,
}

#[derive(Default)]
struct Unfinished {
    chunks_wanted: u32,
    chunks: u32,
    /// What stands in front of the message that comes, once it does; the stream behind it is apart, so that its buffers
    /// are aligned and need not be copied.
    head: Option<[u8; MESSAGE_HEAD_BYTES]>,
    body: Vec<u8>,
    pieces: Vec<(u32, Piece)>,
}

impl ChunkReader {
    /// For checkpoints of so many chunks.
    pub fn new(wanted: impl IntoIterator<Item = (u64, u32)>) -> Self {
        let unfinished =
            |(checkpoint, chunks_wanted)| (checkpoint, Unfinished { chunks_wanted, ..Unfinished::default() });
        Self { checkpoints: wanted.into_iter().map(unfinished).collect(), spill: None }
    }

    /// Rows go to disk if there are many.
    #[must_use]
    pub fn spilling(mut self, to: Option<&Arc<Spill>>) -> Self {
        self.spill = to.map(|to| (Arc::clone(to), 0));
        self
    }

    /// Takes a chunk.
    pub fn take(&mut self, chunk: &[u8]) -> Result<()> {
        if chunk.len() < HEAD_BYTES || !chunk.starts_with(MAGIC) {
            return Err(wrong("is none of a checkpoint"));
        }
        if chunk[4] != VERSION {
            let found = chunk[4];
            return Err(wrong(&format!("has version {found} of the format, and this program reads {VERSION}")));
        }
        let number = |from: usize| u32::from_le_bytes([chunk[from], chunk[from + 1], chunk[from + 2], chunk[from + 3]]);
        if number(5) != crc32fast::hash(&chunk[9..]) {
            return Err(wrong("is damaged: its checksum does not fit"));
        }
        let checkpoint = u64::from(number(9)) | u64::from(number(13)) << 32;
        let Some(of) = self.checkpoints.get_mut(&checkpoint) else { return Ok(()) };
        if number(17) != of.chunks || of.chunks == of.chunks_wanted {
            let (found, wanted) = (number(17), of.chunks);
            return Err(wrong(&format!("has number {found} of checkpoint {checkpoint}, where {wanted} follows")));
        }
        of.chunks += 1;
        let part = &chunk[HEAD_BYTES..];
        let head = match of.head {
            Some(head) => {
                of.body.extend_from_slice(part);
                head
            }
            None => {
                let Some((head, body)) = part.split_first_chunk() else { return Err(wrong("is cut off")) };
                of.body.extend_from_slice(body);
                *of.head.insert(*head)
            }
        };
        if chunk[21] == 1 {
            of.head = None;
            let from = of.pieces.len();
            let body = std::mem::take(&mut of.body);
            let weight = body.len();
            pieces_of(head, body, &mut of.pieces)?;
            if let Some((to, bytes)) = &mut self.spill {
                *bytes += weight;
                if to.whole_bytes() < *bytes {
                    for rows in of.pieces[from..].iter_mut().filter_map(|(_, piece)| piece.batch.as_mut()) {
                        rows.spill(to)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The pieces of each checkpoint, by operator.
    pub fn finish(self) -> Result<Vec<Vec<(u32, Piece)>>> {
        let pieces = |(checkpoint, of): (u64, Unfinished)| {
            if of.chunks < of.chunks_wanted || of.head.is_some() {
                let (found, wanted) = (of.chunks, of.chunks_wanted);
                return Err(wrong(&format!("is the last of {found} of checkpoint {checkpoint}, which has {wanted}")));
            }
            Ok(of.pieces)
        };
        self.checkpoints.into_iter().map(pieces).collect()
    }
}

fn wrong(why: &str) -> Error {
    Error::upstream(format!("a job's state cannot be read: a record of it {why}"))
        .hint("nothing was written; SET 'execution.restore' = 'none' begins the job anew, without its state")
}

fn pieces_of(head: [u8; MESSAGE_HEAD_BYTES], body: Vec<u8>, pieces: &mut Vec<(u32, Piece)>) -> Result<()> {
    let [a, b, c, d, kind, has_rows] = head;
    let operator = u32::from_le_bytes([a, b, c, d]);
    let kind = PieceKind::of(kind).ok_or_else(|| wrong(&format!("holds state of kind {kind}, which is not known")))?;
    if has_rows == 0 {
        for key in body.chunks(16) {
            let Some((a, b)) = key.split_at_checked(8) else { return Err(wrong("is cut off")) };
            let (Ok(a), Ok(b)) = (a.try_into(), b.try_into()) else { return Err(wrong("is cut off")) };
            let key = (i64::from_le_bytes(a), i64::from_le_bytes(b));
            pieces.push((operator, Piece { kind, key, batch: None }));
        }
        return Ok(());
    }
    let (mut body, mut decoder) = (Buffer::from_vec(body), StreamDecoder::new());
    while let Some(batch) = decoder.decode(&mut body)? {
        if batch.num_columns() < PREFIX {
            return Err(wrong("has no keys"));
        }
        let own = batch.project(&(PREFIX..batch.num_columns()).collect::<Vec<_>>())?;
        let keys = |column: usize| {
            let keys = batch.column(column).as_primitive_opt::<Int64Type>().ok_or_else(|| wrong("has no keys"))?;
            Ok::<_, Error>(keys.values())
        };
        let (first, second) = (keys(0)?, keys(1)?);
        let mut from = 0;
        while from < own.num_rows() {
            let key = (first[from], second[from]);
            let others = first[from..].iter().zip(&second[from..]);
            let length = others.take_while(|&(a, b)| (*a, *b) == key).count();
            pieces.push((operator, Piece::new(kind, key, own.slice(from, length))));
            from += length;
        }
    }
    Ok(decoder.finish()?)
}

#[cfg(test)]
mod tests {
    use arrow::array::StringViewArray;

    use super::*;

    fn rows(from: i64, count: usize) -> RecordBatch {
        let names: StringViewArray = (0..count).map(|n| Some(format!("a name that is rather long {n}"))).collect();
        let numbers: Int64Array = (from..).take(count).map(|n| (n % 7 != 0).then_some(n)).collect();
        let columns: [(&str, ArrayRef); 2] = [("name", Arc::new(names)), ("n", Arc::new(numbers))];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    fn pieces() -> Vec<(u32, Piece)> {
        let clock = Piece { kind: PieceKind::Clock, key: (i64::MIN, -7), batch: None };
        let mut pieces = vec![(3, clock.clone()), (3, Piece { key: (1, 2), ..clock })];
        pieces.extend((0..50).map(|n| (3, Piece::new(PieceKind::Pane, (n, -n), rows(n, 10).slice(2, 3)))));
        pieces.push((4, Piece::new(PieceKind::Pane, (9, 9), rows(0, 60_000))));
        pieces.push((4, Piece::new(PieceKind::Rows, (9, 9), rows(0, 0))));
        pieces
    }

    fn chunks(checkpoint: u64) -> Vec<Vec<u8>> {
        let mut writer = ChunkWriter::new(checkpoint, pieces());
        let mut chunks = Vec::new();
        while let Some(more) = writer.next_message().unwrap() {
            chunks.extend(more);
        }
        assert_eq!(writer.waiting_bytes(), 0);
        assert_eq!(writer.written().0 as usize, chunks.len());
        chunks
    }

    fn read(wanted: &[(u64, u32)], chunks: &[Vec<u8>]) -> Result<Vec<Vec<(u32, Piece)>>> {
        let mut reader = ChunkReader::new(wanted.iter().copied());
        chunks.iter().try_for_each(|chunk| reader.take(chunk))?;
        reader.finish()
    }

    #[test]
    fn what_is_written_is_read() {
        let [left, chunks] = [6, 5].map(chunks);
        assert!(4 < chunks.len() && chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES_MAX + HEAD_BYTES));
        // Small pieces share chunks.
        assert!(chunks.len() < 12, "{}", chunks.len());
        let count = chunks.len() as u32;
        // What a crash has left is passed over.
        let log = [left[..2].to_vec(), chunks].concat();
        let found = read(&[(5, count)], &log).unwrap();
        let [found] = found.try_into().unwrap();
        let told = |(operator, piece): &(u32, Piece)| format!("{operator} {piece:?}");
        let want: Vec<String> =
            pieces().iter().filter(|(_, p)| p.batch.as_ref().is_none_or(|b| b.num_rows() > 0)).map(told).collect();
        assert_eq!(found.iter().map(told).collect::<Vec<_>>(), want);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let good = chunks(5);
        let count = good.len() as u32;
        let fails = |chunks: &[Vec<u8>], want: &str| {
            let error = read(&[(5, count)], chunks).unwrap_err();
            assert!(error.message.contains(want), "{want}: {error:?}");
        };
        fails(&good[1..], "where 0 follows");
        fails(&good[..good.len() - 1], "is the last of");
        fails(&[good.clone(), good[..1].to_vec()].concat(), "where");
        fails(&[b"TMst".to_vec()], "is none of a checkpoint");
        let mut older = good.clone();
        older[0][4] = 7;
        fails(&older, "has version 7 of the format");
        // A bit that has flipped, anywhere.
        for at in (5..good[0].len()).step_by(1 + good[0].len() / 40) {
            let mut damaged = good.clone();
            damaged[0][at] ^= 4;
            fails(&damaged, "is damaged");
        }
    }
}
