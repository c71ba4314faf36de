//! Power settings: what the user and the computer set, and the callbacks of drivers for them.
//!
//! Pages: *PoRegisterPowerSettingCallback function*, *PoUnregisterPowerSettingCallback function*; the settings and their values are `wdm.h`'s. A
//! computer of here is plugged in, its battery is full, its lid open, its display on. A driver that registers gets the value before the call returns
//! (the page lets it come later, too); a setting without a value, such as a driver's own, calls back when it is set first. No
//! page says whether a routine may still run when it has been taken back; drivers rely on it that it does not.

use std::collections::BTreeMap;

use abi::{Code, DEVICE_OBJECT, DriverPtr, GUID, NtStatus};
use engine::Flow;

use crate::cx::{Cx, Kernel};
use crate::event::{Event, Role};
use crate::ex::routines::{self, List, Routine, Routines};
use crate::ke::callout::call_routine;
use crate::ke::thread;
use crate::mm::pool;
use crate::verdict::Verdict;
use crate::wmi::{Guid, guid_text, parse_guid};

/// Bytes of a registration; drivers see nothing of it.
const SIZE: u64 = 0x20;

/// A setting that has a value from the start.
struct Known {
    name: &'static str,
    guid: &'static str,
    value: u32,
}

/// `GUID_ACDC_POWER_SOURCE`.
const SOURCE: &str = "{5D3E9A59-E9D5-4B00-A6BD-FF34FF516548}";

/// The settings with names of their own in scripts. All values are of 32 bits.
const KNOWN: [Known; 8] = [
    // 0: mains, 1: battery, 2: a short-term source such as a UPS.
    Known { name: "source", guid: SOURCE, value: 0 },
    // Percent.
    Known { name: "battery", guid: "{A7AD8041-B45A-4CAE-87A3-EECBB468A9E1}", value: 100 },
    // 0: closed, 1: open.
    Known { name: "lid", guid: "{BA3E0F4D-B817-4094-A2D1-D56379E6A0F3}", value: 1 },
    // 0: off, 1: on, 2: dimmed.
    Known { name: "display", guid: "{6FE69556-704A-47A0-8F24-C28D936FDA47}", value: 1 },
    // 0: off, 1: on.
    Known { name: "monitor", guid: "{02731015-4510-4526-99E6-E5A17EBD1AEA}", value: 1 },
    // 0: present, 2: inactive.
    Known { name: "user", guid: "{786E8A1D-B427-4344-9207-09E70BDCBEA9}", value: 0 },
    // 0: leaving, 1: entering.
    Known { name: "away", guid: "{98A7F580-01F7-48AA-9C0F-44352C29E5C0}", value: 0 },
    // 0: off, 1: on.
    Known { name: "saver", guid: "{E00958C0-C213-4ACE-AC77-FECCED2EEEA5}", value: 0 },
];

/// A driver's callback for a setting.
#[derive(Clone, Copy)]
struct Registration {
    setting: Guid,
    device: u64,
}

/// The settings' values, and the callbacks for them.
pub(crate) struct State {
    values: BTreeMap<Guid, u32>,
    routines: Routines,
    /// By what drivers know them by.
    registrations: BTreeMap<u64, Registration>,
}

impl Default for State {
    fn default() -> Self {
        let values = KNOWN.iter().map(|known| (of_text(known.guid), known.value)).collect();
        Self { values, routines: Routines::default(), registrations: BTreeMap::new() }
    }
}

impl State {
    /// The code of all routines that are registered.
    pub(crate) fn code(&self) -> impl Iterator<Item = DriverPtr<Code>> {
        self.routines.code()
    }

    /// Whether the computer runs on mains.
    pub(super) fn is_plugged_in(&self) -> bool {
        self.values.get(&of_text(SOURCE)) == Some(&0)
    }
}

fn of_text(text: &str) -> Guid {
    parse_guid(text).expect("it is written as GUIDs are")
}

fn list() -> impl List {
    |k: &mut Kernel| Some(&mut k.po.settings.routines)
}

/// The setting that a script names: one of the names of here, or a GUID in braces.
#[must_use]
pub fn named(text: &str) -> Option<Guid> {
    let known = KNOWN.iter().find(|known| known.name == text);
    known.map_or_else(|| parse_guid(text), |known| Some(of_text(known.guid)))
}

/// The names of settings.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    KNOWN.iter().map(|known| known.name)
}

/// `PoRegisterPowerSettingCallback`.
///
/// # Errors
/// A verdict if a pointer is bad; whatever the routine comes to.
pub fn register(
    cx: &mut Cx<'_>,
    device: DriverPtr<DEVICE_OBJECT>,
    setting: DriverPtr<GUID>,
    routine: DriverPtr<Code>,
    context: u64,
    handle: DriverPtr<u64>,
) -> Flow<NtStatus> {
    let setting: Guid = cx.read(setting.cast())?;
    let at = pool::allocate::<()>(cx, pool::Kind::NonPaged, SIZE, pool::tag(b"PoSt"))?.address;
    if at == 0 {
        return Ok(NtStatus::INSUFFICIENT_RESOURCES);
    }
    let (serial, value) = cx.with(|k| {
        let settings = &mut k.po.settings;
        settings.registrations.insert(at, Registration { setting, device: device.address });
        let serial = settings.routines.add(at, Routine { code: routine, context });
        (serial, settings.values.get(&setting).copied())
    });
    // The routine may take itself back: its driver knows the handle by then.
    cx.write(handle, at)?;
    if let Some(value) = value {
        tell(cx, serial, setting, value)?;
    }
    Ok(NtStatus::SUCCESS)
}

/// `PoUnregisterPowerSettingCallback`: returns when the routine does not run any more.
///
/// # Errors
/// A verdict if the caller may not wait for the routine.
pub fn unregister(cx: &mut Cx<'_>, handle: u64) -> Flow<NtStatus> {
    if cx.with(|k| k.po.settings.registrations.remove(&handle)).is_none() {
        return Ok(NtStatus::INVALID_PARAMETER);
    }
    routines::remove(cx, list(), handle, "PoUnregisterPowerSettingCallback")?;
    pool::free(cx, DriverPtr::<()>::new(handle))?;
    Ok(NtStatus::SUCCESS)
}

/// A setting gets a value; if that is another one, the callbacks registered for it are called, one after the other, before this returns.
///
/// # Errors
/// Whatever a routine comes to.
pub fn set(cx: &mut Cx<'_>, setting: Guid, value: u32) -> Flow<()> {
    let text = guid_text(&setting);
    let name = KNOWN.iter().find(|known| of_text(known.guid) == setting).map_or(&*text, |known| known.name);
    let of = name.to_owned();
    cx.emit(Event::Pnp { step: "power setting", of, after: None, value: Some(value) });
    if cx.with(|k| k.po.settings.values.insert(setting, value)) == Some(value) {
        return Ok(());
    }
    thread::wait_for_system(cx, "power settings", move |cx| {
        for serial in routines::all(cx, &list()) {
            tell(cx, serial, setting, value)?;
        }
        Ok(())
    })
}

/// Calls the routine with this serial, if it is for this setting.
fn tell(cx: &mut Cx<'_>, serial: u64, setting: Guid, value: u32) -> Flow<()> {
    routines::call_one(cx, &list(), serial, |cx, handle, routine| {
        let found = cx.with(|k| k.po.settings.registrations.get(&handle).copied());
        let Some(registration) = found.filter(|registration| registration.setting == setting) else {
            return Ok(());
        };
        let copy: DriverPtr<Guid> = pool::allocate(cx, pool::Kind::NonPaged, SIZE, pool::tag(b"PoSt"))?;
        if copy.is_null() {
            return Err(cx.stop(Verdict::not_implemented("running out of memory for a power setting")));
        }
        let data = DriverPtr::<u32>::new(copy.address + size_of::<Guid>() as u64);
        cx.write(copy, setting)?;
        cx.write(data, value)?;
        let arguments = [copy.address, data.address, size_of::<u32>() as u64, routine.context];
        let called =
            call_routine(cx, Role::PowerSettingCallback, routine.code, registration.device, &arguments);
        pool::free(cx, copy)?;
        called.map(|_| ())
    })
    .map(|_| ())
}
