//! Floors are crates and an arrow points down only; the shipped binary stays small.
//!
//! It reads `cargo metadata`, so a dependency for tests alone counts as one. It does not look inside crates.

use std::collections::BTreeMap;

use crate::{expect_none, metadata, output, root};

/// From the top floor to the bottom one, by package.
const FLOORS: &[&str] = &[
    "dirql-pci9052",
    "dirql-cli",
    "dirql",
    "dirql-rules",
    "dirql-explore",
    "dirql-links",
    "dirql-devices",
    "dirql-kernel",
    "dirql-engine",
    "dirql-image",
    "dirql-abi",
];
/// Most crates that the shipped binary may be made of.
const MOST_CRATES: usize = 120;

/// What is wrong with `from` depending on `to`, if anything.
fn wrong_arrow(from: &str, to: &str) -> Option<String> {
    let floor = |name: &str| FLOORS.iter().position(|known| *known == name);
    match (floor(from)?, floor(to)?) {
        (from_floor, to_floor) if from_floor >= to_floor => {
            Some(format!("{from} depends on {to}, which lies above it: arrows point down only"))
        }
        _ => None,
    }
}

/// The packages of a workspace, each with the names of what it depends on for any purpose.
fn arrows(manifest: &str) -> BTreeMap<String, Vec<String>> {
    let metadata = metadata(manifest);
    let packages = metadata["packages"].as_array().expect("there are packages");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("it has a name").to_string();
    let needs = |package: &serde_json::Value| {
        package["dependencies"].as_array().expect("there is a list").iter().map(name).collect()
    };
    packages.iter().map(|package| (name(package), needs(package))).collect()
}

#[test]
fn a_floor_that_reaches_up_is_noticed() {
    assert!(wrong_arrow("dirql-engine", "dirql-kernel").is_some());
    assert!(wrong_arrow("dirql-kernel", "dirql-kernel").is_some());
    assert!(wrong_arrow("dirql-kernel", "dirql-abi").is_none());
    assert!(wrong_arrow("dirql-kernel", "object").is_none());
}

#[test]
fn every_arrow_between_floors_points_down() {
    let arrows = arrows("Cargo.toml");
    assert!(arrows["dirql-kernel"].contains(&"dirql-engine".to_string()), "the metadata is understood");
    let wrong = arrows.iter().flat_map(|(from, needs)| needs.iter().filter_map(|to| wrong_arrow(from, to)));
    expect_none(&wrong.collect::<Vec<_>>());
}

#[test]
fn every_crate_has_its_floor() {
    let strangers = arrows("Cargo.toml").into_keys();
    let strangers = strangers.filter(|name| name != "xtask" && !FLOORS.contains(&name.as_str()));
    let say = |name| format!("{name} is on no floor: give it one in xtask/tests/tidy/floors.rs");
    expect_none(&strangers.map(say).collect::<Vec<_>>());
}

#[test]
fn a_driver_stands_on_the_abi_and_nothing_else_of_ours() {
    assert!(root().join("drivers/Cargo.toml").is_file(), "the drivers' workspace is in drivers/");
    for (driver, needs) in arrows("drivers/Cargo.toml") {
        let ours = needs.iter().filter(|name| FLOORS.contains(&name.as_str()) && *name != "dirql-abi");
        expect_none(&ours.map(|name| format!("{driver} depends on {name}")).collect::<Vec<_>>());
    }
}

#[test]
fn the_shipped_binary_is_made_of_fewer_than_120_crates() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let tree = output(&cargo, &["tree", "--edges", "normal", "--package", "dirql-cli", "--prefix", "none"]);
    let crates: std::collections::BTreeSet<_> =
        tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    assert!(crates.len() > FLOORS.len() / 2, "cargo tree is understood: {tree}");
    assert!(crates.len() < MOST_CRATES, "it is made of {}:\n{tree}", crates.len());
}
