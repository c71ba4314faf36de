//! Stories of connections, against the platform of `fake`.

use std::vec::Vec;

use abi::{
    CONNECT_FULLY_SPECIFIED, CONNECT_LINE_BASED, CONNECT_MESSAGE_BASED, CONNECT_MESSAGE_BASED_PASSIVE,
    NtStatus, PASSIVE_LEVEL,
};

use super::fake::{self, Asked, LEVEL, Platform};
use super::{
    Claim, Interrupt, Message, MessageService, MessageTable, Messages, PassiveMessageService,
    PassiveMessages, PassiveService, Service,
};
use crate::device::Device;
use crate::fake::irql;
use crate::irql::{Dirql, Passive};
use crate::pool::Tag;
use crate::resource::{InterruptLine, MessageVector, Vector};

const TAG: Tag = Tag::new(b"test");

const LINE: InterruptLine =
    InterruptLine(Vector { irql: LEVEL, vector: 0x71, affinity: 1, latched: false, shared: true });

/// What the routines were called for, `None` being the line.
#[derive(Default)]
struct Seen(Vec<Option<u32>>);

impl Service for Seen {
    fn service(&mut self, _dirql: &mut Dirql) -> Claim {
        assert_eq!(irql(), LEVEL);
        self.0.push(None);
        Claim::Mine
    }
}

impl MessageService for Seen {
    fn message(&mut self, message: u32, _dirql: &mut Dirql) -> Claim {
        assert_eq!(irql(), LEVEL);
        self.0.push(Some(message));
        if message == 0 { Claim::Other } else { Claim::MineAndDpc }
    }
}

/// The same at PASSIVE_LEVEL.
#[derive(Default)]
struct Quiet(Vec<Option<u32>>);

impl PassiveService for Quiet {
    fn service(&mut self, _passive: &mut Passive) -> Claim {
        assert_eq!(irql(), PASSIVE_LEVEL);
        self.0.push(None);
        Claim::Mine
    }
}

impl PassiveMessageService for Quiet {
    fn message(&mut self, message: u32, _passive: &mut Passive) -> Claim {
        assert_eq!(irql(), PASSIVE_LEVEL);
        self.0.push(Some(message));
        Claim::MineAndDpc
    }
}

/// A device on this platform, and the proof that tests run at `PASSIVE_LEVEL`.
fn rig(platform: Platform) -> (Device<()>, Passive) {
    fake::set(platform);
    // SAFETY: the fake processor is at PASSIVE_LEVEL.
    let mut passive = unsafe { Passive::assume() };
    (Device::unattached((), &mut passive), passive)
}

fn seen(messages: &Messages<Seen>, passive: &mut Passive) -> Vec<Option<u32>> {
    messages.synchronize(passive, |seen, _dirql| {
        assert_eq!(irql(), LEVEL);
        core::mem::take(&mut seen.0)
    })
}

#[test]
fn every_message_comes_with_its_number_to_one_state() {
    let (device, mut passive) = rig(Platform::Messages(4));
    let messages = Messages::connect(&device, None, Seen::default(), TAG, &mut passive).ok().unwrap();
    assert_eq!(messages.version(), CONNECT_MESSAGE_BASED);
    assert_eq!(messages.table(), Some(MessageTable { count: 4, irql: LEVEL }));
    assert!(fake::interrupt(Some(3)) && fake::interrupt(Some(1)));
    assert!(!fake::interrupt(Some(0)), "it is not claimed");
    assert_eq!(seen(&messages, &mut passive), [Some(3), Some(1), Some(0)]);
    drop(messages);
    assert!(!fake::interrupt(Some(1)), "no routine is connected");
    let (connect, end) = (Asked::Connect(CONNECT_MESSAGE_BASED), Asked::Disconnect(CONNECT_MESSAGE_BASED));
    let all = [connect, Asked::Dpc, Asked::Dpc, Asked::Synchronize, end, Asked::Flush];
    assert_eq!(fake::asked(), all, "the DPCs are flushed when no routine can request one");
    assert_eq!(irql(), 0);
}

#[test]
fn a_device_without_messages_falls_back_to_its_line_and_ends_as_that() {
    let (device, mut passive) = rig(Platform::Line);
    let messages = Messages::connect(&device, Some(&LINE), Seen::default(), TAG, &mut passive).ok().unwrap();
    assert_eq!((messages.version(), messages.table()), (CONNECT_LINE_BASED, None));
    assert!(fake::interrupt(None));
    assert_eq!(seen(&messages, &mut passive), [None]);
    drop(messages);
    let (connect, end) = (Asked::Connect(CONNECT_MESSAGE_BASED), Asked::Disconnect(CONNECT_LINE_BASED));
    assert_eq!(fake::asked(), [connect, Asked::Synchronize, end, Asked::Flush]);
}

#[test]
fn an_old_platform_is_asked_again_for_the_line_with_all_that_belongs_to_it() {
    let (device, mut passive) = rig(Platform::Old);
    let messages = Messages::connect(&device, Some(&LINE), Seen::default(), TAG, &mut passive).ok().unwrap();
    assert_eq!((messages.version(), messages.table()), (CONNECT_FULLY_SPECIFIED, None));
    assert!(fake::interrupt(None));
    assert_eq!(seen(&messages, &mut passive), [None]);
    drop(messages);
    drop(Interrupt::connect(&device, &LINE, Seen::default(), TAG, &mut passive).ok().unwrap());
    let (again, end) = (Asked::Connect(CONNECT_FULLY_SPECIFIED), Asked::Disconnect(CONNECT_FULLY_SPECIFIED));
    let by_message = [Asked::Connect(CONNECT_MESSAGE_BASED), again, Asked::Synchronize, end, Asked::Flush];
    let by_line = [Asked::Connect(CONNECT_LINE_BASED), again, end, Asked::Flush];
    assert_eq!(fake::asked(), [&by_message[..], &by_line[..]].concat());
}

#[test]
fn a_device_with_nothing_to_connect_says_why_and_disconnects_nothing() {
    let (device, mut passive) = rig(Platform::Nothing);
    let refused = Messages::connect(&device, None, Seen::default(), TAG, &mut passive).err();
    assert_eq!(refused, Some(NtStatus::NOT_FOUND));
    fake::set(Platform::Old);
    let refused = Messages::connect(&device, None, Seen::default(), TAG, &mut passive).err();
    assert_eq!(refused, Some(NtStatus::NOT_SUPPORTED), "no line to ask for");
    assert_eq!(fake::asked(), [Asked::Connect(CONNECT_MESSAGE_BASED); 2]);
}

#[test]
fn a_line_calls_its_routine_and_is_synchronized_with() {
    let (device, mut passive) = rig(Platform::Line);
    let line = Interrupt::connect(&device, &LINE, Seen::default(), TAG, &mut passive).ok().unwrap();
    assert!(fake::interrupt(None));
    assert_eq!(line.synchronize(&mut passive, |seen, _dirql| seen.0.len()), 1);
    drop(line);
    let (connect, end) = (Asked::Connect(CONNECT_LINE_BASED), Asked::Disconnect(CONNECT_LINE_BASED));
    assert_eq!(fake::asked(), [connect, Asked::Synchronize, end, Asked::Flush]);
}

#[test]
fn a_passive_routine_is_called_and_synchronized_with_at_passive_level() {
    const PASSIVE: u32 = CONNECT_MESSAGE_BASED_PASSIVE;
    for (platform, version, table) in [
        (Platform::Messages(2), PASSIVE, Some(MessageTable { count: 2, irql: PASSIVE_LEVEL })),
        (Platform::Line, CONNECT_LINE_BASED, None),
        (Platform::Old, CONNECT_FULLY_SPECIFIED, None),
    ] {
        let (device, mut passive) = rig(platform);
        let messages = PassiveMessages::connect(&device, Some(&LINE), Quiet::default(), TAG, &mut passive);
        let messages = messages.ok().unwrap();
        assert_eq!((messages.version(), messages.table()), (version, table));
        let message = table.map(|_| 1);
        assert!(fake::interrupt(message));
        let seen = messages.synchronize(&mut passive, |seen, _passive| {
            assert_eq!(irql(), PASSIVE_LEVEL);
            core::mem::take(&mut seen.0)
        });
        assert_eq!(seen, [message]);
        drop(messages);
        let asked = fake::asked();
        assert_eq!(asked.first(), Some(&Asked::Connect(PASSIVE)));
        assert!(asked.ends_with(&[Asked::Disconnect(version), Asked::Flush]), "{asked:?}");
    }
}

#[test]
fn a_vector_is_connected_with_all_that_belongs_to_it() {
    let (device, mut passive) = rig(Platform::Messages(2));
    let vector =
        MessageVector(Vector { irql: LEVEL, vector: 0x72, affinity: 1, latched: true, shared: true });
    let message = Message::connect(&device, &vector, Seen::default(), TAG, &mut passive).ok().unwrap();
    assert!(fake::interrupt(None));
    let seen = message.synchronize(&mut passive, |seen, _dirql| {
        assert_eq!(irql(), LEVEL);
        seen.0.len()
    });
    assert_eq!(seen, 1);
    drop(message);
    let (connect, end) =
        (Asked::Connect(CONNECT_FULLY_SPECIFIED), Asked::Disconnect(CONNECT_FULLY_SPECIFIED));
    assert_eq!(fake::asked(), [connect, Asked::Synchronize, end, Asked::Flush]);
}
