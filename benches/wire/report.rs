//! Medians as tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, json};

use crate::Key;
use crate::cases::Case;
use crate::latency::{Latency, Quantiles};
use crate::measure::Median;

/// What a run of the benchmark has found.
pub struct Report {
    pub cases: Vec<Case>,
    pub medians: BTreeMap<Key, Median>,
    /// Per case, the `rows` of its output, and what it takes only to `produce` them: CPU seconds, seconds, bytes.
    pub notes: BTreeMap<Key, String>,
    pub rounds: usize,
}

impl Report {
    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a Median)> {
        self.medians.iter().filter(move |((of, _), _)| of == name).map(|((_, what), median)| (what.as_str(), median))
    }

    fn get(&self, of: &str, what: &str) -> Option<&Median> {
        self.medians.get(&(of.to_owned(), what.to_owned()))
    }

    /// A table with a row per measurement. Ratios are to the raw drain and to the drain with decoding of the same topic.
    pub fn markdown(&self) -> String {
        let mut out = format!("Medians of {}.\n\n", self.rounds);
        out += "| case | sink | M records/s | of raw | CPU s per M | x raw | x decoded | peak MB |\n";
        out += "|---|---|--:|--:|--:|--:|--:|--:|\n";
        let mut topics = Vec::new();
        for case in &self.cases {
            let topic = case.data.topic();
            if !topics.contains(&topic) {
                for (what, median) in self.of(&topic) {
                    let name = format!("*{}*", topic.trim_start_matches("wire-"));
                    self.row(&mut out, (&name, what), median, &topic, case.data.records, case.data.records);
                }
            }
            for (what, median) in self.of(&case.name) {
                self.row(&mut out, (&case.name, what), median, &topic, case.records(), case.data.records);
            }
            topics.push(topic);
        }
        out + &self.outputs()
    }

    fn row(&self, out: &mut String, names: (&str, &str), median: &Median, topic: &str, records: u64, all: u64) {
        let millions = records as f64 / 1e6;
        let part = records as f64 / all as f64;
        let ratio = |what: &str, of: fn(&Median) -> f64| {
            self.get(topic, what).map_or(String::new(), |base| format!("{:.2}", of(median) / (of(base) * part)))
        };
        let speed =
            self.get(topic, "raw").map_or(String::new(), |raw| format!("{:.2}", raw.wall_s * part / median.wall_s));
        let _ = writeln!(
            out,
            "| {} | {} | {:.2} | {speed} | {:.3} | {} | {} | {:.0} |",
            names.0,
            names.1,
            millions / median.wall_s,
            median.cpu_s / millions,
            ratio("raw", |m| m.cpu_s),
            ratio("decoded", |m| m.cpu_s),
            median.peak_mb,
        );
    }

    /// What writing costs: the difference of the two sinks, beside producing the same bytes and nothing else.
    fn outputs(&self) -> String {
        let mut out = String::new();
        for case in &self.cases {
            let key = |what: &str| (case.name.clone(), what.to_owned());
            let (Some(rows), Some(produce)) = (self.notes.get(&key("rows")), self.notes.get(&key("produce"))) else {
                continue;
            };
            if out.is_empty() {
                out += "\n| case | rows out | CPU s of writing | of producing the same bytes | x |\n|---|--:|--:|--:|--:|\n";
            }
            let produce: f64 = produce.split(' ').next().and_then(|cpu| cpu.parse().ok()).unwrap_or(f64::NAN);
            let (blackhole, topic) = (self.get(&case.name, "blackhole"), self.get(&case.name, "topic"));
            let writing = topic.zip(blackhole).map_or(f64::NAN, |(topic, blackhole)| topic.cpu_s - blackhole.cpu_s);
            let _ =
                writeln!(out, "| {} | {rows} | {writing:.2} | {produce:.2} | {:.1} |", case.name, writing / produce);
        }
        out
    }

    /// Everything that was measured.
    pub fn json(&self) -> String {
        let mut cases = Map::new();
        for ((of, what), median) in &self.medians {
            let entry = cases.entry(of.clone()).or_insert_with(|| json!({}));
            entry[what] = json!(median);
        }
        for ((of, what), note) in &self.notes {
            cases.entry(of.clone()).or_insert_with(|| json!({}))[what] = json!(note);
        }
        for case in &self.cases {
            cases.entry(case.name.clone()).or_insert_with(|| json!({}))["records"] = json!(case.records());
        }
        serde_json::to_string_pretty(&json!({ "rounds": self.rounds, "cases": cases })).expect("JSON")
    }
}

/// A table of latencies.
pub fn latencies(found: &[Latency]) -> String {
    let mut out = "| | rows | appended: median ms | p99 | max | read: median ms | p99 | max |\n".to_owned();
    out += "|---|--:|--:|--:|--:|--:|--:|--:|\n";
    for Latency { name, rows, appended, read } in found {
        let _ = write!(out, "| {name} | {rows} |");
        for Quantiles { p50, p99, max } in [appended, read] {
            let _ = write!(out, " {p50:.0} | {p99:.0} | {max:.0} |");
        }
        out.push('\n');
    }
    out
}
