//! What a card does by itself: the actions of an event, with what they may ask of it.

use super::{Fifo, Moment, State, Timer};
use crate::pci::Master;
use crate::register::low32;
use crate::sheet::description::{Act, Target, Transfer};
use crate::sheet::expression::{Answers, Expression};

/// The shortest period of a timer, ns.
const SHORTEST_PERIOD: u64 = 1_000;
/// Bytes of one transfer at most.
const LONGEST_TRANSFER: u64 = 16 << 20;

/// The state, asked at a moment.
pub(super) struct Asked<'a, 'm> {
    pub(super) state: &'a mut State,
    pub(super) moment: Moment,
    pub(super) master: Option<&'a mut Master<'m>>,
}

impl Answers for Asked<'_, '_> {
    fn answer(&mut self, leaf: &Expression, offset: u64) -> u64 {
        match leaf {
            Expression::Old(bits) => bits.of(self.moment.old),
            Expression::Written(bits) => bits.of(self.moment.written),
            Expression::Value => self.moment.value,
            Expression::Answered => self.state.answered.into(),
            Expression::Bus(_) => {
                let mut word = [0; 4];
                self.state.answered =
                    self.master.as_mut().is_some_and(|master| master.read(offset, &mut word));
                u32::from_le_bytes(word).into()
            }
            leaf => self.state.leaf(leaf, offset),
        }
    }
}

impl Asked<'_, '_> {
    pub(super) fn act(&mut self, act: &Act) {
        match act {
            Act::Set(target, value) => {
                let value = value.value(self);
                self.set(target, value);
            }
            Act::Push(fifo, word) => {
                let word = word.value(self);
                self.state.push(*fifo, word);
            }
            Act::Pop(fifo) => {
                self.state.fifos[*fifo].words.pop_front();
            }
            Act::Clear(fifo) => self.state.fifos[*fifo] = Fifo::default(),
            Act::Start { timer, count, unit, again } => {
                let time = count.value(self).saturating_mul(*unit);
                let period = again.then_some(time.max(SHORTEST_PERIOD));
                let ends = self.moment.now.saturating_add(period.unwrap_or(time.max(1)));
                self.state.timers[*timer] = Some(Timer { ends, period });
            }
            Act::Stop(timer) => self.state.timers[*timer] = None,
            Act::Transfer(transfer) => self.transfer(transfer),
        }
    }

    fn set(&mut self, target: &Target, value: u64) {
        match target {
            Target::Register(register, bits) => {
                let held = &mut self.state.registers[*register];
                *held = bits.put(*held, value);
            }
            Target::Memory(memory, offset) => {
                let offset = offset.value(self);
                if offset < self.state.sheet.memories[*memory].bytes {
                    self.state.memories[*memory].write(offset, 4, value);
                }
            }
            Target::Bus(address) => {
                let address = address.value(self);
                let word = low32(value).to_le_bytes();
                self.state.answered = self.master.as_mut().is_some_and(|master| master.write(address, &word));
            }
        }
    }

    fn transfer(&mut self, transfer: &Transfer) {
        let [offset, address, length] =
            [&transfer.offset, &transfer.address, &transfer.length].map(|value| value.value(self));
        let end = self.state.sheet.memories[transfer.memory].bytes;
        let fits =
            offset.checked_add(length).is_some_and(|behind| behind <= end) && length <= LONGEST_TRANSFER;
        let (Some(master), true) = (self.master.as_mut(), fits) else {
            self.state.answered = false;
            return;
        };
        let memory = &mut self.state.memories[transfer.memory];
        let mut bytes: Vec<u8> = (offset..offset + length).map(|at| memory.byte(at)).collect();
        self.state.answered = if transfer.stores {
            master.write(address, &bytes)
        } else {
            let answered = master.read(address, &mut bytes);
            if answered {
                (offset..).zip(&bytes).for_each(|(at, byte)| memory.set_byte(at, *byte));
            }
            answered
        };
    }
}
