//! What a machine that has rustup and nothing else still lacks: mingw's gcc for the C drivers, clang for those with
//! `__try`, and the target of the Rust ones; QEMU for the tests that hold our model of a card of QEMU's against it.
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
/// The C compiler of the C drivers with structured exception handling; it finds its linker beside itself.
pub(crate) const CLANG: &str = "clang-19";
/// Where it looks for the linker of Windows programs.
const LLD_LINK: &str = "lld-link-19";
/// The target of the Rust drivers; `rust-toolchain.toml` names it too.
pub(crate) const RUST_TARGET: &str = "x86_64-pc-windows-msvc";

/// Programs that are needed, and how to come by them.
struct Package {
    programs: &'static [&'static str],
    /// What needs them.
    of: &'static str,
    /// Debian's and Ubuntu's packages.
    debian: &'static [&'static str],
    /// Where there is no apt-get.
    by_hand: &'static str,
}

const PACKAGES: &[Package] = &[
    Package {
        programs: &[MINGW_GCC],
        of: "the C drivers",
        debian: &["gcc-mingw-w64-x86-64"],
        by_hand: "mingw-w64's gcc for x86_64 (Fedora: mingw64-gcc; Arch: mingw-w64-gcc)",
    },
    Package {
        programs: &[CLANG, LLD_LINK],
        of: "the C drivers with structured exception handling",
        debian: &["clang-19", "lld-19"],
        by_hand: "clang and lld of LLVM 19, under these names",
    },
];

const OF_TESTS: &[Package] = &[Package {
    programs: &["qemu-system-x86_64"],
    of: "the tests that ask QEMU's own cards",
    debian: &["qemu-system-x86"],
    by_hand: "QEMU with x86_64 machines (Fedora: qemu-system-x86-core; Arch: qemu-system-x86)",
}];

const OF_CABINETS: Package = Package {
    programs: &["cabextract"],
    of: "cabinets of Microsoft's",
    debian: &["cabextract"],
    by_hand: "cabextract",
};

/// Installs what is missing for files that Microsoft has packed.
///
/// # Errors
/// As [`all`].
pub(crate) fn for_cabinets() -> Result<()> {
    programs(&OF_CABINETS)
}

/// Installs what is missing for the tests, besides what the drivers need.
///
/// # Errors
/// As [`all`].
pub(crate) fn for_tests() -> Result<()> {
    OF_TESTS.iter().try_for_each(programs)
}

/// Installs what is missing for the drivers.
///
/// # Errors
/// Something is missing and cannot be installed: the message says what to do by hand.
pub(crate) fn all(root: &Path) -> Result<()> {
    for package in PACKAGES {
        programs(package)?;
    }
    rust_target(root)
}

fn programs(package: &Package) -> Result<()> {
    let Package { programs, of, debian, by_hand } = package;
    if programs.iter().all(|program| call::works(program, &["--version"])) {
        return Ok(());
    }
    let (programs, packages) = (programs.join("` and `"), debian.join(" "));
    if !call::works("apt-get", &["--version"]) {
        bail!(
            "{of} need `{programs}`, which is not here, and there is no apt-get to install it with: install \
             {by_hand} and try again (Debian, Ubuntu: {packages})"
        );
    }
    eprintln!("xtask: {of} need `{programs}`, which is not here: installing {packages} by apt-get");
    let advice = || {
        format!(
            "cannot install {packages}; `apt-get install {packages}` as root, then try again, would do the same by \
             hand"
        )
    };
    call::quietly(apt_get()?.arg("update").arg("-qq")).with_context(advice)?;
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    call::quietly(apt_get()?.args(install).args(*debian)).with_context(advice)
}

/// `apt-get` as root: through sudo where we are not, and without a password prompt if standard input is no terminal.
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
