//! Stories of the command `pci9052`, with the driver's own bytes on the bench.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a command answered.
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

fn driver() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/drivers/pci9052.sys");
    assert!(path.is_file(), "{} is not there: run `cargo xtask drivers` first", path.display());
    path
}

fn pci9052(arguments: &[&str]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pci9052"));
    let output = command.arg("--driver").arg(driver()).args(arguments).output().expect("it was built");
    let text = |bytes| String::from_utf8(bytes).expect("it writes text");
    Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// What it answers where all goes well.
fn said(arguments: &[&str]) -> String {
    let Answer { code, out, err } = pci9052(arguments);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    out
}

/// What it complains of.
fn refused(arguments: &[&str]) -> String {
    let Answer { code, out, err } = pci9052(arguments);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    err
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder can be written")
}

#[test]
fn info_shows_counters_and_each_register_as_the_eeprom_set_it() {
    let out = said(&["info"]);
    for line in [
        "transfers   0",
        "local space 0x10000 bytes",
        "LAS0RR  0fff0000",
        "CS0BASE 00008001",
        "INTCSR  00000053", // enabled by the driver
    ] {
        assert!(out.lines().any(|found| found == line), "{line} is missing in\n{out}");
    }
    assert_eq!(out.lines().count(), 3 + 21);
}

#[test]
fn bytes_are_written_and_memory_is_read_and_dumped() {
    assert_eq!(said(&["write", "0x10", "3c00ff"]), "");
    assert_eq!(said(&["read", "0x10", "18"]).lines().count(), 2);
    let (folder, name) = (folder(), "memory.bin");
    let file = folder.path().join(name);
    assert_eq!(said(&["dump", file.to_str().unwrap()]), "");
    assert_eq!(std::fs::read(file).unwrap(), vec![0; 0xFFF8]);
}

#[test]
fn a_register_is_shown_and_those_of_the_systems_are_not_set() {
    assert_eq!(said(&["register", "cs0base"]), "00008001\n");
    assert_eq!(said(&["register", "CS1BASE", "0x40001"]), "");
    assert!(refused(&["register", "LAS0RR", "0"]).contains("LAS0RR: "), "the driver refuses it");
    assert!(refused(&["register", "LASRR"]).contains("there is no register `LASRR`; there are: LAS0RR, "));
}

#[test]
fn each_interrupt_from_outside_is_told() {
    let out = said(&["--poke", "linti1=1", "watch"]);
    assert_eq!(out, "interrupt 1: 1 claimed so far\n");
    // The line stays active, so that a second wait ends at once.
    let out = said(&["--poke", "linti1=1", "watch", "2"]);
    assert_eq!(out, "interrupt 1: 1 claimed so far\ninterrupt 2: 2 claimed so far\n");
    assert!(refused(&["watch"]).contains("DeviceIoControl"), "nothing interrupts");
}

#[test]
fn the_eeprom_is_saved_changed_and_restored() {
    let folder = folder();
    let file = folder.path().join("card.txt");
    let file = file.to_str().unwrap();
    assert_eq!(said(&["eeprom", "save", file]), "");
    let saved = std::fs::read_to_string(file).unwrap();
    assert!(saved.starts_with("9050 10b5 "), "{saved}");
    assert_eq!(saved.lines().count(), 8);
    // The bench takes the file for the card's EEPROM: nothing differs.
    let device = format!("pci9052,eeprom={file}");
    let restored = said(&["--device", &device, "eeprom", "restore", file]);
    assert_eq!(restored, "0 words written; the card takes them over when it is reset or loses power\n");
    // A word that differs is written and reads back.
    let changed =
        saved.replace("# word 56", "").trim_end().rsplit_once(' ').unwrap().0.to_owned() + " 4321\n";
    std::fs::write(file, changed).unwrap();
    assert!(said(&["eeprom", "restore", file]).starts_with("1 words written; "));
}

#[test]
fn what_cannot_be_used_is_told_in_one_line() {
    for (arguments, complaint) in [
        (
            &["write", "0", "3c0"][..],
            "pci9052: `3c0` is no bytes; write two hexadecimal digits for each, as 3c00ff\n",
        ),
        (
            &["--poke", "linti1", "watch"],
            "pci9052: --poke linti1: it is a signal and a number, as linti1=1\n",
        ),
        (&["eeprom", "restore", "/nowhere"], "pci9052: /nowhere: No such file or directory (os error 2)\n"),
    ] {
        assert_eq!(refused(arguments), complaint);
    }
    assert!(refused(&["read", "0xfff0", "16"]).contains("STATUS_INVALID_PARAMETER"));
    assert!(refused(&["--device", "pci9053", "info"]).contains("did you mean `pci9052`?"));
}
