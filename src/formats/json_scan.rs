//! A scanner of JSON: the tokens of one payload, on demand and without copies.
//!
//! It checks everything that it passes, skipped values too, against the grammar of RFC 8259; whether the text is valid
//! UTF-8 has to be checked before. Most of a record is the inside of strings, so these are passed eight bytes at a
//! time. Nothing here recurses: the depth of a skipped value is a bit per level.

use crate::limits::JSON_DEPTH_MAX;

/// A position in a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanner<'p> {
    text: &'p [u8],
    at: usize,
    depth: usize,
}

/// A key that is expected next.
#[derive(Clone, Debug)]
pub(super) struct Guess {
    /// The spelling and the closing quote.
    quoted: Vec<u8>,
    /// Its first bytes, up to sixteen, and which bits of a text's first sixteen those are: nearly all keys are compared as
    /// one number, without a call.
    head: u128,
    mask: u128,
}

impl Guess {
    pub(super) fn new(spelling: &[u8]) -> Self {
        let quoted = [spelling, b"\""].concat();
        let (mut head, mut mask) = ([0; 16], [0; 16]);
        for (at, byte) in quoted.iter().take(16).enumerate() {
            (head[at], mask[at]) = (*byte, u8::MAX);
        }
        Self { quoted, head: u128::from_le_bytes(head), mask: u128::from_le_bytes(mask) }
    }

    /// Whether a text begins with it.
    #[inline]
    fn begins(&self, text: &[u8]) -> bool {
        match text.first_chunk::<16>() {
            Some(head) if u128::from_le_bytes(*head) & self.mask != self.head => false,
            Some(_) => self.quoted.len() <= 16 || text.starts_with(&self.quoted),
            None => text.starts_with(&self.quoted),
        }
    }
}

/// What a value starts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Null,
    True,
    False,
    Number,
    String,
    Array,
    Object,
}

/// Where and why a text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScanError {
    pub(super) at: usize,
    pub(super) reason: &'static str,
}

/// The levels of a skipped value: a bit is set where the level is an object.
type Levels = u128;

const _: () = assert!(JSON_DEPTH_MAX <= Levels::BITS as usize);

type Scan<T> = Result<T, ScanError>;

impl<'p> Scanner<'p> {
    pub(super) fn new(text: &'p [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// The next byte to be read; after [`peek`](Self::peek) the first one of a value.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// What the next value is. It is not consumed, only the spaces before it.
    #[inline]
    pub(super) fn peek(&mut self) -> Scan<Token> {
        match self.byte_after_spaces() {
            Some(b'"') => Ok(Token::String),
            Some(b'-' | b'0'..=b'9') => Ok(Token::Number),
            Some(b'{') => Ok(Token::Object),
            Some(b'[') => Ok(Token::Array),
            Some(b't') => Ok(Token::True),
            Some(b'f') => Ok(Token::False),
            Some(b'n') => Ok(Token::Null),
            Some(_) => self.fail("expected a value"),
            None => self.fail(ENDS),
        }
    }

    /// Passes a word: `null`, `true` or `false`.
    pub(super) fn word(&mut self, word: &'static [u8]) -> Scan<()> {
        if !self.text[self.at..].starts_with(word) {
            return self.fail("expected a value");
        }
        self.at += word.len();
        Ok(())
    }

    /// Passes a string; gives its inside, and whether there are escapes in it.
    #[inline]
    pub(super) fn string(&mut self) -> Scan<(&'p [u8], bool)> {
        let start = self.at + 1;
        let mut has_escapes = false;
        self.at = start;
        loop {
            self.at = plain_end(self.text, self.at);
            match self.text.get(self.at) {
                Some(b'"') => {
                    let inside = &self.text[start..self.at];
                    self.at += 1;
                    return Ok((inside, has_escapes));
                }
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                }
                Some(_) => return self.fail("a control character in a string"),
                None => return self.fail(ENDS),
            }
        }
    }

    /// Passes a number; gives its text.
    #[inline]
    pub(super) fn number(&mut self) -> Scan<&'p [u8]> {
        let start = self.at;
        if self.text.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.text.get(self.at) {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        match self.text.get(self.at) {
            // A digit after a leading zero.
            Some(b'0'..=b'9') => self.fail("invalid number"),
            _ => Ok(&self.text[start..self.at]),
        }
    }

    /// Enters an object. Whether it has a member, whose [`key`](Self::key) is next; else it is left again.
    #[inline]
    pub(super) fn first_member(&mut self) -> Scan<bool> {
        self.enter()?;
        match self.byte_after_spaces() {
            Some(b'"') => Ok(true),
            Some(b'}') => self.leave(),
            Some(_) => self.fail("expected a key"),
            None => self.fail(ENDS),
        }
    }

    /// Whether an object has another member, whose [`key`](Self::key) is next; else it is left.
    #[inline]
    pub(super) fn next_member(&mut self) -> Scan<bool> {
        match self.byte_after_spaces() {
            Some(b',') => {}
            Some(b'}') => return self.leave(),
            Some(_) => return self.fail("expected ',' or '}'"),
            None => return self.fail(ENDS),
        }
        self.at += 1;
        match self.byte_after_spaces() {
            Some(b'"') => Ok(true),
            Some(_) => self.fail("expected a key"),
            None => self.fail(ENDS),
        }
    }

    /// Passes a key and its colon; gives the key as it is spelled between its quotes.
    #[inline]
    pub(super) fn key(&mut self) -> Scan<&'p [u8]> {
        let (spelling, _) = self.string()?;
        self.colon()?;
        Ok(spelling)
    }

    /// Passes a key and its colon if the key is spelled like the guess.
    #[inline]
    pub(super) fn key_if(&mut self, guess: &Guess) -> Scan<bool> {
        if !guess.begins(&self.text[self.at + 1..]) {
            return Ok(false);
        }
        self.at += 1 + guess.quoted.len();
        self.colon()?;
        Ok(true)
    }

    #[inline]
    fn colon(&mut self) -> Scan<()> {
        match self.byte_after_spaces() {
            Some(b':') => {
                self.at += 1;
                Ok(())
            }
            Some(_) => self.fail("expected ':'"),
            None => self.fail(ENDS),
        }
    }

    /// Enters an array. Whether it has an element, which is next; else it is left again.
    pub(super) fn first_element(&mut self) -> Scan<bool> {
        self.enter()?;
        match self.byte_after_spaces() {
            Some(b']') => self.leave(),
            _ => Ok(true),
        }
    }

    /// Whether an array has another element, which is next; else it is left.
    pub(super) fn next_element(&mut self) -> Scan<bool> {
        match self.byte_after_spaces() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(b']') => self.leave(),
            Some(_) => self.fail("expected ',' or ']'"),
            None => self.fail(ENDS),
        }
    }

    /// Passes a value, whatever it is.
    #[inline]
    pub(super) fn skip(&mut self, token: Token) -> Scan<()> {
        match token {
            Token::Null => self.word(b"null"),
            Token::True => self.word(b"true"),
            Token::False => self.word(b"false"),
            Token::Number => self.number().map(drop),
            Token::String => self.string().map(drop),
            Token::Array | Token::Object => self.skip_nested(token),
        }
    }

    /// Passes the spaces at the end; nothing else may follow.
    pub(super) fn finish(&mut self) -> Scan<()> {
        match self.byte_after_spaces() {
            None => Ok(()),
            Some(_) => self.fail("there is more after the object"),
        }
    }

    fn skip_nested(&mut self, mut token: Token) -> Scan<()> {
        let outside = self.depth;
        let mut levels: Levels = 0;
        loop {
            // A scalar, or the start of a level.
            let mut has_member = match token {
                Token::Object => {
                    levels = levels << 1 | 1;
                    self.first_member()?
                }
                Token::Array => {
                    levels <<= 1;
                    self.first_element()?
                }
                scalar => {
                    self.skip(scalar)?;
                    self.next_on(levels)?
                }
            };
            // Ends of levels, until there is another value on one.
            while !has_member {
                levels >>= 1;
                if self.depth == outside {
                    return Ok(());
                }
                has_member = self.next_on(levels)?;
            }
            if levels & 1 == 1 {
                self.key()?;
            }
            token = self.peek()?;
        }
    }

    fn next_on(&mut self, levels: Levels) -> Scan<bool> {
        if levels & 1 == 1 { self.next_member() } else { self.next_element() }
    }

    fn enter(&mut self) -> Scan<()> {
        if self.depth == JSON_DEPTH_MAX {
            return self.fail("nested too deeply");
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Leaves an object or array: there is no further member.
    fn leave(&mut self) -> Scan<bool> {
        self.depth -= 1;
        self.at += 1;
        Ok(false)
    }

    fn digits(&mut self) -> Scan<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.text.get(self.at) {
            self.at += 1;
        }
        match self.at {
            at if at > start => Ok(()),
            at if at == self.text.len() => self.fail(ENDS),
            _ => self.fail("invalid number"),
        }
    }

    /// Passes an escape. Halves of surrogate pairs stand for no character and are refused.
    fn escape(&mut self) -> Scan<()> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let unit = self.hex4(self.at + 2)?;
                let is_high = (0xD800..0xDC00).contains(&unit);
                let is_low = |unit| (0xDC00..0xE000).contains(&unit);
                if is_low(unit) {
                    return self.fail("half of a surrogate pair");
                }
                if is_high {
                    if self.text.get(self.at + 6..self.at + 8) != Some(b"\\u") || !is_low(self.hex4(self.at + 8)?) {
                        return self.fail("half of a surrogate pair");
                    }
                    self.at += 6;
                }
                self.at += 6;
                Ok(())
            }
            Some(_) => self.fail("invalid escape"),
            None => self.fail(ENDS),
        }
    }

    fn hex4(&self, at: usize) -> Scan<u32> {
        let Some(digits) = self.text.get(at..at + 4) else { return self.fail(ENDS) };
        let mut value = 0;
        for digit in digits {
            let Some(digit) = char::from(*digit).to_digit(16) else { return self.fail("invalid escape") };
            value = value << 4 | digit;
        }
        Ok(value)
    }

    #[inline]
    fn byte_after_spaces(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    #[cold]
    fn fail<T>(&self, reason: &'static str) -> Scan<T> {
        Err(ScanError { at: self.at, reason })
    }
}

const ENDS: &str = "the text ends too early";

/// The first position from `at` on where there is a quote, a backslash, a control character or the end.
#[inline]
fn plain_end(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    // The high bit of each byte that is less than `n`, for `n` up to 128. A borrow may set more of them, but only above
    // one that is right, and only the lowest is used.
    let below = |bytes: u64, n: u64| bytes.wrapping_sub(n * ONES) & !bytes & HIGH;
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let bytes = u64::from_le_bytes(*chunk);
        let ends =
            below(bytes ^ (b'"' as u64 * ONES), 1) | below(bytes ^ (b'\\' as u64 * ONES), 1) | below(bytes, 0x20);
        if ends != 0 {
            return at + ends.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|b| !matches!(b, b'"' | b'\\' | 0..0x20)) {
        at += 1;
    }
    at
}
