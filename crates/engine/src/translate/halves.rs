//! Updates in two instructions: a load, and a store behind it that stores in the same place what follows from what was loaded. Another processor may come
//! between the two, as it may within `inc` without `lock`. The load may change what it loads at once: `or` with a register that is stored then.
//!
//! Found by the instructions that follow the load, along every way that its routine's jumps leave open; a call ends a way. *Not found* is a store whose
//! operand is named by other registers, or by one that was loaded anew. Of two stores the one that is reached without jumping is taken.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::carried::decode;
use super::classify::{Class, classify};
use super::operands::{Operand, Operands, operands};

/// So many instructions behind a load are looked at along one way.
const ALONG_ONE_WAY: usize = 24;
/// And so many along all ways.
const ALONG_ALL_WAYS: usize = 96;

/// The store that ends the update which this instruction begins, if it begins one.
pub(super) fn stored_back(load: &Instruction) -> Option<u64> {
    let loads = matches!(
        load.mnemonic(),
        Mnemonic::Mov
            | Mnemonic::Movzx
            | Mnemonic::Movsx
            | Mnemonic::Movsxd
            | Mnemonic::Or
            | Mnemonic::And
            | Mnemonic::Xor
            | Mnemonic::Add
            | Mnemonic::Sub
    );
    if !loads || load.op1_kind() != OpKind::Memory || !load.op0_register().is_gpr() {
        return None;
    }
    let place = only_operand(load)?;
    let follows = Follows(vec![load.op0_register().full_register()]);
    if follows.0.iter().any(|register| place.uses(*register)) {
        return None;
    }
    let mut ways = vec![(load.next_ip(), follows, 0)];
    for _ in 0..ALONG_ALL_WAYS {
        let (at, mut follows, behind) = ways.pop()?;
        let Some(instruction) = decode(at).filter(|_| behind < ALONG_ONE_WAY) else { continue };
        let mut go_on = |at, follows| ways.push((at, follows, behind + 1));
        match classify(&instruction) {
            Class::Jump => go_on(instruction.near_branch_target(), follows),
            Class::JumpIf => {
                go_on(instruction.near_branch_target(), follows.clone());
                go_on(instruction.next_ip(), follows);
            }
            Class::Plain if !instruction.has_lock_prefix() => {
                if stores_to(&place, &instruction) {
                    if follows.has(instruction.op1_register()) {
                        return Some(instruction.ip());
                    }
                } else if follows.after(&instruction, &place).is_some() {
                    go_on(instruction.next_ip(), follows);
                }
            }
            _ => {}
        }
    }
    None
}

fn only_operand(instruction: &Instruction) -> Option<Operand> {
    match operands(instruction) {
        Operands::Some(all) => <[Operand; 1]>::try_from(all).ok().map(|[operand]| operand),
        _ => None,
    }
}

/// Whether the instruction stores a register there.
fn stores_to(place: &Operand, instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Memory
        && instruction.op1_kind() == OpKind::Register
        && only_operand(instruction).is_some_and(|other| is_same(place, &other))
}

fn is_same(one: &Operand, other: &Operand) -> bool {
    one.same_registers(other) && one.displacement == other.displacement && one.bytes == other.bytes
}

/// The registers whose values follow from what was loaded.
#[derive(Clone)]
struct Follows(Vec<Register>);

impl Follows {
    fn has(&self, register: Register) -> bool {
        self.0.contains(&register.full_register())
    }

    /// What the instruction makes of them. None if the place that was loaded from cannot be named any more.
    fn after(&mut self, instruction: &Instruction, place: &Operand) -> Option<()> {
        let clears = matches!(instruction.mnemonic(), Mnemonic::Xor | Mnemonic::Sub)
            && instruction.op_count() == 2
            && instruction.op0_kind() == OpKind::Register
            && instruction.op1_kind() == OpKind::Register
            && instruction.op0_register() == instruction.op1_register();
        let mut factory = InstructionInfoFactory::new();
        let used = factory.info(instruction).used_registers();
        let writes =
            |access: OpAccess| !matches!(access, OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
        let reads = |access: OpAccess| !matches!(access, OpAccess::Write | OpAccess::CondWrite);
        let is_address = |register: Register| {
            let named = [instruction.memory_base(), instruction.memory_index()];
            instruction.mnemonic() != Mnemonic::Lea && named.iter().any(|own| own.full_register() == register)
        };
        let follow = !clears
            && used.iter().any(|used| {
                let register = used.register().full_register();
                reads(used.access()) && !is_address(register) && self.has(register)
            });
        for written in used.iter().filter(|used| writes(used.access())) {
            let register = written.register().full_register();
            if place.uses(register) {
                return None;
            }
            self.0.retain(|known| *known != register);
            if follow && register.is_gpr() {
                self.0.push(register);
            }
        }
        Some(())
    }
}
