//! `dirql run` of KMDF drivers: where the framework is found, what is said where it is not, and what INFs say of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::rig::{self, Answer, driver, folder};

/// Opens the device, and has four bytes back.
const SCRIPT: &str = "open interface:{6D1C2B6E-7E0A-4C1B-9D37-3A54C0F2E815} as e; ioctl e 0x222000 in text:back out 10 expect text:back";

/// Runs `dirql run` on a client of KMDF, with this folder as the user's own.
fn run(sys: &Path, home: &Path, rest: &[&str]) -> Answer {
    let inf = driver("kmdf_echo.inf");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirql"));
    command.arg("run").arg(sys).arg("--inf").arg(inf).args(["--do", SCRIPT]).args(rest);
    Answer::of(command.env("HOME", home).env_remove("XDG_CONFIG_HOME").output().unwrap())
}

#[test]
fn a_client_without_a_framework_is_told_where_one_is_to_be_had() {
    let home = folder("no-framework");
    let answer = run(&driver("kmdf_echo.sys"), &home, &[]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    for part in [
        "kmdf_echo.sys: is a KMDF driver",
        "Wdf01000.sys, which dirql does not bring",
        "--framework",
        "~/.config/dirql",
        r"C:\Windows\System32\drivers\Wdf01000.sys",
        "docs/kmdf.md",
    ] {
        assert!(answer.err.contains(part), "{part}\n{}", answer.said());
    }
}

#[test]
fn a_framework_is_taken_as_it_is_given_from_beside_the_driver_and_from_the_users_folder() {
    let framework = driver("framework.sys");
    let home = folder("home");
    let given = run(&driver("kmdf_echo.sys"), &home, &["--framework", framework.to_str().unwrap()]);
    assert_eq!(given.code, Some(0), "{}", given.said());

    let beside = folder("beside");
    let sys = beside.join("kmdf_echo.sys");
    fs::copy(driver("kmdf_echo.sys"), &sys).unwrap();
    fs::copy(&framework, beside.join("WDF01000.SYS")).unwrap();
    let answer = run(&sys, &home, &[]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());

    let own = home.join(".config/dirql");
    fs::create_dir_all(&own).unwrap();
    fs::copy(&framework, own.join("Wdf01000.sys")).unwrap();
    let answer = run(&driver("kmdf_echo.sys"), &home, &[]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    assert!(answer.out.contains("EvtIoDeviceControl kmdf_echo!OnControl"), "{}", answer.said());
}

#[test]
fn what_is_given_as_a_framework_must_be_one() {
    let home = folder("wrong-framework");
    let other = driver("soft.sys");
    let answer = run(&driver("kmdf_echo.sys"), &home, &["--framework", other.to_str().unwrap()]);
    assert_eq!(answer.code, Some(2), "{}", answer.said());
    assert!(answer.err.contains("soft.sys: is no driver framework"), "{}", answer.said());
}

#[test]
fn an_inf_that_names_another_version_than_the_driver_binds_as_is_remarked() {
    let home = folder("versions");
    let inf = home.join("other.inf");
    let text = fs::read_to_string(driver("kmdf_echo.inf")).unwrap();
    assert!(text.contains("KmdfLibraryVersion = 1.15"), "{text}");
    fs::write(&inf, text.replace("KmdfLibraryVersion = 1.15", "KmdfLibraryVersion = 1.11")).unwrap();
    let framework = driver("framework.sys");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirql"));
    command.arg("run").arg(driver("kmdf_echo.sys")).arg("--inf").arg(&inf);
    let answer = Answer::of(command.arg("--framework").arg(&framework).output().unwrap());
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let note = "KmdfLibraryVersion = 1.11, and DirqlKmdfEcho is built for KMDF 1.15; write that version";
    assert!(answer.said().contains(note), "{}", answer.said());
    let right = run(&driver("kmdf_echo.sys"), &home, &["--framework", framework.to_str().unwrap()]);
    assert!(!right.said().contains("KmdfLibraryVersion"), "{}", right.said());
}

#[test]
fn a_record_of_a_client_is_replayed_with_its_framework() {
    let home = folder("record");
    let (record, framework) = (home.join("run.dirql"), driver("framework.sys"));
    let rest = ["--framework", framework.to_str().unwrap(), "--record", record.to_str().unwrap()];
    let answer = run(&driver("kmdf_echo.sys"), &home, &[&rest[..], &["--policy", "random:3"]].concat());
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let replayed = rig::dirql(["replay", record.to_str().unwrap()]);
    assert_eq!(replayed.code, Some(0), "{}", replayed.said());
}
