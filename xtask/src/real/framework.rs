//! A framework of Microsoft's: where none is named, that of KMDF 1.7, which Microsoft had drivers' vendors pass on in a co-installer. A package for
//! spectrometers has it beside its drivers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{FRAMEWORK, empty, unpack};
use crate::{call, install, suite};

/// Where the package registry describes the package, and the release that is taken.
const PACKAGE: &str = "https://pypi.org/pypi/seabreeze/json";
const RELEASE: &str = "2.11.0";
/// What leads from it to the framework, by Python's own library: the archive's address, relative to where files are if the registry is a mirror.
const FETCH: &str = r#"
import json, sys, urllib.parse, urllib.request
package, release, archive = sys.argv[1:]
files = json.load(urllib.request.urlopen(package))["releases"][release]
url = next(file["url"] for file in files if file["packagetype"] == "sdist")
url = urllib.parse.urljoin("https://files.pythonhosted.org/packages/packages/", url)
urllib.request.urlretrieve(url, archive)
"#;
const DRIVERS: &str = "seabreeze-2.11.0/os_support/windows-driver-files.zip";
const CO_INSTALLER: &str = "amd64/WdfCoInstaller01007.dll";
const INSTALLER: &str = "Microsoft Kernel-Mode Driver Framework Install-v1.7-Win2k-WinXP-Win2k3.exe";
const IMAGE: &str = "wdf01000.sys";

/// Runs the tests' clients on the framework `named`, or else on the one that is fetched.
///
/// # Errors
/// It cannot be fetched, or a test fails.
pub(super) fn show(root: &Path, folder: &Path, named: Option<&Path>) -> Result<()> {
    let framework = match named {
        Some(named) => named.to_owned(),
        None => fetch(folder)?,
    };
    println!("the tests' clients of KMDF, on {}", framework.display());
    let mut tests = suite::build_file(root, "dirql", "kmdf", &[])?;
    tests.extend(suite::build_file(root, "dirql", "kmdf_rules", &[])?);
    let passed = suite::side_by_side(&tests, |_, test| {
        let mut command = test.command();
        command.env(FRAMEWORK, &framework).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.output().with_context(|| format!("cannot start {}", test.program.display()))?;
        let passed = output.status.success();
        if !passed {
            println!("  {} fails:\n{}", test.name, String::from_utf8_lossy(&output.stderr));
        }
        Ok(passed)
    })?;
    let failed = passed.iter().filter(|passed| !**passed).count();
    println!("  {} tests pass, {failed} fail", tests.len() - failed);
    if failed > 0 {
        bail!("{failed} tests of clients fail on {}", framework.display());
    }
    Ok(())
}

/// The framework's file, in `folder`.
fn fetch(folder: &Path) -> Result<PathBuf> {
    install::for_cabinets()?;
    empty(folder)?;
    let archive = folder.join("package.tar.gz");
    let mut python = Command::new("python3");
    python.args(["-c", FETCH, PACKAGE, RELEASE]).arg(&archive);
    call::step("Microsoft's framework, from the package registry", &mut python)?;
    unpack("tarfile", &archive, folder)?;
    unpack("zipfile", &folder.join(DRIVERS), folder)?;
    for packed in [CO_INSTALLER, INSTALLER] {
        call::quietly(Command::new("cabextract").arg("-q").arg("-d").arg(folder).arg(folder.join(packed)))?;
    }
    let image = folder.join(IMAGE);
    if !image.is_file() {
        bail!("the package has no {IMAGE}");
    }
    Ok(image)
}
