//! The directives of install sections, the sections that belong to one, and what becomes of each here.
//!
//! Follows *Summary of INF Directives*, *Summary of INF Sections*, and *INF Validation Errors and Warnings* for what is legacy: what
//! InfVerif tells as 1300 to 1302 and 2222.

/// What becomes of a directive, or of a section that belongs to an install section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// It is carried out.
    Done,
    /// It cannot matter to the driver: why.
    Harmless(&'static str),
    /// It is not carried out, and may matter: what is missing.
    Missing(&'static str),
}

/// A directive, or a section's suffix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) effect: Effect,
    /// What to do instead, where a driver package for Windows 10 and later may not have it.
    pub(super) legacy: Option<&'static str>,
}

const fn done(name: &'static str) -> Known {
    Known { name, effect: Effect::Done, legacy: None }
}

const fn harmless(name: &'static str, why: &'static str) -> Known {
    Known { name, effect: Effect::Harmless(why), legacy: None }
}

const fn missing(name: &'static str, what: &'static str) -> Known {
    Known { name, effect: Effect::Missing(what), legacy: None }
}

impl Known {
    const fn legacy(self, instead: &'static str) -> Self {
        Self { legacy: Some(instead), ..self }
    }
}

const NETWORK: &str = "the class Net's, for NDIS";
const FILES: &str = "files are user mode's";
const NOTHING_BEFORE: &str =
    "a package leaves nothing behind that needs it: Windows removes what it installed";
const NO_INI: &str = "write to the registry by AddReg";
const BUS_RESOURCES: &str = "resources are the bus driver's: leave it out";

/// Of `DDInstall` and `DefaultInstall`.
pub(super) const INSTALL: &[Known] = &[
    done("AddReg"),
    done("DelReg").legacy(NOTHING_BEFORE),
    done("Include"),
    done("Needs"),
    done("FeatureScore"),
    done("BitReg").legacy("write the whole value by AddReg"),
    done("AddProperty"),
    done("DelProperty").legacy(NOTHING_BEFORE),
    harmless("CopyFiles", FILES),
    harmless("CopyINF", FILES),
    harmless("DelFiles", FILES).legacy(NOTHING_BEFORE),
    harmless("RenFiles", FILES).legacy("give the file its name in the package"),
    done("DriverVer"),
    harmless("ExcludeID", "only drivers of this file are chosen from"),
    harmless("ProfileItems", "the Start menu is user mode's")
        .legacy("leave it to the application's installer"),
    harmless("UpdateInis", "INI files are user mode's").legacy(NO_INI),
    harmless("UpdateIniFields", "INI files are user mode's").legacy(NO_INI),
    harmless("Ini2Reg", "INI files are user mode's").legacy(NO_INI),
    harmless("RegisterDlls", "DLLs are user mode's").legacy("use AddSoftware in [DDInstall.Software]"),
    harmless("UnregisterDlls", "DLLs are user mode's").legacy("use AddSoftware in [DDInstall.Software]"),
    harmless("Reboot", "there is nothing to restart")
        .legacy("leave it out: Windows says when it has to restart"),
    done("LogConfig").legacy(BUS_RESOURCES),
    harmless("OptionDesc", "it is shown to users"),
    harmless("Characteristics", NETWORK),
    harmless("BusType", NETWORK),
    harmless("EthPhyPort", NETWORK),
    harmless("*IfType", NETWORK),
    harmless("*MediaType", NETWORK),
    harmless("*PhysicalMediaType", NETWORK),
    harmless("*IfConnectorPresent", NETWORK),
    harmless("*ConnectionType", NETWORK),
    harmless("*DirectionType", NETWORK),
    harmless("*AccessType", NETWORK),
    harmless("*HardwareLoopback", NETWORK),
];

/// Of `DefaultUninstall`.
pub(super) const UNINSTALL: &[Known] = &[
    done("LegacyUninstall"),
    done("AddReg"),
    done("DelReg"),
    done("BitReg"),
    done("Include"),
    done("Needs"),
    harmless("CopyFiles", FILES),
    harmless("CopyINF", FILES),
    harmless("DelFiles", FILES),
    harmless("RenFiles", FILES),
    harmless("UpdateInis", "INI files are user mode's"),
    harmless("UpdateIniFields", "INI files are user mode's"),
    harmless("Ini2Reg", "INI files are user mode's"),
    harmless("ProfileItems", "the Start menu is user mode's"),
    harmless("RegisterDlls", "DLLs are user mode's"),
    harmless("UnregisterDlls", "DLLs are user mode's"),
    harmless("Reboot", "there is nothing to restart"),
];

/// Of `DDInstall.HW`.
pub(super) const HARDWARE: &[Known] = &[
    done("AddReg"),
    done("DelReg").legacy(NOTHING_BEFORE),
    done("Include"),
    done("Needs"),
    done("BitReg").legacy("write the whole value by AddReg"),
    done("AddProperty"),
    done("DelProperty").legacy(NOTHING_BEFORE),
];

/// Of `DDInstall.Services`.
pub(super) const SERVICES: &[Known] = &[
    done("AddService"),
    done("Include"),
    done("Needs"),
    harmless("DelService", "there are no services of an earlier package").legacy(NOTHING_BEFORE),
];

/// Of a service-install section. What the last ones say is a value of the service's key.
pub(super) const SERVICE: &[Known] = &[
    done("ServiceType"),
    done("StartType"),
    done("ErrorControl"),
    done("ServiceBinary"),
    done("DisplayName"),
    done("AddReg"),
    done("DelReg").legacy(NOTHING_BEFORE),
    done("BitReg").legacy("write the whole value by AddReg"),
    done("Description"),
    done("LoadOrderGroup"),
    done("Dependencies"),
    done("BootFlags"),
    done("StartName"),
    harmless("Security", "who may control a service is user mode's"),
    harmless("RequiredPrivileges", "drivers have all"),
    harmless("ServiceSidType", "drivers run without one"),
    harmless("DelayedAutoStart", "only services of user mode have it"),
    harmless("AddTrigger", "only services of user mode have them"),
    harmless("FailureActions", "only services of user mode have them"),
];

/// Of an event-log-install section.
pub(super) const EVENT_LOG: &[Known] =
    &[done("AddReg"), done("DelReg").legacy(NOTHING_BEFORE), done("BitReg")];

/// Of `DDInstall.Interfaces`.
pub(super) const INTERFACES: &[Known] = &[done("AddInterface"), done("Include"), done("Needs")];

/// Of an add-interface section.
pub(super) const INTERFACE: &[Known] = &[
    done("AddReg"),
    done("DelReg").legacy(NOTHING_BEFORE),
    done("AddProperty"),
    done("DelProperty").legacy(NOTHING_BEFORE),
    done("BitReg").legacy("write the whole value by AddReg"),
    harmless("CopyFiles", FILES),
    harmless("DelFiles", FILES).legacy(NOTHING_BEFORE),
    harmless("RenFiles", FILES).legacy("give the file its name in the package"),
    harmless("UpdateInis", "INI files are user mode's").legacy(NO_INI),
    harmless("UpdateIniFields", "INI files are user mode's").legacy(NO_INI),
    harmless("Ini2Reg", "INI files are user mode's").legacy(NO_INI),
];

/// Of `DDInstall.Wdf`.
pub(super) const WDF: &[Known] = &[
    done("KmdfService"),
    done("Include"),
    done("Needs"),
    harmless("UmdfService", "drivers of user mode are not run"),
    harmless("UmdfServiceOrder", "drivers of user mode are not run"),
    harmless("UmdfImpersonationLevel", "drivers of user mode are not run"),
    harmless("UmdfMethodNeitherAction", "drivers of user mode are not run"),
    harmless("UmdfDispatcher", "drivers of user mode are not run"),
    harmless("UmdfKernelModeClientPolicy", "drivers of user mode are not run"),
    harmless("UmdfFileObjectPolicy", "drivers of user mode are not run"),
    harmless("UmdfFsContextUsePolicy", "drivers of user mode are not run"),
    harmless("UmdfHostProcessSharing", "drivers of user mode are not run"),
    harmless("UmdfHostPriority", "drivers of user mode are not run"),
    harmless("UmdfDirectHardwareAccess", "drivers of user mode are not run"),
    harmless("UmdfRegisterAccessMode", "drivers of user mode are not run"),
];

/// Of `DDInstall.Filters`.
pub(super) const FILTERS: &[Known] = &[done("AddFilter"), done("Include"), done("Needs")];

/// Of `DDInstall.Events`.
pub(super) const EVENTS: &[Known] = &[
    harmless("AddEventProvider", "a provider's manifest is for those who read events"),
    done("Include"),
    done("Needs"),
];

const OTHER: &[Known] = &[
    harmless("AddComponent", "components are user mode's"),
    harmless("AddSoftware", "software is user mode's"),
    harmless("AddComServer", "COM servers are user mode's"),
    harmless("AddComClass", "COM servers are user mode's"),
    harmless("WMIInterface", "who may query it is user mode's"),
    done("AddReg"),
    done("CopyFiles"),
    done("DelReg"),
    done("DelFiles"),
    done("RenFiles"),
    done("BitReg"),
    done("UpdateInis"),
    done("UpdateIniFields"),
    done("Ini2Reg"),
    done("Include"),
    done("Needs"),
];

/// Of a log-config section, and of `DDInstall.FactDef`.
pub(super) const CONFIGURATION: &[Known] = &[
    done("ConfigPriority"),
    done("DMAConfig"),
    done("IOConfig"),
    done("MemConfig"),
    done("IRQConfig"),
    missing("PcCardConfig", "there is no PCMCIA bus"),
    missing("MfCardConfig", "there is no PCMCIA bus"),
    done("Include"),
    done("Needs"),
];

/// Of `DDInstall.LogConfigOverride`.
pub(super) const OVERRIDE: &[Known] = &[done("LogConfig"), done("Include"), done("Needs")];

/// A section that belongs to an install section: `[DDInstall.HW]`, and its directives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) section: Known,
    pub(super) directives: &'static [Known],
}

/// All of them.
pub(super) const PARTS: &[Part] = &[
    Part { section: done("Services"), directives: SERVICES },
    Part { section: done("HW"), directives: HARDWARE },
    Part { section: done("Interfaces"), directives: INTERFACES },
    Part { section: done("Filters"), directives: FILTERS },
    Part { section: done("Wdf"), directives: WDF },
    Part {
        section: harmless("Events", "a provider's manifest is for those who read events"),
        directives: EVENTS,
    },
    Part { section: harmless("Components", "components are user mode's"), directives: OTHER },
    Part { section: harmless("Software", "software is user mode's"), directives: OTHER },
    Part { section: harmless("COM", "COM servers are user mode's"), directives: OTHER },
    Part { section: harmless("WMI", "who may query it is user mode's"), directives: OTHER },
    Part {
        section: harmless("CoInstallers", "co-installers run in user mode")
            .legacy("Windows 11 runs none: use [DDInstall.Components], or have the application do it"),
        directives: OTHER,
    },
    Part { section: done("FactDef").legacy(BUS_RESOURCES), directives: CONFIGURATION },
    Part { section: done("LogConfigOverride").legacy(BUS_RESOURCES), directives: OVERRIDE },
];

/// What is known of a name, in any case.
pub(super) fn find<'a>(known: &'a [Known], name: &str) -> Option<&'a Known> {
    known.iter().find(|known| known.name.eq_ignore_ascii_case(name))
}
