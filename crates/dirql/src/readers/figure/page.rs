//! The figure as a page: the story as a picture, and below it every event in its lane, with its fields where one asks for them. It needs no script:
//! those who keep files of other programs often let none run.

use std::collections::{BTreeMap, BTreeSet};

use kernel::event::Kind;

use super::super::markup::escaped;
use super::timeline::{Moment, Shown, Timeline, Track};

/// What pages that show a timeline need in their style.
const STYLE: &str = ".timeline{max-height:80vh;overflow:auto}.timeline table{border-collapse:collapse;font:12px/1.35 ui-monospace,monospace;color:#1c2430}\
.timeline th{position:sticky;top:0;background:#fff;text-align:left;padding:.2rem .6rem;min-width:9rem;border-bottom:1px solid #889}\
.timeline td{padding:0 .6rem;border-left:1px solid #dde;vertical-align:top;white-space:nowrap}.timeline td:nth-child(-n+3){border:0;color:#667;text-align:right}\
.timeline summary{list-style:none;cursor:pointer}.timeline details[open] div{white-space:normal;max-width:34rem;color:#445;background:#f4f5f8}\
.timeline .finding td,.timeline tr:target td{background:#fde;color:#b3261e;font-weight:bold}\
.calls:checked~.timeline .call,.levels:checked~.timeline .irql,.details:checked~.timeline .detail{display:none}";

/// The picture's `lines` and the timeline as a page by itself.
pub(super) fn lines(picture: Vec<String>, timeline: &Timeline) -> Vec<String> {
    let mut lines = vec![
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>dirql: a run</title><style>{STYLE}</style></head>"
        ),
        "<body>".to_owned(),
    ];
    lines.extend(picture);
    let titles = titles(timeline);
    lines.push("<div>".to_owned());
    for (class, what) in
        [("calls", "calls of exports"), ("levels", "changes of IRQL"), ("details", "details")]
    {
        lines.push(format!("<input type=\"checkbox\" class=\"{class}\"> without {what}"));
    }
    lines.push(
        "<div class=\"timeline\"><table><thead><tr><th>time µs</th><th>cpu</th><th>irql</th>".to_owned(),
    );
    lines.extend(titles.values().map(|(_, title)| format!("<th>{}</th>", escaped(title))));
    lines.push("</tr></thead><tbody>".to_owned());
    lines.extend(timeline.shown.iter().map(|shown| match shown {
        Shown::LeftOut(count) => {
            format!(
                "<tr><td></td><td></td><td></td><td colspan=\"{}\">… {count} events are left out</td></tr>",
                titles.len()
            )
        }
        Shown::Moment(moment) => row(moment, titles[&moment.track].0, titles.len()),
    }));
    lines.push("</tbody></table></div></div>".to_owned());
    lines.push("</body></html>".to_owned());
    lines
}

/// The lanes that have something in them: each one's number and title.
fn titles(timeline: &Timeline) -> BTreeMap<&Track, (usize, String)> {
    let moments = timeline.shown.iter().filter_map(|shown| match shown {
        Shown::Moment(moment) => Some(&moment.track),
        Shown::LeftOut(_) => None,
    });
    let tracks: BTreeSet<&Track> = moments.collect();
    let title = |track: &Track| match track {
        Track::Thread(strand) => match timeline.threads.get(strand) {
            Some(name) => name.clone(),
            None => format!("thread {}", strand.0),
        },
        Track::Processor(number) => format!("processor {number}: interrupts, DPCs"),
        Track::Device(name) if name.is_empty() => "device".to_owned(),
        Track::Device(name) => name.clone(),
        Track::Lines => "interrupt lines".to_owned(),
    };
    tracks.into_iter().enumerate().map(|(at, track)| (track, (at, title(track)))).collect()
}

/// One event; it can be pointed at by its number.
fn row(moment: &Moment, lane: usize, lanes: usize) -> String {
    let Moment { stamp, kind, text, fields, .. } = moment;
    let class = match kind {
        Kind::Call | Kind::Return => "call",
        kind if kind.is_detail() => "detail",
        kind => kind.name(),
    };
    // What has the number of the next one is not pointed at.
    let id = if kind.is_detail() || *kind == Kind::Irql {
        String::new()
    } else {
        format!(" id=\"e{}\"", stamp.number)
    };
    let (whole, part) = (stamp.time / 1000, stamp.time % 1000);
    let before = "<td></td>".repeat(lane);
    let behind = match lanes - lane {
        1 => String::new(),
        more => format!(" colspan=\"{more}\""),
    };
    format!(
        "<tr class=\"{class}\"{id}><td>{whole}.{part:03}</td><td>{}</td><td>{}</td>{before}<td{behind}><details><summary>{}</summary><div>event {}, strand {}: {}</div></details></td></tr>",
        stamp.processor,
        stamp.irql,
        escaped(text),
        stamp.number,
        stamp.strand.0,
        escaped(fields)
    )
}
