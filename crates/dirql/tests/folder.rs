//! Files on a disk, as a compiled driver uses them (`drivers/c/folder.c`): drive `C:` is a folder of the host's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use dirql::explore::Bounds;
use dirql::record::{Record, Recording};
use dirql::{Bench, Error, Item, Outcome, Report, ScriptText};

use super::rig::{self, driver, start};

const DEVICE: &str = r"\\.\DirqlFolder";

/// What the driver's stories begin with.
fn disk(name: &str) -> PathBuf {
    let folder = rig::folder(name);
    for directory in ["Windows/System32/drivers", "data/sub"] {
        fs::create_dir_all(folder.join(directory)).unwrap();
    }
    let firmware: Vec<u8> = (0..300_u32).map(|index| (index * 7).to_le_bytes()[0]).collect();
    let files: [(&str, &[u8]); 5] = [
        ("Windows/System32/drivers/fw.bin", &firmware),
        ("config.txt", b"speed=9600\n"),
        ("data/alpha.log", b"alpha"),
        ("data/Beta.TXT", b"beta!"),
        ("data/gamma.sys", b""),
    ];
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    folder
}

fn bench(folder: &Path) -> Bench {
    Bench::new().driver(driver("folder.sys")).files(folder)
}

/// Has the driver tell a story of at least so many checks, all of which hold.
#[track_caller]
fn tell(story: &str, checks: u32) {
    let folder = disk("story");
    let report = rig::tell(start(|| bench(&folder)), DEVICE, story, checks, "");
    assert!(report.findings.is_empty(), "{report}");
    assert_eq!(fs::read(folder.join("config.txt")).unwrap(), b"speed=9600\n", "the folder stays as it is");
}

/// How a story ends that does not.
fn stopped(story: &str) -> Report {
    let folder = disk("stopped");
    let machine = start(|| bench(&folder));
    let _ = rig::try_play(&machine, &format!(r"open {DEVICE} as f; {}", rig::command("f", story)));
    machine.finish()
}

#[test]
fn firmware_is_read_to_its_end_and_not_beyond() {
    tell("LoadsFirmware", 20);
}

#[test]
fn a_log_grows_at_its_end_whatever_its_offset_says() {
    tell("KeepsALog", 16);
}

#[test]
fn a_file_without_a_position_is_read_at_an_offset_and_its_event_is_set() {
    tell("WithoutPosition", 12);
}

#[test]
fn a_driver_sends_a_request_of_its_own_to_the_volume() {
    tell("ItsOwnRequest", 6);
}

#[test]
fn each_disposition_does_what_it_says_and_tells_what_it_did() {
    tell("Dispositions", 20);
}

#[test]
fn no_name_leads_out_of_the_drive() {
    tell("WrongNames", 24);
}

#[test]
fn a_name_counts_from_an_open_directory() {
    tell("Relative", 10);
}

#[test]
fn a_file_is_opened_by_its_number_while_it_is_there() {
    tell("ByItsId", 13);
}

#[test]
fn a_handle_keeps_off_those_that_do_not_share() {
    tell("Sharing", 9);
}

#[test]
fn a_directory_is_walked_in_the_order_of_names() {
    tell("Walks", 38);
}

#[test]
fn a_pattern_is_that_of_the_first_call() {
    tell("Patterns", 11);
}

#[test]
fn what_does_not_fit_into_a_listing_comes_next_time() {
    tell("NarrowBuffers", 9);
}

#[test]
fn what_is_known_of_a_file_is_told_and_changed() {
    tell("Facts", 27);
}

#[test]
fn a_file_ends_where_it_is_said_to() {
    tell("Ends", 11);
}

#[test]
fn a_deleted_file_goes_with_its_last_handle() {
    tell("Deletes", 11);
}

#[test]
fn a_renamed_file_is_the_same_one() {
    tell("Renames", 13);
}

#[test]
fn a_disk_that_is_full_says_so_and_loses_nothing() {
    tell("FillsTheDisk", 8);
}

#[test]
fn the_volume_tells_its_size_and_kind() {
    tell("TheVolume", 18);
}

#[test]
fn a_file_is_asked_about_and_deleted_by_its_name_alone() {
    tell("ByNameAlone", 8);
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    tell("OptionsThatDoNotGoTogether", 7);
}

#[test]
fn a_directory_is_deleted_when_it_is_empty() {
    tell("DeletesDirectory", 6);
}

#[test]
fn an_nt_routine_takes_what_its_threads_previous_mode_may_point_to() {
    tell("InItsCallersMode", 12);
}

#[test]
fn a_file_system_is_asked_by_its_control_codes() {
    tell("ControlsFileSystems", 7);
}

/// A driver may look for a file that need not be there: the driver is not blamed, and the option is named.
#[test]
fn without_a_folder_nothing_is_there_and_the_option_is_named() {
    let machine = start(|| Bench::new().driver(driver("folder.sys")));
    assert_eq!(machine.files(), None);
    let report = rig::tell(machine, DEVICE, "WithoutADisk", 2, "no folder");
    let rules: Vec<&str> = report.findings.iter().map(|finding| finding.rule).collect();
    assert_eq!((report.outcome(), rules), (Outcome::Clean, vec!["no-disk"; 2]), "{report}");
    assert!(report.findings[0].message.contains("--files"), "{report}");
}

#[test]
fn what_dirql_has_not_of_a_file_system_says_its_name() {
    let what = [
        ("AsksForStream", "a named stream of a file"),
        ("AsksForVolumesBytes", "reading a volume that was opened as a whole"),
        ("AsksForClass", "ZwQueryInformationFile of a file with class 22"),
    ];
    for (story, what) in what {
        let report = stopped(story);
        let verdict = report.verdict.as_ref().unwrap();
        assert!(verdict.not_implemented && verdict.message.contains(what), "{report}");
    }
}

#[test]
fn the_machine_works_on_a_copy_that_can_be_looked_at() {
    let folder = disk("copy");
    let machine = start(|| bench(&folder));
    rig::play(&machine, &format!(r"open {DEVICE} as f; {0}; {0}", rig::command("f", "Adds")));
    let files = machine.files().unwrap();
    assert_eq!(files.items["counter"], Item::File(b"++".to_vec()));
    assert_eq!(files.items["data\\sub"], Item::Directory);
    assert!(!folder.join("counter").exists());
    machine.finish().expect_clean();
}

#[test]
fn each_boot_begins_with_the_folder_as_it_was() {
    let folder = disk("boots");
    let mut boots = rig::boots(bench(&folder));
    let mut hashes = Vec::new();
    for _ in 0..2 {
        let act = |machine: &dirql::Machine| {
            rig::play(machine, &format!(r"open {DEVICE} as f; {}", rig::command("f", "Adds")));
            machine.files().unwrap().items["counter"].clone()
        };
        let (counter, report) = boots.boot(Box::new(engine::Defaults), act).unwrap();
        report.expect_clean();
        assert_eq!(counter, Item::File(b"+".to_vec()));
        hashes.push((report.trace_hash, report.memory_hash));
    }
    assert_eq!(hashes[0], hashes[1]);
}

/// Two threads want to make one file: one does, in every schedule, and no schedule sees what another has written.
#[test]
fn each_schedule_of_a_search_begins_with_the_folder_as_it_was() {
    let folder = disk("search");
    let held = "expect hex:00_00_00_00_??_??_??_??";
    let script = format!(
        r"open {DEVICE} as a
        open {DEVICE} as b
        t: {} {held}
        {} {held}
        join t
        {} {held}",
        rig::command("a", "MakesOnce"),
        rig::command("b", "MakesOnce"),
        rig::command("a", "WasMadeOnce")
    );
    let play = ScriptText::typed(&script).play().unwrap();
    let bounds = Bounds { preemptions: 1, ..Bounds::default() };
    let broken = |report: &Report| report.outcome() != Outcome::Clean;
    let searched = bench(&folder).processors(2).search(&play, &bounds, broken).unwrap();
    assert!(searched.complete, "{} schedules", searched.total());
    assert!(searched.found.is_none(), "{}", searched.found.unwrap().1);
    assert!(searched.total() > 20, "{} schedules", searched.total());
    assert!(!folder.join("once").exists());
}

/// What a search finds of one story, with so many departures.
fn searched(story: &str, faults: bool) -> Option<Report> {
    let folder = disk("choices");
    let script =
        format!(r"open {DEVICE} as a; {} expect hex:00_00_00_00_??_??_??_??", rig::command("a", story));
    let play = ScriptText::typed(&script).play().unwrap();
    let bounds = Bounds { preemptions: 1, faults, ..Bounds::default() };
    let broken = |report: &Report| report.outcome() != Outcome::Clean;
    let searched = bench(&folder).search(&play, &bounds, broken).unwrap();
    assert!(searched.complete || searched.found.is_some());
    searched.found.map(|(_, report)| report)
}

#[test]
fn an_asynchronous_read_may_be_pending_and_who_goes_on_at_once_is_found() {
    tell("WaitsForTheEnd", 3);
    tell("GoesOnAtOnce", 3);
    assert!(searched("WaitsForTheEnd", false).is_none());
    let report = searched("GoesOnAtOnce", false).expect("the read is pending in a schedule");
    assert!(report.failure.is_some() || report.verdict.is_some(), "{report}");
}

#[test]
fn a_disk_may_be_full_in_a_search_for_faults() {
    assert!(searched("Adds", false).is_none());
    let report = searched("Adds", true).expect("a write fails in a schedule");
    assert!(report.failure.is_some(), "{report}");
}

#[test]
fn a_record_knows_what_was_in_the_folder() {
    let folder = disk("record");
    let script = ScriptText::typed(&format!(r"open {DEVICE} as f; {}", rig::command("f", "LoadsFirmware")));
    let buffer = rig::Buffer::default();
    let policy = Box::new(engine::Defaults);
    let (made, recording) =
        Recording::start(bench(&folder), policy, "default", Some(&script), buffer.clone()).unwrap();
    let report = made.run(Some(script.play().unwrap())).unwrap();
    recording.finish(&report).unwrap();
    report.expect_clean();
    let record = Record::parse("run.dirql", &buffer.text()).unwrap();
    let (again, play, comparison) = record.bench(None, None, None).unwrap();
    assert_eq!(comparison.difference(&again.run(play).unwrap()), None);

    let moved = disk("moved");
    assert!(record.bench(None, None, Some(&moved)).is_ok(), "what is in it counts, not where it is");
    fs::write(moved.join("data/new"), b"").unwrap();
    let why = record.bench(None, None, Some(&moved)).map(drop).unwrap_err().to_string();
    assert!(why.contains("has changed since run.dirql was recorded"), "{why}");
    let why = record.bench(None, None, Some(&moved.join("nowhere"))).map(drop).unwrap_err().to_string();
    assert!(why.contains("is not there, and run.dirql was recorded with it as drive C:"), "{why}");
}

/// An application's own files on the drive.
#[test]
fn an_application_opens_files_of_the_drive_too() {
    let folder = disk("application");
    let machine = start(|| bench(&folder));
    let file = machine.open(r"\\.\C:\config.txt").unwrap();
    assert_eq!(file.read(5).unwrap(), b"speed");
    assert_eq!(file.read(100).unwrap(), b"=9600\n");
    file.write(b"parity=none\n").unwrap();
    file.close().unwrap();
    assert!(matches!(machine.open(r"\\.\C:\..\x"), Err(Error::Status { status: 0xC000_0033, .. })));
    let files = machine.files().unwrap();
    assert_eq!(files.items["config.txt"], Item::File(b"speed=9600\nparity=none\n".to_vec()));
    machine.finish().expect_clean();
}

/// Why a folder is refused.
#[track_caller]
fn refused(folder: &Path) -> String {
    match bench(folder).start() {
        Err(Error::Input(error)) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the folder was taken"),
    }
}

#[test]
fn a_folder_that_cannot_be_a_drive_is_refused_by_name() {
    let folder = disk("refused");
    assert!(
        refused(&folder.join("nowhere"))
            .ends_with("nowhere: there is no such folder; give one with --files, which is drive C:")
    );
    assert!(
        refused(&folder.join("config.txt"))
            .ends_with("config.txt: is no folder; give one with --files, which is drive C:")
    );

    symlink("/etc/passwd", folder.join("data/link")).unwrap();
    assert!(refused(&folder).contains("data/link: is a symbolic link"));
    fs::remove_file(folder.join("data/link")).unwrap();
    symlink("/etc", folder.join("data/link")).unwrap();
    assert!(refused(&folder).contains("data/link: is a symbolic link"));
    fs::remove_file(folder.join("data/link")).unwrap();

    rustix::fs::mknodat(rustix::fs::CWD, folder.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    assert!(refused(&folder).contains("fifo: is neither a file nor a folder"));
    fs::remove_file(folder.join("fifo")).unwrap();

    fs::write(folder.join("CONFIG.TXT"), b"").unwrap();
    assert!(refused(&folder).contains("differs from CONFIG.TXT only in case"));
    fs::remove_file(folder.join("CONFIG.TXT")).unwrap();

    let bytes: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"caf\xe9");
    for name in [bytes, "a:b".as_ref(), "what?".as_ref(), "back\\slash".as_ref()] {
        fs::write(folder.join(name), b"").unwrap();
        assert!(refused(&folder).contains("a name that no file of Windows can have"), "{name:?}");
        fs::remove_file(folder.join(name)).unwrap();
    }

    let large = fs::File::create(folder.join("data/large.bin")).unwrap();
    large.set_len(65 << 20).unwrap();
    assert!(refused(&folder).contains("data/large.bin: with it the folder has over 64 MiB"));
    large.set_len(1 << 50).ok();
    assert!(refused(&folder).contains("data/large.bin: with it the folder has over 64 MiB"));
    fs::remove_file(folder.join("data/large.bin")).unwrap();
    bench(&folder).start().unwrap().finish().expect_clean();
}

#[test]
fn a_range_that_another_has_locked_is_neither_read_nor_written() {
    tell("Locks", 20);
}

#[test]
fn who_waits_for_a_range_gets_it_in_its_turn_or_is_cancelled() {
    tell("WaitsForLocks", 15);
}

#[test]
fn who_waits_for_its_own_range_is_told_to_wait_for_ever() {
    let verdict = stopped("WaitsForItsOwnLock").verdict.unwrap();
    let waits = "the thread main waits for the end of IRP_MJ_LOCK_CONTROL";
    assert!(verdict.rule == "irp-never-completed" && verdict.message.contains(waits), "{verdict:?}");
}

#[test]
fn a_driver_and_a_device_have_directories_of_their_own() {
    tell("DirectoriesOfItsOwn", 20);
}

#[test]
fn a_driver_is_told_how_much_is_flushed() {
    tell("Flushes", 9);
}

#[test]
fn the_volumes_label_is_set_by_who_has_opened_the_volume() {
    tell("Labels", 10);
}
