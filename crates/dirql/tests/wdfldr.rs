//! Stories of the frameworks' loader: a compiled driver (`drivers/c/loader.c`) that is a framework, a class extension and their client, and what the
//! loader does with what it is given.

use dirql::{Bench, Report};
use kernel::event::{Event, Kind, Reader, Role, Stamp};

use super::rig::{self, command, driver, play, start, try_play};

/// The registry names the driver's service for the framework's component and for the class extension's.
const REGISTRY: &str = r#"Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Control\Wdf\Kmdf\KmdfLibrary\Versions\1]
"Service"="\\Registry\\Machine\\System\\CurrentControlSet\\Services\\loader"

[HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Control\Wdf\Kmdf\DirqlCx\Versions\1]
"Service"="\\Registry\\Machine\\System\\CurrentControlSet\\Services\\loader"

[HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Control\Wdf\Kmdf\Diagnostics]
"DbgPrintOn"=dword:00000003
"Text"="3"
"#;

fn bench() -> Bench {
    Bench::new().driver(driver("loader.sys")).registry_text("loader.reg", REGISTRY).checked(true)
}

/// Has the driver tell these stories, one after the other.
fn tell(stories: &[&str]) -> Report {
    let machine = start(bench);
    let body: String =
        stories.iter().map(|name| format!("{} expect prefix u32:0\n", command("c", name))).collect();
    play(&machine, &format!("open \\\\.\\DirqlLoader as c\n{body}"));
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    report
}

#[test]
fn a_framework_registers_once_and_is_commissioned_and_let_go_of_at_the_end() {
    let report = tell(&["ALibraryIsRegisteredOnce"]);
    assert!(report.prints.iter().any(|line| line.contains("decommissioned with 0 clients")), "{report}");
}

#[test]
fn a_client_is_bound_by_its_component_and_version_and_unbound_once() {
    tell(&["ALibraryIsRegisteredOnce", "AClientIsBoundByItsComponentAndVersion", "AClientIsUnboundOnce"]);
}

#[test]
fn calls_of_functions_arrive_with_all_arguments_and_are_seen() {
    let report = tell(&[
        "ALibraryIsRegisteredOnce",
        "AClientIsBoundByItsComponentAndVersion",
        "ACallOfAFunctionArrivesAsTheClientMadeIt",
        "AClientIsUnboundOnce",
    ]);
    assert_eq!(report.sums.exports["WdfChildListRetrievePdo"], 1, "{report}");
}

#[test]
fn later_clients_have_the_address_of_a_table_and_may_be_newer_than_their_framework() {
    let report = tell(&[
        "ALibraryIsRegisteredOnce",
        "ALaterClientHasTheAddressOfATable",
        "AClientMayBeNewerThanItsFramework",
    ]);
    assert_eq!(report.sums.exports["WdfDeviceOpenDevicemapKey"], 2, "{report}");
}

#[test]
fn a_function_beyond_its_level_is_for_the_verifier_to_object_to() {
    let machine = start(bench);
    let stories = [
        "ALibraryIsRegisteredOnce",
        "AClientIsBoundByItsComponentAndVersion",
        "AFunctionIsForPassiveLevel",
        "AClientIsUnboundOnce",
    ];
    let body: String =
        stories.iter().map(|name| format!("{} expect prefix u32:0\n", command("c", name))).collect();
    play(&machine, &format!("open \\\\.\\DirqlLoader as c\n{body}"));
    let report = machine.finish();
    let [finding] = report.findings.as_slice() else { panic!("{report}") };
    assert_eq!(finding.rule, "irql-too-high", "{report}");
    assert!(finding.message.contains("WdfChildListCreate was called at IRQL 2"), "{report}");
    let first = finding.stack.first().map(|line| line.symbol.clone()).unwrap_or_default();
    assert!(first.contains("loader.sys!AFunctionIsForPassiveLevel"), "{report}");
}

#[test]
fn callbacks_are_seen_and_get_and_return_what_the_framework_and_the_client_mean() {
    let lines = rig::Buffer::default();
    let machine = start(|| bench().reader(Calls(lines.clone())));
    play(
        &machine,
        &format!(
            "open \\\\.\\DirqlLoader as c\n{} expect prefix u32:0\n{} expect prefix u32:0\n",
            command("c", "ALibraryIsRegisteredOnce"),
            command("c", "ACallbackIsCalledAsTheFrameworkCallsIt")
        ),
    );
    let report = machine.finish();
    report.expect_clean();
    assert_eq!(report.sums.still_allocated(), 0, "{report}");
    let control = "enter EvtIoDeviceControl\nleave EvtIoDeviceControl\n".repeat(3);
    let synchronize =
        |value: u8| format!("enter EvtInterruptSynchronize\nleave EvtInterruptSynchronize {value}\n");
    assert_eq!(lines.text(), format!("{control}{}{}", synchronize(1), synchronize(0)));
}

/// Writes down which callbacks begin and end.
struct Calls(rig::Buffer);

impl Reader for Calls {
    fn wants(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Enter | Kind::Leave)
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        use std::io::Write;
        match event {
            Event::Enter { role, .. } if role.name().starts_with("Evt") => {
                writeln!(self.0, "enter {role}").unwrap();
            }
            Event::Leave { role: Role::EvtInterruptSynchronize, value, .. } => {
                writeln!(self.0, "leave EvtInterruptSynchronize {}", value & 0xFF).unwrap();
            }
            Event::Leave { role, .. } if role.name().starts_with("Evt") => {
                writeln!(self.0, "leave {role}").unwrap(); // it returns nothing
            }
            _ => {}
        }
    }
}

/// Not: ddi-after-unbind, in the stories above.
#[test]
fn a_function_that_is_called_after_the_unbind_ends_the_run() {
    let report = ends(&["AClientIsUnboundOnce", "CallsAFunctionAfterItsUnbind"]);
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "ddi-after-unbind", "{report}");
    assert!(verdict.message.starts_with("WdfChildListRetrievePdo was called"), "{report}");
}

#[test]
fn an_error_that_the_framework_finds_is_the_clients_with_its_call_and_in_words() {
    let report = ends(&["ViolatesItsFramework"]);
    let text = report.to_string();
    for part in [
        "the framework loader.sys, in WdfChildListRetrieveAddressDescription, which loader.sys!ViolatesItsFramework+",
        "WDF_VIOLATION (0x10D)",
        "a function was given NULL for a parameter that must not be NULL",
        "address of the caller",
        "  client       0x",
        ", in its call of WdfChildListRetrieveAddressDescription",
    ] {
        assert!(text.contains(part), "{part}: {report}");
    }
    assert!(
        report.json_end().contains(r#""ddi":"WdfChildListRetrieveAddressDescription""#),
        "{}",
        report.json_end()
    );
}

#[test]
fn a_wild_call_into_the_loaders_code_is_the_drivers() {
    let report = ends(&["CallsAnEntryThatIsOfNoCallback"]);
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "execute-of-data", "{report}");
    assert!(verdict.stack[0].symbol.contains("CallsAnEntryThatIsOfNoCallback"), "{report}");
}

/// The report of a client that is bound and then does this, which ends the run.
fn ends(stories: &[&str]) -> Report {
    let machine = start(bench);
    let before = ["ALibraryIsRegisteredOnce", "AClientIsBoundByItsComponentAndVersion"];
    let all = before.iter().chain(stories);
    let body: String = all.map(|name| format!("{}\n", command("c", name))).collect();
    let _ = try_play(&machine, &format!("open \\\\.\\DirqlLoader as c\n{body}"));
    machine.finish()
}

#[test]
fn a_class_extension_serves_clients_of_its_framework_up_to_its_own_version() {
    let report = tell(&[
        "ALibraryIsRegisteredOnce",
        "AClientIsBoundByItsComponentAndVersion",
        "AClassIsBoundToAClientOfItsFramework",
        "AClientIsUnboundOnce",
    ]);
    assert!(report.prints.iter().any(|line| line.contains("the class is gone")), "{report}");
}

#[test]
fn a_framework_whose_client_stays_bound_is_not_let_go_of() {
    let machine = start(bench);
    let stories = ["ALibraryIsRegisteredOnce", "AClientIsBoundByItsComponentAndVersion"];
    let body: String =
        stories.iter().map(|name| format!("{} expect prefix u32:0\n", command("c", name))).collect();
    play(&machine, &format!("open \\\\.\\DirqlLoader as c\n{body}"));
    let report = machine.finish();
    assert!(!report.prints.iter().any(|line| line.contains("decommissioned")), "{report}");
    assert!(report.notes.iter().any(|note| note.contains("loader.sys: stays loaded")), "{report}");
}

#[test]
fn the_loader_answers_what_it_is_and_what_the_registry_says() {
    tell(&["TheLoaderHasOneInterface", "TheLoaderIsAnExportLibraryThatIsAlwaysThere"]);
}
