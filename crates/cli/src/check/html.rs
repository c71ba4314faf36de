//! A check as one page that needs nothing else: what is wrong, a drawing of the run that shows it, what was tried, and what code was never reached.
//!
//! Drawing and timeline are those of `--figure`, made by running the finding's own line once more in a process of its own.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use dirql::readers::escaped;

use super::report::{Entry, Report};
use crate::again;

/// So many findings are drawn at most.
const DRAWN: usize = 40;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1c2430}\
h1{font-size:1.5rem}h2{font-size:1.1rem;margin:2rem 0 .4rem;border-top:1px solid #ccd;padding-top:1rem}\
dl{display:grid;grid-template-columns:8rem 1fr;gap:.15rem 1rem;margin:.4rem 0}dt{color:#667}dd{margin:0}\
code,pre{font:13px/1.4 ui-monospace,monospace;background:#f4f5f8;border-radius:4px}code{padding:0 .25rem}pre{padding:.6rem;overflow-x:auto;white-space:pre-wrap}\
.error{color:#b3261e}.verifier{color:#8a5a00}.warning{color:#6a5acd}figure{margin:.6rem 0;overflow-x:auto;border:1px solid #dde}table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:left}";

/// The whole page. Drawings are made beside `beside`, and taken away again.
pub(super) fn text(report: &Report<'_>, beside: &Path) -> String {
    let entries = report.entries();
    let driver = escaped(&report.driver());
    let drawn: Vec<_> = entries
        .iter()
        .enumerate()
        .map(|(at, entry)| (at < DRAWN).then(|| drawn(entry, at, beside)))
        .collect();
    let style =
        drawn.iter().flatten().flatten().map(|drawing| drawing.style.as_str()).next().unwrap_or_default();
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>dirql check {driver}</title><style>{STYLE}{style}</style></head><body>\n<h1>dirql check {driver}</h1>\n<p>{}</p>\n",
        escaped(report.summary().trim())
    );
    for (at, (entry, drawing)) in entries.iter().zip(&drawn).enumerate() {
        section(&mut page, entry, at, drawing.as_ref());
    }
    for (entry, by) in report.dismissed() {
        let _ =
            writeln!(page, "<h2>dismissed: {}</h2><p>{}</p>", escaped(entry.rule), escaped(&entry.message));
        let _ = writeln!(page, "<p>{} ({})</p>", escaped(&by.reason), escaped(&by.source));
    }
    for entry in report.advice() {
        let _ = writeln!(page, "<h2>advice: {}</h2><p>{}</p>", escaped(entry.rule), escaped(&entry.message));
        let _ = writeln!(page, "<pre>{}</pre>", escaped(&entry.replay));
    }
    for why in report.no_answers() {
        let _ = writeln!(page, "<h2>no answer</h2><p>{}</p>", escaped(why));
    }
    coverage(&mut page, report);
    page.push_str("<h2>What was tried</h2><table>\n");
    for title in report.titles() {
        let _ = writeln!(page, "<tr><td>{}</td></tr>", escaped(&title));
    }
    page.push_str("</table></body></html>\n");
    page
}

/// One finding; its drawing is there, or why it is not, or it was not asked for.
fn section(page: &mut String, entry: &Entry<'_>, at: usize, drawing: Option<&Result<Drawing, String>>) {
    let tier = escaped(entry.tier);
    let _ = writeln!(page, "<h2><span class=\"{tier}\">{tier}</span>: {}</h2><dl>", escaped(entry.rule));
    let mut row = |label: &str, text: &str| {
        if !text.is_empty() {
            let _ = writeln!(page, "<dt>{label}</dt><dd>{}</dd>", escaped(text));
        }
    };
    row("what", &entry.message);
    row("bug check", entry.finding["bug_check"]["name"].as_str().unwrap_or_default());
    row("page", entry.finding["page"].as_str().unwrap_or_default());
    row("mend", entry.finding["remedy"].as_str().unwrap_or_default());
    entry.elsewhere().iter().for_each(|(label, text)| row(label, text));
    row("shown by", &entry.shown_by);
    let _ = writeln!(page, "</dl><pre>{}</pre>", escaped(&entry.replay));
    let stack = entry.finding["stack"].as_array();
    let lines = stack.into_iter().flatten().map(|line| {
        let source = line["source"].as_str().map(|source| format!("  ({source})")).unwrap_or_default();
        format!("{}{source}\n", line["symbol"].as_str().unwrap_or_default())
    });
    let stack: String = lines.collect();
    if !stack.is_empty() {
        let _ = writeln!(page, "<pre>{}</pre>", escaped(&stack).replace("&#10;", "\n"));
    }
    for (what, number, place) in entry.moments() {
        let (what, place) = (escaped(&what), escaped(&place));
        let _ = match number {
            Some(number) => {
                writeln!(page, "<p><a href=\"#{}{number}\">{what}</a>: <code>{place}</code></p>", id(at))
            }
            None => writeln!(page, "<p>{what}: <code>{place}</code></p>"),
        };
    }
    let _ = match drawing {
        Some(Ok(drawing)) => writeln!(
            page,
            "<details open><summary>what happened</summary><figure>{}</figure></details>",
            drawing.body
        ),
        Some(Err(why)) => writeln!(page, "<p>not drawn: {}</p>", escaped(why)),
        None => writeln!(page, "<p>not drawn: only the first {DRAWN} are</p>"),
    };
}

/// Before the number of an event of the finding at this place.
fn id(at: usize) -> String {
    format!("f{at}e")
}

fn coverage(page: &mut String, report: &Report<'_>) {
    let coverage = report.coverage();
    let (reached, all) = coverage.instructions();
    let _ = writeln!(page, "<h2>Code that was reached: {reached} of {all} instructions</h2><table>");
    page.push_str("<tr><th>function</th><th>reached</th><th>source</th></tr>\n");
    for function in &coverage.functions {
        let source =
            function.source.as_ref().map(|(file, line)| format!("{file}:{line}")).unwrap_or_default();
        let percent = 100 * function.reached / function.instructions.max(1);
        let _ = writeln!(
            page,
            "<tr><td><code>{}</code></td><td>{percent} %</td><td>{}</td><td>{}</td></tr>",
            escaped(&function.name),
            escaped(&source),
            escaped(function.why.as_deref().unwrap_or_default())
        );
    }
    page.push_str("</table>\n");
}

/// A page that `--figure` has made, to be taken over.
struct Drawing {
    style: String,
    body: String,
}

/// The drawing of the run that shows it.
///
/// # Errors
/// Says why there is none.
fn drawn(entry: &Entry<'_>, at: usize, beside: &Path) -> Result<Drawing, String> {
    let name = beside.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let path = beside.with_file_name(format!(".{name}.{}.html", std::process::id()));
    let mut command = again::carried_out(&entry.words);
    command.arg("--quiet").arg(format!("--figure={}", path.display()));
    let page = command.status().and_then(|_| fs::read_to_string(&path)).map_err(|error| error.to_string());
    // It need not be there.
    let _ = fs::remove_file(&path);
    let page = page?;
    let part = |begin: &str, end: &str| {
        let (_, behind) = page.split_once(begin)?;
        Some(behind.split_once(end)?.0.to_owned())
    };
    let parts = || Some((part("<style>", "</style>")?, part("<body>", "</body>")?));
    let (style, body) = parts().ok_or("its run wrote no page")?;
    Ok(Drawing { style, body: body.replace(" id=\"e", &format!(" id=\"{}", id(at))) })
}
