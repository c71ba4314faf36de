//! A check as JUnit XML, which servers of continuous integration read: each exercise is a test case, and what it was the first to show its failures.
//!
//! The format has no standard; this is what Jenkins' *xUnit* plugin and GitLab's *Unit test reports* read. It is written here because it is thirty lines.

use std::fmt::Write as _;

use dirql::readers::escaped;

use super::report::Report;

/// The whole file.
pub(super) fn text(report: &Report<'_>) -> String {
    let driver = report.driver();
    let entries = report.entries();
    let titles = report.titles();
    let mut cases = String::new();
    let mut failed = 0;
    for (at, title) in titles.iter().enumerate() {
        let _ = write!(cases, "    <testcase classname=\"{}\" name=\"{}\"", escaped(&driver), escaped(title));
        let failures: Vec<_> = entries.iter().filter(|entry| entry.exercise == at).collect();
        if failures.is_empty() {
            cases.push_str("/>\n");
            continue;
        }
        failed += 1;
        cases.push_str(">\n");
        for entry in failures {
            let _ = writeln!(
                cases,
                "      <failure type=\"{}\" message=\"{}\">{}</failure>",
                entry.rule,
                escaped(&entry.message),
                escaped(&entry.text())
            );
        }
        cases.push_str("    </testcase>\n");
    }
    for why in report.no_answers() {
        let why = escaped(why);
        let _ = writeln!(
            cases,
            "    <testcase classname=\"{}\" name=\"no answer\"><error message=\"{why}\"/></testcase>",
            escaped(&driver)
        );
    }
    let (tests, errors) = (titles.len() + report.no_answers().len(), report.no_answers().len());
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"dirql check {}\" tests=\"{tests}\" failures=\"{failed}\" errors=\"{errors}\">\n{cases}  </testsuite>\n</testsuites>\n",
        escaped(&driver)
    )
}
