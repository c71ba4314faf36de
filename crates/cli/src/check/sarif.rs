//! A check's findings as SARIF, so that a code host shows each at its line.
//!
//! *Static Analysis Results Interchange Format (SARIF) Version 2.1.0*, OASIS. A finding is at the innermost line of its stack that has a source; one that
//! belongs to no instruction (a leak) is at the line that its words name, if they do.

use serde_json::{Value, json};

use super::report::{Entry, Report};

/// The whole log.
pub(super) fn text(report: &Report<'_>) -> String {
    let entries = report.entries();
    let dismissed: Vec<_> = report.dismissed().collect();
    let mut rules: Vec<Value> = Vec::new();
    for Entry { rule, finding, .. } in entries.iter().chain(dismissed.iter().map(|(entry, _)| entry)) {
        if rules.iter().all(|known| known["id"] != *rule) {
            let mend = finding["remedy"].as_str().unwrap_or_default();
            let page = finding["page"].as_str().unwrap_or_default();
            rules.push(json!({"id": rule, "shortDescription": {"text": mend}, "help": {"text": page}}));
        }
    }
    let suppressed = dismissed.iter().map(|(entry, by)| {
        let mut result = result(entry);
        result["suppressions"] = json!([{"kind": "external", "justification": by.reason}]);
        result
    });
    let results: Vec<Value> = entries.iter().map(result).chain(suppressed).collect();
    let tool = json!({"driver": {
        "name": "dirql", "version": env!("CARGO_PKG_VERSION"), "informationUri": "https://github.com/dirql/dirql", "rules": rules,
    }});
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": tool, "results": results}],
    });
    format!("{log:#}\n")
}

fn result(entry: &Entry<'_>) -> Value {
    let level = if entry.tier == "error" { "error" } else { "warning" };
    let message = entry.text();
    let mut result = json!({
        "ruleId": entry.rule, "level": level, "message": {"text": message},
        "partialFingerprints": {"cause/v1": entry.key},
    });
    if let Some(location) = location(entry) {
        result["locations"] = json!([location]);
    }
    let more: Vec<Value> = entry.more.iter().filter_map(location).collect();
    if !more.is_empty() {
        result["relatedLocations"] = more.into();
    }
    result
}

fn location(entry: &Entry<'_>) -> Option<Value> {
    let (file, line) = entry.source()?;
    Some(json!({"physicalLocation": {"artifactLocation": {"uri": file}, "region": {"startLine": line}}}))
}
