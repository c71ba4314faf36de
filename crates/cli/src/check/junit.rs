//! A check as JUnit XML, which servers of continuous integration read: each exercise is a test case, and what it was the first to show its failures.
//!
//! The format has no standard; this is what Jenkins' *xUnit* plugin and GitLab's *Unit test reports* read. It is written here because it is thirty lines.

use std::fmt::Write as _;

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

/// With the characters that XML has for itself replaced; others that it cannot hold are left out.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            letter if letter.is_control() => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_has_for_itself_is_replaced() {
        assert_eq!(escaped("a<b> & \"c\"\n\u{1}d"), "a&lt;b&gt; &amp; &quot;c&quot;&#10;d");
    }
}
