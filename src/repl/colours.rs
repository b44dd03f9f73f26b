//! Colours for what is being typed.

use std::borrow::Cow;

use tidemill::sql::pieces::{Kind, pieces};

/// A text with its keywords, texts, numbers and comments in colours.
pub fn coloured(text: &str) -> Cow<'_, str> {
    let mut out = String::with_capacity(text.len() * 2);
    let mut end = 0;
    for piece in pieces(text) {
        let code = match piece.kind {
            Kind::Keyword => "1;34",
            Kind::Text => "32",
            Kind::Open => "33",
            Kind::Number => "36",
            Kind::Comment => "2",
            Kind::Name | Kind::Quoted | Kind::Sign => continue,
        };
        out.push_str(&text[end..piece.span.start]);
        out.push_str("\x1b[");
        out.push_str(code);
        out.push('m');
        out.push_str(&text[piece.span.clone()]);
        out.push_str("\x1b[0m");
        end = piece.span.end;
    }
    if end == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[end..]);
    Cow::Owned(out)
}
