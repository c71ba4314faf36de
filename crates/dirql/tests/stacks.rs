//! Stacks of several `.sys` files, by INF: who is loaded and added in which order, which way requests take, and what is reported if a layer
//! is missing or refuses. Each layer is a copy of `drivers/c/layer.c`, whose letter is the last of its service's name.

use std::fs;
use std::path::{Path, PathBuf};

use dirql::explore::Policy;
use dirql::{Bench, Machine, Report};
use kernel::nt::WindowsVersion;

use super::rig::{self, driver, folder, play};

/// A function driver F with lower filters A and B, upper filters X and Y, and the class's filters C below and Z above.
const INF: &str = r#"
[Version]
Signature = "$Windows NT$"
Class     = Layers
ClassGuid = {78A1C341-4539-11D3-B88D-00C04FAD5172}
Provider  = "dirql"
DriverVer = 01/01/2025,1.0.0.0

[ClassInstall32]
AddReg = Class.Keys
[Class.Keys]
HKR,,,,"Layers"
HKR,,LowerFilters,0x00010008,"LayerC"
HKR,,UpperFilters,0x00010008,"LayerZ"

[Manufacturer]
"dirql" = Models,NTamd64
[Models.NTamd64]
"A card in layers" = Layers, PCI\VEN_10B5&DEV_9050

[Layers]
[Layers.HW]
AddReg = Layers.Keys
[Layers.Keys]
HKR,,LowerFilters,0x00010000,"LayerA","LayerB"
HKR,,UpperFilters,0x00010000,"LayerX"
[Layers.Filters]
AddFilter = LayerY,,Above
[Above]
FilterPosition = Upper

[Layers.Services]
AddService = LayerF, 0x00000002, Function
AddService = LayerA, , FilterA
[Function]
ServiceType   = 1
StartType     = 3
ErrorControl  = 1
ServiceBinary = %12%\function.sys
AddReg        = Function.Parameters
[Function.Parameters]
HKR,Parameters,Function,0x00010001,1
[FilterA]
ServiceType   = 1
StartType     = 3
ErrorControl  = 1
ServiceBinary = %12%\first.sys
AddReg        = FilterA.Parameters
[FilterA.Parameters]
HKR,Parameters,Refuse,0x00010001,0
"#;

/// The layers' files in a folder: one that the INF names, the others by the names of their services; and the INF.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn new(inf: &str) -> Self {
        let folder = folder("layers");
        let layer = driver("layer.sys");
        for name in ["function", "first", "LayerB", "LayerC", "LayerX", "LayerY", "LayerZ"] {
            fs::copy(&layer, folder.join(format!("{name}.sys"))).unwrap();
        }
        fs::write(folder.join("layers.inf"), inf).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.folder).join(name)
    }

    fn bench(&self, filters: &[&str]) -> Bench {
        let bench =
            Bench::new().driver(self.path("function.sys")).inf(self.path("layers.inf")).device("pci9052");
        filters.iter().fold(bench, |bench, name| bench.with(self.path(&format!("{name}.sys"))))
    }
}

/// All of them, in no order.
const ALL: &[&str] = &["LayerZ", "LayerB", "first", "LayerX", "LayerC", "LayerY"];

/// The way of a request, as the layers wrote it down.
fn way(machine: &Machine, expected: &str) {
    let rest = 32 - expected.len();
    play(
        machine,
        &format!(
            r"open \\.\DirqlLayer as f
            ioctl f 0x222000 in zero:32 out 32 expect text:{expected} + zero:{rest}
            close f"
        ),
    );
}

/// The letters of the lines that end so, in their order.
fn letters(report: &Report, end: &str) -> String {
    report.prints.iter().filter_map(|line| line.trim_end().strip_suffix(end)?.chars().next_back()).collect()
}

/// Holds: irps/add-from-below
#[test]
fn the_layers_of_an_inf_are_added_from_the_bottom_and_requests_go_down_and_up_through_all() {
    for checked in [false, true] {
        let files = Files::new(INF);
        let machine = files.bench(ALL).checked(checked).start().unwrap();
        way(&machine, "ZYXFCBAabcfxyz");
        let report = rig::finish(machine);
        for (what, order) in [
            (" is loaded", "ABCFXYZ"),
            (" is added", "ABCFXYZ"),
            // Each waits for the one below, twice: dirql stops and starts the device at the end.
            (" is started", "ABCFXYZABCFXYZ"),
            (" is removed", "ABCFXYZ"),
            (" is unloaded", "FZYXCBA"),
        ] {
            assert_eq!(letters(&report, what), order, "{what}\n{}", report.prints.join("\n"));
        }
    }
}

/// The base INF of [`INF`] with levels: class filters stay outside.
fn with_levels() -> String {
    let levels = "HKR,,UpperFilterLevels,0x00010000,\"Near\",\"Middle\",\"Far\"\nHKR,,UpperFilterDefaultLevel,,\"Middle\"\n\
                  HKR,,LowerFilterLevels,0x00010000,\"Deep\",\"Shallow\"\nHKR,,LowerFilterDefaultLevel,,\"Shallow\"\n";
    INF.replace("[Layers.Keys]\n", &format!("[Layers.Keys]\n{levels}"))
        .replace(
            "HKR,,LowerFilters,0x00010000,\"LayerA\",\"LayerB\"\n",
            "HKR,,LowerFilters,0x00010000,\"LayerA\"\n",
        )
        .replace(
            "AddFilter = LayerY,,Above\n[Above]\nFilterPosition = Upper\n",
            "AddFilter = LayerY,,Near\n[Near]\nFilterLevel = Near\n",
        )
}

/// Adds filters to the card of [`INF`]; those whose level the base INF does not define are left out.
const EXTENSION: &str = r#"
[Version]
Signature   = "$Windows NT$"
Class       = Extension
ClassGuid   = {e2f84ce7-8efa-411c-aa69-97454ca4cb57}
ExtensionId = {97cd5eb3-8c9b-41b0-9b5e-0f8c3f1b7a10}
Provider    = "dirql"
DriverVer   = 01/01/2025,1.0.0.0
[Manufacturer]
"dirql" = Models,NTamd64
[Models.NTamd64]
"More layers" = More, PCI\VEN_10B5&DEV_9050
[More]
[More.Services]
AddService = LayerB, , FilterB
[FilterB]
ServiceType   = 1
StartType     = 3
ErrorControl  = 1
ServiceBinary = %12%\LayerB.sys
[More.Filters]
AddFilter = LayerB,,Deep
AddFilter = LayerQ,,Nowhere
[Deep]
FilterLevel = Deep
[Nowhere]
FilterLevel = Gone
"#;

#[test]
fn filters_are_added_by_the_levels_that_the_base_inf_defines_also_those_of_an_extension() {
    let files = Files::new(&with_levels());
    let extension = files.path("extension.inf");
    fs::write(&extension, EXTENSION).unwrap();
    let machine = files.bench(ALL).inf(&extension).start().unwrap();
    way(&machine, "ZXYFCABbacfyxz");
    let report = rig::finish(machine);
    assert_eq!(letters(&report, " is added"), "BACFYXZ", "{}", report.prints.join("\n"));
    let note = "FilterLevel = Gone: no such level is defined for the device; LayerQ is not loaded";
    assert!(report.notes.iter().any(|line| line.contains(note)), "{:?}", report.notes);
}

#[test]
fn an_open_that_is_under_way_ends_before_its_device_is_removed() {
    let files = Files::new(INF);
    // One of these preempts the open in the topmost filter, before it has taken its remove lock, until the others have let go.
    for seed in 131..=130 + rig::wanted("DIRQL_SEEDS", 10) {
        let machine = files.bench(ALL).processors(2).policy(Policy::random(seed)).start().unwrap();
        let opens = r"open \\.\DirqlLayer as f expect any; open \\.\DirqlLayer as g expect any"
            .replace("; ", "\nopener: ");
        let script = format!(
            "query-remove pci9052#0\nopener: {opens}\nremove-device pci9052#0 expect any\njoin opener"
        );
        let _ = rig::try_play(&machine, &script);
        let report = machine.finish();
        assert!(report.verdict.is_none() && report.findings.is_empty(), "seed {seed}: {report}");
    }
}

#[test]
fn a_driver_whose_children_changed_is_asked_for_them_through_the_whole_stack() {
    let files = Files::new(INF);
    let machine = files.bench(ALL).start().unwrap();
    let before = machine.prints().len();
    play(&machine, r"open \\.\DirqlLayer as f; ioctl f 0x222004; wait 10ms; close f");
    let asked = machine.prints().split_off(before);
    assert_eq!(asked.len(), 7, "each layer once: {asked:?}");
    assert!(asked[0].starts_with("Z is asked") && asked[6].starts_with("A is asked"), "{asked:?}");
    rig::finish(machine);
}

#[test]
fn a_driver_asks_whether_a_handle_may_write() {
    let files = Files::new(INF);
    let machine = files.bench(ALL).start().unwrap();
    play(
        &machine,
        r"open \\.\DirqlLayer as both; ioctl both 0x222008; close both
        open \\.\DirqlLayer as one read-only; ioctl one 0x222008 expect STATUS_ACCESS_DENIED; close one",
    );
    rig::finish(machine);
}

#[test]
fn layers_hold_in_random_schedules_while_requests_and_a_removal_meet() {
    let files = Files::new(INF);
    for seed in rig::seeds(6) {
        let machine = files.bench(ALL).processors(2).policy(Policy::random(seed)).start().unwrap();
        play(
            &machine,
            r"open \\.\DirqlLayer as f
            a: ioctl f 0x222000 in zero:32 out 32
            b: ioctl f 0x222000 in zero:32 out 32
            surprise-remove
            join a; join b
            close f",
        );
        rig::finish(machine);
    }
}

#[test]
fn a_filter_whose_file_is_not_given_is_told_and_left_out() {
    let files = Files::new(INF);
    let machine = files.bench(&["first", "LayerC", "LayerX", "LayerZ"]).start().unwrap();
    way(&machine, "ZXFCAacfxz");
    let report = rig::finish(machine);
    for name in ["LayerB", "LayerY"] {
        let message = format!("pci9052#0: the INF names the filter {name}, and its file is not given");
        assert!(report.notes.iter().any(|note| note.starts_with(&message)), "{:?}", report.notes);
    }
    // The file is called as the INF says, whatever the service's name is.
    let machine =
        Bench::new().driver(driver("layer.sys")).inf(driver("layer.inf")).device("pci9052").start().unwrap();
    let notes = rig::finish(machine).notes;
    assert!(
        notes.iter().any(|note| note.contains("FilterX") && note.ends_with("give it by --with filter.sys")),
        "{notes:?}"
    );
}

#[test]
fn a_windows_that_does_not_know_declared_filters_does_without() {
    let files = Files::new(INF);
    let machine = files.bench(ALL).windows(WindowsVersion::Win7).start().unwrap();
    way(&machine, "ZXFCBAabcfxz");
    let report = rig::finish(machine);
    assert!(report.notes.iter().any(|note| note.contains("AddFilter = LayerY")), "{:?}", report.notes);
}

#[test]
fn a_layer_whose_add_device_fails_keeps_the_device_from_starting_and_those_below_are_removed() {
    let refusing = INF.replace("HKR,Parameters,Refuse,0x00010001,0", "HKR,Parameters,Refuse,0x00010001,1");
    // The lowest refuses: nothing is there to be removed.
    let files = Files::new(&refusing);
    let report = files.bench(ALL).run(None).unwrap();
    let failure = report.failure.as_ref().expect("the device does not start");
    assert!(
        failure.message.contains("AddDevice failed") && failure.message.contains("LayerA"),
        "{failure:?}"
    );
    assert_eq!(letters(&report, " is removed"), "");
    assert!(report.verdict.is_none(), "{:?}", report.verdict);
    // The highest but one.
    let above = refusing
        .replace(
            r#"HKR,,LowerFilters,0x00010000,"LayerA","LayerB""#,
            r#"HKR,,LowerFilters,0x00010000,"LayerB""#,
        )
        .replace(
            r#"HKR,,UpperFilters,0x00010000,"LayerX""#,
            r#"HKR,,UpperFilters,0x00010000,"LayerX","LayerA""#,
        );
    let files = Files::new(&above);
    let report = files.bench(ALL).run(None).unwrap();
    let failure = report.failure.as_ref().expect("the device does not start");
    assert!(failure.message.contains("LayerA"), "{failure:?}");
    assert_eq!(letters(&report, " is added"), "BCFX");
    assert_eq!(letters(&report, " is removed"), "BCFX");
    assert!(report.verdict.is_none(), "{:?}", report.verdict);
}

#[test]
fn what_a_layer_leaves_behind_is_told_by_its_own_name() {
    let staying = INF.replace("HKR,Parameters,Refuse,0x00010001,0", "HKR,Parameters,Stay,0x00010001,1");
    let report = Files::new(&staying).bench(ALL).run(None).unwrap();
    let verdict = report.verdict.expect("a device stays attached");
    assert_eq!(verdict.rule, "device-not-detached", "{verdict:?}");
    assert!(verdict.message.starts_with("LayerA completed IRP_MN_REMOVE_DEVICE"), "{verdict:?}");
}

#[test]
fn a_filter_without_add_device_is_told() {
    let files = Files::new(INF);
    fs::copy(driver("legacy.sys"), files.path("LayerB.sys")).unwrap();
    let report = files.bench(ALL).run(None).unwrap();
    let failure = report.failure.as_ref().expect("the device does not start");
    assert!(failure.message.contains("no AddDevice routine"), "{failure:?}");
}

#[test]
fn filters_are_a_list_and_their_place_is_upper_or_lower() {
    let refused = |from: &str, to: &str| {
        let changed = INF.replace(from, to);
        assert_ne!(changed, INF);
        Files::new(&changed).bench(ALL).run(None).err().expect("it is refused").to_string()
    };
    let text = refused("HKR,,UpperFilters,0x00010000,\"LayerX\"", "HKR,,UpperFilters,,\"LayerX\"");
    assert!(text.contains("layers.inf:") && text.contains("UpperFilters is a list"), "{text}");
    let text = refused("FilterPosition = Upper", "FilterPosition = Above");
    assert!(text.contains("`Above` of LayerY is neither Upper nor Lower"), "{text}");
    let text = refused("FilterPosition = Upper\n", "");
    assert!(text.contains("write FilterPosition = Upper"), "{text}");
}
