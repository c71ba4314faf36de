//! The mingw-w64 cross compiler as a judge: C text in, complaints out.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const COMPILER: &str = "x86_64-w64-mingw32-gcc";

pub(crate) const KERNEL_HEADERS: &[&str] = &["ntifs.h", "csq.h", "wmilib.h", "wmistr.h"];

fn run(arguments: &[&str], what: &str) -> Output {
    Command::new(COMPILER).args(arguments).output().unwrap_or_else(|error| {
        panic!(
            "{COMPILER} did not start ({error}), so {what} is not checked: install Debian's gcc-mingw-w64-x86-64, or run \
             `cargo xtask test`, which does"
        )
    })
}

fn scratch(name: &str, c: &str) -> PathBuf {
    let folder = tempfile::Builder::new().prefix("mingw-").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.expect("the target's folder takes folders").keep().join(name);
    std::fs::write(&path, c).expect("the target's folder takes files");
    path
}

/// The folder of `ddk/wdm.h`; the headers there include each other as if it were on the search path.
fn ddk_folder(file: &str) -> PathBuf {
    let probe = scratch(file, "#include <ddk/wdm.h>\n");
    let output = run(&["-M", &probe.to_string_lossy()], "the place of ddk/wdm.h");
    assert!(
        output.status.success(),
        "{COMPILER} has no ddk/wdm.h: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rule = String::from_utf8_lossy(&output.stdout).into_owned();
    let header =
        rule.split_whitespace().find(|word| word.ends_with("ddk/wdm.h")).expect("the rule names the header");
    Path::new(header).parent().expect("a header lies in a folder").to_owned()
}

pub(crate) fn includes(headers: &[&str]) -> String {
    headers
        .iter()
        .map(|header| format!("#include <{header}>\n"))
        .chain(["#include <stddef.h>\n".into()])
        .collect()
}

pub(crate) fn assert_that(c: &mut String, claim: &str) {
    writeln!(c, "_Static_assert({claim}, \"{claim}\");").expect("a string takes any text");
}

/// What the compiler says against `c`: nothing, if it agrees.
pub(crate) fn complaints(file: &str, c: &str) -> String {
    let path = scratch(file, c);
    let include = format!("-I{}", ddk_folder(&format!("folder_for_{file}")).display());
    let windows = ["-D_WIN32_WINNT=0x0A00", "-DNTDDI_VERSION=0x0A000008", "-DNT_PROCESSOR_GROUPS"];
    let path = path.to_string_lossy();
    let output =
        run(&[&["-fsyntax-only", "-w", &include, &path], &windows[..]].concat(), "the layout of a type");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), errors.is_empty(), "{errors}");
    errors
}
