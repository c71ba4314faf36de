//! The tidy test: what the project promises about its own source, checked so that it cannot drift.
//!
//! Every check is a function on plain text with a story of what it must object to, and a story that the tree is clean.
//! It does not judge style that rustfmt and clippy judge.

#![forbid(unsafe_code)]

mod documents;
mod files;
mod floors;
mod programs;
mod statics;
mod unsafety;
mod words;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

/// The output of a program that must succeed, run in the workspace's folder.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).current_dir(root()).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {} failed:\n{complaint}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("it writes text")
}

/// What `cargo metadata` knows of a workspace and, if asked, of its dependencies.
fn metadata(manifest: &str) -> serde_json::Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let text =
        output(&cargo, &["metadata", "--format-version", "1", "--no-deps", "--manifest-path", manifest]);
    serde_json::from_str(&text).expect("cargo metadata is JSON")
}

/// A file under version control, or about to be: its path from the workspace's folder, with `/`, and its text.
struct Tracked {
    path: String,
    text: String,
}

/// All tracked text files, and new ones that are not ignored.
fn tracked() -> Vec<Tracked> {
    let list = output("git", &["ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"]);
    let files: Vec<Tracked> = list
        .lines()
        .filter_map(|path| {
            Some(Tracked { path: path.into(), text: std::fs::read_to_string(root().join(path)).ok()? })
        })
        .collect();
    assert!(files.len() > 30, "git names only {} files", files.len());
    files
}

/// The tracked Rust files.
fn rust_files() -> Vec<Tracked> {
    let mut files = tracked();
    files.retain(|file| Path::new(&file.path).extension().is_some_and(|extension| extension == "rs"));
    files
}

/// Fails with all complaints at once.
fn expect_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n  {}\n", complaints.join("\n  "));
}
