//! The figure as text.

use super::{Lane, Row, cut};

/// Letters of a lane.
const WIDTH: usize = 42;
/// Letters of a step's words: some are left for an arrow.
const WORDS: usize = 38;

pub(super) fn lines(rows: &[Row], left_out: usize) -> Vec<String> {
    let mut lines = vec![heading()];
    lines.extend(rows.iter().map(line));
    if left_out > 0 {
        lines.push(format!("… {left_out} more steps"));
    }
    lines
}

fn heading() -> String {
    let titles: String = Lane::ALL.iter().map(|lane| format!("{:WIDTH$}", lane.title())).collect();
    format!("     time µs  cpu irql  {}", titles.trim_end())
}

fn line(row: &Row) -> String {
    let mut cells = vec![' '; Lane::ALL.len() * WIDTH];
    if let Some((from, _)) = &row.cause {
        arrow(&mut cells, from.index(), row.lane.index());
    }
    let words = row.cause.iter().map(|(lane, text)| (*lane, text)).chain([(row.lane, &row.text)]);
    let mut longer: Vec<char> = Vec::new();
    for (lane, text) in words {
        if row.cause.as_ref().is_some_and(|(from, _)| *from == row.lane)
            && lane == row.lane
            && longer.is_empty()
        {
            // Cause and step in one lane.
            longer = text.chars().chain(" ▶ ".chars()).collect();
            continue;
        }
        let text: String = longer.iter().collect::<String>() + text;
        let most = if longer.is_empty() { WORDS } else { WIDTH - 1 };
        for (cell, letter) in
            cells[lane.index() * WIDTH..].iter_mut().zip(cut(&text, most).chars().chain([' ']))
        {
            *cell = letter;
        }
    }
    let (whole, part) = (row.stamp.time / 1000, row.stamp.time % 1000);
    let place = format!("{whole:>8}.{part:03}  {:>3} {:>4}", row.stamp.processor, row.stamp.irql);
    let cells: String = cells.into_iter().collect();
    format!("{place}  {}", cells.trim_end())
}

/// From one lane to another: `──▶` before the right one, `◀──` behind the words of the left one.
fn arrow(cells: &mut [char], from: usize, to: usize) {
    let (left, right) = (from.min(to), from.max(to));
    if left == right {
        return;
    }
    let (begin, end) = (left * WIDTH + 1, right * WIDTH - 1);
    cells[begin..end].fill('─');
    if from < to {
        cells[end - 1] = '▶';
    } else {
        // The words of the left lane end before its last letters at the latest.
        cells[left * WIDTH + WORDS + 1] = '◀';
        cells[begin..=left * WIDTH + WORDS].fill(' ');
    }
}
