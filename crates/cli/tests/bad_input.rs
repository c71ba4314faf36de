//! Whatever is given that cannot be used: one message on standard error that says what, where and what to do; exit
//! code 2; no panic.

use std::fs;
use std::path::PathBuf;

use super::rig::{Answer, dirql, driver, folder};

/// A copy of a sound driver with some of its bytes changed.
struct Mutilated {
    bytes: Vec<u8>,
    pe: usize,
}

impl Mutilated {
    fn new() -> Self {
        let bytes = fs::read(driver("legacy.sys")).unwrap();
        let pe = u32::from_le_bytes(bytes[0x3C..0x40].try_into().unwrap()) as usize;
        Self { bytes, pe }
    }

    fn put(mut self, offset_from_pe: usize, value: &[u8]) -> Self {
        let at = self.pe + offset_from_pe;
        self.bytes[at..at + value.len()].copy_from_slice(value);
        self
    }

    fn or(self, offset_from_pe: usize, bits: u16) -> Self {
        let at = self.pe + offset_from_pe;
        let old = u16::from_le_bytes(self.bytes[at..at + 2].try_into().unwrap());
        self.put(offset_from_pe, &(old | bits).to_le_bytes())
    }

    fn save(self, test: &str) -> PathBuf {
        saved(test, &self.bytes)
    }
}

fn saved(test: &str, bytes: &[u8]) -> PathBuf {
    let path = folder(test).join("driver.sys");
    fs::write(&path, bytes).unwrap();
    path
}

/// One line, on standard error, of the command, with each of `parts`; exit code 2.
fn refused(answer: &Answer, parts: &[&str]) {
    let said = answer.said();
    assert_eq!(answer.code, Some(2), "{said}");
    assert!(answer.err.starts_with("dirql: "), "{said}");
    assert_eq!(answer.err.trim_end().lines().count(), 1, "{said}");
    assert!(answer.out.is_empty(), "{said}");
    for part in parts {
        assert!(answer.err.contains(part), "`{part}` is missing\n{said}");
    }
}

/// Both commands that take a driver refuse it alike.
fn refused_by_run_and_imports(path: &std::path::Path, parts: &[&str]) {
    let shown = path.to_str().unwrap();
    let parts: Vec<&str> = parts.iter().copied().chain([shown]).collect();
    refused(&dirql(["run", shown]), &parts);
    refused(&dirql(["imports", shown]), &parts);
}

#[test]
fn a_file_that_is_not_there() {
    refused_by_run_and_imports(&folder("absent").join("no.sys"), &["there is no such file", "give the path"]);
}

#[test]
fn a_folder() {
    refused_by_run_and_imports(&folder("a_folder"), &["is a folder"]);
}

#[test]
fn a_device_file_that_never_ends() {
    refused_by_run_and_imports(std::path::Path::new("/dev/zero"), &["not a regular file"]);
}

#[test]
fn a_file_that_may_not_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let path = Mutilated::new().save("unreadable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&path).is_err() {
        refused_by_run_and_imports(&path, &["may not be read", "permissions"]);
    }
}

#[test]
fn an_empty_file() {
    refused_by_run_and_imports(&saved("empty", b""), &["the file is empty"]);
}

#[test]
fn a_shell_script() {
    refused_by_run_and_imports(&saved("script", b"#!/bin/sh\nexit 0\n"), &["not a driver", "MZ"]);
}

#[test]
fn a_driver_cut_in_half() {
    let mut cut = Mutilated::new();
    cut.bytes.truncate(cut.bytes.len() / 2);
    refused_by_run_and_imports(&cut.save("cut"), &["truncated", "copy it again"]);
}

#[test]
fn a_32_bit_driver() {
    let path = Mutilated::new().put(4, &0x14C_u16.to_le_bytes()).save("x86");
    refused_by_run_and_imports(&path, &["32-bit", "build the driver for x64"]);
}

#[test]
fn an_arm64_driver() {
    let path = Mutilated::new().put(4, &0xAA64_u16.to_le_bytes()).save("arm64");
    refused_by_run_and_imports(&path, &["ARM64", "build the driver for x64"]);
}

#[test]
fn a_user_mode_program() {
    let path = Mutilated::new().put(0x5C, &3_u16.to_le_bytes()).save("user");
    refused_by_run_and_imports(&path, &["user-mode program", "/SUBSYSTEM:NATIVE"]);
}

#[test]
fn a_user_mode_dll() {
    let path = Mutilated::new().put(0x5C, &2_u16.to_le_bytes()).or(0x16, 0x2000).save("dll");
    refused_by_run_and_imports(&path, &["user-mode DLL", "/SUBSYSTEM:NATIVE"]);
}

#[test]
fn a_driver_whose_relocations_were_stripped() {
    let path = Mutilated::new().or(0x16, 1).save("stripped");
    let shown = path.to_str().unwrap();
    refused(&dirql(["run", shown]), &["relocations were stripped", "/FIXED", shown]);
}

#[test]
fn a_driver_whose_imports_are_nowhere() {
    let path = Mutilated::new().put(0x90, &0xFFFF_FF00_u32.to_le_bytes()).save("wild");
    refused_by_run_and_imports(&path, &["0xffffff00", "not within the image"]);
}

#[test]
fn a_driver_of_four_gigabytes() {
    let path = Mutilated::new().put(0x50, &0xFFFF_F000_u32.to_le_bytes()).save("huge");
    refused_by_run_and_imports(&path, &["SizeOfImage", "0xfffff000"]);
}

#[test]
fn a_second_image_that_is_none_is_named() {
    let other = saved("other", b"MZ");
    let (first, other) = (driver("legacy.sys"), other.to_str().unwrap());
    refused(&dirql(["imports", first.to_str().unwrap(), "--with", other]), &[other]);
    refused(&dirql(["run", first.to_str().unwrap(), "--with", other]), &[other]);
}

fn run(more: &[&str]) -> Answer {
    let driver = driver("pciline.sys");
    dirql(["run", driver.to_str().unwrap()].iter().chain(more))
}

#[test]
fn an_inf_without_the_section_it_leads_to() {
    let text = fs::read_to_string(driver("pciline.inf")).unwrap();
    let inf = folder("sectionless").join("pciline.inf");
    fs::write(&inf, text.replace("[PciLine.Install.NT.Services]", "[Elsewhere]")).unwrap();
    let shown = inf.to_str().unwrap();
    let answer = run(&["--inf", shown, "--device", "pci9052"]);
    refused(&answer, &[shown, "[PciLine.Install.NT.Services]", "add it"]);
}

#[test]
fn an_inf_for_other_cards() {
    let inf = driver("pciline.inf");
    let answer = run(&["--inf", inf.to_str().unwrap(), "--device", "pci,id=1234:5678,bar0=mem:128"]);
    refused(&answer, &["no model in the file matches", "VEN_1234&DEV_5678", "VEN_10B5&DEV_9050"]);
}

#[test]
fn an_inf_and_no_device() {
    refused(
        &run(&["--inf", driver("pciline.inf").to_str().unwrap()]),
        &["no device is given", "dirql devices"],
    );
}

#[test]
fn an_inf_that_is_a_driver() {
    refused(
        &run(&["--inf", driver("pciline.sys").to_str().unwrap(), "--device", "pci9052"]),
        &["pciline.sys"],
    );
}

#[test]
fn a_device_that_does_not_exist() {
    refused(
        &run(&["--device", "pci9051"]),
        &["no device model `pci9051`", "did you mean `pci9052`", "dirql devices"],
    );
}

#[test]
fn a_device_key_that_does_not_exist() {
    refused(&run(&["--device", "pci9052,latncy=5us"]), &["no key `latncy`", "did you mean `latency`"]);
}

#[test]
fn cards_that_cannot_all_be_placed() {
    let answer = run(&["--device", "pci9052,slot=4", "--device", "pci9052,slot=4"]);
    refused(&answer, &["slot"]);
}

#[test]
fn a_script_with_a_typing_mistake() {
    refused(
        &run(&["--do", "open \\\\.\\X as x; wirte x hex:00"]),
        &["--do:1:", "wirte", "did you mean `write`"],
    );
    let file = folder("typo").join("demo.txt");
    fs::write(&file, "open \\\\.\\X as x\nread x lots\n").unwrap();
    let shown = file.to_str().unwrap();
    refused(&run(&["--script", shown]), &[&format!("{shown}:2:8"), "lots"]);
}

#[test]
fn a_script_that_is_not_text_or_not_there() {
    let file = folder("binary").join("demo.txt");
    fs::write(&file, [0xFF, 0xFE, 0]).unwrap();
    refused(&run(&["--script", file.to_str().unwrap()]), &["not UTF-8", "UTF-8"]);
    refused(&run(&["--script", "/no/such/file"]), &["there is no such file", "script"]);
}

#[test]
fn a_script_that_names_what_is_not_there() {
    refused(
        &run(&["--device", "pci9052", "--do", "poke pci9052#1 linti1 1"]),
        &["--do:1:", "pci9052#1", "pci9052#0"],
    );
    refused(
        &run(&["--device", "pci9052", "--do", "poke pci9052#0 lint1 1"]),
        &["--do:1:", "lint1", "linti1"],
    );
    refused(&run(&["--do", "remove-device"]), &["--do:1:", "no device", "--device"]);
    let answer = run(&["--do", "open \\\\.\\X as x; write x file:absent.bin"]);
    refused(&answer, &["--do:1:", "absent.bin", "there is no such file"]);
}

#[test]
fn a_windows_that_does_not_exist() {
    refused(&run(&["--windows", "11-24h1"]), &["no Windows version `11-24h1`", "did you mean `11-24h2`"]);
}

#[test]
fn a_policy_that_does_not_exist() {
    let driver = driver("legacy.sys");
    for policy in ["rundom:7", "random", "random:x", "pct", "pct:1,101"] {
        let answer = dirql(["run", driver.to_str().unwrap(), "--policy", policy]);
        assert_eq!(answer.code, Some(2), "{}", answer.said());
        assert!(answer.err.contains("random:SEED"), "{}", answer.said());
    }
}

/// A record of a sound run, and the driver it is of, both in a folder of the test's own.
fn recorded(test: &str) -> (PathBuf, PathBuf) {
    let home = folder(test);
    let (sys, file) = (home.join("driver.sys"), home.join("run.dirql"));
    fs::copy(driver("legacy.sys"), &sys).unwrap();
    let answer = dirql([&"run".into(), &sys, &"--quiet".into(), &"--record".into(), &file]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    (file, sys)
}

fn refused_by_replay(file: &std::path::Path, parts: &[&str]) {
    refused(&dirql(["replay", file.to_str().unwrap()]), parts);
}

#[test]
fn a_record_that_is_not_there_or_none() {
    refused_by_replay(std::path::Path::new("/no/such/run.dirql"), &["there is no such file", "the record"]);
    refused_by_replay(&driver("legacy.sys"), &["no record of dirql's", "--record"]);
    let file = folder("no_record").join("run.dirql");
    for text in ["", "hello\n", "{}\n", "{\"dirql_record\":\"one\"}\n"] {
        fs::write(&file, text).unwrap();
        refused_by_replay(&file, &["no record of dirql's", "--record"]);
    }
}

#[test]
fn a_record_of_another_version() {
    let (file, _) = recorded("other_version");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("\"dirql_record\":2", "\"dirql_record\":1", 1)).unwrap();
    refused_by_replay(&file, &["format 2", "the version that wrote it"]);
    fs::write(&file, text.replacen("\"dirql\":\"", "\"dirql\":\"9", 1)).unwrap();
    refused_by_replay(&file, &["version of dirql 9", "the version that wrote it"]);
}

#[test]
fn a_record_that_is_cut_short() {
    let (file, _) = recorded("cut_short");
    let text = fs::read_to_string(&file).unwrap();
    for length in [text.len() / 2, text.len() - 1, text.len() - 10] {
        fs::write(&file, &text[..length]).unwrap();
        refused_by_replay(&file, &["run.dirql", "cut short", "record it again"]);
    }
}

#[test]
fn a_record_that_was_edited() {
    let (file, _) = recorded("edited");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen(" switch ", " wait ", 1)).unwrap();
    refused_by_replay(&file, &["changed after it was written", "checksum"]);
    fs::write(&file, text.replacen("event ", "evnt ", 1)).unwrap();
    refused_by_replay(&file, &["line 2", "no line of a record"]);
    fs::write(&file, text.replacen("\"processors\":1", "\"processors\":\"one\"", 1)).unwrap();
    refused_by_replay(&file, &["line 1", "record the run again"]);
}

#[test]
fn a_record_whose_driver_or_inf_has_changed_or_gone() {
    let (file, sys) = recorded("driver_changed");
    let mut bytes = fs::read(&sys).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&sys, &bytes).unwrap();
    refused_by_replay(&file, &["driver.sys", "has changed since", "SHA-256", "--driver"]);
    fs::remove_file(&sys).unwrap();
    refused_by_replay(&file, &["driver.sys", "is not there", "--driver"]);

    let home = folder("inf_changed");
    let (inf, file) = (home.join("pciline.inf"), home.join("run.dirql"));
    let text = fs::read_to_string(driver("pciline.inf")).unwrap();
    fs::write(&inf, &text).unwrap();
    let more = ["--inf", inf.to_str().unwrap(), "--device", "pci9052", "--record", file.to_str().unwrap()];
    assert_eq!(run(&more).code, Some(0));
    fs::write(&inf, format!("{text}\r\n; a remark\r\n")).unwrap();
    refused_by_replay(&file, &["pciline.inf", "has changed since", "--inf"]);
    fs::remove_file(&inf).unwrap();
    refused_by_replay(&file, &["pciline.inf", "is not there", "--inf"]);
}

#[test]
fn a_record_that_cannot_be_written() {
    refused(
        &run(&["--record", "/no/such/folder/run.dirql"]),
        &["/no/such/folder/run.dirql", "cannot be written"],
    );
}

#[test]
fn arguments_that_make_no_sense() {
    for arguments in [
        &["run"] as &[&str],
        &["walk"],
        &["run", "x.sys", "--processors", "0"],
        &["run", "x.sys", "--processors", "65"],
        &["run", "x", "--no"],
    ] {
        let answer = dirql(arguments);
        assert_eq!(answer.code, Some(2), "{}", answer.said());
        assert!(answer.out.is_empty() && !answer.err.is_empty(), "{}", answer.said());
    }
}

#[test]
fn a_group_size_that_no_windows_boots_with() {
    for size in ["0", "3", "65", "128"] {
        refused(&run(&["--group-size", size]), &[&format!("groups of {size} processors"), "choose one of"]);
    }
}

#[test]
fn a_name_that_no_driver_has_made_known() {
    let legacy = driver("legacy.sys");
    let open = |name: &str| {
        dirql(["run", legacy.to_str().unwrap(), "--quiet", "--do", &format!("open {name} as f")])
    };
    let near = open(r"\\.\DirqlLegacie");
    assert_eq!(near.code, Some(1), "{}", near.said());
    assert!(
        near.out.contains(r"saw STATUS_OBJECT_NAME_NOT_FOUND; did you mean `\\.\DirqlLegacy`?"),
        "{}",
        near.said()
    );
    let far = open(r"\\.\Frobnicator");
    assert!(
        far.out.contains(r"saw STATUS_OBJECT_NAME_NOT_FOUND; there are: \\.\DirqlLegacy"),
        "{}",
        far.said()
    );
    let expected = open(r"\\.\Frobnicator as g expect STATUS_OBJECT_NAME_NOT_FOUND; open \\.\DirqlLegacy");
    assert!(!expected.out.contains("there are"), "an expected status has no hint\n{}", expected.said());
}

#[test]
fn what_a_card_does_not_take_is_told_before_anything_runs() {
    let legacy = driver("legacy.sys");
    let ask = |device: &str, script: &str| {
        dirql(["run", legacy.to_str().unwrap(), "--device", device, "--do", script])
    };
    let bar = "pci,id=1:2,bar0=mem:128";
    refused(
        &ask("bench", "wait 1ms; poke bench#0 raise 99"),
        &["--do:1:11: ", "`99` is no source; it has 0 to 7"],
    );
    refused(&ask(bar, "peek pci#0 bar0+100"), &["--do:1:1: ", "the window has only 80h bytes"]);
    refused(&ask(bar, "poke pci#0 bar2+0 1"), &["--do:1:1: ", "it has no BAR 2"]);
    refused(&ask(bar, "poke pci#0 irq 1"), &["it has no interrupt pin; add `irq` to the device"]);
    refused(&ask("bench", "peek bench#0 bar0+0"), &["a `bench` does not show its registers"]);
    refused(&ask("bench", "start-device elsehwere"), &["did you mean `elsewhere`?"]);
}

#[test]
fn a_device_that_a_driver_has_nothing_to_do_with_is_told_where_only_the_verdict_is_wanted_too() {
    let legacy = driver("legacy.sys");
    let answer = dirql(["run", legacy.to_str().unwrap(), "--device", "bench", "--quiet"]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    assert!(
        answer.err.contains("note: legacy.sys: the driver has no AddDevice routine"),
        "{}",
        answer.said()
    );
}
