//! `dirql imports`: what a driver imports, by module, and who has it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use dirql::files::DriverFile;
use dirql::imports::{self, ImportStatus};

use crate::arguments::Imports;
use crate::out::say;

/// Lists them.
///
/// # Errors
/// A file is no driver.
pub(crate) fn run(arguments: &Imports) -> Result<()> {
    let driver = read(&arguments.driver)?;
    let others = arguments.with.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    let all = imports::list(&driver, &others);
    if arguments.json {
        say!("{}", imports::json(&all));
    } else {
        show(&all);
    }
    Ok(())
}

fn read(path: &Path) -> Result<DriverFile> {
    Ok(DriverFile::read(path).map_err(dirql::Error::Input)?)
}

fn show(all: &[ImportStatus]) {
    if all.is_empty() {
        say!("no imports");
        return;
    }
    let mut modules: BTreeMap<&str, Vec<&ImportStatus>> = BTreeMap::new();
    for import in all {
        modules.entry(&import.module).or_default().push(import);
    }
    let width = all.iter().map(|import| import.name.len()).max().unwrap_or(0);
    for (module, imports) in modules {
        say!("{module}");
        for import in imports {
            let status = imports::status_name(import.status);
            let kind = imports::kind_name(import);
            let irql = import.irql.as_deref().map(|irql| format!("  IRQL {irql}")).unwrap_or_default();
            say!("  {:width$}  {status:11}  {kind:8}{irql}", import.name);
        }
    }
    let missing = all.iter().filter(|import| imports::status_name(import.status) == "missing").count();
    say!("{} imports, {missing} missing", all.len());
    if missing > 0 {
        say!("a driver with missing imports still runs: calling or reading one is reported by name");
    }
}
