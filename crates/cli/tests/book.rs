//! The guide (`docs/guide`) as a new user follows it: each page's files are written, each of its commands is run, and what the page
//! says comes out.
//!
//! A block ```` ```LANGUAGE file=NAME ```` is a file; a line of a block ```` ```sh ```` is a command, which ends with exit code 0, or with the one of
//! its remark `# exit code N`; the lines of a block ```` ```text output ```` stand in what the commands before it have printed, in this
//! order. Commands run in a folder of their own, in which `target/drivers` is the repository's.

use std::path::Path;
use std::process::Command;

use super::rig;

/// A fenced block: the words behind the fence, and the text.
struct Block {
    line: usize,
    kind: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for (index, line) in page.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if inside => inside = false,
            Some(kind) => {
                blocks.push(Block { line: index + 1, kind: kind.into(), text: String::new() });
                inside = true;
            }
            None if inside => blocks.last_mut().unwrap().text.extend([line, "\n"]),
            None => {}
        }
    }
    blocks
}

/// Runs one command of a page; what it printed.
fn run(command: &str, folder: &Path) -> String {
    let (command, code) = match command.split_once(" # exit code ") {
        Some((command, code)) => (command, code.parse().unwrap()),
        None => (command, 0),
    };
    let dirql = Path::new(env!("CARGO_BIN_EXE_dirql")).parent().unwrap();
    let path = format!("{}:{}", dirql.display(), std::env::var("PATH").unwrap());
    // A folder below a repository's is none of git's, so that `git apply` takes the files as they are.
    let mut shell = Command::new("bash");
    shell.args(["-o", "pipefail", "-c", command]).current_dir(folder).env("PATH", path);
    let output = shell.env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap()).output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    assert_eq!(output.status.code(), Some(code), "`{command}`:\n{said}");
    said
}

/// The lines of `wanted` stand in `said`, in this order.
fn expect(said: &str, wanted: &Block, page: &str) {
    let mut rest = said;
    for line in wanted.text.lines() {
        let at = rest.find(line);
        let at = at.unwrap_or_else(|| panic!("{page}:{}: `{line}` does not come:\n{said}", wanted.line));
        rest = &rest[at + line.len()..];
    }
}

fn follow(page: &str) {
    let text = std::fs::read_to_string(rig::root().join("docs/guide").join(page)).unwrap();
    let folder = rig::folder("book");
    std::fs::create_dir(folder.join("target")).unwrap();
    let drivers = rig::driver("legacy.sys").parent().unwrap().canonicalize().unwrap();
    std::os::unix::fs::symlink(drivers, folder.join("target/drivers")).unwrap();
    let (mut said, mut commands) = (String::new(), 0);
    for block in blocks(&text) {
        if let Some((_, name)) = block.kind.split_once(" file=") {
            std::fs::write(folder.join(name), &block.text).unwrap();
        } else if block.kind == "sh" {
            said.clear();
            for command in block.text.lines() {
                said.push_str(&run(command, &folder));
                commands += 1;
            }
        } else if block.kind == "text output" {
            expect(&said, &block, page);
        }
    }
    assert!(commands >= 3, "{page} has {commands} commands: has its form changed?");
}

#[test]
fn a_driver_is_made_in_a_minute() {
    follow("new.md");
}

#[test]
fn a_bug_is_found_from_nothing() {
    follow("first-bug.md");
}

#[test]
fn a_driver_meets_a_card() {
    follow("card.md");
}

#[test]
fn a_card_lives_from_its_inf_to_the_unload() {
    follow("life.md");
}

#[test]
fn a_driver_in_rust_is_run_and_refused() {
    follow("rust-driver.md");
}

#[test]
fn the_recipes_work() {
    follow("recipes.md");
}

#[test]
fn every_page_is_in_the_summary_and_every_page_of_the_summary_is_there() {
    let docs = rig::root().join("docs");
    let summary = std::fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed: Vec<&str> = summary.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(listed.len() > 8);
    listed.iter().for_each(|page| assert!(docs.join(page).is_file(), "{page} is not there"));
    for folder in ["", "guide/"] {
        for entry in std::fs::read_dir(docs.join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let page = format!("{folder}{name}");
            let is_page = name.ends_with(".md") && name != "SUMMARY.md";
            assert!(!is_page || listed.contains(&&*page), "docs/{page} is not in docs/SUMMARY.md");
        }
    }
}
