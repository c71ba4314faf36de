//! The rules of `drivers/c/pairs`, each broken by a driver that is given to `dirql check` as any other is: with no script, and no word of what it does wrong.
//!
//! In the usual run of the tests some of all; with `DIRQL_PAIRS=1` each.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::rig::{Answer, dirql, driver, folder, root};

/// One in so many, if not all.
const ONE_IN: usize = 12;

/// What a check does not find, and why. Besides, it tells no advice.
const NOT_FOUND: &[(&str, &str)] = &[
    ("answer-of-another", "as interface-reference"),
    (
        "interface-reference",
        "is broken by a request, and the driver answers all codes alike, so no request is known",
    ),
    ("irp-initialized-again", "is behind the free of the same IRP, which ends the run"),
    ("memory-used-up", "takes minutes: each attempt uses up a whole machine's memory"),
    ("request-forgotten", "as interface-reference"),
    ("request-pending-after-surprise-removal", "as interface-reference"),
    ("request-refused", "as interface-reference"),
    ("request-timed-out", "as interface-reference"),
    ("write-after-free", "is found by machines that do not test each access before it happens"),
];

/// The rules of the pairs in these headers of the driver, in their order.
fn pairs_of(is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let headers = root().join("drivers/c/pairs");
    let mut names: Vec<String> = fs::read_dir(&headers)
        .unwrap()
        .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".h") && is_wanted(name))
        .collect();
    names.sort_unstable();
    let of_header = |name: &String| -> Vec<String> {
        let text = fs::read_to_string(headers.join(name)).unwrap();
        text.split("PAIR(\"").skip(1).filter_map(|rest| Some(rest.split('"').next()?.to_owned())).collect()
    };
    names.iter().flat_map(of_header).collect()
}

/// Those that are looked at: of all that can be found.
fn chosen(all: Vec<String>) -> Vec<(usize, String)> {
    let step = if std::env::var_os("DIRQL_PAIRS").is_some() { 1 } else { ONE_IN };
    let table = fs::read_to_string(root().join("crates/kernel/src/rules.tsv")).unwrap();
    let is_advice = |rule: &str| table.contains(&format!("\n{rule}\tadvice\t"));
    let can_be = |rule: &str| !is_advice(rule) && NOT_FOUND.iter().all(|(name, _)| *name != rule);
    let numbered = all.into_iter().enumerate().filter(|(_, rule)| can_be(rule));
    numbered.step_by(step).collect()
}

/// What a check says until it has found this rule, with the option of Verifier's that is on only if it is named.
fn check(sys: &Path, rule: &str, more: &[String]) -> Answer {
    let own = ["check", sys.to_str().unwrap(), "--budget", "1", "--until", rule, "--json"];
    let table = fs::read_to_string(root().join("crates/kernel/src/rules.tsv")).unwrap();
    let is_for = |option: &&str| table.contains(&format!("\n{rule}\tverifier:{option}\t"));
    let named = ["code-integrity", "invariant-mdl"].into_iter().find(is_for);
    let named = named.map(|option| format!("--verifier=all,{option},logging"));
    dirql(own.iter().map(|&word| word.to_owned()).chain(named).chain(more.iter().cloned()))
}

fn is_named(answer: &Answer, rule: &str) -> bool {
    let Ok(report) = serde_json::from_str::<Value>(&answer.out) else { return false };
    let findings = report["findings"].as_array().into_iter().flatten();
    let names = findings
        .flat_map(|finding| [finding].into_iter().chain(finding["also"].as_array().into_iter().flatten()));
    names.into_iter().any(|finding| finding["rule"] == rule)
}

#[test]
fn a_check_finds_each_rule_that_a_request_breaks() {
    const KEY: &str = r"HKLM\System\CurrentControlSet\Services\pairs\Parameters";
    let sys = driver("pairs.sys");
    let missed: Vec<String> = chosen(pairs_of(|header| !header.starts_with("card")))
        .into_iter()
        .filter(|(_, rule)| {
            let value = |text: String| format!("--registry-value={KEY}\\{text}");
            let more = [value(format!("Pair=\"{rule}\"")), value("Wrong=dword:1".to_owned())];
            !is_named(&check(&sys, rule, &more), rule)
        })
        .map(|(_, rule)| rule)
        .collect();
    assert_eq!(missed, Vec::<String>::new());
}

#[test]
fn a_check_finds_each_rule_that_a_function_driver_breaks() {
    let (sys, folder) = (driver("pairs_pnp.sys"), folder("pairs_pnp"));
    let usual = fs::read_to_string(driver("pairs_pnp.inf")).unwrap();
    let missed: Vec<String> = chosen(pairs_of(|header| header == "card.h"))
        .into_iter()
        .filter(|(place, rule)| {
            let set = |text: &str, name: &str, value: usize| {
                text.replace(&format!("{name},0x00010001,0 "), &format!("{name},0x00010001,{value} "))
            };
            let inf = folder.join(format!("{rule}.inf"));
            fs::write(&inf, set(&set(&usual, "Pair", place + 1), "Wrong", 1)).unwrap();
            let more = [format!("--inf={}", inf.display()), "--device=bench".to_owned()];
            !is_named(&check(&sys, rule, &more), rule)
        })
        .map(|(_, rule)| rule)
        .collect();
    assert_eq!(missed, Vec::<String>::new());
}
