//! `${name}` in statements, from `--var name=value`.
//!
//! A value is put in its place as it is, also inside quotes; what errors show is the text after that. `${env:X}` and the
//! like belong to options and are left alone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use tidemill::catalog::options::nearest;
use tidemill::error::{Error, Result};

static PLACE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\$\{([A-Za-z_][A-Za-z0-9_.-]*)\}").expect("a constant pattern"));

/// Values by name.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// The pairs of --var.
    pub fn new(pairs: &[String]) -> Result<Self> {
        let pair = |pair: &String| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = name.trim();
            // The pair is not repeated: it may hold a password.
            let is_pair = pair.contains('=') && PLACE.is_match(&format!("${{{name}}}"));
            match is_pair {
                true => Ok((name.to_owned(), value.to_owned())),
                false => Err(Error::usage("--var takes NAME=VALUE").hint("for instance --var topic=orders")),
            }
        };
        pairs.iter().map(pair).collect::<Result<_>>().map(Self)
    }

    /// A text with every variable's value in its place.
    pub fn fill<'a>(&self, text: &'a str) -> Result<Cow<'a, str>> {
        let unknown = PLACE.captures_iter(text).find(|place| !self.0.contains_key(&place[1]));
        if let Some(place) = unknown {
            let at = place.get_match().range();
            let error = Error::statement(format!("there is no variable {}", &place[1])).at(at);
            return Err(match nearest(&place[1], self.0.keys().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean ${{{near}}}?")),
                None => error.hint(format!("give it a value: --var {}=..", &place[1])),
            });
        }
        Ok(PLACE.replace_all(text, |place: &Captures| self.0.get(&place[1]).cloned().unwrap_or_default()))
    }
}
