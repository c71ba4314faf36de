//! The figure as SVG: lanes as columns, a box for each step.

use super::super::markup::escaped;
use super::{Lane, Row, cut};

/// Of a lane, in pixels.
const WIDTH: usize = 276;
/// Of a step's box.
const BOX: usize = 240;
/// Of a row.
const HEIGHT: usize = 30;
/// Above the first row.
const TOP: usize = 60;
/// Left of the first lane: time and level.
const LEFT: usize = 130;
/// Letters in a box.
const WORDS: usize = 34;

pub(super) fn lines(rows: &[Row], left_out: usize) -> Vec<String> {
    let (width, height) = (LEFT + Lane::ALL.len() * WIDTH, TOP + (rows.len() + 1) * HEIGHT);
    let mut lines = vec![
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="monospace" font-size="11">"#
        ),
        r##"<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#334"/></marker></defs>"##.to_owned(),
        format!(r##"<rect width="{width}" height="{height}" fill="#fff"/>"##),
    ];
    lines.extend(Lane::ALL.iter().flat_map(|lane| lane_lines(*lane, height)));
    for (index, row) in rows.iter().enumerate() {
        row_lines(&mut lines, TOP + index * HEIGHT, row);
    }
    if left_out > 0 {
        lines.push(words(LEFT, TOP + rows.len() * HEIGHT + 18, &format!("… {left_out} more steps")));
    }
    lines.push("</svg>".to_owned());
    lines
}

fn middle(lane: Lane) -> usize {
    LEFT + lane.index() * WIDTH + WIDTH / 2
}

fn lane_lines(lane: Lane, height: usize) -> [String; 2] {
    let x = middle(lane);
    [
        format!(
            r#"<text x="{x}" y="28" text-anchor="middle" font-weight="bold" font-size="13">{}</text>"#,
            lane.title()
        ),
        format!(r##"<line x1="{x}" y1="40" x2="{x}" y2="{height}" stroke="#ccd" stroke-dasharray="3 4"/>"##),
    ]
}

const fn fill(lane: Lane) -> &'static str {
    match lane {
        Lane::Application => "#eef",
        Lane::Driver => "#efe",
        Lane::Device => "#eee",
        Lane::Interrupt => "#fde",
        Lane::Dpc => "#fec",
    }
}

fn row_lines(lines: &mut Vec<String>, y: usize, row: &Row) {
    let (whole, part) = (row.stamp.time / 1000, row.stamp.time % 1000);
    lines.push(words(6, y + 16, &format!("{whole}.{part:03} µs")));
    lines.push(words(86, y + 16, &format!("irql {}", row.stamp.irql)));
    match &row.cause {
        Some((from, text)) if *from == row.lane => {
            boxed(lines, y, row.lane, &format!("{text} ▶ {}", row.text))
        }
        Some((from, text)) => {
            boxed(lines, y, *from, text);
            boxed(lines, y, row.lane, &row.text);
            let (a, b) = (middle(*from), middle(row.lane));
            let (x1, x2) = if a < b { (a + BOX / 2, b - BOX / 2) } else { (a - BOX / 2, b + BOX / 2) };
            let y = y + 11;
            lines.push(format!(
                r##"<line x1="{x1}" y1="{y}" x2="{x2}" y2="{y}" stroke="#334" marker-end="url(#a)"/>"##
            ));
        }
        None => boxed(lines, y, row.lane, &row.text),
    }
}

fn boxed(lines: &mut Vec<String>, y: usize, lane: Lane, text: &str) {
    let x = middle(lane) - BOX / 2;
    lines.push(format!(
        r##"<rect x="{x}" y="{y}" width="{BOX}" height="22" rx="4" fill="{}" stroke="#889"/>"##,
        fill(lane)
    ));
    lines.push(words(x + 5, y + 15, &cut(text, WORDS)));
}

fn words(x: usize, y: usize, text: &str) -> String {
    format!(r#"<text x="{x}" y="{y}">{}</text>"#, escaped(text))
}
