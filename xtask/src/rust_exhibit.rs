//! An exhibit of the museum in Rust: one file, compiled by rustc itself with the settings of the workspace `drivers`, and linked as its drivers are. What it shares with
//! others it has by `#[path = "…"]`: no crate but `core` takes part, so that both halves of one take a second.
//!
//! It does not install the target: see [`crate::install`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{call, drivers, install};

/// As `drivers/Cargo.toml` has them in its profile for releases.
const FLAGS: &[&str] = &[
    "--edition=2024",
    "-Cpanic=abort",
    "-Copt-level=s",
    "-Clto=fat",
    "-Ccodegen-units=1",
    "-Cdebuginfo=line-tables-only",
    "-Clinker=rust-lld",
    "-Dwarnings",
    "--check-cfg=cfg(FIXED)",
];

/// As `drivers/build.rs` has them.
const LINKED: &[&str] = &[
    "/DRIVER",
    "/SUBSYSTEM:NATIVE,10.0",
    "/ENTRY:DriverEntry",
    "/NODEFAULTLIB",
    "/NXCOMPAT",
    "/DYNAMICBASE",
    "/TSAWARE:NO",
    "/RELEASE",
    "/Brepro",
    "/OPT:REF,NOICF",
    "/SECTION:INIT,ERD",
    "/MANIFEST:NO",
];

/// Compiles `source` to the driver `name` in `out`, and its PDB, with `--cfg` for each of `defines`, if it is older than its sources or was made by another command.
///
/// # Errors
/// It does not compile, or a file cannot be read or written.
pub(crate) fn build(root: &Path, out: &Path, source: &Path, name: &str, defines: &[&str]) -> Result<()> {
    let scratch = out.join(".build");
    fs::create_dir_all(&scratch)?;
    let fresh = scratch.join(name).with_extension("exe");
    let finished = out.join(name).with_extension("sys");
    let stem = source.file_stem().context("an exhibit has a name")?;

    // In the workspace's folder, whose file says which rustc.
    let mut rustc = Command::new("rustc");
    rustc.current_dir(root).args(FLAGS).arg("--target").arg(install::RUST_TARGET);
    rustc.args(LINKED.iter().map(|argument| format!("-Clink-arg={argument}")));
    rustc.arg(format!("--remap-path-prefix={}=/dirql", root.display()));
    rustc.args(defines.iter().map(|name| format!("--cfg={name}")));
    // Both halves name their routines alike.
    rustc.arg("--crate-name").arg(stem).arg("-o").arg(&fresh).arg(source);

    // What is built again and is the same stays as it was, so it is the recipe that says when that has been.
    let recipe = scratch.join(name).with_extension("recipe");
    let command = call::shown(&rustc);
    let is_same = fs::read_to_string(&recipe).is_ok_and(|last| last == command);
    if is_same && finished.is_file() && drivers::newer(&recipe, sources(source)?) {
        return Ok(());
    }
    let shown = source.strip_prefix(root).unwrap_or(source).display();
    call::step(&format!("{shown} → {}", finished.display()), &mut rustc)?;
    drivers::copy_driver(&fresh, &out.join(name))?;
    fs::write(&recipe, command)?;
    Ok(())
}

/// The file and those that it has by `#[path = "…"]`.
fn sources(first: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string(first).with_context(|| format!("cannot read {}", first.display()))?;
    let folder = first.parent().context("a source lies in a folder")?;
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("#[path = \"")?.split('"').next());
    Ok([first.to_path_buf()].into_iter().chain(names.map(|name| folder.join(name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhibit_is_linked_as_the_drivers_are() {
        let text = fs::read_to_string(crate::root().join("drivers/build.rs")).unwrap();
        let theirs: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix('"')?.strip_prefix('/')?.split('"').next())
            .collect();
        let ours: Vec<&str> = LINKED.iter().map(|argument| argument.trim_start_matches('/')).collect();
        assert_eq!(ours, theirs);
    }
}
