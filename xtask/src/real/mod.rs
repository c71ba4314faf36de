//! `real`: drivers that others have published run on dirql, as far as they get, and the tests' clients of KMDF on a framework of Microsoft's.
//!
//! All is fetched from the package registry of Python when it is asked for, into a folder that is gone afterwards; none is kept, and none is part of dirql. CI
//! never asks. Where `DIRQL_WDF01000` names a framework, all clients run on that. Else the tests' run on the one that `framework` fetches, and published
//! ones, which are newer, on the stand-in of the tests.

mod framework;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{call, drivers};

/// The variable that names a framework of Microsoft's.
const FRAMEWORK: &str = "DIRQL_WDF01000";

/// A driver that is published.
struct Published {
    /// The package, as `pip` knows it.
    package: &'static str,
    /// Whose files it has.
    platform: &'static str,
    /// The driver in it.
    file: &'static str,
    /// It is a client of KMDF, and has to bind to its framework.
    binds: bool,
}

const ALL: &[Published] = &[Published {
    package: "pydivert",
    platform: "win_amd64",
    file: "pydivert/windivert_dll/WinDivert64.sys",
    binds: true,
}];

/// Fetches each, runs it, and shows how far it gets.
///
/// # Errors
/// One cannot be fetched, or a client of KMDF does not bind to its framework.
pub(crate) fn show(root: &Path) -> Result<()> {
    drivers::build(root, &drivers::default_out(root))?;
    call::step("the command", call::cargo(root).args(["build", "--quiet", "--release", "-p", "dirql-cli"]))?;
    let named = std::env::var_os(FRAMEWORK).map(PathBuf::from);
    let folder = root.join("target/real");
    let shown = framework::show(root, &folder, named.as_deref()).and_then(|()| {
        let framework = named.unwrap_or_else(|| drivers::default_out(root).join("framework.sys"));
        println!("\npublished drivers, on {}", framework.display());
        ALL.iter().try_for_each(|one| {
            println!("\n{}: {}", one.package, one.file);
            one.show(root, &folder, &framework).with_context(|| format!("{} of {}", one.file, one.package))
        })
    });
    let _ = fs::remove_dir_all(&folder);
    shown
}

/// Makes the folder, empty.
fn empty(folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Unpacks an archive into the folder, by a module of Python's.
fn unpack(module: &str, archive: &Path, folder: &Path) -> Result<()> {
    call::quietly(Command::new("python3").args(["-m", module, "-e"]).arg(archive).arg(folder))
}

impl Published {
    fn show(&self, root: &Path, folder: &Path, framework: &Path) -> Result<()> {
        let driver = self.fetch(folder)?;
        let dirql = root.join("target/release/dirql");
        let imports = json(Command::new(&dirql).args(["imports", "--json"]).arg(&driver))?;
        let imports =
            imports.first().and_then(|all| all["imports"].as_array()).context("no imports are listed")?;
        let missing = imports.iter().filter(|import| import["status"] == "missing").count();
        println!("  imports      {}, of which dirql lacks {missing}", imports.len());
        let mut run = Command::new(&dirql);
        run.arg("run").arg(&driver).arg("--framework").arg(framework).args(["--json", "--events", "ddi"]);
        let lines = json(&mut run)?;
        let calls = lines.iter().filter(|line| line["event"] == "ddi").count();
        if self.binds && calls == 0 {
            bail!("it does not bind to the framework: it calls no function of it");
        }
        println!("  framework    bound; {calls} calls of its functions");
        let end = lines.last().context("the run says nothing")?;
        let ended = match (&end["verdict"], &end["failure"]) {
            (Value::Object(verdict), _) => text(&verdict["message"]),
            (_, Value::Object(failure)) => text(&failure["message"]),
            _ => "its end: clean".to_owned(),
        };
        println!("  got as far as {ended}");
        Ok(())
    }

    /// The driver's file, in `folder`.
    fn fetch(&self, folder: &Path) -> Result<PathBuf> {
        empty(folder)?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]);
        pip.args(["--platform", self.platform, "--dest"]).arg(folder).arg(self.package);
        call::step(&format!("{} from the package registry", self.package), &mut pip)?;
        let files = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        let wheel = files.first().context("pip has fetched nothing")?.path();
        unpack("zipfile", &wheel, folder)?;
        let driver = folder.join(self.file);
        if !driver.is_file() {
            bail!("the package has no {}", self.file);
        }
        Ok(driver)
    }
}

/// The lines of a command that writes JSON, whatever its exit code is.
fn json(command: &mut Command) -> Result<Vec<Value>> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start `{}`", call::shown(command)))?;
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
