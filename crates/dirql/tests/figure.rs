//! The figure of a run, drawn: a write to the second of two cards on one line, a message, a routine at PASSIVE_LEVEL. The first
//! stands in `docs/figures`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dirql::readers::{Figure, FigureForm, Json, Sink};
use dirql::{Bench, Platform};
use engine::StrandId;
use kernel::event::{Event, Reader, Role, Stamp};

use super::rig::{self, Buffer, driver, start};

/// The figure of a run of this script.
fn drawn(bench: impl Fn() -> Bench, script: &str, form: FigureForm) -> String {
    let paper = Buffer::default();
    let machine = start(|| {
        let bench = bench();
        let symbols = bench.symbols();
        bench.reader(Figure::new(Sink::new(paper.clone()), form, symbols))
    });
    rig::play(&machine, script);
    machine.finish().expect_clean();
    paper.text()
}

/// The lines with `words`, in this order.
fn expect_in_order(figure: &str, words: &[&str]) {
    let mut lines = figure.lines();
    for word in words {
        assert!(lines.any(|line| line.contains(word)), "no `{word}` where it should be:\n{figure}");
    }
}

fn two_cards() -> Bench {
    Bench::new()
        .driver(driver("pciline.sys"))
        .inf(driver("pciline.inf"))
        .device("pci9052,line=18")
        .device("pci9052,line=18")
}

const WRITE: &str = r"open \\.\PciLine1 as card; write card text:Hi expect bytes 2; close card";

#[test]
fn a_write_is_drawn_from_the_application_to_the_dpc_with_the_line_that_two_cards_share() {
    let figure = drawn(two_cards, WRITE, FigureForm::Text);
    expect_in_order(
        &figure,
        &[
            "WriteFile",
            "StartIo",
            "line 18 asserted",
            "FALSE: not its own",
            "TRUE: its own",
            "queues a DPC",
            "completes: STATUS_SUCCESS",
        ],
    );
    let row =
        |what: &str| figure.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{figure}"));
    assert!(row("WriteFile").contains("▶ DispatchWrite"), "an arrow to the dispatch routine:\n{figure}");
    assert!(row("line 18 asserted").contains("▶ Isr"), "{figure}");
    assert!(row("queues a DPC").contains("▶ DpcForIsr"), "{figure}");
    assert!(row("completes: STATUS_SUCCESS").contains("◀"), "back to the application:\n{figure}");
}

/// Another compiler's instructions take other times.
fn without_times(figure: &str, form: FigureForm) -> Vec<&str> {
    match form {
        FigureForm::Text => figure.lines().filter_map(|line| line.get(12..)).collect(),
        FigureForm::Svg | FigureForm::Page => figure.lines().filter(|line| !line.contains(" µs<")).collect(),
    }
}

#[test]
fn the_figures_of_the_documentation_are_those_of_a_run() {
    for (name, form) in [("interrupt.txt", FigureForm::Text), ("interrupt.svg", FigureForm::Svg)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/figures").join(name);
        let figure = drawn(two_cards, WRITE, form);
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            without_times(&known, form),
            without_times(&figure, form),
            "draw it again: dirql run target/drivers/pciline.sys --inf target/drivers/pciline.inf \
             --device pci9052,line=18 --device pci9052,line=18 --do '{WRITE}' --figure docs/figures/{name}"
        );
    }
}

#[test]
fn a_picture_is_well_formed_and_has_a_box_for_each_step() {
    let (text, svg) = (drawn(two_cards, WRITE, FigureForm::Text), drawn(two_cards, WRITE, FigureForm::Svg));
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    let count = |what: &str| svg.matches(what).count();
    let arrows = text.lines().filter(|line| line.contains(['▶', '◀'])).count();
    assert_eq!(count("marker-end="), arrows, "{text}");
    assert_eq!(count("<text "), count("</text>"));
    assert_eq!(count(" rx="), text.lines().count() - 1 + arrows, "a box a step, and one a cause");
}

/// How many events a run of this script counts.
fn count_of_events(bench: impl Fn() -> Bench, script: &str) -> usize {
    let paper = Buffer::default();
    let machine = start(|| {
        let bench = bench();
        let symbols = bench.symbols();
        bench.reader(Json::new(Sink::new(paper.clone()), symbols))
    });
    rig::play(&machine, script);
    machine.finish().expect_clean();
    let counted = |line: &&str| line.contains("\"n\":") && !line.contains("\"event\":\"irql\"");
    paper.text().lines().filter(counted).count()
}

/// The cells of a row: what stands in each, and how many columns it takes.
fn cells<'p>(row: &'p str, tag: &str) -> Vec<(&'p str, usize)> {
    let begin = format!("<{tag}");
    // `<thead>` is no `<th>`.
    let is_one = |cell: &&str| cell.starts_with(['>', ' ']);
    let cells = row.split(&*begin).skip(1).filter(is_one).map(|cell| {
        let (attributes, text) = cell.split_once('>').unwrap();
        let span = attributes
            .trim()
            .strip_prefix("colspan=\"")
            .map_or(1, |span| span.trim_end_matches('"').parse().unwrap());
        (text.split(&format!("</{tag}>")).next().unwrap(), span)
    });
    cells.collect()
}

#[test]
fn a_page_has_each_event_in_the_lane_of_its_thread_processor_or_device() {
    let page = drawn(two_cards, WRITE, FigureForm::Page);
    let heads = page
        .lines()
        .skip_while(|line| !line.contains("<thead>"))
        .take_while(|line| !line.contains("</thead>"));
    let lanes: Vec<&str> = heads.flat_map(|line| cells(line, "th")).map(|(title, _)| title).collect();
    assert_eq!(lanes[..3], ["time µs", "cpu", "irql"]);
    for lane in ["thread main", "processor 0: interrupts, DPCs", "pci9052#0", "pci9052#1", "interrupt lines"]
    {
        assert_eq!(lanes.iter().filter(|title| **title == lane).count(), 1, "{lanes:?}");
    }
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("<tr class=")).collect();
    let mut ids = BTreeSet::new();
    let mut lane_of = BTreeMap::new();
    for row in &rows {
        let cells = cells(row, "td");
        assert_eq!(cells.iter().map(|(_, span)| span).sum::<usize>(), lanes.len(), "{row}");
        if let Some((_, id)) = row.split_once(" id=\"") {
            assert!(
                ids.insert(id.split('"').next().unwrap()),
                "an event of this number is there already: {row}"
            );
        }
        let (words, _) = cells.last().unwrap();
        let words = words.split("<summary>").nth(1).unwrap().split("</summary>").next().unwrap();
        lane_of.entry(words).or_insert(lanes[cells.len() - 1]);
    }
    let lane = |words: &str| {
        let found = lane_of.iter().find(|(known, _)| known.contains(words));
        *found.unwrap_or_else(|| panic!("no {words}")).1
    };
    assert_eq!(lane("WriteFile"), "thread main");
    assert_eq!(lane("▶ DispatchWrite"), "thread main");
    assert_eq!(lane("▶ Isr"), "processor 0: interrupts, DPCs");
    assert_eq!(lane("▶ DpcForIsr"), "processor 0: interrupts, DPCs");
    assert_eq!(lane("line 18 asserted"), "interrupt lines");
    assert_eq!(lane("IRP_MN_START_DEVICE"), "system's start");
    // Each with its fields, and every one of the run that is no access of the driver's to memory.
    assert!(rows.iter().all(|row| row.contains("<div>event ")), "{page}");
    let events = count_of_events(two_cards, WRITE);
    assert_eq!(ids.len(), events, "every event that is counted");
}

#[test]
fn a_message_and_a_routine_on_a_thread_are_drawn_too() {
    let bench =
        || Bench::new().driver(driver("message.sys")).inf(driver("message.inf")).device("bench,msi=4");
    let script = r"open \\.\Message as card; ioctl card 0x226400 in hex:01000000; close card";
    let figure = drawn(bench, script, FigureForm::Text);
    let message = figure.lines().find(|line| line.contains("message, vector 0x38"));
    assert!(message.is_some_and(|line| line.contains("▶ Isr")), "{figure}");

    let relayed = Platform { relayed_lines: true, messages: 0, ..Platform::default() };
    let figure = drawn(|| bench().platform(relayed), script, FigureForm::Text);
    expect_in_order(&figure, &["▶ PassiveIsr", "released", "TRUE: its own"]);
}

/// Where the column of a step begins in a row.
fn column(figure: &str, step: &str) -> usize {
    let row =
        figure.lines().find(|line| line.contains(step)).unwrap_or_else(|| panic!("no {step}\n{figure}"));
    row.split(step).next().unwrap().chars().count()
}

#[test]
fn a_verdict_is_drawn_where_it_was_found() {
    let script = r"open \\.\DirqlFaults as f; ioctl f 0x222804";
    let paper = Buffer::default();
    let bench = Bench::new().driver(driver("faults.sys"));
    let symbols = bench.symbols();
    let bench = bench.reader(Figure::new(Sink::new(paper.clone()), FigureForm::Text, symbols));
    let play = dirql::ScriptText::typed(script).play().unwrap();
    let report = bench.run(Some(play)).unwrap();
    drop(report);
    let figure = paper.text();
    assert_eq!(column(&figure, "✗ wild-write"), column(&figure, "DispatchDeviceControl"), "{figure}");
}

#[test]
fn what_a_dpc_calls_back_stands_with_the_dpc_and_each_request_that_it_completes_has_its_arrow() {
    let paper = Buffer::default();
    let symbols = dirql::readers::SymbolBook::default();
    let mut figure = Figure::new(Sink::new(paper.clone()), FigureForm::Text, symbols);
    let request = || Event::Request {
        name: "ReadFile",
        file: String::new(),
        code: None,
        class: None,
        offset: None,
        input: None,
        output: Some(4),
        packets: None,
    };
    let sent =
        |id, request| Event::IrpSent { irp: id, id, request: Some(request), device: 0, major: 3, minor: 0 };
    let completed = |id| Event::IrpCompleted { irp: id, id: Some(id), status: 0, information: 0 };
    let answer = |request| Event::Answer { request, name: "ReadFile", status: 0, information: request };
    let enter = |role| Event::Enter { role, routine: 0x1000, object: 0 };
    let leave = |role| Event::Leave { role, routine: 0x1000, value: 0 };
    let events = [
        (1, request()),
        (1, sent(2, 1)),
        (2, request()),
        (2, sent(4, 3)),
        (1, enter(Role::DpcForIsr)),
        (1, enter(Role::StartIo)),
        (1, leave(Role::StartIo)),
        (1, completed(2)),
        (1, completed(4)),
        (1, leave(Role::DpcForIsr)),
        (1, answer(1)),
        (2, answer(3)),
    ];
    for ((strand, event), number) in events.into_iter().zip(1..) {
        let stamp = Stamp { number, time: number * 1000, processor: 0, irql: 0, strand: StrandId(strand) };
        figure.event(&stamp, &event);
    }
    drop(figure);
    let figure = paper.text();
    assert_eq!(column(&figure, "StartIo"), column(&figure, "DpcForIsr"), "{figure}");
    let arrows =
        figure.lines().filter(|line| line.contains("completes: STATUS_SUCCESS") && line.contains('◀'));
    assert_eq!(arrows.count(), 2, "{figure}");
}
