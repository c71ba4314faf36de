//! Drivers that filter the registry, handles of processes and threads, and processes, as a compiled driver does it (`drivers/c/filters.c`).

use dirql::{Bench, Error, Machine};

use super::rig::{self, driver, start};

/// One story of the driver's table, with so many checks at least.
fn tell(story: &str, checks: u32) {
    let machine = start(|| Bench::new().driver(driver("filters.sys")));
    rig::tell(machine, r"\\.\DirqlFilters", story, checks, "");
}

#[test]
fn a_filter_of_the_registry_is_told_before_and_after_from_the_highest_altitude_down_and_back() {
    tell("TheRegistryIsWatched", 30);
}

#[test]
fn a_filter_of_the_registry_blocks_a_call_carries_it_out_itself_or_changes_what_comes_of_it() {
    tell("TheRegistryIsChanged", 17);
}

#[test]
fn a_filter_of_the_registry_associates_contexts_with_keys_and_knows_their_names() {
    tell("KeysAreKnown", 22);
}

#[test]
fn a_filter_of_handles_takes_rights_away_when_they_are_made_or_passed_on() {
    tell("HandlesAreFiltered", 25);
}

#[test]
fn a_filter_of_handles_is_refused_to_an_image_whose_signature_is_not_checked() {
    let machine = start(|| Bench::new().driver(driver("filters_unchecked.sys")));
    rig::tell(machine, r"\\.\DirqlFilters", "FiltersAreRefused", 1, "an image without /INTEGRITYCHECK");
}

#[test]
fn a_driver_that_unloads_while_it_filters_is_still_called() {
    for (story, who) in
        [("StillFilters", "ObRegisterCallbacks"), ("StillFiltersTheRegistry", "RegistryCallback")]
    {
        let machine = start(|| Bench::new().driver(driver("filters.sys")));
        let _ = rig::try_play(
            &machine,
            &format!(r"open \\.\DirqlFilters as f; {}; close f", rig::command("f", story)),
        );
        let report = machine.finish();
        let verdict = report.expect_verdict();
        assert_eq!(verdict.rule, "unload-still-called", "{report}");
        assert!(verdict.message.contains(who), "{report}");
    }
}

#[test]
fn a_driver_has_keys_for_its_parameters_and_for_what_it_notes_itself() {
    tell("OwnKeys", 11);
}

/// A story of the table on a machine that goes on.
fn say(machine: &Machine, story: &str) {
    let checks = rig::checks_made(machine, r"\\.\DirqlFilters", story, &[]);
    assert!(checks.is_ok(), "{checks:?}: {:?}", machine.prints());
}

#[test]
fn a_driver_is_told_how_a_process_is_created_and_prevents_it() {
    let folder = rig::folder("programs");
    std::fs::create_dir_all(folder.join("Tools")).unwrap();
    std::fs::write(folder.join("Tools").join("scan.exe"), b"MZ").unwrap();
    let machine = start(|| Bench::new().driver(driver("filters.sys")).files(&folder));
    say(&machine, "ProcessesAreWatched");
    let good = machine.begin_process(r"C:\Tools\scan.exe").unwrap();
    let other = machine.begin_process_with("other.exe", "other.exe /all").unwrap();
    let evil = machine.begin_process("EVIL.exe");
    assert!(matches!(evil, Err(Error::Status { status: 0xC000_0022, .. })), "{evil:?}");
    say(&machine, "ProcessesWereTold");
    let unwatched = machine.begin_process("evil.exe").unwrap();
    for process in [good, other, unwatched] {
        machine.end_process(process);
    }
    let prints = machine.prints();
    let lines: Vec<&str> = prints.iter().filter_map(|line| line.trim().strip_prefix("filters: ")).collect();
    let expected = [
        r"\??\C:\Tools\scan.exe as C:\Tools\scan.exe, open",
        r"\??\C:\other.exe as other.exe /all, not open",
        r"\??\C:\EVIL.exe as EVIL.exe, not open",
    ];
    assert_eq!(lines, expected);
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

#[test]
fn who_prevents_processes_is_refused_to_an_image_whose_signature_is_not_checked() {
    let machine = start(|| Bench::new().driver(driver("filters_unchecked.sys")));
    rig::tell(machine, r"\\.\DirqlFilters", "ProcessesAreNotTold", 2, "an image without /INTEGRITYCHECK");
}

#[test]
fn a_driver_is_told_of_applications_threads_on_themselves() {
    let machine = start(|| Bench::new().driver(driver("filters.sys")));
    say(&machine, "ThreadsAreWatched");
    rig::play(&machine, "thread a { wait 1us }; join a");
    say(&machine, "ThreadsWereTold");
    machine.finish().expect_clean();
}

#[test]
fn a_driver_gets_to_know_of_images_values_and_handles_of_applications() {
    let machine = start(|| Bench::new().driver(driver("filters.sys")));
    say(&machine, "ApplicationsAreWatched");
    let script = r#"
        process child
        child: load-image "D:\Tools\plug in.dll"
        child: create-key "\Registry\Machine\Software\Example" as key
        child: set-value key Rate dword u32:250
        child: query-value key Rate 4 expect u32:250
        child: query-value key Rate 3 expect STATUS_BUFFER_OVERFLOW
        child: delete-value key Rate
        child: query-value key Rate 4 expect STATUS_OBJECT_NAME_NOT_FOUND
        child: delete-key key
        child: close key
        join child
        open-process child as few access 0x1000
        duplicate few as copy
        close few; close copy
        exit child
    "#;
    rig::play(&machine, script);
    say(&machine, "ApplicationsAreLeftAlone");
    rig::play(&machine, "process other; exit other");
    let prints = machine.prints();
    let lines: Vec<&str> = prints.iter().filter_map(|line| line.trim().strip_prefix("filters: ")).collect();
    let expected = [
        r"image \Device\HarddiskVolume1\child.exe, its own, MZ",
        r"image \Device\HarddiskVolume1\Windows\System32\ntdll.dll, its own, MZ",
        r"image \Device\HarddiskVolume1\Tools\plug in.dll, its own, MZ",
        "user sets Rate to 4 bytes of type 4 in the system's memory",
        "user asks for Rate in an application's memory",
        "user asks for Rate in an application's memory",
        "user asks for Rate in an application's memory",
        "a handle is made with access 0x1000",
        "a handle is duplicated with access 0x1000",
    ];
    assert_eq!(lines, expected);
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
}

#[test]
fn a_driver_that_unloads_while_it_is_told_of_processes_is_still_called() {
    let machine = start(|| Bench::new().driver(driver("filters.sys")));
    say(&machine, "ProcessesAreWatched");
    let report = machine.finish();
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "unload-still-called", "{report}");
    assert!(verdict.message.contains("CreateProcessNotifyRoutine"), "{report}");
}
