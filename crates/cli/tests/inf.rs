//! `dirql inf`: what is wrong with a file, what it installs, exit codes, JSON.

use std::fs;

use super::rig::{dirql, folder, root};

fn own(name: &str) -> String {
    root().join("drivers").join(name).canonicalize().unwrap().display().to_string()
}

#[test]
fn a_right_file_is_told_what_it_installs() {
    let file = own("pci9052/pci9052.inf");
    let answer = dirql(["inf", &file]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    for line in [
        r"PCI\VEN_10B5&DEV_9050",
        "PLX PCI 9050/9052 card, of dirql; class Pci9052; [Pci9052.Install.NT], rank 00FF0000",
        r"pci9052: \SystemRoot\System32\DriverStore\FileRepository\pci9052.sys, started on demand",
        r"Parameters\StopTimeout = 0x3e8",
        "hardware key  UsePorts = 0x0",
        "pci9052.inf: 0 errors, ",
    ] {
        assert!(answer.out.contains(line), "no `{line}`\n{}", answer.said());
    }
}

#[test]
fn a_mistake_is_an_error_with_its_place_and_remedy() {
    let text = fs::read_to_string(own("pci9052/pci9052.inf")).unwrap();
    let file = folder("inf").join("wrong.inf");
    fs::write(
        &file,
        text.replace("CatalogFile = pci9052.cat\n", "").replace("%ServiceName%", "%ServisName%"),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let answer = dirql(["inf", file]);
    assert_eq!(answer.code, Some(1), "{}", answer.said());
    let version = format!(
        "{file}:3:1: error: [Version] has no CatalogFile, without which the package cannot be signed; write CatalogFile = name.cat (InfVerif 1233)"
    );
    let token = "error: the token %ServisName% is not defined in [Strings]; did you mean %ServiceName%? (InfVerif 1235)";
    assert!(answer.out.contains(&version) && answer.out.contains(token), "{}", answer.said());
    assert!(answer.out.contains("wrong.inf: 2 errors, "), "{}", answer.said());
}

#[test]
fn json_has_findings_and_devices() {
    let answer = dirql(["inf", &own("bench/bench_rust.inf"), "--device", "1234:be2c", "--json"]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    let json: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    let device = &json["devices"][0];
    assert_eq!(device["ids"][0], r"PCI\VEN_1234&DEV_BE2C");
    assert_eq!(device["driver"]["name"], "bench_rust");
    let keys = device["hardware_key"].as_array().unwrap();
    let limit = r"Interrupt Management\MessageSignaledInterruptProperties\MessageNumberLimit = 0x8";
    assert!(keys.iter().any(|key| key == limit), "{}", answer.said());
}

#[test]
fn a_driver_without_a_device_is_told_what_it_installs_and_undoes() {
    let text = fs::read_to_string(root().join("crates/dirql/tests/infs/minifilter.inf")).unwrap();
    let file = folder("inf").join("minifilter.inf");
    let legacy = "[DefaultUninstall.NTamd64]\nLegacyUninstall = 1\nDelReg = Gone\n[DefaultUninstall.NTamd64.Services]\nDelService = watcher, 0x200\n\
                  [Gone]\nHKLM,Software\\Watchers\n[Strings]\n";
    fs::write(&file, text.replace("[Strings]\n", legacy)).unwrap();
    let answer = dirql(["inf", file.to_str().unwrap()]);
    assert_eq!(answer.code, Some(0), "{}", answer.said());
    for line in [
        "[DefaultInstall.NTamd64], without a device",
        r"driver        watcher: \SystemRoot\System32\DriverStore\FileRepository\watcher.sys, started on demand",
        r#"Parameters\Instances\Watcher Instance\Altitude = "370095""#,
        "undone        by [DefaultUninstall.NTamd64], before Windows 10 version 1903",
        "the service watcher is deleted",
        r"HKLM\Software\Watchers\ is deleted",
    ] {
        assert!(answer.out.contains(line), "no `{line}`\n{}", answer.said());
    }
    fs::write(&file, text.replace("[Strings]\n", &legacy.replace("LegacyUninstall = 1\n", ""))).unwrap();
    let answer = dirql(["inf", file.to_str().unwrap()]);
    assert!(
        answer.out.contains("warning: Windows 10 version 1903 and later undo by themselves"),
        "{}",
        answer.said()
    );
}

#[test]
fn properties_and_levels_of_filters_are_told() {
    let text = fs::read_to_string(own("c/installed.inf")).unwrap();
    let file = folder("inf").join("installed.inf");
    let more = "[Installed.NT.HW]\nAddReg = Levels\n[Levels]\nHKR,,UpperFilterLevels,0x00010000,\"Near\",\"Far\"\nHKR,,UpperFilterDefaultLevel,,\"Near\"\n\
                [Installed.NT.Filters]\nAddFilter = distant,,At\nAddFilter = lost,,Lost\n[At]\nFilterLevel = Far\n[Lost]\nFilterLevel = Gone\n[Strings]\n";
    fs::write(&file, text.replace("[Strings]\n", more)).unwrap();
    let answer = dirql(["inf", file.to_str().unwrap()]);
    for line in [
        "property      DeviceModel = \"Model 9\"",
        "property      {C22189E4-8BF3-4E6D-8467-8DC6D95E2A7E}, 4 = 01 02 FF",
        "property {026E516E-B814-414B-83CD-856D6FEF4822}, 2 = \"A friendly interface\"",
        "filter above  distant",
        "filter levels above: Near, Far; Near by default",
        "FilterLevel = Gone: no such level is defined for the device; lost is not loaded",
    ] {
        assert!(answer.out.contains(line), "no `{line}`\n{}", answer.said());
    }
}

#[test]
fn what_cannot_be_used_is_one_message() {
    let file = own("bench/bench_rust.inf");
    for (arguments, says) in [
        (vec!["inf", "not-there.inf"], "cannot read not-there.inf"),
        (vec!["inf", &file, "--device", "10b5"], "`10b5` is not VVVV:DDDD"),
        (
            vec!["inf", &file, "--device", "10b5:9050"],
            r"no model for the device 10b5:9050; its ids are: PCI\VEN_1234&DEV_BE2C",
        ),
        (vec!["inf", &file, "--windows", "12"], "no Windows version `12`"),
    ] {
        let answer = dirql(&arguments);
        assert_eq!((answer.code, answer.out.as_str()), (Some(2), ""), "{arguments:?}\n{}", answer.said());
        assert!(answer.err.contains(says), "{arguments:?}\n{}", answer.said());
    }
}
