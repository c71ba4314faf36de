//! What earlier searches by coverage have kept: it takes part in the next one, and only what adds to it is kept beside it. The driver is one that compares the
//! input of a request with names that no search comes to (`drivers/c/tables.c`).

use dirql::check::{self, Inputs, KeptSequence, Operation, Survey};
use dirql::{Bench, Boots};

use super::rig::driver;

const SEQUENCES: u64 = 60;
/// A story that the driver knows, and its name as scripts of a search have it.
const KNOWN: &str =
    r#"open "\\.\DirqlTables" as h overlapped; ioctl h 0x223ff8 in text:Order out 64; close h"#;
const ORDER: &str = "u32:0x6564724f + hex:72";

fn boots() -> Boots {
    let bench = Bench::new().driver(driver("tables.sys")).checked(true).unobserved();
    bench.boots().unwrap_or_else(|error| panic!("{error}"))
}

fn survey() -> Survey {
    let request = Operation {
        command: "ioctl h 0x223ff8 in zero:8".to_owned(),
        code: Some(0x22_3FF8),
        succeeds: false,
        waits: false,
        variant: false,
        needs: None,
    };
    Survey { names: vec![r"\\.\DirqlTables".to_owned()], operations: vec![request], ..Survey::default() }
}

fn kept(script: &str) -> KeptSequence {
    KeptSequence { name: "by hand".to_owned(), script: script.to_owned() }
}

fn search(kept: &[KeptSequence]) -> Inputs {
    check::inputs(&mut boots(), &survey(), kept, SEQUENCES).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_was_kept_leads_to_what_the_search_does_not_find_itself() {
    let with_name = |found: &Inputs| found.scripts.iter().filter(|script| script.contains(ORDER)).count();
    assert_eq!(with_name(&search(&[])), 0);
    let found = search(&[kept(KNOWN)]);
    assert!(with_name(&found) > 0, "{found:?}");
    assert_eq!(search(&[kept(KNOWN)]), found);
}

#[test]
fn only_what_adds_to_what_is_known_is_kept() {
    let scripts = search(&[kept(KNOWN)]).scripts;
    let keep = |known: &[KeptSequence], scripts: &[String]| {
        check::worth_keeping(&mut boots(), &survey(), known, scripts)
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let kept_scripts = keep(&[], &scripts);
    assert!(kept_scripts.iter().any(|script| script.contains(ORDER)), "{kept_scripts:?}");
    assert_eq!(keep(&[], &[scripts.clone(), scripts.clone()].concat()).len(), kept_scripts.len());
    let known: Vec<KeptSequence> = kept_scripts.iter().map(|script| kept(script)).collect();
    assert_eq!(keep(&known, &scripts), Vec::<String>::new());
}
