//! What to write where a statement breaks off, or where a clause has nothing behind it: told from the words before.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::source::is_word;

/// The words that clauses begin with.
const CLAUSES: [&str; 12] =
    ["FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "JOIN", "UNION", "EMIT", "ON", "WINDOW", "QUALIFY"];

/// What is missing between the tokens before a place and the token that was found there; `None` is the end of the statement.
pub(super) fn hint(before: &[TokenWithSpan], found: Option<&Token>) -> Option<String> {
    let is_broken_off = match found {
        None | Some(Token::RParen | Token::Comma) => true,
        Some(token) => CLAUSES.iter().any(|clause| is_word(token, clause)),
    };
    if !is_broken_off {
        return None;
    }
    let (last, rest) = before.split_last()?;
    let sentence = match &last.token {
        Token::Word(word) if word.quote_style.is_none() => match word.value.to_ascii_uppercase().as_str() {
            word @ ("SELECT" | "DISTINCT") => {
                format!("name what is wanted behind {word}: columns, expressions, or * for all")
            }
            word @ ("FROM" | "JOIN") => {
                format!("name a table, a view or a topic behind {word}; SHOW TABLES and SHOW TOPICS list them")
            }
            "WHERE" => "write a condition behind WHERE, such as WHERE price > 10".to_owned(),
            "HAVING" => "write a condition behind HAVING, such as HAVING COUNT(*) > 1".to_owned(),
            "ON" => "write a condition behind ON, such as ON a.id = b.id".to_owned(),
            word @ ("AND" | "OR" | "NOT") => format!("write a condition behind {word}"),
            "BY" if rest.last().is_some_and(|token| is_word(&token.token, "GROUP")) => {
                "name columns behind GROUP BY; rows of windows are grouped by window_start, window_end and others"
                    .to_owned()
            }
            "BY" => "name columns behind BY".to_owned(),
            "AS" => "write a name behind AS".to_owned(),
            "LIMIT" => "write a number of rows behind LIMIT".to_owned(),
            "INTERVAL" => "write an interval as INTERVAL '1' MINUTE".to_owned(),
            _ => return inserted(before).filter(|_| found.is_none()).or_else(|| open(before)),
        },
        Token::Comma => match found {
            Some(found) => format!("is there a comma too many before {}?", super::source::describe(found)),
            None => "is there a comma too many, or something missing behind it?".to_owned(),
        },
        Token::Eq
        | Token::Neq
        | Token::Lt
        | Token::Gt
        | Token::LtEq
        | Token::GtEq
        | Token::Plus
        | Token::Minus
        | Token::Div
        | Token::StringConcat => format!("there must be a value behind {}", last.token),
        _ => return open(before),
    };
    Some(sentence)
}

/// `INSERT INTO t`, and nothing behind it.
fn inserted(before: &[TokenWithSpan]) -> Option<String> {
    let [insert, into, table] = before else { return None };
    (is_word(&insert.token, "INSERT") && is_word(&into.token, "INTO")).then(|| {
        format!(
            "write INSERT INTO {0} SELECT .. for a job, INSERT INTO {0} VALUES (..), (..) for a few rows",
            table.token
        )
    })
}

/// A parenthesis that is open.
fn open(before: &[TokenWithSpan]) -> Option<String> {
    let mut open = Vec::new();
    for (at, token) in before.iter().enumerate() {
        match token.token {
            Token::LParen => open.push(at),
            Token::RParen => drop(open.pop()),
            _ => {}
        }
    }
    let name = &before.get(open.pop()?.checked_sub(1)?)?.token;
    Some(format!("is a \")\" missing? The parenthesis behind {name} is open"))
}

/// The clause that an unquoted word may be meant as.
pub(super) fn misspelt(token: &Token) -> Option<&'static str> {
    let Token::Word(word) = token else { return None };
    let word = word.value.to_ascii_uppercase();
    let distance = |clause: &&str| strsim::osa_distance(&word, clause);
    let near = CLAUSES.into_iter().filter(|clause| 4 <= clause.len()).min_by_key(distance)?;
    // A letter too many, too few or wrong, or two that have changed places.
    (distance(&near) == 1 && 3 <= word.len()).then_some(near)
}
