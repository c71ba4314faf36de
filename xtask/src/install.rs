//! What a machine that has rustup and nothing else still lacks: mingw's gcc for the C drivers, and the target of the
//! Rust ones.
//!
//! It does nothing where they are present, and says what it will install before it does. It does not install
//! `cargo-nextest`: see [`crate::solo`] for why.

use std::io::IsTerminal;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::call;

/// The C compiler of the C drivers.
pub(crate) const MINGW_GCC: &str = "x86_64-w64-mingw32-gcc";
/// The target of the Rust drivers; `rust-toolchain.toml` names it too.
pub(crate) const RUST_TARGET: &str = "x86_64-pc-windows-msvc";
/// Debian's package of [`MINGW_GCC`], its linker and headers.
const MINGW_PACKAGE: &str = "gcc-mingw-w64-x86-64";

/// Installs what is missing.
///
/// # Errors
/// Something is missing and cannot be installed: the message says what to do by hand.
pub(crate) fn all(root: &Path) -> Result<()> {
    mingw()?;
    rust_target(root)
}

fn mingw() -> Result<()> {
    if call::works(MINGW_GCC, &["--version"]) {
        return Ok(());
    }
    if !call::works("apt-get", &["--version"]) {
        bail!(
            "the C drivers need `{MINGW_GCC}`, which is not here, and there is no apt-get to install it with: \
             install mingw-w64's gcc for x86_64 (Debian, Ubuntu: {MINGW_PACKAGE}; Fedora: mingw64-gcc; \
             Arch: mingw-w64-gcc) and try again"
        );
    }
    eprintln!(
        "xtask: the C drivers need `{MINGW_GCC}`, which is not here: installing {MINGW_PACKAGE} by apt-get"
    );
    let advice = || {
        format!(
            "cannot install {MINGW_PACKAGE}; `apt-get install {MINGW_PACKAGE}` as root, then try again, \
             would do the same by hand"
        )
    };
    call::quietly(apt_get()?.arg("update").arg("-qq")).with_context(advice)?;
    call::quietly(apt_get()?.args(["install", "-y", "-qq", "--no-install-recommends", MINGW_PACKAGE]))
        .with_context(advice)
}

/// `apt-get` as root: through sudo where we are not, and without a question where nobody could answer it.
fn apt_get() -> Result<Command> {
    let mut words = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"];
    if call::output(Command::new("id").arg("-u"))?.trim() != "0" {
        if !std::io::stdin().is_terminal() {
            words.insert(0, "-n");
        }
        words.insert(0, "sudo");
    }
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    Ok(command)
}

/// rustup fetches the target by itself when it installs the toolchain for us, but not into one that was there already.
fn rust_target(root: &Path) -> Result<()> {
    let sysroot = call::output(Command::new("rustc").current_dir(root).args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(RUST_TARGET).is_dir() {
        return Ok(());
    }
    call::step(
        &format!(
            "the Rust drivers need the target {RUST_TARGET}, which is not here: installing it by rustup"
        ),
        Command::new("rustup").current_dir(root).args(["target", "add", RUST_TARGET]),
    )
    .with_context(|| format!("without rustup, install rust-std for {RUST_TARGET} as your Rust was installed"))
}
