//! Clients of KMDF (`drivers/c/kmdf_*.c`), the framework that they run on, and the whole lives of their devices.
//!
//! The framework is the stand-in of `drivers/c/framework.c`. Where the environment's `DIRQL_WDF01000` names the file of one of Microsoft's,
//! stories of clients whose versions it serves are run on that, too.

use std::path::{Path, PathBuf};

use dirql::rules::Judge;
use dirql::{Bench, Report};

use super::{changed_inf, driver, finish, play, start, try_play};

/// Names a framework of Microsoft's.
const REAL: &str = "DIRQL_WDF01000";

/// A client, and the version that its INF says.
pub(crate) type Client = (&'static str, &'static str);

/// Clients of `kmdf_echo.c`, and the versions that their INFs say.
pub(crate) const ECHOES: [Client; 5] = [
    ("kmdf_echo_1_9", "1.9"),
    ("kmdf_echo", "1.15"),
    ("kmdf_echo_1_33", "1.33"),
    ("kmdf_echo_min", "1.33"),
    ("kmdf_echo_1_7", "1.7"),
];
/// Of `kmdf_edu.c`.
pub(crate) const EDUS: [Client; 3] =
    [("kmdf_edu_1_13", "1.13"), ("kmdf_edu", "1.15"), ("kmdf_edu_1_7", "1.7")];
/// Of `kmdf_stories.c`.
pub(crate) const STORIES: [Client; 2] = [("kmdf_stories", "1.15"), ("kmdf_stories_1_7", "1.7")];
/// The stories that it checks itself, without a request that waits.
pub(crate) const SELF_CHECKED: [&str; 10] = [
    "ContextsAreFoundByTheirTypes",
    "ChildrenGoWithTheirParentAndReferencesKeepMemory",
    "DriverAndDeviceKnowEachOther",
    "DpcsRunOnceForEachQueuing",
    "TimersRunOnceOrPeriodicallyUntilTheyAreStopped",
    "WorkItemsRunAtPassiveLevelAndAreWaitedFor",
    "WaitLocksAreWaitedForAsLongAsIsSaid",
    "ARequestSaysWhatItIs",
    "QueuesThatCannotBeAreRefused",
    "FilesAreOpenedCleanedUpAndClosed",
];
/// Of `kmdf_faulty.c`.
pub(crate) const FAULTIES: [Client; 2] = [("kmdf_faulty", "1.15"), ("kmdf_faulty_1_7", "1.7")];

/// Of `kmdf_miniport.c`.
pub(crate) const MINIPORTS: [Client; 2] = [("kmdf_miniport", "1.15"), ("kmdf_miniport_1_7", "1.7")];
/// One that does not call `WdfDriverMiniportUnload`.
pub(crate) const FORGETFUL: [Client; 1] = [("kmdf_miniport_forgets", "1.7")];
/// Those of `kmdf_echo.c` and `kmdf_edu.c` whose power policy is another driver's.
pub(crate) const NOT_OWNERS: [Client; 2] = [("kmdf_echo_not_owner", "1.7"), ("kmdf_edu_not_owner", "1.7")];

/// Opens the device of `kmdf_echo.sys` by its interface.
pub(crate) const OPEN_ECHO: &str = "open interface:{6D1C2B6E-7E0A-4C1B-9D37-3A54C0F2E815} as e overlapped";

/// The framework's stand-in.
pub(crate) fn stand_in() -> PathBuf {
    driver("framework.sys")
}

/// The framework of Microsoft's that the environment names, and its minor version.
pub(crate) fn real() -> Option<(PathBuf, u32)> {
    let path = PathBuf::from(std::env::var_os(REAL)?);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{REAL}: {}: {error}", path.display()));
    // VS_FIXEDFILEINFO: its signature, its own version, and the file's, whose lower half is the minor number.
    let at = bytes.windows(4).position(|word| word == 0xFEEF_04BD_u32.to_le_bytes());
    let at = at.unwrap_or_else(|| panic!("{REAL}: {}: the file says no version", path.display()));
    let version = bytes[at + 8..].first_chunk().map(|word| u32::from_le_bytes(*word)).unwrap();
    Some((path, version & 0xFFFF))
}

/// Clients and what they run on: these on the stand-in, and those of `all` that a framework of Microsoft's serves on that, where there is one.
pub(crate) fn on_each_framework(
    clients: &'static [Client],
    all: &'static [Client],
) -> Vec<(PathBuf, Client)> {
    let on_stand_in = clients.iter().map(|client| (stand_in(), *client));
    let on_real = real().into_iter().flat_map(|(real, minor)| {
        let serves =
            move |client: &&Client| client.1.trim_start_matches("1.").parse::<u32>().unwrap() <= minor;
        all.iter().filter(serves).map(move |client| (real.clone(), *client))
    });
    on_stand_in.chain(on_real).collect()
}

/// The INF `name`, for another build of its driver.
pub(crate) fn inf(name: &str, sys: &str, version: &str) -> PathBuf {
    changed_inf(sys, &format!("{name}.inf"), |text| {
        text.replace(&format!("{name}.sys"), &format!("{sys}.sys")).replace("1.15", version)
    })
}

pub(crate) fn client(framework: &Path, name: &str, (sys, version): (&str, &str)) -> Bench {
    let bench = Bench::new().driver(driver(&format!("{sys}.sys"))).framework(framework);
    bench.inf(inf(name, sys, version))
}

pub(crate) fn echo_on(framework: &Path, of: (&str, &str)) -> Bench {
    client(framework, "kmdf_echo", of)
}

pub(crate) fn echo(of: (&str, &str)) -> Bench {
    echo_on(&stand_in(), of)
}

pub(crate) fn edu_on(framework: &Path, of: (&str, &str)) -> Bench {
    client(framework, "kmdf_edu", of).device("edu,factorial=25us")
}

pub(crate) fn edu(of: (&str, &str)) -> Bench {
    edu_on(&stand_in(), of)
}

/// A client of the class extension `kmdf_class.sys`.
pub(crate) fn classed(sys: &str) -> Bench {
    const REGISTRY: &str = r#"Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Control\Wdf\Kmdf\DirqlKmdfClass\Versions\1]
"Service"="\\Registry\\Machine\\System\\CurrentControlSet\\Services\\kmdf_class"
"#;
    Bench::new()
        .driver(driver(&format!("{sys}.sys")))
        .framework(stand_in())
        .with(driver("kmdf_class.sys"))
        .registry_text("class.reg", REGISTRY)
}

/// Traffic of several threads, in which the device stops, sleeps and is started again.
pub(crate) const ECHO_LIFE: &str = "query-remove; cancel-remove
    open interface:{6D1C2B6E-7E0A-4C1B-9D37-3A54C0F2E815} as e overlapped
    open interface:{6D1C2B6E-7E0A-4C1B-9D37-3A54C0F2E815} as f
    async r ioctl e 0x222004 in u32:2; async s ioctl e 0x222004 in u32:1
    async m ioctl e 0x222008 out 8
    a: write f text:abc; a: ioctl f 0x222010 in text:work out 8 expect text:work; a: read f 3 expect text:abc
    b: ioctl e 0x222000 in text:back out 8 expect text:back; b: cancel s; b: ioctl e 0x22200c in text:go
    stop-device; start-device
    power s3; power s0
    join a; join b; join r; join s expect any; join m expect text:go
    async u ioctl e 0x222004 in u32:50
    cancel u; join u expect any
    close e; close f";

pub(crate) const EDU_LIFE: &str = r"open \\.\KmdfEdu as e
    open \\.\KmdfEdu as f
    a: ioctl e 0x223000 in u32:5 out 4 expect u32:120; a: ioctl e 0x223000 in u32:6 out 4 expect u32:720
    b: ioctl f 0x223000 in u32:4 out 4 expect u32:24; b: ioctl f 0x223004 out 24; b: ioctl f 0x223000 in u32:3 out 4 expect u32:6
    stop-device; start-device
    power s3; power s0
    query-stop; cancel-stop
    join a; join b
    close e; close f";

/// A device that is pulled out amid its traffic.
pub(crate) const ECHO_PULLED_OUT: &str = "open interface:{6D1C2B6E-7E0A-4C1B-9D37-3A54C0F2E815} as e overlapped
    async r ioctl e 0x222004 in u32:2; async s ioctl e 0x222004 in u32:1; async m ioctl e 0x222008 out 8
    a: write e text:abc expect any; a: ioctl e 0x222010 in text:work out 8 expect any; a: cancel r; a: read e 3 expect any
    b: power s3 expect any; b: power s0 expect any
    surprise-remove dirqlkmdfecho#0 expect any
    cancel m; join a; join b; join r expect any; join s expect any; join m expect any; close e";

pub(crate) const EDU_PULLED_OUT: &str = r"open \\.\KmdfEdu as e
    a: ioctl e 0x223000 in u32:5 out 4 expect any; a: ioctl e 0x223000 in u32:6 out 4 expect any
    wait 10us; surprise-remove edu#0; join a; close e";

/// Two threads, and then one, with a client of a class extension.
pub(crate) const CLASSED_LIFE: &str = r"open \\.\KmdfClassed as c
    write c hex:020406; read c 1 expect hex:04
    a: write c hex:08; a: read c 1 expect any; write c hex:0505; join a; read c 1 expect hex:05; close c";

/// A whole run, which is clean and leaves nothing.
pub(crate) fn run(bench: impl Fn() -> Bench, script: &str) -> Report {
    let machine = start(bench);
    play(&machine, script);
    finish(machine)
}

/// A mistake of `kmdf_faulty.sys`, by its number, to be made or done right: the lines of a script.
pub(crate) fn commit(number: usize, wrong: bool) -> String {
    let (code, wrong) = (0x0022_2000 + 4 * number, u32::from(wrong));
    format!(r"open \\.\KmdfFaulty as f overlapped; async r ioctl f {code:#x} in u32:{wrong} out 8; wait 10ms")
}

/// A mistake of `kmdf_faulty.sys`, by its number: made, or done right, in a machine with these judges. What goes wrong stands in the report.
pub(crate) fn mistake_before(judges: &[Judge], number: usize, wrong: bool, checked: bool) -> Report {
    mistake_on(&stand_in(), FAULTIES[0], judges, number, wrong, checked)
}

/// The same, of a build of it, on a framework.
pub(crate) fn mistake_on(
    framework: &Path,
    (sys, _): Client,
    judges: &[Judge],
    number: usize,
    wrong: bool,
    checked: bool,
) -> Report {
    let machine = start(|| {
        let bench = Bench::new().driver(driver(&format!("{sys}.sys"))).framework(framework);
        bench.checked(checked).processors(1).rules(judges)
    });
    let _ = try_play(&machine, &commit(number, wrong));
    machine.finish()
}
