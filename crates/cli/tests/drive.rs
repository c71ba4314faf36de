//! `--files`: a folder that is drive C:, in the jailed process that cannot open it any more; and what is written of it at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::rig::{Answer, dirql, driver, folder};

/// Adds a byte to a file of the drive, twice: stories of `drivers/c/folder.c`.
const ADDS: &str =
    r"open \\.\DirqlFolder as f; ioctl f 0x223ff8 in text:Adds out 8; ioctl f 0x223ff8 in text:Adds out 8";

fn disk(test: &str) -> PathBuf {
    let disk = folder(test).join("disk");
    fs::create_dir_all(disk.join("data")).unwrap();
    fs::write(disk.join("data/config.txt"), b"speed=9600\n").unwrap();
    disk
}

fn run(disk: &Path, more: &[&str]) -> Answer {
    let sys = driver("folder.sys");
    let fixed = ["run", sys.to_str().unwrap(), "--files", disk.to_str().unwrap(), "--do", ADDS];
    dirql(fixed.iter().chain(more))
}

#[test]
fn what_is_on_the_drive_at_the_end_is_an_archive_and_the_folder_stays_as_it_is() {
    let disk = disk("archive");
    let archive = disk.with_file_name("end.tar");
    let answer = run(&disk, &["--files-save", archive.to_str().unwrap()]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    assert!(!disk.join("counter").exists());
    let unpacked = disk.with_file_name("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let tar = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&unpacked).status().unwrap();
    assert!(tar.success());
    assert_eq!(fs::read(unpacked.join("counter")).unwrap(), b"++");
    assert_eq!(fs::read(unpacked.join("data/config.txt")).unwrap(), b"speed=9600\n");
}

#[test]
fn the_same_folder_makes_the_same_run() {
    let disk = disk("same");
    let (one, other) = (run(&disk, &["--json"]), run(&disk, &["--json"]));
    assert_eq!((one.code, &one.out), (Some(0), &other.out), "{}", one.said());
}

#[test]
fn a_search_has_the_folder_in_each_of_its_processes() {
    let disk = disk("search");
    let sys = driver("folder.sys");
    let fixed = ["explore", sys.to_str().unwrap(), "--files", disk.to_str().unwrap()];
    let answer = dirql(fixed.iter().chain(&["--do", ADDS, "--preemptions", "1", "--workers", "2"]));
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    assert!(!disk.join("counter").exists());
}

#[test]
fn a_record_is_replayed_with_the_folder_that_it_was_made_with() {
    let disk = disk("record");
    let record = disk.with_file_name("run.dirql");
    let answer = run(&disk, &["--record", record.to_str().unwrap()]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let again = dirql(["replay", record.to_str().unwrap()]);
    let said = again.said();
    assert!(again.code == Some(0) && said.contains("replay: the same run, "), "{said}");

    let moved = disk.with_file_name("moved");
    fs::rename(&disk, &moved).unwrap();
    let gone = dirql(["replay", record.to_str().unwrap()]);
    assert!(gone.code == Some(2) && gone.err.contains("say where it is with --files"), "{}", gone.said());
    let replay = ["replay", record.to_str().unwrap(), "--files", moved.to_str().unwrap()];
    assert_eq!(dirql(replay).code, Some(0));
    fs::write(moved.join("counter"), b"+").unwrap();
    let changed = dirql(replay);
    assert!(changed.code == Some(2) && changed.err.contains("has changed since"), "{}", changed.said());
}

#[test]
fn a_folder_that_cannot_be_used_is_told_in_one_line() {
    let disk = disk("refused");
    let one_line = |answer: Answer, what: &str| {
        let lines = answer.err.lines().count();
        assert!(answer.code == Some(2) && lines == 1 && answer.err.contains(what), "{}", answer.said());
    };
    one_line(run(&disk.join("nowhere"), &[]), "there is no such folder");
    one_line(run(&disk.join("data/config.txt"), &[]), "is no folder");
    // A run that reads the folder writes nothing into it.
    let inside = disk.join("end.tar");
    let inside = inside.to_str().unwrap();
    one_line(run(&disk, &["--files-save", inside]), "lies in");
    one_line(run(&disk, &["--record", inside]), "lies in");
    std::os::unix::fs::symlink("/etc", disk.join("data/out")).unwrap();
    one_line(run(&disk, &[]), "data/out: is a symbolic link");
    assert!(!Path::new(inside).exists());

    let sys = driver("folder.sys");
    let alone = dirql(["run", sys.to_str().unwrap(), "--files-save", inside]);
    assert!(alone.code == Some(2) && alone.err.contains("--files <DIR>"), "{}", alone.said());
}
