//! Registry files (`.reg`): what they give is found by compiled drivers, before and beside what INFs write; what a run leaves in the registry is saved, and
//! given again. `drivers/c/settings.c` reads and writes values of each kind.

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;

use dirql::explore::Policy;
use dirql::record::{Record, Recording};
use dirql::{Bench, Error, Machine, Outcome, Report, ScriptText};

use super::rig::{self, driver, start};

const PARAMETERS: &str = r"HKEY_LOCAL_MACHINE\System\CurrentControlSet\Services\settings\Parameters";

/// Values of settings.sys, by their lines.
fn file(lines: &[&str]) -> String {
    format!("Windows Registry Editor Version 5.00\r\n\r\n[{PARAMETERS}]\r\n{}\r\n", lines.join("\r\n"))
}

fn settings(text: &str) -> Bench {
    Bench::new().driver(driver("settings.sys")).registry_text("my.reg", text)
}

/// What the driver prints, without its name, of a run that is clean.
fn prints(report: &Report) -> Vec<&str> {
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    report.prints.iter().map(|line| line.trim_end().trim_start_matches("settings: ")).collect()
}

/// Where a machine writes to that outlives it.
#[derive(Clone, Default)]
struct Saved(Rc<RefCell<Vec<u8>>>);

impl Write for Saved {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Saved {
    fn text(&self) -> String {
        let bytes = self.0.borrow();
        let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        String::from_utf16(units.strip_prefix(&[0xFEFF]).unwrap()).unwrap()
    }
}

/// A run with the registry that it leaves.
fn saved(bench: &dyn Fn() -> Bench) -> (Report, String) {
    let saved = Saved::default();
    let report = start(|| bench().save_registry(saved.clone())).finish();
    (report, saved.text())
}

/// The lines of a key's values.
fn of_key<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    let head = format!("[{key}]");
    let lines = text.split("\r\n").skip_while(|line| !line.eq_ignore_ascii_case(&head));
    lines.skip(1).take_while(|line| !line.is_empty()).collect()
}

#[test]
fn a_driver_finds_values_of_each_kind_and_behaves_by_them() {
    let text = file(&[
        r#""Greeting"="C:\\hello \"you\"""#,
        r#""Starts"=dword:00000029"#,
        r#""Span"=hex(b):2a,00,00,00,01,00,00,00"#,
        "\"Ports\"=hex(7):43,00,4f,00,4d,00,31,00,00,00,\\\r\n  4c,00,50,00,54,00,00,00,00,00",
        r#""Once"=hex(8):01"#,
    ]);
    let report = start(|| settings(&text)).finish();
    assert_eq!(
        prints(&report),
        ["run 42", r#"C:\hello "you""#, "span 10000002a", "once, of type 8", "port COM1", "port LPT"]
    );
    let none = start(|| Bench::new().driver(driver("settings.sys"))).finish();
    assert_eq!(prints(&none), ["run 1"]);

    let opens = |text: &str| {
        let machine = start(|| settings(text));
        let opened = machine.open(r"\\.\DirqlSettings").is_ok();
        rig::finish(machine);
        opened
    };
    assert!(opens(&text) && !opens(&file(&[r#""Disabled"=dword:1"#])));
}

#[test]
fn of_several_files_the_later_one_wins_and_what_is_deleted_is_not_there() {
    let delete = format!("REGEDIT4\n[-{PARAMETERS}]\n[{PARAMETERS}]\n\"Greeting\"=\"two\"\n");
    let first = file(&[r#""Greeting"="one""#, r#""Starts"=dword:7"#]);
    let report = start(|| settings(&first).registry_text("delete.reg", &delete)).finish();
    assert_eq!(prints(&report), ["run 1", "two"]);
    let one = file(&[r#""Greeting"="one""#, r#""Starts"=dword:7"#, r#""Starts"=-"#]);
    assert_eq!(prints(&start(|| settings(&one)).finish()), ["run 1", "one"]);
}

#[test]
fn what_a_driver_leaves_in_the_registry_is_saved_and_found_by_the_next_run() {
    let text = file(&[r#""Greeting"="abc""#, r#""Once"="x""#]);
    let (report, left) = saved(&|| settings(&text));
    assert_eq!(prints(&report), ["run 1", "abc", "once, of type 1"]);
    assert_eq!(
        of_key(&left, PARAMETERS),
        [r#""Greeting"="abc""#, r#""Starts"=dword:00000001"#, r#""Last"=hex(1):63,00,62,00,61,00"#],
        "the string without its zero keeps none, and what was deleted is gone"
    );
    assert!(!left.contains(r"\Session]") && !left.contains(r"\Hardware]"), "volatile keys are left out");
    assert!(left.contains(r"[HKEY_USERS\.Default]") && !left.contains("ControlSet001"), "{left}");

    let (report, left) = saved(&|| settings(&left));
    assert_eq!(prints(&report), ["run 2", "abc"]);
    assert_eq!(of_key(&left, PARAMETERS)[1], r#""Starts"=dword:00000002"#);
}

#[test]
fn a_machine_tells_at_any_time_what_its_registry_holds() {
    let machine = start(|| settings(&file(&[r#""Greeting"="abc""#])));
    assert_eq!(of_key(&machine.registry(), PARAMETERS), [r#""Greeting"="abc""#]);
    rig::finish(machine);
}

/// Drivers with cards and INFs: given what a run has left, a run is the same, and leaves the same.
#[test]
fn what_was_saved_is_given_and_makes_the_same_run() {
    let message =
        || Bench::new().driver(driver("message.sys")).inf(driver("message.inf")).device("bench,msi=4");
    let card = |name: &'static str, inf: &'static str| {
        move || Bench::new().driver(driver(name)).inf(driver(inf)).device("pci9052").device("pci9052")
    };
    let benches: [&dyn Fn() -> Bench; 4] =
        [&message, &card("pci9052.sys", "pci9052.inf"), &card("pciline.sys", "pciline.inf"), &rig::bus];
    for bench in benches {
        let (first, left) = saved(bench);
        assert!(left.contains(r"\Device Parameters]"), "{left}");
        let (second, again) = saved(&|| bench().registry_text("left.reg", &left));
        assert_eq!(left, again);
        assert_eq!(
            (first.trace_hash, first.outcome()),
            (second.trace_hash, second.outcome()),
            "{first}\n{second}"
        );
    }
}

/// The hardware key of the machine's one device.
fn hardware(machine: &Machine) -> String {
    let text = machine.registry();
    let key = text.split("\r\n").find(|line| line.ends_with(r"\Device Parameters]")).unwrap();
    key[1..key.len() - 1].to_owned()
}

/// That a setting of the INF's is the same by a file that wins over it; `below` is where it lies in the hardware key.
fn wins(sys: &str, inf: &str, device: &str, line: &str, below: &str) {
    let (head, value) = line.rsplit_once(',').unwrap();
    let name = head.split(',').nth(2).unwrap();
    let other = if value == "0" { "1" } else { "0" };
    let bench = |inf: PathBuf| Bench::new().driver(driver(sys)).inf(inf).device(device);
    let usual = start(|| bench(driver(inf)));
    let key = hardware(&usual);
    let usual = rig::finish(usual);
    let changed = rig::changed_inf("wins", inf, |text| {
        assert!(text.contains(line), "{inf} has {line}");
        text.replace(line, &format!("{head},{other}"))
    });
    let by_inf = rig::finish(start(|| bench(changed.clone())));
    let text = format!("REGEDIT4\n[{key}{below}]\n\"{name}\"=dword:{other}\n");
    let by_file = rig::finish(start(|| bench(driver(inf)).registry_text("my.reg", &text)));
    assert_ne!(usual.trace_hash, by_inf.trace_hash, "{sys}: the setting shows");
    assert_eq!(by_file.trace_hash, by_inf.trace_hash, "{sys}: the file wins\n{by_file}");
}

#[test]
fn a_devices_settings_by_a_file_win_over_those_of_its_inf() {
    let ports = "HKR,,UsePorts,0x00010001,0";
    wins("pci9052.sys", "pci9052.inf", "pci9052", ports, "");
    wins("pci9052_c.sys", "pci9052_c.inf", "pci9052", ports, "");
    let messages = r"HKR,Interrupt Management\MessageSignaledInterruptProperties,MSISupported,0x00010001,1";
    let below = r"\Interrupt Management\MessageSignaledInterruptProperties";
    // The driver takes a line where there are no messages.
    wins("message.sys", "message.inf", "bench,msi=4", messages, below);
}

#[test]
fn a_drivers_parameters_by_a_file_win_over_those_of_its_inf() {
    let text = "REGEDIT4\n[HKLM\\System\\CurrentControlSet\\Services\\pci9052\\Parameters]\n\"StopTimeout\"=dword:14\n";
    let bench = || Bench::new().driver(driver("pci9052.sys")).inf(driver("pci9052.inf")).device("pci9052");
    let time_out_is = |bench: &dyn Fn() -> Bench, milliseconds: u32| {
        let machine = start(bench);
        rig::play(
            &machine,
            &format!(
                "wait 1ms\nwmi query block:{{8F2D4B61-2C3E-4A7D-9B15-6E0CD38A7F42}} expect zero:32 + u32:{milliseconds} + u32:0x10000"
            ),
        );
        rig::finish(machine);
    };
    time_out_is(&bench, 1000);
    time_out_is(&|| bench().registry_text("my.reg", text), 20);
}

/// A driver reports a child while it runs: its keys are written then, and the file wins there, too. What drivers have written elsewhere stays.
#[test]
fn a_child_that_comes_later_has_what_the_file_gives_it() {
    let inf = rig::changed_inf("child", "soft.inf", |text| {
        let keys = "[Soft.HW]\nAddReg=Hardware\n[Hardware]\nHKR,,Colour,,\"red\"\nHKR,,Size,,\"large\"\n";
        text.replace("[Soft.Services]\n", &format!("{keys}[Soft.Services]\n"))
    });
    let left = |text: Option<&str>| {
        let bench = || {
            let bus = Bench::new().driver(driver("busdriver.sys")).inf(driver("busdriver.inf"));
            let bench = bus.with(driver("soft.sys")).inf(inf.clone());
            text.into_iter().fold(bench, |bench, text| bench.registry_text("my.reg", text))
        };
        let machine = start(bench);
        let written = machine.with_kernel(|cx| {
            let service = r"\Registry\Machine\System\CurrentControlSet\Services\DirqlSoft";
            Ok(kernel::cm::access::set_number(cx, service, "Written", 2))
        });
        assert_eq!(written, Ok(Ok(())), "as a driver does");
        rig::play(&machine, "open \\\\.\\DirqlBus0 as b\nioctl b 0x222000 in u32:1\nwait 1ms\nclose b");
        let left = machine.registry();
        rig::finish(machine);
        left
    };
    let usual = left(None);
    let is_child = |line: &&str| line.contains(r"DIRQLBUS\Child") && line.ends_with(r"\Device Parameters]");
    let line = usual.split("\r\n").find(is_child).unwrap_or_else(|| panic!("{usual}"));
    let key = &line[1..line.len() - 1];
    assert_eq!(of_key(&usual, key), [r#""Colour"="red""#, r#""Size"="large""#]);
    let service = r"HKEY_LOCAL_MACHINE\System\CurrentControlSet\Services\DirqlSoft";
    let given = left(Some(&format!(
        "REGEDIT4\n[{service}]\n\"Written\"=dword:1\n[{key}]\n\"COLOUR\"=\"blue\"\n\"Own\"=dword:1\n"
    )));
    assert!(of_key(&given, service).contains(&r#""Written"=dword:00000002"#), "{given}");
    assert_eq!(of_key(&given, key), [r#""COLOUR"="blue""#, r#""Own"=dword:00000001"#, r#""Size"="large""#]);
}

/// An exported key has the list of the devices that the service had there.
#[test]
fn lists_that_windows_makes_at_boot_are_not_taken_from_a_file() {
    let services = r"HKEY_LOCAL_MACHINE\System\CurrentControlSet\Services\pci9052\Enum";
    let text = format!(
        "REGEDIT4\n[{services}]\n\"0\"=\"PCI\\\\VEN_1234\\\\1\"\n\"Count\"=dword:1\n\"NextInstance\"=dword:1\n"
    );
    let bench = || Bench::new().driver(driver("pci9052.sys")).inf(driver("pci9052.inf")).device("pci9052");
    let machine = start(|| bench().registry_text("my.reg", &text));
    let count = machine.with_kernel(|cx| {
        let key = r"\Registry\Machine\System\CurrentControlSet\Services\pci9052\Enum";
        Ok(kernel::cm::access::number(cx, key, "Count"))
    });
    assert_eq!(count, Ok(Some(1)));
    rig::finish(machine);
}

#[test]
fn a_recorded_run_is_made_again_without_the_file() {
    let path = rig::folder("record").join("my.reg");
    fs::write(&path, file(&[r#""Greeting"="from the file""#, r#""Ports"=hex(7):61,00,00,00,00,00"#]))
        .unwrap();
    let script = ScriptText::typed(r"open \\.\DirqlSettings as s; close s");
    let out = rig::Buffer::default();
    let policy = Policy::random(5);
    let bench = Bench::new().driver(driver("settings.sys")).registry(&path);
    let (bench, recording) =
        Recording::start(bench, policy.chooser(), &policy.to_string(), Some(&script), out.clone()).unwrap();
    let report = bench.run(Some(script.play().unwrap())).unwrap();
    recording.finish(&report).unwrap();
    assert_eq!(prints(&report), ["run 1", "from the file", "port a"]);

    fs::remove_file(&path).unwrap();
    let record = Record::parse("run.dirql", &out.text()).unwrap();
    let (bench, play, comparison) = record.bench(None, None, None).unwrap();
    let again = bench.run(play).unwrap();
    assert_eq!(comparison.difference(&again), None);
    assert_eq!((again.trace_hash, &again.prints), (report.trace_hash, &report.prints));
}

#[test]
fn a_machine_that_is_booted_again_has_what_was_given_and_no_more() {
    let mut boots = rig::boots(settings(&file(&[r#""Starts"=dword:4"#])));
    for _ in 0..3 {
        let (text, report) = boots.boot(Policy::default().chooser(), Machine::registry).unwrap();
        assert_eq!(prints(&report), ["run 5"]);
        assert_eq!(of_key(&text, PARAMETERS), [r#""Starts"=dword:00000004"#]);
    }
}

#[test]
fn a_file_that_cannot_be_used_is_refused_before_there_is_a_machine() {
    let refused = |bench: Bench| match bench.start() {
        Err(Error::Input(error)) => error.to_string(),
        other => panic!("{:?}", other.err()),
    };
    assert_eq!(
        refused(settings("REGEDIT4\n[HKLM\\Software\\Card]\n\"Limit\"=dword:0x10\n")),
        "my.reg:3:15: `0x10` stands here, where one to eight hexadecimal digits belong, without 0x: dword:0000002a"
    );
    let absent = Bench::new().driver(driver("settings.sys")).registry("/nowhere/my.reg");
    assert_eq!(refused(absent), "/nowhere/my.reg: there is no such file; give the path of the registry file");
}

#[test]
fn a_file_that_the_machine_has_no_memory_for_is_refused() {
    let keys: String = (0..20_000).map(|number| format!("[HKLM\\Software\\Card\\{number}]\n")).collect();
    let text = format!("REGEDIT4\n{keys}");
    let bench = || settings(&text).memory(16 << 20);
    let Err(Error::Input(error)) = bench().start() else { panic!("it does not fit") };
    let message = error.to_string();
    let says =
        "the machine has no memory for this; give it more with --memory, or keep only the keys that matter";
    assert!(message.starts_with("my.reg:1") && message.ends_with(&format!(":1: {says}")), "{message}");
    assert_eq!(start(|| settings(&text)).finish().outcome(), Outcome::Clean);
}
