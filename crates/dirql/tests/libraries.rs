//! Stories of a driver that stands on another image given beside it (`--with`).

use std::path::PathBuf;
use std::process::Command;

use dirql::{Bench, Outcome};

use super::rig::{self, start};

const LIBRARY: &str = r#"
#include <ddk/wdm.h>
static ULONG Answer = 1;
__declspec(dllexport) ULONG LibraryCount = 0x1234;
__declspec(dllexport) ULONG LibraryAnswer(void) { return Answer; }
__declspec(dllexport) NTSTATUS NTAPI DllInitialize(PUNICODE_STRING Path)
{
    DbgPrint("library: initialised, %wZ\n", Path);
    Answer = 42;
    return STATUS_SUCCESS;
}
__declspec(dllexport) NTSTATUS NTAPI DllUnload(void)
{
    DbgPrint("library: unloaded\n");
    return STATUS_SUCCESS;
}
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Driver, (void)Path;
    DbgPrint("library: an export library's entry point is not called\n");
    return STATUS_UNSUCCESSFUL;
}
"#;

const DRIVER: &str = r#"
#include <ddk/wdm.h>
__declspec(dllimport) ULONG LibraryAnswer(void);
__declspec(dllimport) extern ULONG LibraryCount;
static VOID NTAPI Unload(PDRIVER_OBJECT Driver) { (void)Driver; }
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    Driver->DriverUnload = Unload;
    DbgPrint("user: answer %u, count %x\n", LibraryAnswer(), LibraryCount);
    return STATUS_SUCCESS;
}
"#;

/// Compiles both into a folder of this test's own.
fn compiled(test: &str) -> (PathBuf, PathBuf) {
    let folder = rig::folder(test);
    let compile = |name: &str, text: &str, more: &[&str]| {
        std::fs::write(folder.join(format!("{name}.c")), text).unwrap();
        let done = Command::new("x86_64-w64-mingw32-gcc")
            .current_dir(&folder)
            .args(["-O2", "-ffreestanding", "-nostdlib", "-Wl,--subsystem,native", "-Wl,--entry,DriverEntry"])
            .args(["-Wl,--dynamicbase", "-o", &format!("{name}.sys"), &format!("{name}.c")])
            .args(more)
            .arg("-lntoskrnl")
            .status();
        assert!(
            done.is_ok_and(|status| status.success()),
            "mingw's gcc is there after `cargo xtask drivers`"
        );
        folder.join(format!("{name}.sys"))
    };
    let library = compile("library", LIBRARY, &["-Wl,--out-implib,library.a"]);
    (compile("user", DRIVER, &["library.a"]), library)
}

#[test]
fn a_library_is_initialised_before_the_driver_that_imports_from_it() {
    let (user, library) = compiled("initialised");
    let report = start(|| Bench::new().driver(&user).with(&library)).finish();
    report.expect_clean();
    assert_eq!(
        report.prints,
        [
            r"library: initialised, \REGISTRY\MACHINE\SYSTEM\ControlSet001\Services\library",
            "user: answer 42, count 1234",
            "library: unloaded",
        ]
    );
}

#[test]
fn without_the_library_the_driver_loads_and_what_it_reads_is_named() {
    let (user, _) = compiled("absent-library");
    let report = start(|| Bench::new().driver(&user)).finish();
    assert_eq!(report.outcome(), Outcome::NotImplemented, "{report}");
    let message = &report.expect_verdict().message;
    assert!(
        message.contains("library.sys!LibraryCount") && message.contains("user.sys!DriverEntry"),
        "{report}"
    );
}

#[test]
fn imports_tell_what_the_library_links() {
    let (user, library) = compiled("linked");
    let files = [user, library].map(|path| dirql::files::DriverFile::read(&path).unwrap());
    let status = |others: &[dirql::files::DriverFile], name: &str| {
        let all = dirql::imports::list(&files[0], others);
        let import = all.into_iter().find(|import| import.name == name).unwrap();
        (dirql::imports::status_name(import.status), dirql::imports::kind_name(&import))
    };
    assert_eq!(status(&files[1..], "LibraryAnswer"), ("linked", "function"));
    assert_eq!(status(&files[1..], "LibraryCount"), ("linked", "data"));
    assert_eq!(status(&[], "LibraryAnswer"), ("missing", "function"));
    assert_eq!(status(&[], "DbgPrint"), ("implemented", "function"));
}
