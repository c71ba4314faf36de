//! Stories of what the readers make of a few events.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

use engine::StrandId;
use kernel::event::{Event, Reader, Role, Stamp};

use super::*;

#[derive(Clone, Default)]
struct Paper(Rc<RefCell<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

fn stamp(number: u64, time: u64, irql: u8) -> Stamp {
    Stamp { number, time, processor: 0, irql, strand: StrandId(1) }
}

/// What an application asks of a card: a code, and bytes in and out.
fn request(name: &'static str, (code, input, output): (Option<u32>, Option<u32>, Option<u32>)) -> Event {
    let file = r"\\.\Card".to_owned();
    Event::Request { name, file, code, class: None, offset: None, input, output, packets: None }
}

/// A write that ends in an interrupt.
fn a_write() -> Vec<(Stamp, Event)> {
    let enter = |role| Event::Enter { role, routine: 0x1000, object: 0 };
    let leave = |role, value| Event::Leave { role, routine: 0x1000, value };
    let register = |write, value| Event::Device {
        port: false,
        address: 0xE000_004C,
        bytes: 4,
        write,
        value,
        register: Some("pci9052#0 LCR+4Ch INTCSR".to_owned()),
    };
    let events = vec![
        (0, request("WriteFile", (None, Some(1), None))),
        (0, Event::IrpSent { irp: 0x100, id: 2, request: Some(1), device: 0x200, major: 4, minor: 0 }),
        (0, enter(Role::DispatchWrite)),
        (2, enter(Role::StartIo)),
        (2, register(true, 0x80)),
        (2, Event::Line { line: 17, asserted: true }),
        (9, enter(Role::Isr)),
        (9, register(false, 0x80)),
        (9, leave(Role::Isr, 1)),
        (9, Event::Interrupt { vector: 0x91, object: 0x300, claimed: true }),
        (2, leave(Role::StartIo, 0)),
        (0, leave(Role::DispatchWrite, 0x103)),
        (2, enter(Role::DpcForIsr)),
        (2, Event::IrpCompleted { irp: 0x100, id: Some(2), status: 0, information: 1 }),
        (2, leave(Role::DpcForIsr, 0)),
        (0, Event::Answer { request: 1, name: "WriteFile", status: 0, information: 1 }),
    ];
    let stamped = events.into_iter().zip(1_u64..);
    stamped.map(|((irql, event), n)| (stamp(n, n * 1500, irql), event)).collect()
}

fn read(reader: &mut dyn Reader, events: &[(Stamp, Event)]) {
    for (stamp, event) in events {
        if reader.wants(event.kind()) {
            reader.event(stamp, event);
        }
    }
}

#[test]
fn a_write_that_ends_in_an_interrupt_reads_as_it_happened() {
    let paper = Paper::default();
    read(&mut Flow::new(Sink::new(paper.clone()), SymbolBook::default()), &a_write());
    let expected = "     time µs  cpu irql thread   event  what happened
       1.500    0    0      1       1  WriteFile \\\\.\\Card, 1 bytes
       4.500    0    0      1       3    DispatchWrite 0x1000  (IRP_MJ_WRITE, IRP 2 of request 1)
       6.000    0    2      1       4      StartIo 0x1000
       7.500    0    2      1       5        write pci9052#0 LCR+4Ch INTCSR ← 00000080
       9.000    0    2      1       6        interrupt line 17 asserted
      10.500    0    9      1       7        Isr 0x1000
      12.000    0    9      1       8          read  pci9052#0 LCR+4Ch INTCSR → 00000080
      15.000    0    9      1      10        interrupt claimed
      18.000    0    0      1      12      → STATUS_PENDING
      19.500    0    2      1      13    DpcForIsr 0x1000
      21.000    0    2      1      14      IRP_MJ_WRITE completed: STATUS_SUCCESS, 1 byte  (IRP 2)
      24.000    0    0      1      16  WriteFile returns STATUS_SUCCESS, 1 byte  (request 1)
";
    assert_eq!(paper.text(), expected);
}

#[test]
fn a_thousand_register_accesses_take_a_dozen_lines_and_the_last() {
    let paper = Paper::default();
    let access = |n: u64| {
        let event = Event::Device {
            port: true,
            address: 0x300,
            bytes: 1,
            write: true,
            value: n & 0xFF,
            register: None,
        };
        (stamp(n, n, 0), event)
    };
    read(
        &mut Flow::new(Sink::new(paper.clone()), SymbolBook::default()),
        &(0..1000).map(access).collect::<Vec<_>>(),
    );
    let text = paper.text();
    assert_eq!(text.lines().count(), 1 + 12 + 2);
    assert!(text.contains("… 987 more register accesses"), "{text}");
    assert!(text.ends_with("write port 0x300 ← e7\n"), "{text}");
}

#[test]
fn json_is_one_object_a_line_with_stable_names() {
    let paper = Paper::default();
    read(&mut Json::new(Sink::new(paper.clone()), SymbolBook::default()), &a_write());
    let lines: Vec<serde_json::Value> =
        paper.text().lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert_eq!((&lines[0]["event"], &lines[0]["schema"]), (&"begin".into(), &SCHEMA.into()));
    let lines = &lines[1..];
    assert_eq!(lines.len(), 16);
    for line in lines {
        for key in ["n", "t", "cpu", "irql", "strand", "event"] {
            assert!(line.get(key).is_some(), "{line} lacks {key}");
        }
    }
    assert_eq!(lines[4]["register"], "pci9052#0 LCR+4Ch INTCSR");
    assert_eq!(lines[4]["address"], "0xe000004c");
    assert_eq!((&lines[13]["event"], &lines[13]["information"]), (&"irp-completed".into(), &1.into()));
    let request = &lines[0]["n"];
    assert_eq!((&lines[1]["request"], &lines[15]["request"]), (request, request), "its IRP and its answer");
    assert_eq!((&lines[1]["id"], &lines[13]["id"]), (&2.into(), &2.into()), "the IRP and its completion");
    assert_eq!((&lines[1]["function"], &lines[13]["status"]), (&"IRP_MJ_WRITE".into(), &"0x0".into()));
}

#[test]
fn a_text_with_quotes_and_control_characters_is_still_json() {
    let event = Event::Print { text: "say \"hi\"\u{1}\\\u{fffd}".to_owned() };
    let value: serde_json::Value = serde_json::from_str(&json_line(&stamp(0, 0, 0), &event, None)).unwrap();
    assert_eq!(value["text"], "say \"hi\"\u{1}\\\u{fffd}");
}

#[test]
fn the_sums_tell_what_was_not_freed() {
    let mut summary = Summary::default();
    let allocated = |address, bytes| {
        (stamp(0, 5, 2), Event::Allocated { address, bytes, tag: u32::from_le_bytes(*b"Pcil"), paged: false })
    };
    read(&mut summary, &[allocated(1, 48), allocated(2, 100), (stamp(1, 9, 0), Event::Freed { address: 1 })]);
    read(&mut summary, &a_write());
    let sums = summary.sums();
    assert_eq!(sums.still_allocated(), 100);
    assert_eq!((sums.interrupts, sums.dpcs), ((1, 0), 1));
    let text = sums.to_string();
    assert!(
        text.contains("pool Pcil        2 × allocated (148 bytes), 1 × freed, 100 bytes not freed"),
        "{text}"
    );
    assert!(text.contains("sent to drivers: 1 (1 WRITE); completed: 1"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&sums.json()).unwrap();
    assert_eq!(json["pool"][0]["freed_bytes"], 48);
    assert_eq!(json["irps"]["IRP_MJ_WRITE"], 1);
}

#[test]
fn equal_runs_have_equal_hashes_and_a_single_nanosecond_is_a_difference() {
    let hash = |events: &[(Stamp, Event)]| {
        let mut hash = TraceHash::default();
        read(&mut hash, events);
        hash.value()
    };
    let mut other = a_write();
    assert_eq!(hash(&a_write()), hash(&other));
    other[3].0.time += 1;
    assert_ne!(hash(&a_write()), hash(&other));
    let mut other = a_write();
    other[12].1 = Event::Enter { role: Role::DpcForIsr, routine: 0x1001, object: 0 };
    assert_ne!(hash(&a_write()), hash(&other), "nor is one bit of a field nothing");
}

#[test]
fn prints_are_found_once_each() {
    let mut log = PrintLog::default();
    let print = |text: &str| (stamp(0, 0, 0), Event::Print { text: text.to_owned() });
    read(&mut log, &[print("one"), print("card: started"), print("card: started")]);
    assert_eq!(log.find(0, "started"), Some(1));
    assert_eq!(log.find(2, "started"), Some(2));
    assert_eq!(log.find(3, "started"), None);
}
