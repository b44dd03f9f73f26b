//! Pictures of what a run has found, from its JSON: legible on a light and on a dark page.

use std::fs;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;
use serde_json::{Map, Value};

/// Words, on either page.
const INK: RGBColor = RGBColor(125, 133, 144);
/// What nobody can do without: fetching, decoding.
const WIRE: RGBColor = RGBColor(154, 160, 166);
/// Queries.
const OURS: RGBColor = RGBColor(47, 129, 247);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws what the files hold into a directory.
pub fn draw(files: &[PathBuf], directory: &Path) -> Drawn {
    let mut cases = Map::new();
    for file in files {
        let Value::Object(mut found) = serde_json::from_str(&fs::read_to_string(file)?)? else { continue };
        let Some(Value::Object(found)) = found.remove("cases") else { continue };
        cases.extend(found);
    }
    fs::create_dir_all(directory)?;
    costs(&cases, &directory.join("costs.svg"))?;
    growth(&cases, &directory.join("growth.svg"))
}

/// CPU seconds per million records of one measurement of a case or a topic.
fn cpu_per_million(of: &str, case: &Value, what: &str) -> Option<f64> {
    // A topic's name tells how many records it has.
    let in_name = || of.strip_prefix("wire-")?.split('-').nth(1)?.parse().ok();
    let records: f64 = case.get("records").and_then(Value::as_f64).or_else(in_name)?;
    Some(case.get(what)?.get("cpu_s")?.as_f64()? / (records / 1e6))
}

/// Queries beside what reading costs.
fn costs(cases: &Map<String, Value>, to: &Path) -> Drawn {
    let mut bars = Vec::new();
    if let Some((topic, found)) = cases.iter().find(|(name, _)| name.starts_with("wire-") && name.contains("-10000-")) {
        for what in ["raw", "StreamConsumer", "decoded"] {
            bars.extend(cpu_per_million(topic, found, what).map(|cost| (what.to_owned(), cost, WIRE)));
        }
    }
    for (name, case) in cases.iter().filter(|(name, _)| !name.starts_with("growth-")) {
        for what in ["blackhole", "topic"] {
            bars.extend(cpu_per_million(name, case, what).map(|cost| (format!("{name}, {what}"), cost, OURS)));
        }
    }
    if bars.iter().all(|(_, _, colour)| *colour == WIRE) {
        return Ok(());
    }
    const ROW: i32 = 24;
    let (left, width) = (170, 640);
    let area = SVGBackend::new(to, (width + left + 60, ROW as u32 * (bars.len() as u32 + 1) + 12)).into_drawing_area();
    let most = bars.iter().map(|(_, cost, _)| *cost).fold(0.0, f64::max);
    let style = || ("sans-serif", 13).into_font().color(&INK);
    area.draw(&Text::new("CPU seconds per million records", (left as i32, 4), style()))?;
    for ((name, cost, colour), row) in bars.iter().zip(1..) {
        let (x, y) = (left as i32, row * ROW + 4);
        let end = x + (cost / most * f64::from(width)) as i32;
        area.draw(&Text::new(name.clone(), (4, y + 3), style()))?;
        area.draw(&Rectangle::new([(x, y), (end, y + ROW - 7)], colour.filled()))?;
        area.draw(&Text::new(format!("{cost:.2}"), (end + 6, y + 3), style()))?;
    }
    Ok(area.present()?)
}

/// How cost grows with keys, windows and partitions, a panel each.
fn growth(cases: &Map<String, Value>, to: &Path) -> Drawn {
    let panels: Vec<_> = ["keys", "windows", "partitions"].map(|by| (by, points(cases, by))).into();
    if panels.iter().all(|(_, points)| points.is_empty()) {
        return Ok(());
    }
    let area = SVGBackend::new(to, (960, 260)).into_drawing_area();
    for (panel, (by, points)) in area.split_evenly((1, 3)).iter().zip(panels) {
        line(panel, by, &points)?;
    }
    Ok(area.present()?)
}

fn points(cases: &Map<String, Value>, by: &str) -> Vec<(f64, f64)> {
    let point = |(name, case): (&String, &Value)| {
        let at = name.strip_prefix(&format!("growth-{by}-"))?.parse().ok()?;
        Some((at, cpu_per_million(name, case, "blackhole")?))
    };
    let mut points: Vec<(f64, f64)> = cases.iter().filter_map(point).collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    points
}

fn line(area: &Area<'_>, by: &str, points: &[(f64, f64)]) -> Drawn {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Ok(()) };
    let most = points.iter().map(|(_, cost)| *cost).fold(0.0, f64::max) * 1.15;
    let style = || ("sans-serif", 12).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("CPU s per million records by {by}"), style())
        .margin(10)
        .x_label_area_size(26)
        .y_label_area_size(34)
        .build_cartesian_2d((first.0..last.0).log_scale(), 0.0..most)?;
    let whole = |n: &f64| format!("{n:.0}");
    let mut mesh = chart.configure_mesh();
    mesh.axis_style(INK).label_style(style()).light_line_style(TRANSPARENT).bold_line_style(INK.mix(0.25));
    mesh.x_label_formatter(&whole).x_labels(5).y_labels(5).draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), OURS.stroke_width(2)))?;
    chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, OURS.filled())))?;
    Ok(())
}
