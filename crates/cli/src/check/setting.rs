//! What the user has not said of the machine, from the driver's INF and its imports: an INF that lies beside the driver, the device that it is for, every
//! rule.

use anyhow::Result;
use dirql::check::{HARDWARE, Survey};
use dirql::files::DriverFile;
use dirql::{Error, Verifier, inf, windows};

use crate::arguments::Setup;

/// The windows of a card of which nothing is known but its ids: memory that holds what is written, ports, an interrupt pin, and messages, which
/// only drivers have whose INF asks for them; it wakes from each state.
const CARD: &str =
    "bar0=mem:64K,bar1=io:256,bar2=mem:64K,bar3=mem:64K,irq,msi=4,pm=d1+d2+wake0+wake1+wake2+wake3+wakeoff";
/// The same with windows of memory for those who reach further.
fn larger_card() -> String {
    CARD.replace("mem:64K", "mem:16M")
}

/// What drivers open files by.
const OPENS_FILES: [&str; 5] = ["ZwCreateFile", "NtCreateFile", "ZwOpenFile", "NtOpenFile", "IoCreateFile"];
/// A drive without files.
const DRIVE: &str = "drive";
/// What they open others' devices by, and what stands there if those are not there.
const OPENS_DEVICES: [&str; 2] = ["IoGetDeviceObjectPointer", "IoAttachDevice"];
const STAND_INS: &str = "stand-ins";
/// A computer with little memory.
pub(super) const LOW_MEMORY: &str = "low-memory";

/// Fills in what is not given. The arguments that processes need besides the user's.
///
/// # Errors
/// [`Error::Input`] if a file cannot be used.
pub(super) fn complete(setup: &mut Setup) -> Result<Vec<String>> {
    if setup.verifier == Verifier::NONE {
        setup.verifier = Verifier::ALL.logging();
    }
    setup.rules = std::mem::take(&mut setup.rules).or_all().map_err(Error::Input)?;
    let mut more = Vec::new();
    let beside = setup.driver.with_extension("inf");
    if setup.inf.is_empty() && beside.is_file() {
        more.push(format!("--inf={}", beside.display()));
        setup.inf.push(beside);
    }
    if setup.devices.is_empty()
        && let Some(device) = from_infs(setup)?
    {
        more.push(format!("--device={device}"));
        setup.devices.push(device);
    }
    if setup.files.is_none() && !setup.platform().drive && imports_any(setup, &OPENS_FILES) {
        add_platform(setup, &mut more, DRIVE);
    }
    if !setup.platform().stand_ins && imports_any(setup, &OPENS_DEVICES) {
        add_platform(setup, &mut more, STAND_INS);
    }
    Ok(more)
}

/// The computer is such a one, and `more` says so to processes.
fn add_platform(setup: &mut Setup, more: &mut Vec<String>, word: &str) {
    more.push(format!("--platform={word}"));
    setup.platform.push(word.to_owned());
}

/// The card that the INFs are for, if it is one: a model that has its ids, or else one of which nothing else is known.
fn from_infs(setup: &Setup) -> Result<Option<String>> {
    let target = windows::target(windows::parse(&setup.windows).map_err(Error::Input)?);
    for path in &setup.inf {
        let bytes = dirql::files::read(path, "the INF file").map_err(Error::Input)?;
        let parsed =
            inf::parse(&path.display().to_string(), &bytes).map_err(|error| Error::Input(error.into()))?;
        for id in parsed.ids(target).unwrap_or_default() {
            if let Some(id) = PciId::of(&id) {
                return Ok(Some(card(&id)));
            }
        }
    }
    Ok(None)
}

/// The card of a hardware id: a model is made one of the subsystem, revision and class that the id names, as far as it can be.
fn card(id: &PciId) -> String {
    let PciId { vendor, device, .. } = *id;
    let of_name = |name| devices::catalog().iter().find(|entry| entry.name == name);
    let known = devices::catalog().iter().find(|entry| entry.ids.contains(&(vendor, device)));
    let entry = known.or_else(|| of_name("pci")).expect("`pci` is for cards of which nothing is known");
    let is_its =
        |key: &str, value: &str| entry.keys.iter().any(|known| known.name == key && known.default != value);
    let more = id.more.iter().filter(|(key, value)| is_its(key, value));
    let mut more: String = more.map(|(key, value)| format!(",{key}={value}")).collect();
    // What the INF says nothing of, or something else, is another board than the model's, of which nothing is known.
    let is_models_own = id.more.iter().any(|(key, value)| *key == "sub" && !is_its(key, value));
    if !is_models_own && entry.keys.iter().any(|key| key.name == "idle") {
        more.push_str(",idle=inactive");
    }
    match known {
        Some(devices::Entry { name, whole: "", .. }) => format!("{name}{more}"),
        Some(devices::Entry { name, whole, .. }) => format!("{name},{whole}{more}"),
        None => format!("pci,id={vendor:04x}:{device:04x}{more},{CARD}"),
    }
}

/// `PCI\VEN_10B5&DEV_9050…`.
struct PciId {
    vendor: u16,
    device: u16,
    /// What else it names, as cards' options have it.
    more: Vec<(&'static str, String)>,
}

impl PciId {
    fn of(id: &str) -> Option<Self> {
        let id = id.to_ascii_lowercase();
        let parts = || id.strip_prefix(r"pci\").unwrap_or_default().split('&');
        let digits = |key: &str| parts().find_map(|part| part.strip_prefix(key));
        let number = |key: &str| u16::from_str_radix(digits(key)?, 16).ok();
        let (vendor, device) = (number("ven_")?, number("dev_")?);
        let is_number = |digits: &&str| u32::from_str_radix(digits, 16).is_ok();
        // The subsystem stands in front of its vendor.
        let subsystem = digits("subsys_").filter(|digits| digits.len() == 8).filter(is_number);
        let subsystem = subsystem.map(|digits| ("sub", format!("{}:{}", &digits[4..], &digits[..4])));
        let revision = digits("rev_").and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let revision = revision.map(|revision| ("rev", revision.to_string()));
        let class = digits("cc_").filter(is_number).map(|digits| ("class", format!("{digits:0<6}")));
        Some(Self { vendor, device, more: subsystem.into_iter().chain(revision).chain(class).collect() })
    }
}

/// Whether the driver imports one of these; not, if it cannot be read.
fn imports_any(setup: &Setup, names: &[&str]) -> bool {
    let driver = DriverFile::read(&setup.driver);
    let is_one = |name: &str| names.contains(&name);
    driver
        .is_ok_and(|driver| driver.image.imports().iter().any(|import| is_one(&import.selector.to_string())))
}

/// The option for it.
pub(super) fn low_memory() -> String {
    format!("--platform={LOW_MEMORY}")
}

/// Whether the driver asks for memory that its card is to reach.
pub(super) fn takes_bus_addresses(setup: &Setup) -> bool {
    imports_any(
        setup,
        &["IoGetDmaAdapter", "MmAllocateContiguousMemory", "MmAllocateContiguousMemorySpecifyCache"],
    )
}

/// The device that a Plug and Play driver without an INF is given, which has shown that it is one.
pub(super) fn device_for(setup: &Setup, survey: &Survey) -> Option<String> {
    if !survey.plug_and_play || !setup.devices.is_empty() || !setup.inf.is_empty() {
        return None;
    }
    Some(if imports_any(setup, &HARDWARE) {
        format!("pci,id=1234:5678,{CARD}")
    } else {
        "root,id=Root\\CHECKED".to_owned()
    })
}

/// The bridge that is the only device, if its driver does not start with it.
const BRIDGE: &str = "pci9052";

/// The card of which nothing is known but its ids and with which a driver does not start, and the same with larger windows; or the bridge. `chosen` is a device that was chosen
/// for it.
pub(super) fn cards_of_unknown(devices: &[String], is_ready: bool, chosen: Option<&str>) -> Vec<String> {
    let own = match (chosen, devices) {
        (Some(chosen), _) => chosen,
        (None, [own]) => own,
        _ => return Vec::new(),
    };
    if is_ready {
        return Vec::new();
    }
    if own.starts_with(BRIDGE) && !own.contains("local=") && !own.contains("holds=") {
        return vec![own.to_owned()];
    }
    let head = own.strip_suffix(CARD);
    head.map(|head| vec![own.to_owned(), format!("{head}{}", larger_card())]).unwrap_or_default()
}

/// The options for two devices more like the one that there is: cards that share an interrupt line, or devices on no bus, of which `device` is one that was
/// chosen for the driver. None if there is no such device.
pub(super) fn neighbours(setup: &Setup, survey: &Survey, device: Option<&str>) -> Option<Vec<String>> {
    if let Some(more) = on_the_line(setup, survey) {
        return Some(vec![more.clone(), more]);
    }
    let is_possible =
        survey.ready && survey.plug_and_play && !survey.is_hardware && survey.devices.len() == 1;
    let (like, count) = match (setup.devices.as_slice(), device) {
        ([], Some(device)) => (device, 2),
        // The one that the INF is for comes by itself, where none is asked for.
        ([], None) => ("root", 3),
        ([own], _) => (own.as_str(), 2),
        _ => return None,
    };
    (is_possible && like.starts_with("root")).then(|| vec![format!("--device={like}"); count])
}

/// The options for one card more like it, and for one of another kind that interrupts all the time on its line. It waits for its own driver's routine where the
/// registers are known by which the driver's tells that the interrupt is not its card's.
pub(super) fn busy_line(setup: &Setup, survey: &Survey) -> Option<Vec<String>> {
    let more = on_the_line(setup, survey)?;
    let waits = if more.starts_with("--device=pci,") { "" } else { ",foreign" };
    Some(vec![more, format!("--device={BUSY}{waits},line={LINE}")])
}

/// A card more like the one that there is, if it interrupts, on a line that is not its own.
fn on_the_line(setup: &Setup, survey: &Survey) -> Option<String> {
    let [card] = setup.devices.as_slice() else { return None };
    let interrupts = !card.starts_with("root") && (!card.starts_with("pci,") || card.contains(",irq"));
    let is_possible = survey.is_hardware && survey.ready && interrupts && !card.contains(",line=");
    is_possible.then(|| format!("--device={card},line={LINE}"))
}

/// A card that no driver is for.
const BUSY: &str = "pci,id=1234:0001,irq,every=1ms";
/// The line that they share.
const LINE: u32 = 23;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_found_by_its_ids() {
        let card_of = |id| PciId::of(id).map(|id| card(&id));
        assert_eq!(card_of(r"PCI\VEN_10B5&DEV_9050&SUBSYS_905010B5&REV_02").as_deref(), Some("pci9052"));
        assert_eq!(card_of(r"PCI\VEN_10B5&DEV_9050").as_deref(), Some("pci9052,idle=inactive"));
        let own = "pci9052,sub=2a2b:3151,rev=1,idle=inactive";
        assert_eq!(card_of(r"PCI\VEN_10B5&DEV_9050&SUBSYS_31512A2B&REV_01").as_deref(), Some(own));
        assert_eq!(card_of(r"pci\ven_1234&dev_11e8").as_deref(), Some("edu"));
        assert_eq!(card_of(r"PCI\VEN_1234&DEV_BE2C").as_deref(), Some("bench,ram"));
        assert_eq!(card_of(r"Root\SOFT"), None);
        assert_eq!(card_of(r"PCI\CC_0C03"), None);
        let network = card_of(r"PCI\VEN_ABCD&DEV_0001&CC_0200").unwrap();
        assert!(network.starts_with("pci,id=abcd:0001,class=020000,bar0="), "{network}");
    }

    #[test]
    fn a_driver_that_does_not_start_with_a_card_that_was_made_for_it_is_given_larger_windows() {
        let made = [card(&PciId::of(r"PCI\VEN_ABCD&DEV_0001").unwrap())];
        let larger = format!("pci,id=abcd:0001,{}", larger_card());
        assert_eq!(cards_of_unknown(&made, false, None), [made[0].clone(), larger]);
        assert!(cards_of_unknown(&made, true, None).is_empty());
        let own = ["pci,id=abcd:0001,bar0=mem:64K".to_owned()];
        assert!(cards_of_unknown(&own, false, None).is_empty(), "what the user has said stands");
    }
}
