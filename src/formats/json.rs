//! JSON objects to rows.
//!
//! A single pass over the payload, led by the columns that are wanted: their values go straight to the column
//! builders, everything else is checked and skipped. Most records have the same keys in the same order, so the reader
//! guesses each key from the one before it, and a right guess costs one comparison of bytes.
//!
//! What is exact: the payload is one JSON object and nothing else, in valid UTF-8 down to the last skipped field. A
//! missing field is null. Of a field given twice the last one counts, but both must fit. A null in a `NOT NULL` column
//! is a bad record, and so is a value of another type:
//!
//! | column | what is read |
//! |---|---|
//! | `BOOLEAN` | `true`, `false`, and the same as strings |
//! | `TINYINT` .. `BIGINT` | integers in range, also as strings; `1.0` and `1e3` are not integers |
//! | `FLOAT`, `DOUBLE` | numbers whose nearest value is finite, also as strings |
//! | `DECIMAL(p, s)` | numbers from their digits, also as strings; rounded half up to `s` digits |
//! | `STRING` | strings; any other value as its JSON text |
//! | `BYTES` | padded base64 |
//! | `DATE`, `TIME` | `'2013-01-31'`, `'10:00:00.123'` |
//! | `TIMESTAMP`, `TIMESTAMP_LTZ` | SQL's and ISO 8601's spelling, with or without an offset; integers are milliseconds since the epoch |
//! | `ARRAY`, `ROW`, `MAP` | arrays, objects, objects |

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::mem;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::columns::{ColumnBuilder, Values, end_list};
use super::json_scan::{Guess, ScanError, Scanner, Token};
use super::text::{self, Misfit, sql_name};
use super::{BadRecord, DecodeColumn, RowDecoder, excerpt};
use crate::error::{Error, Result};
use crate::limits::{JSON_DEPTH_MAX, PAYLOAD_BYTES_MAX};

/// Spellings of keys that a decoder remembers per object type, besides two for each wanted field.
const KEYS_REMEMBERED_MAX: usize = 1_024;

/// Longer keys are not remembered.
const KEY_BYTES_REMEMBERED_MAX: usize = 256;

/// Maps up to this size are searched for duplicate keys pair by pair.
const SMALL_MAP_ENTRIES: usize = 16;

/// Reads JSON objects into columns.
pub struct JsonDecoder {
    object: ObjectShape,
    columns: Vec<ColumnBuilder>,
    rows: usize,
    context: Context,
}

/// What all levels of a record share.
struct Context {
    fail_on_missing_field: bool,
    /// An unescaped string that does not go to a column as it is.
    scratch: Vec<u8>,
    /// The keys of a map, as hashes, to find duplicates.
    hashes: Vec<u64>,
}

/// What the values of a column look like.
enum Shape {
    Scalar,
    List(Box<FieldShape>),
    Object(ObjectShape),
    Map(Box<FieldShape>),
}

struct FieldShape {
    name: String,
    nullable: bool,
    shape: Shape,
}

/// An object with known fields, and what was learned about the order of its keys.
struct ObjectShape {
    fields: Vec<FieldShape>,
    /// Field numbers by name.
    names: HashMap<Vec<u8>, usize>,
    /// Keys as they are spelled in records, wanted or not. The first stands for the beginning of the object.
    keys: Vec<Key>,
    /// Positions in `keys` by spelling.
    spellings: HashMap<Vec<u8>, usize>,
    /// The number of the object being read: fields whose entry in `seen` is equal have been met in it.
    current: u64,
    seen: Vec<u64>,
}

struct Key {
    guess: Guess,
    field: Option<usize>,
    /// The key that followed last time.
    next: usize,
}

/// Why a record is bad, and at which column.
#[derive(Debug)]
struct Fault {
    path: String,
    reason: String,
}

type Read<T = ()> = Result<T, Box<Fault>>;

impl JsonDecoder {
    /// A decoder for the given columns.
    pub fn new(columns: &[DecodeColumn], fail_on_missing_field: bool) -> Result<Self> {
        let fields = columns.iter().map(|c| FieldShape::new(&c.name, &c.data_type, c.nullable, 1));
        Ok(Self {
            object: ObjectShape::new(fields.collect::<Result<_>>()?),
            columns: columns.iter().map(DecodeColumn::builder).collect::<Result<_>>()?,
            rows: 0,
            context: Context { fail_on_missing_field, scratch: Vec::new(), hashes: Vec::new() },
        })
    }

    fn read(&mut self, payload: &[u8]) -> Read {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Fault::new(format!("the record has {} bytes, more than {PAYLOAD_BYTES_MAX}", payload.len())));
        }
        // Once for all: the scanner takes it for granted, and the columns hold UTF-8.
        let payload = text::utf8(payload).map_err(Fault::new)?;
        let mut json = Scanner::new(payload.as_bytes());
        match json.peek()? {
            Token::Object => {}
            other => {
                json.skip(other)?;
                return Err(Fault::new(format!("expected a JSON object, found {}", found(payload.trim_ascii()))));
            }
        }
        let mut reader = Reader { json, payload };
        read_object(&mut reader, &mut self.object, &mut self.columns, &mut self.context)?;
        Ok(reader.json.finish()?)
    }
}

impl RowDecoder for JsonDecoder {
    fn decode(&mut self, payload: &[u8]) -> Result<(), BadRecord> {
        match self.read(payload) {
            Ok(()) => {
                self.rows += 1;
                debug_assert!(self.columns.iter().all(|c| c.len() == self.rows));
                Ok(())
            }
            Err(fault) => {
                self.truncate(self.rows);
                Err(BadRecord(fault.to_string()))
            }
        }
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn truncate(&mut self, len: usize) {
        self.columns.iter_mut().for_each(|c| c.truncate(len));
        self.rows = len;
    }

    fn take(&mut self) -> Result<Vec<ArrayRef>> {
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        self.truncate(0);
        arrays
    }
}

/// The scanner, and the text that it runs over.
struct Reader<'p> {
    json: Scanner<'p>,
    payload: &'p str,
}

/// Reads an object's fields into one row of `columns`, which are all of the same length.
fn read_object(
    reader: &mut Reader<'_>,
    object: &mut ObjectShape,
    columns: &mut [ColumnBuilder],
    context: &mut Context,
) -> Read {
    let row = columns.first().map_or(0, ColumnBuilder::len);
    object.current += 1;
    let mut fields_met = 0;
    let mut at = 0;
    let mut has_member = reader.json.first_member()?;
    while has_member {
        let field;
        (at, field) = object.read_key(&mut reader.json, at)?;
        let token = reader.json.peek()?;
        match field {
            None => reader.json.skip(token)?,
            Some(i) => {
                let (field, column) = (&mut object.fields[i], &mut columns[i]);
                if mem::replace(&mut object.seen[i], object.current) == object.current {
                    column.truncate(row);
                } else {
                    fields_met += 1;
                }
                read_field(reader, token, field, column, context).map_err(|fault| fault.within(&field.name))?;
            }
        }
        has_member = reader.json.next_member()?;
    }
    if fields_met < columns.len() {
        fill_missing(object, columns, context)?;
    }
    Ok(())
}

fn fill_missing(object: &ObjectShape, columns: &mut [ColumnBuilder], context: &Context) -> Read {
    for ((field, seen), column) in object.fields.iter().zip(&object.seen).zip(columns) {
        if *seen == object.current {
            continue;
        }
        if !field.nullable || context.fail_on_missing_field {
            return Err(Fault::new("the field is missing").within(&field.name));
        }
        column.append_null();
    }
    Ok(())
}

fn read_field(
    reader: &mut Reader<'_>,
    token: Token,
    field: &mut FieldShape,
    column: &mut ColumnBuilder,
    context: &mut Context,
) -> Read {
    if token == Token::Null {
        reader.json.word(b"null")?;
        if !field.nullable {
            return Err(Fault::new("null in a NOT NULL column"));
        }
        column.append_null();
        return Ok(());
    }
    match (&mut field.shape, &mut column.values, token) {
        (Shape::Scalar, ..) => return read_scalar(reader, token, column, context),
        (Shape::List(shape), Values::List { offsets, item, .. }, Token::Array) => {
            let mut has_element = reader.json.first_element()?;
            while has_element {
                let token = reader.json.peek()?;
                read_field(reader, token, shape, item, context)?;
                has_element = reader.json.next_element()?;
            }
            end_list(offsets, item.len()).map_err(|_| full(column))?;
        }
        (Shape::Object(shape), Values::Struct { children, .. }, Token::Object) => {
            read_object(reader, shape, children, context)?;
        }
        (Shape::Map(shape), Values::Map { offsets, keys, values, .. }, Token::Object) => {
            read_map(reader, shape, keys, values, context)?;
            end_list(offsets, keys.len()).map_err(|_| full(column))?;
        }
        _ => {
            let start = reader.json.position();
            reader.json.skip(token)?;
            return Err(misfit(Misfit::Type, column, &reader.payload[start..reader.json.position()]));
        }
    }
    column.nulls.append_non_null();
    Ok(())
}

fn read_scalar(reader: &mut Reader<'_>, token: Token, column: &mut ColumnBuilder, context: &mut Context) -> Read {
    let start = reader.json.position();
    let appended = match token {
        Token::String => {
            let (_, has_escapes) = reader.json.string()?;
            let inside = &reader.payload[start + 1..reader.json.position() - 1];
            if has_escapes {
                append_escaped(column, inside, &mut context.scratch)
            } else {
                text::append_text(column, inside)
            }
        }
        Token::Number => {
            reader.json.number()?;
            text::append_number(column, &reader.payload[start..reader.json.position()])
        }
        Token::True | Token::False => {
            reader.json.skip(token)?;
            text::append_boolean(column, token == Token::True)
        }
        Token::Array | Token::Object => {
            reader.json.skip(token)?;
            append_container(column, &reader.payload[start..reader.json.position()])
        }
        Token::Null => return Err(Fault::new("null where a value was expected")),
    };
    appended.map_err(|why| misfit(why, column, &reader.payload[start..reader.json.position()]))
}

fn append_escaped(column: &mut ColumnBuilder, inside: &str, scratch: &mut Vec<u8>) -> Result<(), Misfit> {
    if let Values::Utf8(v) = &mut column.values {
        unescape(inside.as_bytes(), v.buffer());
        v.end()?;
        column.nulls.append_non_null();
        return Ok(());
    }
    scratch.clear();
    unescape(inside.as_bytes(), scratch);
    text::append_text(column, std::str::from_utf8(scratch).map_err(|_| Misfit::Type)?)
}

/// Appends an array or object to a `STRING` column, as its text without the spaces between the tokens.
fn append_container(column: &mut ColumnBuilder, json: &str) -> Result<(), Misfit> {
    let Values::Utf8(v) = &mut column.values else { return Err(Misfit::Type) };
    let out = v.buffer();
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    v.end()?;
    column.nulls.append_non_null();
    Ok(())
}

/// Reads an object's entries to the ends of `keys` and `values`.
fn read_map(
    reader: &mut Reader<'_>,
    shape: &mut FieldShape,
    keys: &mut ColumnBuilder,
    values: &mut ColumnBuilder,
    context: &mut Context,
) -> Read {
    let start = reader.json;
    let from = keys.len();
    let mut has_member = reader.json.first_member()?;
    while has_member {
        push_key(keys, reader.json.key()?)?;
        let token = reader.json.peek()?;
        read_field(reader, token, shape, values, context)?;
        has_member = reader.json.next_member()?;
    }
    if has_duplicates(keys, from, &mut context.hashes) {
        keys.truncate(from);
        values.truncate(from);
        reader.json = start;
        read_map_with_duplicates(reader, shape, keys, values, context)?;
    }
    Ok(())
}

/// Reads an object's entries, of those with the same key the last one only. Rare, so it may allocate.
fn read_map_with_duplicates(
    reader: &mut Reader<'_>,
    shape: &mut FieldShape,
    keys: &mut ColumnBuilder,
    values: &mut ColumnBuilder,
    context: &mut Context,
) -> Read {
    let unescaped = |spelling: &[u8]| {
        let mut key = Vec::new();
        unescape(spelling, &mut key);
        key
    };
    let mut last = HashMap::new();
    let mut ahead = reader.json;
    let mut entry = 0;
    let mut has_member = ahead.first_member()?;
    while has_member {
        last.insert(unescaped(ahead.key()?), entry);
        entry += 1;
        let token = ahead.peek()?;
        ahead.skip(token)?;
        has_member = ahead.next_member()?;
    }
    entry = 0;
    has_member = reader.json.first_member()?;
    while has_member {
        let spelling = reader.json.key()?;
        let is_last = last.get(&unescaped(spelling)) == Some(&entry);
        entry += 1;
        if is_last {
            push_key(keys, spelling)?;
            let token = reader.json.peek()?;
            read_field(reader, token, shape, values, context)?;
        } else {
            let token = reader.json.peek()?;
            reader.json.skip(token)?;
        }
        has_member = reader.json.next_member()?;
    }
    Ok(())
}

fn push_key(keys: &mut ColumnBuilder, spelling: &[u8]) -> Read {
    let Values::Utf8(v) = &mut keys.values else { return Err(Fault::new("the keys of a MAP are strings")) };
    unescape(spelling, v.buffer());
    if v.end().is_err() {
        return Err(full(keys));
    }
    keys.nulls.append_non_null();
    Ok(())
}

/// Whether two of the keys from `from` on may be the same; always, when two are.
fn has_duplicates(keys: &ColumnBuilder, from: usize, hashes: &mut Vec<u64>) -> bool {
    let Values::Utf8(v) = &keys.values else { return false };
    let count = keys.len() - from;
    if count <= SMALL_MAP_ENTRIES {
        return (from..keys.len()).any(|i| (from..i).any(|j| v.get(i) == v.get(j)));
    }
    hashes.clear();
    hashes.extend((from..keys.len()).map(|i| {
        let mut hasher = DefaultHasher::new();
        hasher.write(v.get(i));
        hasher.finish()
    }));
    hashes.sort_unstable();
    hashes.windows(2).any(|pair| pair[0] == pair[1])
}

/// Appends what the inside of a JSON string stands for. The scanner has checked the escapes.
fn unescape(inside: &[u8], out: &mut Vec<u8>) {
    let mut rest = inside;
    while let Some(at) = rest.iter().position(|b| *b == b'\\') {
        out.extend_from_slice(&rest[..at]);
        let escape = rest.get(at + 1).copied().unwrap_or(b'\\');
        rest = rest.get(at + 2..).unwrap_or_default();
        out.push(match escape {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = hex4(rest);
                rest = rest.get(4..).unwrap_or_default();
                if (0xD800..0xDC00).contains(&unit) {
                    let low = hex4(rest.get(2..).unwrap_or_default());
                    rest = rest.get(6..).unwrap_or_default();
                    unit = 0x1_0000 + ((unit - 0xD800) << 10 | low.wrapping_sub(0xDC00) & 0x3FF);
                }
                let character = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            // A quote, a slash or a backslash.
            itself => itself,
        });
    }
    out.extend_from_slice(rest);
}

fn hex4(text: &[u8]) -> u32 {
    text.iter().take(4).fold(0, |n, b| n << 4 | char::from(*b).to_digit(16).unwrap_or(0))
}

impl FieldShape {
    fn new(name: &str, data_type: &DataType, nullable: bool, depth: usize) -> Result<Self> {
        if depth > JSON_DEPTH_MAX {
            return Err(Error::statement(format!(
                "column \"{name}\" is nested more than {JSON_DEPTH_MAX} levels deep"
            )));
        }
        let field = |f: &arrow::datatypes::Field| Self::new(f.name(), f.data_type(), f.is_nullable(), depth + 1);
        let shape = match data_type {
            DataType::List(item) => Shape::List(Box::new(field(item)?)),
            DataType::Struct(fields) => {
                Shape::Object(ObjectShape::new(fields.iter().map(|f| field(f)).collect::<Result<_>>()?))
            }
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(pair) if pair.len() == 2 && *pair[0].data_type() == DataType::Utf8 => {
                    Shape::Map(Box::new(field(&pair[1])?))
                }
                _ => {
                    let name = format!("column \"{name}\" of type {}", sql_name(data_type));
                    return Err(Error::statement(format!("{name}: the keys of a MAP in JSON are of type STRING"))
                        .hint("declare it as MAP<STRING, ..>"));
                }
            },
            _ => Shape::Scalar,
        };
        Ok(Self { name: name.to_string(), nullable, shape })
    }
}

impl ObjectShape {
    fn new(fields: Vec<FieldShape>) -> Self {
        let names = fields.iter().enumerate().map(|(i, f)| (f.name.clone().into_bytes(), i)).collect();
        let seen = vec![0; fields.len()];
        let start = Key { guess: Guess::new(b""), field: None, next: 0 };
        Self { fields, names, keys: vec![start], spellings: HashMap::new(), current: 0, seen }
    }

    /// Reads the key that follows the one at `after`: its position, and the field that it names.
    #[inline]
    fn read_key(&mut self, json: &mut Scanner<'_>, after: usize) -> Read<(usize, Option<usize>)> {
        let guess = self.keys[after].next;
        if guess != 0 && json.key_if(&self.keys[guess].guess)? {
            return Ok((guess, self.keys[guess].field));
        }
        Ok(self.search(after, json.key()?))
    }

    /// The same without a guess, which is learned for the next time.
    #[cold]
    fn search(&mut self, after: usize, spelling: &[u8]) -> (usize, Option<usize>) {
        if let Some(known) = self.spellings.get(spelling).copied() {
            self.keys[after].next = known;
            return (known, self.keys[known].field);
        }
        let field = if spelling.contains(&b'\\') {
            let mut name = Vec::new();
            unescape(spelling, &mut name);
            self.names.get(&name).copied()
        } else {
            self.names.get(spelling).copied()
        };
        let room = KEYS_REMEMBERED_MAX + 2 * self.fields.len();
        if self.keys.len() > room || spelling.len() > KEY_BYTES_REMEMBERED_MAX {
            // Objects that are maps in truth: guessing goes on from the last key that is known.
            return (after, field);
        }
        let known = self.keys.len();
        self.keys.push(Key { guess: Guess::new(spelling), field, next: 0 });
        self.spellings.insert(spelling.to_vec(), known);
        self.keys[after].next = known;
        (known, field)
    }
}

impl Fault {
    fn new(reason: impl Into<String>) -> Box<Self> {
        Box::new(Self { path: String::new(), reason: reason.into() })
    }

    /// The same fault seen from the object around the field.
    fn within(mut self: Box<Self>, field: &str) -> Box<Self> {
        self.path = if self.path.is_empty() { field.to_string() } else { format!("{field}.{}", self.path) };
        self
    }
}

impl From<ScanError> for Box<Fault> {
    fn from(error: ScanError) -> Self {
        Fault::new(format!("not valid JSON at byte {}: {}", error.at, error.reason))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.reason);
        }
        write!(f, "column \"{}\": {}", self.path, self.reason)
    }
}

fn misfit(why: Misfit, column: &ColumnBuilder, json: &str) -> Box<Fault> {
    Fault::new(why.describe(column.data_type(), &found(json)))
}

fn full(column: &ColumnBuilder) -> Box<Fault> {
    misfit(Misfit::Full, column, "")
}

/// What a message calls a value.
fn found(json: &str) -> String {
    match json.as_bytes().first() {
        Some(b'[') => "an array".to_string(),
        Some(b'{') => "an object".to_string(),
        _ => excerpt(json),
    }
}
