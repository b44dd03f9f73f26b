//! Windows folded as their panes are complete are what merging all panes of each window anew makes of them.
//!
//! ```text
//! TIDEMILL_SEED=17 cargo test --release --lib state::tests     replays one seed
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono_tz::Tz;
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{Column, cast};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::sessions::Ended;
use super::{
    Admission, Aggregate, AggregateLayout, Fired, GroupTable, KeptPanes, PaneKey, Panes, Piece, PieceKind, Sessions,
    Spill, SpillSpace,
};
use crate::error::Result;
use crate::time::{CalendarUnit, SlicedWindows, TimeMs, WATERMARK_MAX, WATERMARK_MIN, WindowId};

const SEEDS: u64 = 20;
const DAY_MS: i64 = 86_400_000;

/// Windows, and about how long a slice is (ms).
fn all_windows() -> Vec<(SlicedWindows, i64)> {
    let (zone, day) = (Tz::America__New_York, CalendarUnit::Day);
    vec![
        (SlicedWindows::hop_ms(50, 50, 0), 50),
        (SlicedWindows::hop_ms(70, 40, 0), 10),
        (SlicedWindows::hop_ms(20, 50, 5), 10),
        (SlicedWindows::hop_ms(30, 90, 0), 30),
        (SlicedWindows::hop_ms(10, 20, 0), 10),
        (SlicedWindows::hop_ms(10, 400, 0), 10),
        (SlicedWindows::hop_ms(60, 610, 0), 10),
        (SlicedWindows::cumulate_ms(10, 70, 0), 10),
        (SlicedWindows::cumulate_ms(10, 10, 0), 10),
        (SlicedWindows::hop_calendar(zone, day, 1, 7, 0), DAY_MS),
        (SlicedWindows::cumulate_calendar(zone, day, 1, 30, 0), DAY_MS),
    ]
}

/// `count(*)`, `sum`, `min`, `max`, `avg` and `count(DISTINCT)` of `n`, by `k`.
fn layout(has_key: bool) -> Arc<AggregateLayout> {
    let schema =
        Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]));
    let n: Arc<dyn PhysicalExpr> = Arc::new(Column::new("n", 1));
    let float = cast(Arc::clone(&n), &schema, DataType::Float64).unwrap();
    let aggregate = |function: Arc<AggregateUDF>, argument: &Arc<dyn PhysicalExpr>, distinct: bool| {
        let name = format!("{} {argument} {distinct}", function.name());
        let builder = AggregateExprBuilder::new(function, vec![Arc::clone(argument)]).schema(Arc::clone(&schema));
        let function = builder.alias(name).with_distinct(distinct).build().unwrap();
        Aggregate::new(Arc::new(function), &schema).unwrap()
    };
    let aggregates = vec![
        aggregate(count_udaf(), &n, false),
        aggregate(sum_udaf(), &n, false),
        aggregate(min_udaf(), &n, false),
        aggregate(max_udaf(), &n, false),
        aggregate(avg_udaf(), &float, false),
        aggregate(count_udaf(), &n, true),
        aggregate(sum_udaf(), &n, true),
    ];
    let keys = if has_key { vec![Arc::new(Field::new("k", DataType::Utf8, true))] } else { vec![] };
    Arc::new(AggregateLayout::new(keys, aggregates))
}

fn update(table: &mut GroupTable, layout: &AggregateLayout, rows: &[(usize, Option<i64>)]) {
    let keys: ArrayRef = Arc::new(rows.iter().map(|(k, _)| (*k > 0).then(|| k.to_string())).collect::<StringArray>());
    let n: ArrayRef = Arc::new(rows.iter().map(|(_, n)| *n).collect::<Int64Array>());
    let float = arrow::compute::cast(&n, &DataType::Float64).unwrap();
    let inputs: Vec<Vec<ArrayRef>> = (0..7).map(|i| vec![Arc::clone(if i == 4 { &float } else { &n })]).collect();
    let keys = if layout.keys().fields().is_empty() { vec![] } else { vec![keys] };
    table.update(rows.len(), &keys, &inputs, &vec![None; 7]).unwrap();
}

fn texts(columns: &[ArrayRef]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let formatters: Vec<_> = columns.iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    let rows = columns.first().map_or(0, Array::len);
    let mut texts: Vec<_> = (0..rows)
        .map(|row| formatters.iter().map(|f| f.value(row).to_string()).collect::<Vec<_>>().join(" "))
        .collect();
    texts.sort_unstable();
    texts
}

/// Panes of several workers, of which each owns some of the keys.
struct Workers {
    layout: Arc<AggregateLayout>,
    windows: SlicedWindows,
    panes: Vec<Panes>,
}

impl Workers {
    fn new(layout: &Arc<AggregateLayout>, windows: SlicedWindows, count: usize, spill: Option<&Arc<Spill>>) -> Self {
        let panes = || {
            let mut panes = Panes::new(Arc::clone(layout), windows).unwrap();
            spill.iter().for_each(|spill| panes.set_spill(spill));
            panes
        };
        Self { layout: Arc::clone(layout), windows, panes: (0..count).map(|_| panes()).collect() }
    }

    /// Who owns the group of a key, of which those without keys have one.
    fn owner(&self, key: usize) -> usize {
        if self.layout.keys().fields().is_empty() { 0 } else { key % self.panes.len() }
    }

    fn update(&mut self, pane: PaneKey, rows: &[(usize, Option<i64>)]) {
        for worker in 0..self.panes.len() {
            let own: Vec<_> = rows.iter().copied().filter(|(key, _)| self.owner(*key) == worker).collect();
            if !own.is_empty() {
                update(self.panes[worker].delta(pane).unwrap(), &self.layout, &own);
            }
        }
    }

    fn checkpoint(&mut self, whole: bool) -> Vec<Piece> {
        self.panes.iter_mut().flat_map(|panes| pieces(|give| panes.checkpoint(whole, give))).collect()
    }

    fn restore(&mut self, watermark: TimeMs, log: &[Vec<Piece>]) {
        let mut dealt = vec![Vec::new(); self.panes.len()];
        for piece in log.iter().flatten() {
            if piece.batch.is_none() || self.panes.len() == 1 {
                dealt.iter_mut().for_each(|pieces| pieces.push(piece.clone()));
                continue;
            }
            let rows = piece.clone().rows().unwrap();
            let mut of_workers = vec![Vec::new(); self.panes.len()];
            for row in 0..rows.num_rows() {
                let keys = rows.column(0).as_string_opt::<i32>().filter(|_| !self.layout.keys().fields().is_empty());
                let key = keys.filter(|keys| keys.is_valid(row)).map_or(0, |keys| keys.value(row).parse().unwrap());
                of_workers[self.owner(key)].push(row as u32);
            }
            for (pieces, own) in dealt.iter_mut().zip(of_workers).filter(|(_, own)| !own.is_empty()) {
                let own = take_record_batch(&rows, &UInt32Array::from(own)).unwrap();
                pieces.push(Piece::new(piece.kind, piece.key, own));
            }
        }
        for (panes, pieces) in self.panes.iter_mut().zip(dealt) {
            panes.restore(watermark, pieces).unwrap();
        }
    }

    fn next_close(&self) -> Option<TimeMs> {
        self.panes.iter().filter_map(Panes::next_close).min()
    }

    /// The rows of each window that closes, in order.
    fn close_until(&mut self, watermark: TimeMs) -> Vec<(WindowId, usize, Vec<String>)> {
        let mut fired: BTreeMap<WindowId, (usize, Vec<String>)> = BTreeMap::new();
        for panes in &mut self.panes {
            let (next, mut first) = (panes.next_close(), None);
            let close = |Fired { window, rows, columns }: Fired| {
                first.get_or_insert(self.windows.bounds(window).1);
                // A window may have panes without it having rows, and it may come in parts.
                if 0 < rows {
                    let (all, groups) = fired.entry(window).or_default();
                    *all += rows;
                    groups.extend(texts(&columns));
                }
                Ok(())
            };
            panes.close_until(watermark, close).unwrap();
            assert_eq!(first, next.filter(|end| end - 1 <= watermark));
        }
        let sorted = |(window, (rows, mut groups)): (WindowId, (usize, Vec<String>))| {
            groups.sort_unstable();
            (window, rows, groups)
        };
        fired.into_iter().map(sorted).collect()
    }
}

/// Both kinds of panes take the same rows, checkpoints and watermarks; answers how many windows fired.
fn compare(windows: SlicedWindows, slice_ms: i64, seed: u64) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let layout = layout(!seed.is_multiple_of(5));
    // State is put on disk now and then, and worked on part by part or as a whole.
    let space = SpillSpace::new(&std::env::temp_dir(), 1 << 30);
    let spill = rng.random_bool(0.7).then(|| Spill::new(&space, [0, 4_000, usize::MAX][rng.random_range(0..3)]));
    let workers = |count| Workers::new(&layout, windows, count, spill.as_ref());
    let kept_panes = || {
        let mut kept = KeptPanes::new(Arc::clone(&layout), windows, 0).unwrap();
        spill.iter().for_each(|spill| kept.set_spill(spill));
        kept
    };
    let (mut panes, mut kept) = (workers(rng.random_range(1..4)), kept_panes());
    // Few keys that all slices share, or many that none does.
    let keys = [1, 4, 2_000][rng.random_range(0..3)];
    let behind = rng.random_range(0..30) * slice_ms;
    let (mut now, mut watermark) = (rng.random_range(-20..20) * slice_ms, WATERMARK_MIN);
    let mut fired_at_all = 0;
    let mut logs: [Vec<Vec<Piece>>; 2] = Default::default();
    for _ in 0..rng.random_range(5..60) {
        for _ in 0..rng.random_range(0..12) {
            let time = now - if rng.random_bool(0.3) { rng.random_range(0..=2 * behind) } else { 0 };
            now += rng.random_range(0..slice_ms);
            // A partition's own watermark may be ahead of that of the stream.
            let own: TimeMs = watermark.max(if rng.random_bool(0.5) { now - behind } else { WATERMARK_MIN });
            let slice = windows.slice_of(time);
            let open = windows.first_window_from(slice, windows.first_open(own));
            let key = (slice, open);
            let admitted = kept.admit(key);
            panes.panes.iter().for_each(|panes| assert_eq!(panes.admit(key), admitted));
            let Admission::Pane(key) = admitted else { continue };
            let rows: Vec<(usize, Option<i64>)> = (0..rng.random_range(1..20))
                .map(|_| (rng.random_range(0..keys), rng.random_bool(0.9).then(|| rng.random_range(0..50))))
                .collect();
            panes.update(key, &rows);
            update(kept.delta(key).unwrap(), &layout, &rows);
        }
        if rng.random_bool(0.3) {
            for panes in &mut panes.panes {
                let before = panes.size_bytes();
                let freed = panes.spill(rng.random_range(0..1_000_000)).unwrap();
                assert_eq!(panes.size_bytes(), before - freed);
            }
            kept.spill(rng.random_range(0..1_000_000)).unwrap();
        }
        if rng.random_bool(0.3) {
            let whole = rng.random_bool(0.3);
            let [of_panes, of_kept] = [panes.checkpoint(whole), pieces(|give| kept.checkpoint(whole, give))];
            if !whole {
                assert_eq!(deltas(&layout, &of_panes), deltas(&layout, &of_kept));
            }
            for (log, pieces) in logs.iter_mut().zip([of_panes, of_kept]) {
                if whole {
                    log.clear();
                }
                log.push(pieces);
            }
            if rng.random_bool(0.3) {
                panes = workers(rng.random_range(1..4));
                panes.restore(watermark, &logs[0]);
            }
            if rng.random_bool(0.3) {
                kept = kept_panes();
                kept.restore(watermark, false, logs[1].concat(), |_| panic!("closed windows are not kept")).unwrap();
            }
        }
        if rng.random_bool(0.1) {
            now += rng.random_range(0..3 * windows.length_ms());
        }
        watermark = watermark.max(now - behind - rng.random_range(0..=slice_ms));
        fired_at_all += compare_fired(&mut panes, &mut kept, watermark);
    }
    fired_at_all += compare_fired(&mut panes, &mut kept, WATERMARK_MAX);
    assert_eq!(kept.open_windows(), 0);
    drop((panes, kept, logs, spill));
    assert_eq!(space.used(), 0);
    fired_at_all
}

fn pieces(checkpoint: impl FnOnce(&mut dyn FnMut(Piece)) -> Result<()>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    checkpoint(&mut |piece| pieces.push(piece)).unwrap();
    pieces
}

/// What has come for each pane.
fn deltas(layout: &Arc<AggregateLayout>, pieces: &[Piece]) -> BTreeMap<PaneKey, Vec<String>> {
    let mut tables: BTreeMap<PaneKey, GroupTable> = BTreeMap::new();
    for piece in pieces.iter().filter(|piece| piece.kind == PieceKind::Pane) {
        let table = tables.entry(piece.key).or_insert_with(|| GroupTable::new(layout).unwrap());
        table.merge(&piece.clone().rows().unwrap()).unwrap();
    }
    tables.into_iter().map(|(key, mut table)| (key, texts(&table.finish().unwrap().1))).collect()
}

fn compare_fired(panes: &mut Workers, kept: &mut KeptPanes, watermark: TimeMs) -> usize {
    assert_eq!(panes.next_close(), kept.next_close());
    let of_panes = panes.close_until(watermark);
    let mut of_kept = Vec::new();
    let note = |Fired { window, rows, columns }: Fired| {
        if 0 < rows {
            of_kept.push((window, rows, texts(&columns)));
        }
        Ok(())
    };
    kept.advance(watermark, false, note).unwrap();
    assert_eq!(of_panes, of_kept);
    // Each worker counts those windows of which it has groups: one has all of them, several have each at least once.
    let open: Vec<usize> = panes.panes.iter().map(Panes::open_windows).collect();
    let (most, all) = (open.iter().max().copied().unwrap_or_default(), open.iter().sum());
    assert!((most..=all).contains(&kept.open_windows()));
    of_panes.len()
}

#[test]
fn folded_windows_are_what_merging_all_panes_makes_of_them() {
    let asked = std::env::var("TIDEMILL_SEED").ok().map(|seed| seed.parse().expect("TIDEMILL_SEED is a number"));
    let mut fired = 0;
    for seed in asked.map_or(0..SEEDS, |seed: u64| seed..seed + 1) {
        for (number, (windows, slice_ms)) in (0..).zip(all_windows()) {
            eprintln!("TIDEMILL_SEED={seed} cargo test --release --lib state::tests ({windows:?})");
            fired += compare(windows, slice_ms, seed * 100 + number);
        }
    }
    assert!(asked.is_some() || fired > 3_000, "{fired} windows fired");
}

#[test]
fn a_group_that_was_asked_for_before_it_had_rows_has_no_value_without_one() {
    let layout = layout(true);
    for first in [None, Some(7)] {
        let mut table = GroupTable::new(&layout).unwrap();
        if first.is_some() {
            update(&mut table, &layout, &[(4, first)]);
        }
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["1", "2"]));
        table.find(2, &[keys]).unwrap();
        // The others' values must not count for those two.
        update(&mut table, &layout, &[(3, Some(5))]);
        update(&mut table, &layout, &[(1, None), (3, Some(6))]);
        let none = "0 NULL NULL NULL NULL 0 NULL";
        let mut want = vec![format!("1 {none}"), format!("2 {none}"), "3 2 11 5 6 5.5 2 11".to_owned()];
        want.extend(first.map(|_| "4 1 7 7 7 7.0 1 7".to_owned()));
        assert_eq!(texts(&table.finish().unwrap().1), want);
    }
}

#[test]
fn sessions_know_when_the_next_may_end() {
    let key = Arc::new(Field::new("k", DataType::Int64, false));
    let layout = Arc::new(AggregateLayout::new(vec![key], Vec::new()).with_spans());
    // Few keys whose sessions go on for long, or more than are looked at one by one.
    for (keys, per_step, steps) in [(3, 2, 400), (20_000, 12_000, 4)] {
        let mut rng = StdRng::seed_from_u64(keys);
        let (gap, mut now, mut ended_at_all) = (100, 0, 0);
        let mut sessions = Sessions::new(Arc::clone(&layout), gap);
        assert_eq!(sessions.next_close(), None);
        let mut watermark = WATERMARK_MIN;
        for _ in 0..steps {
            for slice in [now / gap, now / gap + 1] {
                let rows = rng.random_range(0..per_step);
                let times = (0..rows).map(|_| (slice * gap + rng.random_range(0..gap)).max(now));
                let times: ArrayRef = Arc::new(times.collect::<Int64Array>());
                let of_keys = (0..rows).map(|_| i64::try_from(rng.random_range(0..keys)).unwrap());
                let of_keys: ArrayRef = Arc::new(of_keys.collect::<Int64Array>());
                if let Some(delta) = sessions.delta(slice).unwrap() {
                    delta.update(times.len(), &[of_keys], &[vec![times]], &[]).unwrap();
                }
            }
            now += rng.random_range(0..gap);
            watermark = watermark.max(now - 1);
            let (next, mut ended) = (sessions.next_close(), 0);
            let mut end = |of: Ended| {
                ended += of.rows;
                Ok(())
            };
            sessions.close_until(watermark, &mut end).unwrap();
            assert!(ended == 0 || next.is_some_and(|next| next <= watermark), "{next:?} {watermark}");
            // Whatever is due has ended, so what may end next is still to come.
            assert!(sessions.next_close().is_none() || 0 < sessions.open_windows());
            if keys < 10 {
                assert!(sessions.next_close().is_none_or(|next| watermark < next), "{watermark}");
            }
            ended_at_all += ended;
        }
        assert!(steps / 4 < ended_at_all, "{ended_at_all}");
    }
}
