//! A check's findings as SARIF, so that a code host shows each at its line.
//!
//! *Static Analysis Results Interchange Format (SARIF) Version 2.1.0*, OASIS. A finding is at the innermost line of its stack that has a source; one that
//! belongs to no instruction (a leak) is at the line that its words name, if they do.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::report::{Entry, Report};

/// What code hosts put the repository's root for.
const ROOT: &str = "%SRCROOT%";

/// The whole log.
pub(super) fn text(report: &Report<'_>) -> String {
    let entries = report.entries();
    let dismissed: Vec<_> = report.dismissed().collect();
    let advice: Vec<_> = report.advice().collect();
    let mut rules: Vec<Value> = Vec::new();
    let all = entries.iter().chain(dismissed.iter().map(|(entry, _)| entry)).chain(&advice);
    for Entry { rule, finding, .. } in all {
        if rules.iter().all(|known| known["id"] != *rule) {
            let mend = finding["remedy"].as_str().unwrap_or_default();
            let page = finding["page"].as_str().unwrap_or_default();
            rules.push(json!({"id": rule, "shortDescription": {"text": mend}, "help": {"text": page}}));
        }
    }
    let root = report.source_root();
    let suppressed = dismissed.iter().map(|(entry, by)| {
        let mut result = result(entry, root);
        result["suppressions"] = json!([{"kind": "external", "justification": by.reason}]);
        result
    });
    let advised = advice.iter().map(|entry| {
        let mut result = result(entry, root);
        result["level"] = "note".into();
        result
    });
    let counting = entries.iter().map(|entry| result(entry, root));
    let results: Vec<Value> = counting.chain(suppressed).chain(advised).collect();
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

fn result(entry: &Entry<'_>, root: Option<&str>) -> Value {
    let level = if entry.tier == "error" { "error" } else { "warning" };
    let message = entry.text();
    let mut result = json!({
        "ruleId": entry.rule, "level": level, "message": {"text": message},
        "partialFingerprints": {"cause/v1": entry.key},
    });
    let location = |(file, line): (String, u64)| json!({"physicalLocation": {"artifactLocation": artifact(&file, root), "region": {"startLine": line}}});
    if let Some(place) = entry.source() {
        result["locations"] = json!([location(place)]);
    }
    let more = entry.more.iter().filter_map(|more| Some(location(more.source()?)));
    let moments = entry.sources_of_moments().into_iter().map(|(what, place)| {
        let mut location = location(place);
        location["message"] = json!({"text": what});
        location
    });
    let related: Vec<Value> = more.chain(moments).collect();
    if !related.is_empty() {
        result["relatedLocations"] = related.into();
    }
    result
}

/// Where a file is, as the driver's debug information names it: from the source's root if it is below that, or if it has no place of its own.
fn artifact(file: &str, root: Option<&str>) -> Value {
    let file = file.replace('\\', "/");
    let below = root.and_then(|root| below(&file, &root.replace('\\', "/")));
    let is_drive = file.as_bytes().get(1) == Some(&b':');
    match below {
        Some(below) => json!({"uri": escaped(below), "uriBaseId": ROOT}),
        None if is_drive => json!({"uri": format!("file:///{}", escaped(&file))}),
        None if file.starts_with('/') => json!({"uri": format!("file://{}", escaped(&file))}),
        None => json!({"uri": escaped(file.trim_start_matches("./")), "uriBaseId": ROOT}),
    }
}

/// What of a file's name is below a folder. Windows' names are the same in either case of letters.
fn below<'f>(file: &'f str, root: &str) -> Option<&'f str> {
    let root = root.trim_end_matches('/');
    let (head, tail) = file.split_at_checked(root.len())?;
    if head.eq_ignore_ascii_case(root) { tail.strip_prefix('/') } else { None }
}

/// With what a URI cannot hold as `%20`.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~:!$&'()*+,;=@".contains(&byte);
    let mut uri = String::new();
    for byte in name.bytes() {
        if plain(byte) {
            uri.push(byte.into());
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_from_the_root_of_the_source() {
        let of = |file, root| {
            let artifact = artifact(file, root);
            (artifact["uri"].as_str().unwrap().to_owned(), artifact["uriBaseId"].as_str() == Some(ROOT))
        };
        let uri = |uri: &str, from_root| (uri.to_owned(), from_root);
        assert_eq!(of(r"C:\src\Card\main unit.c", Some(r"c:\src")), uri("Card/main%20unit.c", true));
        assert_eq!(of(r"C:\src\card.c", None), uri("file:///C:/src/card.c", false));
        assert_eq!(of("/source/of/src/card.c", Some("/source/of/src/")), uri("card.c", true));
        assert_eq!(
            of("/source/of/srcs/card.c", Some("/source/of/src")),
            uri("file:///source/of/srcs/card.c", false)
        );
        assert_eq!(of("./drivers/card.c", None), uri("drivers/card.c", true));
    }
}
