//! Every field of every structure that a driver shares with the kernel, damaged with each of a dozen values, and then used by each
//! export that takes it: `damage.sys` does the deed, and the kernel answers with a status or a verdict. It must not panic, and
//! must not hang; what is said is no matter here.
//!
//! A sample stands here; `DIRQL_DAMAGE=1` does all of them, `DIRQL_DAMAGE=7` every seventh. `DIRQL_DAMAGE_FROM` begins later.

#![allow(clippy::print_stdout, reason = "a hang is found by the last line")]

use dirql::{Bench, Machine, Outcome, Report};

use super::rig::{driver, start};

const DEVICE: &str = r"\\.\DirqlDamage";
const INFLICT: u32 = 0x0022_2000;
const TELL: u32 = 0x0022_2004;
const INFO_BYTES: u32 = 64;
/// As many as the driver knows.
const VALUES: u32 = 16;
/// Deeds in one machine, if none of them ends it.
const IN_A_MACHINE: usize = 8;

/// One field, damaged, and one use.
#[derive(Clone, Debug)]
struct Deed {
    subject: u32,
    layout: String,
    field: String,
    offset: u32,
    size: u32,
    value: u32,
    usage: u32,
}

impl Deed {
    fn input(&self) -> Vec<u8> {
        let words = [self.subject, self.usage, self.offset, self.size, self.value];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

fn machine() -> Machine {
    start(|| Bench::new().driver(driver("damage.sys")).instruction_budget(3_000_000))
}

/// What the driver can do: the structure of each subject, and how many uses it has.
fn subjects() -> Vec<(String, u32)> {
    let machine = machine();
    let file = machine.open(DEVICE).unwrap();
    let mut subjects = Vec::new();
    for index in 0_u32.. {
        let mut input = index.to_le_bytes().to_vec();
        input.resize(20, 0);
        let Ok(answer) = file.device_control(TELL, &input, INFO_BYTES) else { break };
        let uses = u32::from_le_bytes(answer[..4].try_into().unwrap());
        let layout = String::from_utf8(answer[4..].to_vec()).unwrap();
        subjects.push((layout.trim_end_matches('\0').to_owned(), uses));
    }
    file.close().unwrap();
    machine.finish().expect_clean();
    subjects
}

/// Every field, each value, each use.
fn deeds() -> Vec<Deed> {
    let mut deeds = Vec::new();
    for (subject, (layout, uses)) in (0..).zip(subjects()) {
        let fields = abi::all_layouts().find(|known| known.c_name == layout);
        let fields = fields.unwrap_or_else(|| panic!("{layout} has no layout")).fields;
        let mut places: Vec<(u64, u64, &str)> =
            fields.iter().map(|field| (field.offset, field.size, field.c_path)).collect();
        places.sort_unstable();
        places.dedup_by_key(|&mut (offset, size, _)| (offset, size));
        for (offset, size, field) in places {
            for (value, usage) in (0..VALUES).flat_map(|value| (0..uses).map(move |usage| (value, usage))) {
                deeds.push(Deed {
                    subject,
                    layout: layout.clone(),
                    field: field.to_owned(),
                    offset: offset.try_into().unwrap(),
                    size: size.try_into().unwrap(),
                    value,
                    usage,
                });
            }
        }
    }
    deeds
}

/// Does some deeds one after the other in one machine, as far as it comes; its end, and how many were begun.
fn inflict(deeds: &[Deed]) -> (Report, usize) {
    let machine = machine();
    let mut begun = 0;
    for deed in deeds {
        begun += 1;
        println!("{deed:?}");
        let Ok(file) = machine.open(DEVICE) else { break };
        let _ = file.try_device_control(INFLICT, &deed.input(), INFO_BYTES);
        if !machine.is_ready() {
            break;
        }
    }
    (machine.finish(), begun)
}

/// The first subject of this structure whose field is damaged with a value, and then used so.
fn deed(layout: &str, field: &str, value: u32, usage: u32) -> Deed {
    let is_it = |deed: &&Deed| deed.layout == layout && deed.field == field;
    let found =
        deeds().iter().find(|deed| is_it(deed) && (deed.value, deed.usage) == (value, usage)).cloned();
    found.unwrap_or_else(|| panic!("{layout}.{field} is damaged by nothing"))
}

#[test]
fn a_list_that_leads_back_into_itself_has_a_verdict() {
    const ITSELF: u32 = 9;
    // IoGetAttachedDeviceReference, IoDeleteDevice of the device behind it, IoAllocateMdl for an IRP that has the MDL.
    let rings =
        [("DEVICE_OBJECT", "AttachedDevice", 4), ("DEVICE_OBJECT", "NextDevice", 11), ("MDL", "Next", 11)];
    for (layout, field, usage) in rings {
        let (report, _) = inflict(&[deed(layout, field, ITSELF, usage)]);
        assert_eq!(report.expect_verdict().rule, "list-cycle", "{layout}.{field}\n{report}");
    }
}

/// Does all of these; none may be a fault of ours.
fn expect_no_fault_of_ours(chosen: &[Deed]) {
    let (mut done, mut faults) = (0, Vec::new());
    while done < chosen.len() {
        let some = &chosen[done..chosen.len().min(done + IN_A_MACHINE)];
        let (report, begun) = inflict(some);
        if report.outcome() == Outcome::OurFault {
            faults.push(format!("{:#?}\n{}", &some[..begun], report.our_fault.as_deref().unwrap_or("")));
        }
        done += begun.max(1);
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n\n"));
}

/// One of no bytes maps nothing, and nothing is taken away.
#[test]
fn an_mdl_whose_length_was_written_over_maps_and_unmaps() {
    let all = deeds();
    let lengths = all.iter().filter(|deed| deed.layout == "MDL" && deed.field == "ByteCount");
    let lengths: Vec<Deed> = lengths.cloned().collect();
    assert!(lengths.len() > 16, "{}", lengths.len());
    expect_no_fault_of_ours(&lengths);
}

#[test]
fn no_damaged_field_is_a_fault_of_the_kernels() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    // A prime, so that all values and uses have their turn.
    let step = number("DIRQL_DAMAGE").unwrap_or(211).max(1);
    let all = deeds();
    let chosen: Vec<Deed> =
        all.iter().skip(number("DIRQL_DAMAGE_FROM").unwrap_or(0)).step_by(step).cloned().collect();
    println!("{} of {} deeds", chosen.len(), all.len());
    expect_no_fault_of_ours(&chosen);
}
