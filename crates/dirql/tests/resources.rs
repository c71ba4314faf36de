//! Resources of devices that are no cards: what children of `drivers/c/busdriver.c` ask for, what an INF has for a root-enumerated device, who
//! gets what, and who gets nothing. `drivers/c/soft.c` prints what it is started with.

use abi::{
    CM_RESOURCE_INTERRUPT_LATCHED, CmResourceShareDeviceExclusive, CmResourceShareShared,
    CmResourceTypeBusNumber, CmResourceTypeDevicePrivate, CmResourceTypeDma, CmResourceTypeInterrupt,
    CmResourceTypeMemory, CmResourceTypePort, IO_RESOURCE_PREFERRED, Isa,
};
use dirql::{Bench, Machine};
use kernel::pnp::wanted::{Requirements, Wanted};

use super::rig::{self, bus, driver, finish, play, start};

const SOFT: &str = "interface:{5A0F7B52-3C1E-4B6F-9E57-0D1B8A2C4E61}";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a list of requirements, on bus 3 of type ISA, as a script writes them.
fn list(slot: u32, lists: Vec<Vec<Wanted>>) -> String {
    hex(&Requirements { interface: Isa, bus: 3, slot, lists }.bytes())
}

/// A `CM_RESOURCE_LIST` with these ports.
fn boot(start: u32, length: u32) -> String {
    let head = [1, Isa, 3, 0x0001_0001, 1, u32::from(CmResourceTypePort) | 0x0011_0100, start, 0, length, 0];
    hex(&head.iter().flat_map(|word: &u32| word.to_le_bytes()).collect::<Vec<u8>>())
}

/// Plugs a child in that asks for this.
fn plug(machine: &Machine, slot: u32, requirements: Option<&str>, boot: Option<&str>) {
    let set = |code: &str, list: Option<&str>| {
        list.map(|list| format!("ioctl b {code} in hex:{list}\n")).unwrap_or_default()
    };
    play(
        machine,
        &format!(
            "open \\\\.\\DirqlBus0 as b\n{}{}ioctl b 0x222000 in u32:{slot}\nclose b\nwait 1ms",
            set("0x222014", requirements),
            set("0x222018", boot)
        ),
    );
}

fn tree(machine: &Machine) -> String {
    machine.tree().unwrap().join("\n")
}

/// The lines of a device in the tree, behind the first.
fn node(machine: &Machine, name: &str) -> String {
    let lines = machine.tree().unwrap();
    let at = lines.iter().position(|line| line.trim_start().starts_with(&format!("{name}  "))).unwrap();
    let depth = |line: &String| line.len() - line.trim_start().len();
    let own = lines[at + 1..].iter().take_while(|line| depth(line) > depth(&lines[at]));
    own.map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("; ")
}

/// What `soft N` has printed of its lists.
fn printed(machine: &Machine, prefix: &str) -> Vec<String> {
    let prefix = format!("{prefix}: ");
    machine
        .prints()
        .iter()
        .filter_map(|line| Some(line.trim_end().strip_prefix(&prefix)?.to_owned()))
        .collect()
}

/// Ports.
fn ports(length: u32, place: (u64, u64)) -> Wanted {
    Wanted::range(CmResourceTypePort, 0x11, length, length, place)
}

#[test]
fn a_child_gets_one_of_each_kind_raw_and_translated() {
    let machine = start(bus);
    let latched = CM_RESOURCE_INTERRUPT_LATCHED;
    let wanted = vec![
        ports(8, (0x300, 0x3FF)),
        Wanted::range(CmResourceTypeDevicePrivate, 0, 0x11, 0x22, (0x33, 0)),
        Wanted::range(CmResourceTypeMemory, 0, 0x1000, 0x1000, (0xC_0000, 0xF_FFFF)),
        Wanted::number(CmResourceTypeInterrupt, CmResourceShareDeviceExclusive, latched, 5),
        Wanted::number(CmResourceTypeDma, CmResourceShareDeviceExclusive, 0, 1),
        Wanted { minimum: 9, ..Wanted::range(CmResourceTypeBusNumber, 0, 2, 4, (0, 0)) },
    ];
    plug(&machine, 0, Some(&list(0, vec![wanted])), None);
    let vector = kernel::ke::interrupt::vector_of_line(5);
    let irql = kernel::ke::interrupt::irql_of_line(5);
    let of = |interrupt: String| {
        vec![
            "bus 3 of type 1".to_owned(),
            "1 1 11: 300 0 8 0".to_owned(),
            "81 1 0: 11 22 33 0".to_owned(),
            "3 1 0: c0000 0 1000 0".to_owned(),
            interrupt,
            "4 1 0: 1 0 0 0".to_owned(),
            "6 1 0: 4 2 0 0".to_owned(),
        ]
    };
    assert_eq!(printed(&machine, "soft 1 raw"), of("2 1 1: 5 5 ffffffff ffffffff".to_owned()));
    assert_eq!(printed(&machine, "soft 1 translated"), of(format!("2 1 1: {irql:x} {vector:x} 1 0")));
    assert_eq!(
        node(&machine, "child#0"),
        format!(
            "started; drivers: DirqlBus, DirqlSoft; resources: ports 300h–307h, memory C0000h–C0FFFh, interrupt line 5: vector {vector:X}h at \
             IRQL {irql}, DMA channel 1, bus numbers 4–5"
        )
    );
    // DevicePropertyBootConfiguration.
    play(&machine, &format!("open {SOFT} as s\nioctl s 0x222000 in u32:3 out 400 expect failure\nclose s"));
    finish(machine);
}

#[test]
fn what_one_child_has_another_does_not_get_and_alternatives_are_tried_in_order() {
    let machine = start(bus);
    let com = [(0x3F8, 0x3FF), (0x2F8, 0x2FF)];
    let line = |number| Wanted::number(CmResourceTypeInterrupt, CmResourceShareDeviceExclusive, 1, number);
    // The second is preferred, though it stands behind.
    let preferred = Wanted { option: IO_RESOURCE_PREFERRED, ..ports(8, com[1]).or() };
    let preferred = Wanted { option: preferred.option | abi::IO_RESOURCE_ALTERNATIVE, ..preferred };
    let wanted = list(0, vec![vec![ports(8, com[0]), preferred, line(4), line(3).or()]]);
    for slot in 0..3 {
        plug(&machine, slot, Some(&wanted), None);
    }
    assert!(node(&machine, "child#0").contains("ports 2F8h–2FFh, interrupt line 4"), "{}", tree(&machine));
    assert!(node(&machine, "child#1").contains("ports 3F8h–3FFh, interrupt line 3"), "{}", tree(&machine));
    assert_eq!(
        node(&machine, "child#2"),
        "without a driver; drivers: DirqlBus; resources: none; problem 12 (CM_PROB_NORMAL_CONFLICT): 0x8 ports between 0x3f8 and 0x3ff, or 0x8 \
         ports between 0x2f8 and 0x2ff cannot be given to the device: child#1 has ports 3F8h–3FFh, child#0 has ports 2F8h–2FFh"
    );
    // What one gives back the next gets.
    play(&machine, "open \\\\.\\DirqlBus0 as b\nioctl b 0x222004 in u32:0\nwait 1ms\nclose b");
    plug(&machine, 4, Some(&wanted), None);
    assert!(node(&machine, "child#0").contains("ports 2F8h–2FFh, interrupt line 4"), "{}", tree(&machine));
    let report = finish(machine);
    assert!(report.notes.iter().any(|note| note.starts_with("child#2: does not start: assigning resources")));
}

#[test]
fn a_second_list_is_for_when_the_first_cannot_be_met() {
    let machine = start(bus);
    let lists = vec![vec![ports(8, (0x60, 0x67))], vec![ports(4, (0x200, 0x203)), ports(4, (0x204, 0x20F))]];
    plug(&machine, 0, Some(&list(0, lists)), None);
    assert!(
        node(&machine, "child#0").contains("resources: ports 200h–203h, ports 204h–207h"),
        "{}",
        tree(&machine)
    );
    finish(machine);
}

#[test]
fn a_line_is_shared_only_by_those_that_share_it() {
    let machine = start(bus);
    let shared = Wanted::number(CmResourceTypeInterrupt, CmResourceShareShared, 0, 11);
    let own = Wanted { share: CmResourceShareDeviceExclusive, ..shared };
    for (slot, wanted) in [shared, shared, own].into_iter().enumerate() {
        plug(&machine, u32::try_from(slot).unwrap(), Some(&list(0, vec![vec![wanted]])), None);
    }
    assert!(node(&machine, "child#1").starts_with("started; "));
    assert!(
        node(&machine, "child#2")
            .contains("interrupt line 11 cannot be given to the device: child#0 has interrupt line 11"),
        "{}",
        tree(&machine)
    );
    finish(machine);
}

#[test]
fn the_function_driver_filters_what_its_bus_driver_asks_for() {
    let machine = start(bus);
    let line = Wanted::number(CmResourceTypeInterrupt, CmResourceShareShared, 0, 10);
    plug(&machine, 0, Some(&list(0x77, vec![vec![ports(8, (0x300, 0x3FF)), line]])), None);
    assert!(node(&machine, "child#0").ends_with("resources: ports 300h–307h"), "{}", tree(&machine));
    finish(machine);
}

#[test]
fn a_boot_configuration_is_kept_for_its_device_and_is_what_it_gets() {
    let machine = start(bus);
    let anywhere = list(0, vec![vec![ports(8, (0x100, 0x3FF))]]);
    plug(&machine, 0, Some(&anywhere), Some(&boot(0x2E8, 8)));
    // Without requirements, it is the requirements.
    plug(&machine, 1, None, Some(&boot(0x3E8, 8)));
    plug(&machine, 2, Some(&anywhere), Some(&boot(0x2E8, 8)));
    // A stranger has no driver; its boot configuration is its own all the same.
    plug(&machine, 0x303, None, Some(&boot(0x108, 8)));
    plug(&machine, 4, Some(&anywhere), None);
    for (child, ports) in [(0, "2E8h–2EFh"), (1, "3E8h–3EFh"), (2, "100h–107h"), (3, "110h–117h")] {
        let text = node(&machine, &format!("child#{child}"));
        assert!(text.ends_with(&format!("resources: ports {ports}")), "{child}: {text}");
    }
    finish(machine);
}

/// `soft.inf` with these entries and sections.
fn with_resources(entries: &str, sections: &str) -> Bench {
    let inf = rig::changed_inf("resources", "soft.inf", |text| {
        text.replace("[Soft]\n", &format!("[Soft]\n{entries}\n{sections}\n"))
    });
    Bench::new().driver(driver("soft.sys")).inf(inf)
}

#[test]
fn a_root_device_gets_the_resources_that_its_inf_has_for_it() {
    let sections = "[Second]\nConfigPriority=SUBOPTIMAL\nIOConfig=300-307\n[First]\nConfigPriority=NORMAL\nIOConfig=8@320-33F%FF8,3E8-3EF\n\
                    IRQConfig=L:5,7\nMemConfig=4000@C0000-DFFFF\nDMAConfig=1,3";
    let two = || with_resources("LogConfig=Second,First", sections).device("root").device("root");
    let machine = start(two);
    let resources =
        |n| node(&machine, &format!("dirqlsoft#{n}")).split("resources: ").nth(1).unwrap().to_owned();
    let words = |line: u32| {
        let (vector, irql) =
            (kernel::ke::interrupt::vector_of_line(line), kernel::ke::interrupt::irql_of_line(line));
        format!("interrupt line {line}: vector {vector:X}h at IRQL {irql}")
    };
    assert_eq!(resources(0), format!("ports 320h–327h, {}, memory C0000h–C3FFFh, DMA channel 1", words(5)));
    assert_eq!(resources(1), format!("ports 328h–32Fh, {}, memory C4000h–C7FFFh, DMA channel 3", words(7)));
    finish(machine);
}

#[test]
fn a_third_device_takes_the_configuration_of_lower_priority_and_a_fourth_has_none() {
    let sections = "[Second]\nConfigPriority=SUBOPTIMAL\nIOConfig=300-307\n[First]\nIOConfig=320-327,328-32F";
    let many =
        || (0..4).fold(with_resources("LogConfig=Second,First", sections), |bench, _| bench.device("root"));
    let machine = start(many);
    assert!(node(&machine, "dirqlsoft#2").contains("resources: ports 300h–307h"), "{}", tree(&machine));
    assert!(
        node(&machine, "dirqlsoft#3").contains("problem 12 (CM_PROB_NORMAL_CONFLICT)"),
        "{}",
        tree(&machine)
    );
    let report = machine.finish();
    assert!(
        report.to_string().contains("assigning resources failed with STATUS_CONFLICTING_ADDRESSES"),
        "{report}"
    );
}

#[test]
fn factory_defaults_come_first_and_forced_ones_alone() {
    let factory = |priority: &str| {
        let sections =
            format!("[Soft.FactDef]\nConfigPriority={priority}\nIOConfig=2F0-2F7\n[First]\nIOConfig=300-307");
        with_resources("LogConfig=First", &sections).device("root").device("root")
    };
    let machine = start(|| factory("NORMAL"));
    assert!(node(&machine, "dirqlsoft#0").contains("resources: ports 2F0h–2F7h"), "{}", tree(&machine));
    assert!(node(&machine, "dirqlsoft#1").contains("resources: ports 300h–307h"), "{}", tree(&machine));
    finish(machine);
}

#[test]
fn a_forced_configuration_is_all_that_the_device_may_get() {
    let sections = "[Soft.FactDef]\nConfigPriority=FORCECONFIG\nIOConfig=2F0-2F7\n[First]\nIOConfig=300-307";
    let machine = start(|| with_resources("LogConfig=First", sections).device("root").device("root"));
    assert!(node(&machine, "dirqlsoft#0").contains("resources: ports 2F0h–2F7h"), "{}", tree(&machine));
    assert!(node(&machine, "dirqlsoft#1").contains("problem 12"), "{}", tree(&machine));
    assert!(machine.finish().failure.is_some());
}

#[test]
fn an_override_goes_before_what_the_bus_driver_reports_unless_it_cannot_be_met() {
    let inf = || {
        rig::changed_inf("override", "soft.inf", |text| {
            let sections =
                "[Soft.LogConfigOverride]\nLogConfig=Other\n[Other]\nConfigPriority=NORMAL\nIOConfig=240-247";
            text.replace("[Soft]\n", &format!("{sections}\n[Soft]\n"))
        })
    };
    let machine = start(|| {
        Bench::new()
            .driver(driver("busdriver.sys"))
            .inf(driver("busdriver.inf"))
            .with(driver("soft.sys"))
            .inf(inf())
    });
    let own = list(0, vec![vec![ports(8, (0x300, 0x30F))]]);
    plug(&machine, 0, Some(&own), None);
    plug(&machine, 1, Some(&own), None);
    assert!(node(&machine, "child#0").contains("resources: ports 240h–247h"), "{}", tree(&machine));
    assert!(node(&machine, "child#1").contains("resources: ports 300h–307h"), "{}", tree(&machine));
    finish(machine);
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_at_its_place() {
    for (entry, says) in [
        ("IOConfig=300", "is no range of addresses"),
        ("IRQConfig=X:5", "are no attributes"),
        ("DMAConfig=one", "is no number"),
        ("ConfigPriority=BEST", "is no ConfigPriority"),
    ] {
        let bench = with_resources("LogConfig=First", &format!("[First]\n{entry}"));
        let error = bench.start().err().unwrap().to_string();
        assert!(error.contains(says) && error.contains("soft.inf:"), "{entry}: {error}");
    }
}
