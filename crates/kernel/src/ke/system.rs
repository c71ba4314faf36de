//! What becomes of a driver that changes the processor under the kernel: descriptor tables, control and model-specific
//! registers, GS, the mode. Follows *Bug Check 0x109 CRITICAL_STRUCTURE_CORRUPTION*, *Bug Check 0x7F
//! UNEXPECTED_KERNEL_MODE_TRAP*.
//!
//! Windows finds some of it minutes later; here it is reported at the instruction. What is written as it was changes nothing.

use abi::DriverPtr;
use engine::{Flow, Leave, Table, TakeOver};

use super::instruction::{CR0, CR3, cr4, is_real, msr, not_implemented, refused};
use crate::cx::Cx;
use crate::mm::pool;
use crate::verdict::Verdict;

/// What this file keeps.
#[derive(Default)]
pub(super) struct State {
    /// Where the descriptor tables are, once a driver has asked.
    descriptor_tables: u64,
}

/// CRITICAL_STRUCTURE_CORRUPTION, and in its fourth parameter what was changed.
const CORRUPTION: u32 = 0x109;
const INTERRUPT_TABLE: u64 = 2;
const GLOBAL_TABLE: u64 = 3;
const CRITICAL_REGISTER: u64 = 7;
const CONTROL_REGISTER: u64 = 0x15;
/// UNEXPECTED_KERNEL_MODE_TRAP, and in its first parameter a double fault.
const TRAP: u32 = 0x7F;
const DOUBLE_FAULT: u64 = 8;

/// `CR0`: task switched, cache disabled, not write through. `CR4`: global pages. Drivers have reasons to turn them for a
/// moment.
const PASSING_CR0: u64 = 0x6000_0008;
const PASSING_CR4: u64 = 0x80;

/// Bytes of the global and of the interrupt descriptor table.
const GLOBAL: u64 = 0x58;
const INTERRUPT: u64 = 0x1000;
/// The global descriptors: none, none, kernel code, kernel data, user code of 32 bits, user data, user code, none, the task's two
/// halves, the user's thread block.
const DESCRIPTORS: [u64; 11] = [
    0,
    0,
    0x0020_9B00_0000_0000,
    0x0040_9300_0000_0000,
    0x00CF_FB00_0000_FFFF,
    0x00CF_F300_0000_FFFF,
    0x0020_FB00_0000_0000,
    0,
    0x0000_8B00_0000_0067,
    0,
    0x0040_F300_0000_3C00,
];

/// The table's address that `sgdt` and `sidt` store. It is made at the first such instruction, to be looked at: nothing
/// refers to it, and the interrupt table has no gates.
///
/// # Errors
/// If the machine stops meanwhile.
pub(super) fn table_base(cx: &mut Cx<'_>, table: Table) -> Flow<u64> {
    if cx.with(|k| k.ke.system.descriptor_tables) == 0 {
        let size = INTERRUPT + GLOBAL;
        let made: DriverPtr<u8> = pool::allocate(cx, pool::Kind::NonPaged, size, pool::tag(b"Desc"))?;
        if made.is_null() {
            return Err(not_implemented(cx, "a descriptor table when no memory is left"));
        }
        for (index, descriptor) in (0..).zip(DESCRIPTORS) {
            cx.write(DriverPtr::<u64>::new(made.address + INTERRUPT).index(index), descriptor)?;
        }
        cx.with(|k| k.ke.system.descriptor_tables = made.address);
    }
    let tables = cx.with(|k| k.ke.system.descriptor_tables);
    Ok(match table {
        Table::Interrupt => tables,
        Table::Global => tables + INTERRUPT,
    })
}

/// The verdict on an instruction that takes the processor away from the kernel.
pub(super) fn taken_over(cx: &mut Cx<'_>, what: TakeOver, name: &str) -> Leave {
    let rip = cx.engine().caller().map_or(0, |caller| caller.rip);
    let trap = Some((TRAP, [DOUBLE_FAULT, 0, 0, rip]));
    let (consequence, check) = match what {
        TakeOver::SystemCall => (
            "the system call entry is for user mode; from the kernel it exchanges GS and the stack for others",
            trap,
        ),
        TakeOver::ProcessorBlock => {
            ("GS is the kernel's way to the processor's own data; the next interrupt finds it gone", trap)
        }
        TakeOver::GlobalTable => {
            ("the global descriptor table is the kernel's", Some((CORRUPTION, [0, 0, 0, GLOBAL_TABLE])))
        }
        TakeOver::InterruptTable => {
            ("the interrupt descriptor table is the kernel's", Some((CORRUPTION, [0, 0, 0, INTERRUPT_TABLE])))
        }
        TakeOver::UserMode => ("it leaves for user mode in the middle of the kernel", None),
        TakeOver::Caches => ("what the caches hold and memory does not is lost", None),
    };
    let message = format!("the driver executed {name}: {consequence}");
    stop(cx, message, check)
}

fn corruption(message: String, what: u64) -> Verdict {
    Verdict::error("instruction-refused", message).bug_check(CORRUPTION, [0, 0, 0, what])
}

fn stop(cx: &mut Cx<'_>, message: String, check: Option<(u32, [u64; 4])>) -> Leave {
    let verdict = Verdict::error("instruction-refused", message);
    cx.stop(match check {
        Some((code, parameters)) => verdict.bug_check(code, parameters),
        None => verdict,
    })
}

/// `mov crN, r`.
///
/// # Errors
/// A verdict, unless nothing changes.
pub(super) fn write_control(cx: &mut Cx<'_>, register: u8, value: u64) -> Flow<u64> {
    let changed = |was: u64, passing: u64| (value ^ was) & !passing != 0;
    let cr4 = cx.with(|k| cr4(k.ke.cpu));
    let attempt = || format!("a write of {value:#x} to control register CR{register}");
    match (register, value) {
        // The same value changes nothing; a write of CR3 flushes the TLB, which does not exist here.
        (0, CR0) | (3, CR3) => Ok(0),
        (4, same) if same == cr4 => Ok(0),
        (2, _) => {
            cx.with(|k| k.ke.processor_mut().cr2 = value);
            Ok(0)
        }
        (0, _) if changed(CR0, PASSING_CR0) => {
            let message = format!("{}: it says how the whole system's memory is protected", attempt());
            Err(stop(cx, message, Some((CORRUPTION, [0, 0, 0, CONTROL_REGISTER]))))
        }
        (4, _) if changed(cr4, PASSING_CR4) => {
            let message = format!("{}: it says which of the processor's protections are on", attempt());
            Err(stop(cx, message, Some((CORRUPTION, [0, 0, 0, CONTROL_REGISTER]))))
        }
        (0 | 4, _) => Err(not_implemented(cx, &attempt())),
        (3, _) => {
            let message = format!("{}: the page tables are the kernel's, which is not in others", attempt());
            Err(stop(cx, message, None))
        }
        _ => Err(refused(cx, &format!("writing control register CR{register}"))),
    }
}

/// `IA32_LSTAR`: where a system call goes.
const LSTAR: u32 = 0xC000_0082;

/// `wrmsr`.
///
/// # Errors
/// A verdict, unless nothing changes.
pub(super) fn write_msr(cx: &mut Cx<'_>, register: u32, value: u64) -> Flow<u64> {
    // Where an application can choose it, this is the one that it would.
    cx.engine().note_told_apart(register, LSTAR);
    let attempt = format!("a write of {value:#x} to model-specific register {register:#x}");
    match register {
        // IA32_SYSENTER_*, IA32_STAR, IA32_LSTAR, IA32_CSTAR, IA32_FMASK: where system calls go.
        0x174..=0x176 | 0xC000_0081..=0xC000_0084 => {
            let message = format!("{attempt}, which says where system calls go");
            let verdict = corruption(message, CRITICAL_REGISTER);
            // Where an application chooses the register, the same instruction may be refused for others, which is harmless beside this.
            Err(cx.stop(Verdict { identity: Some("where system calls go".to_owned()), ..verdict }))
        }
        _ if is_real(register) => Err(not_implemented(cx, &attempt)),
        _ if msr(cx, register) == Some(value) => Ok(0),
        // IA32_P5_MC_ADDR, IA32_P5_MC_TYPE, which stand for the first bank's: they take nothing but 0.
        0 | 1 => Err(refused(cx, &format!("{attempt}, which can only be cleared"))),
        _ if msr(cx, register).is_none() => Err(refused(cx, &format!("{attempt}, which it does not have"))),
        // IA32_EFER.
        0xC000_0080 => {
            let message = format!("{attempt}, which says how the processor runs 64-bit code");
            Err(stop(cx, message, Some((CORRUPTION, [0, 0, 0, CRITICAL_REGISTER]))))
        }
        // IA32_GS_BASE.
        0xC000_0101 => Err(taken_over(cx, TakeOver::ProcessorBlock, "WRMSR")),
        _ => Err(not_implemented(cx, &attempt)),
    }
}
