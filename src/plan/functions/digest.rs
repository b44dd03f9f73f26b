//! Text and bytes as hexadecimal digits, as base 64, and hashed. Hashes are given in hexadecimal, as Flink does.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder};
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::ScalarUDF;

use super::function::Kind::{Bytes, Int, Text};
use super::function::{Call, Function, build_text, delegate, gives};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn functions() -> Vec<Function> {
    let hash = |name, about, evaluate| Function::new(name, about, &[&[Text], &[Bytes]], gives::text, evaluate);
    use datafusion::functions::crypto;
    vec![
        hash("md5", "MD5(text): the hash in hexadecimal", |call| hashed(call, &crypto::md5())),
        hash("sha224", "SHA224(text): the hash in hexadecimal", |call| hashed(call, &crypto::sha224())),
        hash("sha256", "SHA256(text): the hash in hexadecimal", |call| hashed(call, &crypto::sha256())),
        hash("sha384", "SHA384(text): the hash in hexadecimal", |call| hashed(call, &crypto::sha384())),
        hash("sha512", "SHA512(text): the hash in hexadecimal", |call| hashed(call, &crypto::sha512())),
        Function::new(
            "hex",
            "HEX(number or text or bytes): in hexadecimal, in upper case",
            &[&[Int], &[Text], &[Bytes]],
            gives::text,
            hex,
        ),
        Function::new(
            "unhex",
            "UNHEX(text): the bytes that hexadecimal digits spell, NULL if they are none",
            &[&[Text]],
            gives::bytes,
            unhex,
        ),
        Function::new("bin", "BIN(number): in binary", &[&[Int]], gives::text, bin),
        Function::new("to_base64", "TO_BASE64(text): in base 64", &[&[Text], &[Bytes]], gives::text, to_base64),
        Function::new(
            "from_base64",
            "FROM_BASE64(text): the text that base 64 spells, NULL if it is none",
            &[&[Text]],
            gives::text,
            from_base64,
        ),
    ]
}

/// The bytes of one row of a column of strings or bytes.
fn bytes(column: &ArrayRef, row: usize) -> Result<Option<&[u8]>> {
    if column.is_null(row) {
        return Ok(None);
    }
    match column.data_type() {
        DataType::Utf8 => Ok(Some(column.as_string::<i32>().value(row).as_bytes())),
        DataType::Binary => Ok(Some(column.as_binary::<i32>().value(row))),
        other => exec_err!("expected text or bytes, not {other}"),
    }
}

fn write_hex(bytes: &[u8], upper: bool, out: &mut String) {
    let digits: &[u8; 16] = if upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    for byte in bytes {
        out.push(char::from(digits[usize::from(byte >> 4)]));
        out.push(char::from(digits[usize::from(byte & 15)]));
    }
}

/// The hash of DataFusion's function, in hexadecimal; its MD5 is that already.
fn hashed(call: &Call, function: &ScalarUDF) -> Result<ArrayRef> {
    let hashes = delegate(call, function)?;
    match hashes.as_binary_opt::<i32>() {
        None => Ok(arrow::compute::cast(&hashes, &DataType::Utf8)?),
        Some(hashes) => build_text(call.rows, |row, out| {
            if hashes.is_valid(row) {
                write_hex(hashes.value(row), false, out);
            }
            Ok(hashes.is_valid(row))
        }),
    }
}

fn hex(call: &Call) -> Result<ArrayRef> {
    if let Ok(numbers) = call.int(0) {
        return build_text(call.rows, |row, out| {
            let is_valid = numbers.is_valid(row);
            // Writing to a string cannot fail.
            let _ = is_valid.then(|| write!(out, "{:X}", numbers.value(row)));
            Ok(is_valid)
        });
    }
    build_text(call.rows, |row, out| {
        let bytes = bytes(&call.columns[0], row)?;
        write_hex(bytes.unwrap_or_default(), true, out);
        Ok(bytes.is_some())
    })
}

fn bin(call: &Call) -> Result<ArrayRef> {
    let numbers = call.int(0)?;
    build_text(call.rows, |row, out| {
        let is_valid = numbers.is_valid(row);
        let _ = is_valid.then(|| write!(out, "{:b}", numbers.value(row)));
        Ok(is_valid)
    })
}

fn unhex(call: &Call) -> Result<ArrayRef> {
    let texts = call.text(0)?;
    let mut builder = BinaryBuilder::with_capacity(call.rows, call.rows * 16);
    let mut buffer = Vec::new();
    for row in 0..call.rows {
        buffer.clear();
        match texts.is_valid(row) && read_hex(texts.value(row), &mut buffer) {
            true => builder.append_value(&buffer),
            false => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

/// Reads digits; an odd number of them has a zero before. `false` if there is anything else.
fn read_hex(text: &str, out: &mut Vec<u8>) -> bool {
    let mut high = if text.len() % 2 == 1 { Some(0) } else { None };
    for c in text.chars() {
        let Some(digit) = c.to_digit(16) else { return false };
        match high.take() {
            // Two digits make less than 256.
            Some(first) => out.push((first * 16 + digit) as u8),
            None => high = Some(digit),
        }
    }
    true
}

fn to_base64(call: &Call) -> Result<ArrayRef> {
    build_text(call.rows, |row, out| {
        let Some(bytes) = bytes(&call.columns[0], row)? else { return Ok(false) };
        for chunk in bytes.chunks(3) {
            let group =
                chunk.iter().enumerate().fold(0_u32, |group, (i, byte)| group | u32::from(*byte) << (16 - 8 * i));
            for i in 0..4 {
                let sextet = group >> (18 - 6 * i) & 63;
                out.push(if i <= chunk.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
            }
        }
        Ok(true)
    })
}

fn from_base64(call: &Call) -> Result<ArrayRef> {
    let texts = call.text(0)?;
    let mut buffer = Vec::new();
    build_text(call.rows, |row, out| {
        buffer.clear();
        let decoded = texts.is_valid(row) && read_base64(texts.value(row), &mut buffer);
        if decoded {
            out.push_str(&String::from_utf8_lossy(&buffer));
        }
        Ok(decoded)
    })
}

fn read_base64(text: &str, out: &mut Vec<u8>) -> bool {
    let digits = text.trim_end_matches('=');
    if digits.len() % 4 == 1 || text.len() - digits.len() > 2 {
        return false;
    }
    let (mut bits, mut bit_count) = (0_u32, 0);
    for byte in digits.bytes() {
        let Some(sextet) = ALPHABET.iter().position(|digit| *digit == byte) else { return false };
        bits = (bits << 6 | sextet as u32) & 0xfff;
        bit_count += 6;
        if bit_count >= 8 {
            bit_count -= 8;
            out.push((bits >> bit_count) as u8);
        }
    }
    true
}
