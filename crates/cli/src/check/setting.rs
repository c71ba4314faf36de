//! What the user has not said of the machine, from the driver's INF and its imports: an INF that lies beside the driver, the device that it is for, every
//! rule.

use anyhow::Result;
use dirql::check::{HARDWARE, Survey};
use dirql::files::DriverFile;
use dirql::{Error, Verifier, inf, windows};

use crate::arguments::Setup;

/// The windows of a card of which nothing is known but its ids: memory that holds what is written, ports, and an interrupt pin.
const CARD: &str = "bar0=mem:64K,bar1=io:256,bar2=mem:64K,bar3=mem:64K,irq,pm=d1+d2";
/// The same with windows for those who reach further.
const LARGER_CARD: &str = "bar0=mem:16M,bar1=io:256,bar2=mem:16M,bar3=mem:16M,irq,pm=d1+d2";

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
    Ok(more)
}

/// The card that the INFs are for, if it is one: a model that has its ids, or else one of which nothing else is known.
fn from_infs(setup: &Setup) -> Result<Option<String>> {
    let target = windows::target(windows::parse(&setup.windows).map_err(Error::Input)?);
    for path in &setup.inf {
        let bytes = dirql::files::read(path, "the INF file").map_err(Error::Input)?;
        let parsed =
            inf::parse(&path.display().to_string(), &bytes).map_err(|error| Error::Input(error.into()))?;
        for id in parsed.ids(target).unwrap_or_default() {
            if let Some((vendor, device)) = pci_id(&id) {
                return Ok(Some(card(vendor, device)));
            }
        }
    }
    Ok(None)
}

fn card(vendor: u16, device: u16) -> String {
    match devices::catalog().iter().find(|entry| entry.ids.contains(&(vendor, device))) {
        Some(entry) if entry.whole.is_empty() => entry.name.to_owned(),
        Some(entry) => format!("{},{}", entry.name, entry.whole),
        None => format!("pci,id={vendor:04x}:{device:04x},{CARD}"),
    }
}

/// `PCI\VEN_10B5&DEV_9050…`.
fn pci_id(id: &str) -> Option<(u16, u16)> {
    let id = id.to_ascii_uppercase();
    let number = |key: &str| {
        let digits = id.split_once(key)?.1.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    id.starts_with("PCI\\").then(|| Some((number("VEN_")?, number("DEV_")?)))?
}

/// The device that a Plug and Play driver without an INF is given, which has shown that it is one.
pub(super) fn device_for(setup: &Setup, survey: &Survey) -> Option<String> {
    if !survey.plug_and_play || !setup.devices.is_empty() || !setup.inf.is_empty() {
        return None;
    }
    let driver = DriverFile::read(&setup.driver).ok()?;
    let is_hardware =
        driver.image.imports().iter().any(|import| HARDWARE.contains(&import.selector.to_string().as_str()));
    Some(if is_hardware { format!("pci,id=1234:5678,{CARD}") } else { "root,id=Root\\CHECKED".to_owned() })
}

/// A card with larger windows than that of which nothing is known but its ids and with which a driver does not start. `chosen` is a device that was chosen for
/// it.
pub(super) fn larger(devices: &[String], is_ready: bool, chosen: Option<&str>) -> Option<String> {
    let own = match (chosen, devices) {
        (Some(chosen), _) => chosen,
        (None, [own]) => own,
        _ => return None,
    };
    let head = own.strip_suffix(CARD).filter(|_| !is_ready)?;
    Some(format!("{head}{LARGER_CARD}"))
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

/// The options for one card more like it, and for one of another kind that interrupts all the time on its line.
pub(super) fn busy_line(setup: &Setup, survey: &Survey) -> Option<Vec<String>> {
    Some(vec![on_the_line(setup, survey)?, format!("--device={BUSY},line={LINE}")])
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
        assert_eq!(pci_id(r"PCI\VEN_10B5&DEV_9050&SUBSYS_00000000"), Some((0x10B5, 0x9050)));
        assert_eq!(pci_id(r"pci\ven_1234&dev_11e8"), Some((0x1234, 0x11E8)));
        assert_eq!(pci_id(r"Root\SOFT"), None);
        assert_eq!(pci_id(r"PCI\CC_0C03"), None);
        assert_eq!(card(0x10B5, 0x9050), "pci9052");
        assert_eq!(card(0x1234, 0xBE2C), "bench,ram");
        assert!(card(0xABCD, 1).starts_with("pci,id=abcd:0001,bar0="));
    }

    #[test]
    fn a_driver_that_does_not_start_with_a_card_that_was_made_for_it_is_given_larger_windows() {
        let made = [card(0xABCD, 1)];
        let expected = format!("pci,id=abcd:0001,{LARGER_CARD}");
        assert_eq!(larger(&made, false, None), Some(expected));
        assert_eq!(larger(&made, true, None), None);
        let own = ["pci,id=abcd:0001,bar0=mem:64K".to_owned()];
        assert_eq!(larger(&own, false, None), None, "what the user has said stands");
    }
}
