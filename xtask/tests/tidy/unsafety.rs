//! Unsafe code lives in three crates, and in one file of a fourth that only Windows compiles; every other crate forbids it in its root.
//!
//! A workspace lint cannot be relaxed in a member, so the attribute stands in each root; this test misses none of them.

use std::path::Path;

use crate::{expect_none, metadata, root};

/// The crates that may be unsafe.
const UNSAFE: &[&str] = &["dirql-abi", "dirql-engine", "dirql-wdm", "dirql-pci9052"];

/// The roots of all libraries and programs of a workspace that do not forbid unsafe code though they must.
fn lax_roots(manifest: &str) -> Vec<String> {
    let metadata = metadata(manifest);
    let packages = metadata["packages"].as_array().expect("there are packages");
    let mut lax = Vec::new();
    for package in packages.iter().filter(|package| !UNSAFE.iter().any(|name| package["name"] == *name)) {
        for target in package["targets"].as_array().expect("a package has targets") {
            let path = target["src_path"].as_str().expect("a target has a root");
            let ships = ["lib", "bin"].iter().any(|kind| target["kind"][0] == *kind);
            if ships && !forbids(&std::fs::read_to_string(path).expect("a root can be read")) {
                lax.push(format!("{path} does not say #![forbid(unsafe_code)]"));
            }
        }
    }
    lax
}

fn forbids(text: &str) -> bool {
    text.lines().any(|line| line == "#![forbid(unsafe_code)]")
}

#[test]
fn a_root_that_only_mentions_the_attribute_is_noticed() {
    assert!(forbids("//! Safe.\n\n#![forbid(unsafe_code)]\n"));
    assert!(!forbids("//! Safe.\n// #![forbid(unsafe_code)]\n"));
}

#[test]
fn unsafe_code_lives_in_abi_engine_and_wdm_alone() {
    let mut lax = lax_roots("Cargo.toml");
    assert!(Path::new(&root().join("drivers/Cargo.toml")).is_file(), "the drivers' workspace is in drivers/");
    lax.extend(lax_roots("drivers/Cargo.toml"));
    expect_none(&lax);
}
