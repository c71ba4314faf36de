//! Findings that only Driver Verifier stops for, and data races, of many runs: each once, in how many it came, and the command that makes the first of these
//! again. They make no run fail; with `--verifier` they are errors, and not here.

use dirql::explore::Remarks;
use serde_json::{Map, Value};

use crate::again::quoted;

/// So many are shown to people; JSON has all.
const SHOWN: usize = 50;

/// All, for people; nothing if there are none. `runs` is how many runs there were, in words, and `replay` the command that makes the
/// first run of one again.
pub(crate) fn as_text<F>(
    remarks: &Remarks<F>,
    runs: &str,
    replay: impl Fn(&F) -> Vec<String>,
) -> Option<String> {
    let count = remarks.len();
    if count == 0 {
        return None;
    }
    let findings: Vec<Value> =
        remarks.iter().map(|remark| serde_json::from_str(&remark.text).unwrap_or_default()).collect();
    let of_verifier = findings.iter().filter(|finding| finding["tier"] == "verifier").count();
    let are = |count: usize| if count == 1 { "finding is" } else { "findings are" };
    let they = if count == 1 { "it" } else { "them" };
    let mut text = String::new();
    if of_verifier > 0 {
        let what = "what only Driver Verifier stops for (with --verifier a run ends there)";
        text += &format!("{of_verifier} {} {what}:\n", are(of_verifier));
    }
    if count > of_verifier {
        text += &format!(
            "{} {} of data races, which stop nothing:\n",
            count - of_verifier,
            are(count - of_verifier)
        );
    }
    for (remark, finding) in remarks.iter().zip(&findings).take(SHOWN) {
        let line = |label: &str, text: &str| format!("  {label:<13}{text}\n");
        let field = |name: &str| finding[name].as_str().unwrap_or_default();
        let option =
            finding["verifier"].as_str().map(|name| format!(" (--verifier={name})")).unwrap_or_default();
        let rule = format!("{}{option}", field("rule"));
        text += &format!("finding\n{}{}", line("rule", &rule), line("what", field("message")));
        for (label, name) in [("page", "page"), ("mend", "remedy")] {
            text += &finding[name].as_str().map(|value| line(label, value)).unwrap_or_default();
        }
        let place = &finding["stack"][0];
        if let Some(symbol) = place["symbol"].as_str() {
            let source = place["source"].as_str().map(|source| format!("  ({source})")).unwrap_or_default();
            let address = place["address"].as_str().unwrap_or_default();
            text += &line("instruction", &format!("{address}  {symbol}{source}"));
        }
        text += &line("runs", &format!("{} of {runs}", remark.runs));
        text += &line("replay", &command(&replay(&remark.first)));
    }
    if count > SHOWN {
        text += &format!("and {} more of {they} (--json tells all)\n", count - SHOWN);
    }
    Some(text)
}

/// All, as JSON: each as in `finding-in-full`, with `runs` and `replay`.
pub(crate) fn as_json<F>(remarks: &Remarks<F>, replay: impl Fn(&F) -> Vec<String>) -> Value {
    let one = |text: &str| -> Map<String, Value> { serde_json::from_str(text).unwrap_or_default() };
    let all = remarks.iter().map(|remark| {
        let mut finding = one(&remark.text);
        finding.insert("runs".to_owned(), remark.runs.into());
        finding.insert("replay".to_owned(), command(&replay(&remark.first)).into());
        Value::Object(finding)
    });
    all.collect()
}

/// As it is typed into a shell.
fn command(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}
