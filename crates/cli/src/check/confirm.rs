//! What a check has found, carried out once more: each finding's own line in a process of its own, in a machine that is started anew.
//!
//! What attempts show, they show in machines that are taken back thousands of times. A driver is only accused of what its line shows from the very
//! beginning; and what is reported is what that run has said, so that the line shows the same words, and whose doing its moments were.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use super::report::Found;
use super::things::Thing;
use crate::again::{self, quoted};

/// Of what happens only what the driver prints: the rest is not looked at.
const FEW: [&str; 2] = ["--json", "--events=print"];

/// Has each finding's `line` carried out, by so many processes at a time. What is not shown again is taken away; why there is no answer about it is
/// returned.
pub(super) fn confirm(
    things: &mut Vec<Thing>,
    workers: u32,
    line: impl Fn(&Found) -> Vec<String> + Sync,
) -> Vec<String> {
    let places = || things.iter().flatten();
    let found: Vec<&Found> =
        places().flat_map(|place| [&place.found].into_iter().chain(&place.also)).collect();
    let lines: Vec<Vec<String>> = found.iter().map(|found| line(found)).collect();
    let shown = side_by_side(workers, lines.len(), |at| shows(&lines[at], found[at]));
    let mut shown = shown.into_iter().zip(lines);
    let mut why = Vec::new();
    let mut keep = |found: &mut Found| {
        let (shown, line) = shown.next().expect("each has a line");
        match shown {
            Some((finding, departures)) => {
                found.cause.finding = finding.to_string();
                found.departures = departures;
                true
            }
            None => {
                why.push(not_shown(found, &line));
                false
            }
        }
    };
    for thing in things.iter_mut() {
        thing.retain_mut(|place| {
            let stands = keep(&mut place.found);
            place.also.retain_mut(&mut keep);
            if stands || place.also.is_empty() {
                return stands;
            }
            // What it shows as besides is confirmed by itself.
            place.found = place.also.remove(0);
            true
        });
    }
    things.retain(|thing| !thing.is_empty());
    why
}

fn not_shown(found: &Found, line: &[String]) -> String {
    let place = symbol(&found.cause.finding).map(|symbol| format!(" at {symbol}")).unwrap_or_default();
    let line: Vec<_> = line.iter().map(|word| quoted(word)).collect();
    format!(
        "{}{place}: it was shown by a machine that was taken back, and not by one that is started anew, a fault of dirql's: {}",
        found.cause.rule,
        line.join(" ")
    )
}

fn symbol(finding: &str) -> Option<String> {
    let finding: Value = serde_json::from_str(finding).ok()?;
    finding["stack"][0]["symbol"].as_str().map(str::to_owned)
}

/// What each of the first `count` numbers comes to, in their order.
fn side_by_side<R: Send>(workers: u32, count: usize, of: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return done;
            }
            done.push((at, of(at)));
        }
    };
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("waiting does not panic")).collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The same finding, as a line shows it: of the same rule, and at the same instruction if it belongs to one; and how often that run departs
/// from the usual. None if it does not show it.
fn shows(line: &[String], found: &Found) -> Option<(Value, usize)> {
    let output = again::carried_out(line).args(FEW).stdout(Stdio::piped()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let (mut all, mut moments, mut departures) = (Vec::new(), Value::Null, 0);
    for line in said.lines() {
        let Ok(mut line) = serde_json::from_str::<Value>(line) else { continue };
        match line["event"].as_str() {
            Some("finding-in-full") => all.push(line["finding"].take()),
            Some("end") => {
                all.push(line["verdict"].take());
                departures = line["departures"].as_array().map_or(0, Vec::len);
            }
            Some("moments") => moments = line["moments"].take(),
            _ => {}
        }
    }
    let known: Value = serde_json::from_str(&found.cause.finding).ok()?;
    all.retain(|shown| shown["rule"] == known["rule"]);
    let is_there = |shown: &Value| shown["stack"][0]["address"] == known["stack"][0]["address"];
    let at = match all.iter().position(is_there) {
        // What a card does is the same whatever the driver does meanwhile.
        None if found.cause.instruction.is_none() && !all.is_empty() => 0,
        there => there?,
    };
    let mut finding = all.swap_remove(at);
    with_stacks(&mut finding, moments);
    Some((finding, departures))
}

/// The moments that it names, each with its stack.
fn with_stacks(finding: &mut Value, moments: Value) {
    let Value::Array(moments) = moments else { return };
    for named in finding["moments"].as_array_mut().into_iter().flatten() {
        let same = |moment: &&Value| moment["what"] == named["what"] && moment["number"] == named["number"];
        if let Some(moment) = moments.iter().find(same) {
            *named = moment.clone();
        }
    }
}
