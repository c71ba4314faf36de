//! Providers of events that are traced, or not: a compiled driver (`drivers/c/tracing.c`) registers them as manifests, TraceLogging and WPP
//! do, checks what its callbacks get, and writes; what it has written is in the trace.

use std::cell::RefCell;
use std::rc::Rc;

use dirql::readers::{Flow, Sink};
use dirql::{Bench, TraceProviders};
use kernel::event::{Event, Kind, Reader, Stamp};

use super::rig::{self, Buffer, driver, start};

/// The driver's GUIDs, by their last byte.
fn guid(last: &str) -> String {
    format!("{{D1B0C0DE-0000-4000-8000-0000000000{last}}}")
}

/// What providers have written, in their order.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<Event>>>);

impl Reader for Log {
    fn wants(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Traced | Kind::TraceMessage)
    }

    fn event(&mut self, _stamp: &Stamp, event: &Event) {
        self.0.borrow_mut().push(event.clone());
    }
}

fn bench(who: &str) -> Bench {
    let who: TraceProviders = who.parse().unwrap();
    Bench::new().driver(driver("tracing.sys")).trace_providers(who)
}

/// One story of the driver's table where `who` is traced, with so many checks at least: the events that came of it, and the trace.
fn traced(who: &str, story: &str, checks: u32) -> (Vec<Event>, String) {
    let (log, lines) = (Log::default(), Buffer::default());
    let machine = start(|| {
        let bench = bench(who);
        let symbols = bench.symbols();
        bench.reader(log.clone()).reader(Flow::new(Sink::new(lines.clone()), symbols))
    });
    let report = rig::tell(machine, r"\\.\DirqlTracing", story, checks, "");
    assert!(report.findings.is_empty(), "{report}");
    (log.0.take(), lines.text())
}

/// As the driver expects it.
const SESSION: &str = "all,level=4,flags=0x30";

#[test]
fn where_nobody_traces_nothing_is_enabled_and_nothing_written() {
    let (events, trace) = traced("", "NobodyTraces", 11);
    assert!(events.is_empty() && !trace.contains("trace "), "{trace}");
}

#[test]
fn where_others_are_traced_it_is_as_if_nobody_were() {
    // But for the session, of which the driver hears when it asks.
    let machine = start(|| bench(&guid("FF")));
    let _ =
        rig::try_play(&machine, r"open \\.\DirqlTracing as t; ioctl t 0x223ff8 in text:NobodyTraces out 8");
    let prints = machine.prints();
    machine.finish().expect_clean();
    assert!(prints.iter().any(|line| line.contains("AllLoggerHandlesClass")), "{prints:?}");
}

#[test]
fn a_provider_is_told_its_level_and_keywords_and_events_are_written_by_these() {
    let (events, _) = traced(SESSION, "Filtered", 23);
    let ids: Vec<u32> = events
        .iter()
        .map(|event| match event {
            Event::Traced { provider, id, .. } if *provider == guid("E1") => *id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ids, [1, 4, 5]);
}

#[test]
fn what_is_written_is_in_the_trace_with_its_activity_and_its_data() {
    let (events, trace) = traced(SESSION, "Written", 11);
    let plain = Event::Traced {
        provider: guid("E1"),
        name: None,
        id: 7,
        version: 2,
        level: 4,
        opcode: 1,
        task: 9,
        keyword: 0x20,
        activity: None,
        related: None,
        data: "443322116f6b00".to_owned(),
        text: None,
    };
    assert_eq!(events[0], plain);
    let rest: Vec<_> = events[1..]
        .iter()
        .map(|event| match event {
            Event::Traced { activity, related, data, text, .. } => {
                (activity.clone(), related.clone(), data.as_str(), text.as_deref())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        rest,
        [
            (Some(guid("A1")), Some(guid("A2")), "44332211", None),
            (Some(guid("A1")), None, "6f6b00", None),
            (None, None, "62006500670075006e00", Some("begun")),
        ]
    );
    let line = format!("trace {} event 7, level 4: 443322116f6b00", guid("E1"));
    assert!(trace.contains(&line) && trace.contains("level 4: begun"), "{trace}");
}

#[test]
fn an_event_that_describes_itself_is_shown_by_its_names() {
    let (_, trace) = traced(SESSION, "SelfDescribing", 5);
    let sent = r#"trace Dirql.Card.Sent, level 4: count=3 state=0x103 port="P1""#;
    assert!(trace.contains(sent) && trace.contains("trace Dirql.Card, level 1: named"), "{trace}");
}

/// The messages among events: their numbers and arguments.
fn messages(events: &[Event]) -> Vec<(u32, &str)> {
    let of = |event| match event {
        &Event::TraceMessage { ref guid, number, ref arguments } => {
            assert_eq!(*guid, self::guid("E4"));
            Some((number, arguments.as_str()))
        }
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn a_trace_provider_with_a_callback_is_enabled_while_it_registers_and_writes_messages() {
    let (events, trace) = traced(SESSION, "Recorded", 12);
    assert_eq!(messages(&events), [(10, "2a000000 706f727400"), (11, "- 2a00"), (12, "")]);
    assert!(trace.contains(&format!("trace message {} 10: 2a000000 706f727400", guid("E4"))), "{trace}");
}

#[test]
fn what_a_driver_records_is_in_the_trace_without_a_session() {
    let (events, trace) = traced("", "DriversRecordMessagesWithoutASession", 14);
    assert_eq!(messages(&events), [(50, "3200 6c6f6700"), (51, "3300 6c6f6700"), (52, "")]);
    assert!(trace.contains(&format!("trace message {} 50: 3200 6c6f6700", guid("E4"))), "{trace}");
}

#[test]
fn a_session_gets_the_newest_messages_that_were_recorded() {
    let (events, _) = traced(SESSION, "ASessionGetsTheNewestMessagesOfTheDefaultLog", 203);
    let messages = messages(&events);
    let begin = messages.iter().position(|(number, _)| *number == 400).unwrap();
    let replayed: Vec<u32> = messages[begin + 1..].iter().map(|(number, _)| *number).collect();
    // Three messages with arguments have 38 bytes each: 124 of 32 fit beside them.
    assert_eq!(replayed, (76..200).chain([301]).collect::<Vec<_>>());
}

#[test]
fn a_log_that_is_deleted_twice_is_memory_that_is_freed_twice() {
    let machine = start(|| bench(""));
    let _ = rig::try_play(
        &machine,
        r"open \\.\DirqlTracing as t; ioctl t 0x223ff8 in text:DeletesALogTwice out 8",
    );
    let report = machine.finish();
    assert_eq!(report.expect_verdict().rule, "double-free", "{report}");
}

#[test]
fn a_callback_that_says_it_has_written_more_than_there_was_room_for_is_told() {
    let machine = start(|| bench(SESSION));
    let _ =
        rig::try_play(&machine, r"open \\.\DirqlTracing as t; ioctl t 0x223ff8 in text:SaysTooMuch out 8");
    let report = machine.finish();
    let verdict = report.expect_verdict();
    assert_eq!(verdict.rule, "wmi-bad-block", "{report}");
    assert!(verdict.message.contains("0x10000 bytes of a buffer that has 0x1000"), "{report}");
}

#[test]
fn a_provider_asks_for_the_session_and_what_it_wants() {
    assert_eq!(messages(&traced(SESSION, "Asked", 15).0), [(20, "")]);
}

#[test]
fn a_trace_provider_with_a_device_is_enabled_by_a_request_and_writes_classic_events() {
    let (events, _) = traced(SESSION, "WithDevice", 7);
    assert_eq!(messages(&events), [(30, "")]);
    let classic = |event: &Event| match event {
        Event::Traced { provider, opcode, level, data, .. } => {
            Some((provider.clone(), *opcode, *level, data.clone()))
        }
        _ => None,
    };
    let classic: Vec<_> = events.iter().filter_map(classic).collect();
    assert_eq!(classic, [(guid("E4"), 1, 3, "55000000".to_owned())]);
}
