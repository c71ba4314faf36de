//! Writes to device memory that are on their way: `--platform posted=TIME`.
//!
//! PCI Local Bus Specification 3.0, 3.2.5 and appendix E: a bridge takes a write to memory and says that it is done; the device has it later.
//! Writes arrive in the order in which they were made. A read from a device, and any access to a port or to configuration space, does not pass
//! them: they arrive first. Drivers that depend on a write's effect therefore read a register back. Interrupts do not wait for writes: a
//! line may still be asserted when the service routine that acknowledged it has returned, and the routine is called once more.
//!
//! Whether a write arrives after the platform's time or at once is a choice (`bus.posted`), and the former is usual. All devices are behind one bridge: a
//! read from any of them brings all writes home.

use std::collections::VecDeque;

use super::hardware::{Function, Hardware, Message, Moment, PciAddress, Question, Refusal, Width};

/// The answer by which a write is there at once. The usual one leaves it on its way.
const AT_ONCE: u32 = 1;

/// A write that has not arrived.
struct UnderWay {
    address: u64,
    width: Width,
    value: u64,
    /// A processor has combined it from several.
    combined: bool,
    /// When it arrives, if nothing brings it home before; none: now.
    due: Option<u64>,
}

/// A bus with a bridge in front of it that takes writes.
pub(crate) struct Posted {
    bus: Box<dyn Hardware>,
    /// What a write that is not there at once takes, ns.
    takes: u64,
    /// In the order in which they were made.
    under_way: VecDeque<UnderWay>,
    /// Whether it is to be asked when the last one arrives.
    open: bool,
    /// Why a device would not take a write that arrived: reported at the next access.
    refused: Option<Refusal>,
}

impl Posted {
    /// In front of `bus`; a write takes nothing, or so many ns.
    pub(crate) fn new(bus: Box<dyn Hardware>, takes: u64) -> Self {
        Self { bus, takes, under_way: VecDeque::new(), open: false, refused: None }
    }

    /// The first so many writes arrive, each when it is due, and none before now.
    fn arrive(&mut self, at: &mut Moment<'_>, count: usize) {
        for UnderWay { address, width, value, combined, due } in self.under_way.drain(..count) {
            let now = due.map_or(at.now, |due| due.min(at.now));
            // The bridge has taken them: how long their device takes is not the processor's time.
            let mut then = Moment::new(now, at.memory);
            self.bus.advance(&mut then);
            let written = if combined {
                self.bus.memory_combined(&mut then, address, width, value)
            } else {
                self.bus.memory_write(&mut then, address, width, value)
            };
            // What a device ignores is the driver's business where it writes, and not at a later access.
            if let Err(refusal) = written
                && !refusal.is_ignored()
            {
                let bytes = width as u8;
                self.refused = Some(
                    refusal.by(&format!("a write of {bytes} byte(s) to {address:#x} that was on its way:")),
                );
            }
        }
        self.open &= !self.under_way.is_empty();
    }

    /// A write is on its way from now on; or the error is an earlier write that was refused.
    fn post(&mut self, write: UnderWay) -> Result<(), Refusal> {
        self.under_way.push_back(write);
        self.open = true;
        self.refused.take().map_or(Ok(()), Err)
    }

    /// All arrive now, before what does not pass them; or the error is one that was refused.
    fn bring_home(&mut self, at: &mut Moment<'_>) -> Result<(), Refusal> {
        self.under_way.iter_mut().for_each(|write| write.due = None);
        self.arrive(at, self.under_way.len());
        self.refused.take().map_or(Ok(()), Err)
    }
}

impl Hardware for Posted {
    fn port_read(&mut self, at: &mut Moment<'_>, port: u16, width: Width) -> Result<u32, Refusal> {
        self.bring_home(at)?;
        self.bus.port_read(at, port, width)
    }

    fn port_write(
        &mut self,
        at: &mut Moment<'_>,
        port: u16,
        width: Width,
        value: u32,
    ) -> Result<(), Refusal> {
        self.bring_home(at)?;
        self.bus.port_write(at, port, width, value)
    }

    fn memory_read(&mut self, at: &mut Moment<'_>, address: u64, width: Width) -> Result<u64, Refusal> {
        self.bring_home(at)?;
        self.bus.memory_read(at, address, width)
    }

    fn memory_write(
        &mut self,
        at: &mut Moment<'_>,
        address: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Refusal> {
        self.post(UnderWay { address, width, value, combined: false, due: Some(at.now + self.takes) })
    }

    fn memory_combined(
        &mut self,
        at: &mut Moment<'_>,
        address: u64,
        width: Width,
        value: u64,
    ) -> Result<(), Refusal> {
        self.post(UnderWay { address, width, value, combined: true, due: Some(at.now + self.takes) })
    }

    fn settle(&mut self, at: &mut Moment<'_>) {
        if let Err(refusal) = self.bring_home(at) {
            self.refused = Some(refusal);
        }
    }

    fn config_read(&mut self, at: PciAddress, offset: u16, width: Width) -> u32 {
        self.bus.config_read(at, offset, width)
    }

    fn config_write(&mut self, at: PciAddress, offset: u16, width: Width, value: u32) {
        self.bus.config_write(at, offset, width, value);
    }

    fn is_extended(&self, at: PciAddress) -> bool {
        self.bus.is_extended(at)
    }

    fn functions(&self) -> Vec<Function> {
        self.bus.functions()
    }

    fn describe(&self, port: bool, address: u64) -> Option<String> {
        self.bus.describe(port, address)
    }

    fn route(&mut self, at: PciAddress, line: u32) {
        self.bus.route(at, line);
    }

    fn set_present(&mut self, at: PciAddress, present: bool) {
        self.bus.set_present(at, present);
    }

    fn set_powered(&mut self, at: PciAddress, powered: bool) {
        self.bus.set_powered(at, powered);
    }

    fn take_wakes(&mut self) -> Vec<PciAddress> {
        self.bus.take_wakes()
    }

    fn lines(&self) -> u64 {
        self.bus.lines()
    }

    fn has_messages(&self) -> bool {
        self.bus.has_messages()
    }

    fn take_messages(&mut self) -> Vec<Message> {
        self.bus.take_messages()
    }

    fn asserting(&self, line: u32) -> Vec<String> {
        self.bus.asserting(line)
    }

    fn ends_by_itself(&self, line: u32) -> bool {
        self.bus.ends_by_itself(line)
    }

    fn left_unclaimed(&mut self, line: u32) {
        self.bus.left_unclaimed(line);
    }

    fn is_only_of_others(&self, line: u32) -> bool {
        self.bus.is_only_of_others(line)
    }

    fn question(&self) -> Option<Question> {
        if self.open { Some(Question { point: "bus.posted", answers: 2 }) } else { self.bus.question() }
    }

    fn answer(&mut self, answer: u32) {
        if !std::mem::take(&mut self.open) {
            self.bus.answer(answer);
        } else if answer == AT_ONCE {
            // None passes another: with the last one all are there.
            self.under_way.iter_mut().for_each(|write| write.due = None);
        }
    }

    fn deadline(&self) -> Option<u64> {
        let arrives = self.under_way.front().map(|write| write.due.unwrap_or(0));
        [arrives, self.bus.deadline()].into_iter().flatten().min()
    }

    fn is_quiet(&self, lines: u64, until: u64) -> bool {
        !self.open
            && self.under_way.front().is_none_or(|write| write.due.is_some_and(|due| due >= until))
            && self.bus.is_quiet(lines, until)
    }

    fn advance(&mut self, at: &mut Moment<'_>) {
        let is_due = |write: &&UnderWay| write.due.is_none_or(|due| due <= at.now);
        let count = self.under_way.iter().take_while(is_due).count();
        self.arrive(at, count);
        self.bus.advance(at);
    }

    fn poke(&mut self, at: &mut Moment<'_>, device: &str, signal: &str, value: &str) -> Result<(), String> {
        self.bus.poke(at, device, signal, value)
    }

    fn peek(&mut self, at: &mut Moment<'_>, device: &str, register: &str) -> Result<u32, String> {
        self.bus.peek(at, device, register)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: u32 = 0;

    /// A device that keeps what was written last, and no odd number.
    #[derive(Default)]
    struct Register(u64, Vec<(u64, u64)>);

    impl Hardware for std::rc::Rc<std::cell::RefCell<Register>> {
        fn memory_read(&mut self, _: &mut Moment<'_>, _: u64, _: Width) -> Result<u64, Refusal> {
            Ok(self.borrow().0)
        }

        fn memory_write(&mut self, at: &mut Moment<'_>, _: u64, _: Width, value: u64) -> Result<(), Refusal> {
            if !value.is_multiple_of(2) {
                return Err(Refusal::new("register".to_owned(), "takes even numbers".to_owned()));
            }
            let mut register = self.borrow_mut();
            register.0 = value;
            register.1.push((at.now, value));
            Ok(())
        }
    }

    struct None;

    impl super::super::hardware::Memory for None {
        fn read(&mut self, _: &str, _: u64, _: &mut [u8]) -> bool {
            false
        }

        fn write(&mut self, _: &str, _: u64, _: &[u8]) -> bool {
            false
        }
    }

    fn at<R>(now: u64, f: impl FnOnce(&mut Moment<'_>) -> R) -> R {
        f(&mut Moment::new(now, &mut None))
    }

    fn bridge() -> (std::rc::Rc<std::cell::RefCell<Register>>, Posted) {
        let register = std::rc::Rc::<std::cell::RefCell<Register>>::default();
        (register.clone(), Posted::new(Box::new(register), 1_000))
    }

    fn write(posted: &mut Posted, now: u64, value: u64) -> Result<(), Refusal> {
        at(now, |at| posted.memory_write(at, 0xE000_0000, Width::Dword, value))
    }

    #[test]
    fn a_write_arrives_at_once_or_when_its_time_is_over_and_none_passes_another() {
        let (register, mut posted) = bridge();
        write(&mut posted, 100, 2).unwrap();
        assert_eq!(posted.question(), Some(Question { point: "bus.posted", answers: 2 }));
        posted.answer(LATE);
        assert_eq!((posted.question(), posted.deadline()), (Option::None, Some(1_100)));
        assert!(posted.is_quiet(0, 1_100) && !posted.is_quiet(0, 1_101));
        write(&mut posted, 200, 4).unwrap();
        posted.answer(LATE);
        at(1_150, |at| posted.advance(at));
        assert_eq!(register.borrow().1, [(1_100, 2)]);
        write(&mut posted, 1_160, 6).unwrap();
        posted.answer(AT_ONCE);
        at(1_170, |at| posted.advance(at));
        assert_eq!(register.borrow().1, [(1_100, 2), (1_170, 4), (1_170, 6)]);
        assert_eq!(posted.deadline(), Option::None);
    }

    /// A device of registers of 4 bytes.
    #[derive(Default)]
    struct Words(Vec<(u64, u64)>);

    impl Hardware for std::rc::Rc<std::cell::RefCell<Words>> {
        fn memory_write(
            &mut self,
            _: &mut Moment<'_>,
            address: u64,
            width: Width,
            value: u64,
        ) -> Result<(), Refusal> {
            if width != Width::Dword {
                return Err(Refusal::new(format!("+{:x}h", address & 0xFF), "accepts 4 bytes".to_owned()));
            }
            self.borrow_mut().0.push((address & 0xFF, value));
            Ok(())
        }
    }

    #[test]
    fn a_combined_write_is_as_wide_as_the_device_takes_it_at_once_and_on_its_way() {
        for takes in [0, 1_000] {
            let words = std::rc::Rc::<std::cell::RefCell<Words>>::default();
            let mut bus: Box<dyn Hardware> = match takes {
                0 => Box::new(words.clone()),
                takes => Box::new(Posted::new(Box::new(words.clone()), takes)),
            };
            let written =
                at(0, |at| bus.memory_combined(at, 0xE000_0008, Width::Qword, 0x2222_2222_1111_1111));
            assert_eq!(written, Ok(()));
            at(2_000, |at| bus.advance(at));
            assert_eq!(words.borrow().0, [(8, 0x1111_1111), (12, 0x2222_2222)]);
            // What the driver has stored is no wider than what is refused.
            let narrow = at(3_000, |at| bus.memory_combined(at, 0xE000_0004, Width::Word, 7));
            let read = at(6_000, |at| {
                bus.advance(at);
                bus.memory_read(at, 0xE000_0000, Width::Dword)
            });
            let refusal = narrow.err().or(read.err()).unwrap().to_string();
            assert!(refusal.contains("+4h: accepts 4 bytes"), "{refusal}");
        }
    }

    #[test]
    fn a_read_brings_writes_home_and_what_was_refused_is_told_then() {
        let (register, mut posted) = bridge();
        write(&mut posted, 100, 2).unwrap();
        posted.answer(LATE);
        assert_eq!(at(150, |at| posted.memory_read(at, 0xE000_0000, Width::Dword)), Ok(2));
        assert_eq!(register.borrow().1, [(150, 2)]);
        write(&mut posted, 200, 3).unwrap();
        posted.answer(LATE);
        let refused = at(250, |at| posted.port_read(at, 0x80, Width::Byte)).unwrap_err();
        assert!(
            refused.to_string().contains("a write of 4 byte(s) to 0xe0000000 that was on its way: register"),
            "{refused}"
        );
        assert_eq!(at(260, |at| posted.port_read(at, 0x80, Width::Byte)), Ok(u32::MAX));
        write(&mut posted, 300, 8).unwrap();
        posted.answer(LATE);
        at(310, |at| posted.settle(at));
        assert_eq!(register.borrow().0, 8);
    }
}
