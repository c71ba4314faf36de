//! `cargo xtask events`: writes `docs/events.md`, which `crates/dirql` makes from the declarations of events.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::call;

/// Writes the page, or with `check` only looks whether it is what would be written.
///
/// # Errors
/// It does not build, or cannot be written; it is another one.
pub(crate) fn write(root: &Path, check: bool) -> Result<()> {
    let mut cargo = call::cargo(root);
    cargo.args(["run", "--quiet", "-p", "dirql", "--example", "events"]);
    let page = call::output(&mut cargo)?;
    let path = root.join("docs/events.md");
    if check {
        let there = fs::read_to_string(&path).unwrap_or_default();
        ensure!(there == page, "docs/events.md is not what `cargo xtask events` would write");
        return Ok(());
    }
    fs::write(&path, page).with_context(|| format!("{} cannot be written", path.display()))
}
