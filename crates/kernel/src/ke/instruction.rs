//! Instructions that ask the processor what it is, or tell it what to be. The answers are those of one of two fixed
//! processors, of the levels x86-64-v2 and x86-64-v3, whatever the host has: no AVX in the first, no hypervisor in both.
//!
//! What a driver may not do, or what nothing here would honour, is a verdict that names the instruction.

use abi::NtStatus;
use engine::{Cpu, Flow, Leave, Special};

use super::calls::{exception, extended};
use super::irq::{interrupt, stall};
use super::system;
use super::timing::time;
use crate::cx::Cx;
use crate::ldr;
use crate::verdict::Verdict;

/// `CR0`: paging, write protection, numeric errors, protected mode.
pub(super) const CR0: u64 = 0x8005_0033;
/// `CR3`: where the page tables would be.
pub(super) const CR3: u64 = 0x001A_A000;
/// `CR4`: what the processor model has, switched on.
const CR4: u64 = 0x0000_06F8;
/// `CR4`: `xgetbv` and AVX may be used.
const OSXSAVE: u64 = 1 << 18;
/// `EFER`: system calls, long mode, no-execute.
const EFER: u64 = 0xD01;

/// `CR4` of a processor model.
pub(super) const fn cr4(cpu: Cpu) -> u64 {
    match cpu {
        Cpu::X86_64V2 => CR4,
        Cpu::X86_64V3 => CR4 | OSXSAVE,
    }
}

/// `cpuid` on processor `number` of `count`: `eax ebx ecx edx`.
pub(crate) fn cpuid(cpu: Cpu, leaf: u32, subleaf: u32, number: u32, count: u32) -> [u32; 4] {
    let second = cpuid_v2(leaf, subleaf, number, count);
    if cpu == Cpu::X86_64V2 {
        return second;
    }
    let [eax, ebx, ecx, edx] = second;
    match (leaf, subleaf) {
        (0, _) => [0xD, ebx, ecx, edx],
        // Model 3Ch; FMA, MOVBE, XSAVE, OSXSAVE, AVX, F16C.
        (1, _) => [0x0003_06C3, ebx, ecx | 0x3C40_1000, edx],
        // BMI1, AVX2, BMI2.
        (7, 0) => [0, 0x128, 0, 0],
        // x87, SSE and AVX; the bytes they take.
        (0xD, 0) => [extended::AVX | extended::LEGACY, 0x340, 0x340, 0],
        (0xD, 2) => [0x100, 0x240, 0, 0],
        // LZCNT.
        (0x8000_0001, _) => [eax, ebx, ecx | 0x20, edx],
        (0x8000_0002..=0x8000_0004, _) => brand(cpu, leaf - 0x8000_0002),
        _ => second,
    }
}

fn cpuid_v2(leaf: u32, subleaf: u32, number: u32, count: u32) -> [u32; 4] {
    let id = number;
    match leaf {
        // "GenuineIntel": what 64-bit drivers know how to read.
        0 => [0xB, 0x756E_6547, 0x6C65_746E, 0x4965_6E69],
        // Family 6, model 2Ch; SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT.
        1 => [0x0002_06C2, id << 24 | count.next_power_of_two() << 16 | 8 << 8, 0x0098_2201, 0x178B_FBFF],
        2 => [0x5503_5A01, 0x00F0_B2FF, 0, 0x00CA_0000],
        4 => cache(subleaf),
        // Topology: one thread a core, all cores in one package.
        0xB => match subleaf {
            0 => [0, 1, 0x100, id],
            1 => [count.next_power_of_two().trailing_zeros(), count, 0x201, id],
            _ => [0, 0, subleaf, id],
        },
        0x8000_0000 => [0x8000_0008, 0, 0, 0],
        // LAHF; SYSCALL, NX, RDTSCP, long mode.
        0x8000_0001 => [0, 0, 1, 0x2810_0800],
        0x8000_0002..=0x8000_0004 => brand(Cpu::X86_64V2, leaf - 0x8000_0002),
        0x8000_0006 => [0, 0, 0x0100_6040, 0],
        // The time stamp counter runs at a constant rate.
        0x8000_0007 => [0, 0, 0, 0x100],
        // 40 physical and 48 virtual address bits.
        0x8000_0008 => [0x3028, 0, 0, 0],
        _ => [0; 4],
    }
}

/// L1 data 32 KB, L1 code 32 KB, L2 256 KB, L3 8 MB; lines of 64 bytes.
const fn cache(subleaf: u32) -> [u32; 4] {
    match subleaf {
        0 => [0x121, 0x01C0_003F, 63, 0],
        1 => [0x122, 0x00C0_003F, 127, 0],
        2 => [0x143, 0x01C0_003F, 511, 0],
        3 => [0x163, 0x03C0_003F, 8191, 0],
        _ => [0; 4],
    }
}

fn brand(cpu: Cpu, part: u32) -> [u32; 4] {
    let text: &[u8; 48] = match cpu {
        Cpu::X86_64V2 => b"dirql virtual processor, x86-64-v2 @ 1.00GHz\0\0\0\0",
        Cpu::X86_64V3 => b"dirql virtual processor, x86-64-v3 @ 1.00GHz\0\0\0\0",
    };
    let at = part as usize * 16;
    std::array::from_fn(|index| {
        let from = at + index * 4;
        u32::from_le_bytes([text[from], text[from + 1], text[from + 2], text[from + 3]])
    })
}

/// The rest.
pub(crate) fn special(cx: &mut Cx<'_>, special: Special) -> Flow<u64> {
    match special {
        Special::TimeStamp => {
            super::timing::shared_data::polled(cx)?;
            Ok(cx.engine().now())
        }
        Special::ProcessorId => Ok(cx.with(|k| k.ke.processor().number.into())),
        Special::Extended(registers) => extended::use_of(cx, registers).map(|()| 0),
        Special::ReadExtended(0) => Ok((extended::AVX | extended::LEGACY).into()),
        Special::ReadExtended(register) => {
            Err(refused(cx, &format!("reading extended control register {register:#x}")))
        }
        Special::ReadControl(register) => read_control(cx, register),
        Special::WriteControl(register, value) => system::write_control(cx, register, value),
        // No breakpoints are set: what these registers hold after reset.
        Special::ReadDebug(0..=3) => Ok(0),
        Special::ReadDebug(4 | 6) => Ok(0xFFFF_0FF0),
        Special::ReadDebug(5 | 7) => Ok(0x400),
        Special::ReadDebug(register) => Err(refused(cx, &format!("reading debug register DR{register}"))),
        Special::WriteDebug(0..=3, 0)
        | Special::WriteDebug(4 | 6, _)
        | Special::WriteDebug(5 | 7, 0 | 0x400) => Ok(0),
        Special::WriteDebug(register, value) => {
            Err(not_implemented(cx, &format!("a write of {value:#x} to debug register DR{register}")))
        }
        Special::ReadCounter(counter) => read_counter(cx, counter),
        Special::ReadMsr(register) => read_msr(cx, register),
        Special::WriteMsr(register, value) => system::write_msr(cx, register, value),
        Special::Interrupt(vector) => Err(software_interrupt(cx, vector)),
        Special::Halt => halt(cx),
        Special::TableBase(table) => system::table_base(cx, table),
        Special::TakeOver(what, name) => Err(system::taken_over(cx, what, name)),
    }
}

pub(super) fn not_implemented(cx: &mut Cx<'_>, what: &str) -> Leave {
    cx.stop(Verdict::not_implemented(what))
}

/// What a processor answers with a general protection fault.
pub(super) fn refused(cx: &mut Cx<'_>, what: &str) -> Leave {
    let verdict = Verdict::error("instruction-refused", format!("the processor refuses {what}"));
    exception::raise_here(cx, NtStatus::PRIVILEGED_INSTRUCTION, Vec::new(), verdict)
}

fn read_control(cx: &mut Cx<'_>, register: u8) -> Flow<u64> {
    match register {
        0 => Ok(CR0),
        2 => Ok(cx.with(|k| k.ke.processor().cr2)),
        3 => Ok(CR3),
        4 => Ok(cx.with(|k| cr4(k.ke.cpu))),
        _ => Err(refused(cx, &format!("reading control register CR{register}"))),
    }
}

/// `rdpmc`: of the counters that processors of this family have (four, and three with a fixed meaning) each goes with the machine's
/// clock, whatever event it was set up to count; they have 48 bits.
fn read_counter(cx: &mut Cx<'_>, counter: u32) -> Flow<u64> {
    match counter {
        0..=3 | 0x4000_0000..=0x4000_0002 => Ok(cx.engine().now() & 0xFFFF_FFFF_FFFF),
        _ => Err(refused(cx, &format!("reading performance counter {counter:#x}, which it does not have"))),
    }
}

pub(super) fn read_msr(cx: &mut Cx<'_>, register: u32) -> Flow<u64> {
    if let Some(value) = msr(cx, register) {
        return Ok(value);
    }
    let attempt = format!("reading model-specific register {register:#x}");
    Err(if is_real(register) {
        not_implemented(cx, &attempt)
    } else {
        refused(cx, &format!("{attempt}, which it does not have"))
    })
}

/// What a model-specific register holds, of those that are here.
pub(super) fn msr(cx: &mut Cx<'_>, register: u32) -> Option<u64> {
    Some(match register {
        // IA32_P5_MC_ADDR, IA32_P5_MC_TYPE: no machine check has happened.
        0 | 1 => 0,
        // IA32_BIOS_SIGN_ID: the microcode's revision.
        0x8B => 0x1F << 32,
        // IA32_TIME_STAMP_COUNTER.
        0x10 => cx.engine().now(),
        // IA32_APIC_BASE: enabled; the first processor booted the others.
        0x1B => 0xFEE0_0800 | if cx.with(|k| k.ke.processor().number) == 0 { 0x100 } else { 0 },
        // IA32_MTRRCAP, IA32_PAT.
        0xFE => 0x508,
        0x277 => 0x0007_0106_0007_0106,
        0xC000_0080 => EFER,
        // IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GS_BASE, IA32_TSC_AUX.
        0xC000_0100 | 0xC000_0102 => 0,
        0xC000_0101 => cx.with(|k| k.ke.processor().region.address),
        0xC000_0103 => cx.with(|k| k.ke.processor().number.into()),
        _ => return None,
    })
}

/// IA32_MISC_ENABLE, the performance and thermal registers, system call targets: real, not modelled.
pub(super) const fn is_real(register: u32) -> bool {
    matches!(
        register,
        0x17 | 0xC1..=0xC8
            | 0xE7
            | 0xE8
            | 0x174..=0x17F
            | 0x186..=0x18D
            | 0x198..=0x1D9
            | 0x200..=0x2FF
            | 0x300..=0x4FF
            | 0x800..=0x8FF
            | 0xC000_0081..=0xC000_0084
    )
}

/// `int3`, `int n`.
fn software_interrupt(cx: &mut Cx<'_>, vector: u8) -> Leave {
    let (verdict, code) = match vector {
        3 | 0x2D => {
            let message = "the driver hit a breakpoint, and no debugger is attached";
            (Verdict::error("breakpoint", message), NtStatus::BREAKPOINT)
        }
        0x29 => return fast_fail(cx),
        0x2C => {
            let verdict = Verdict::error("assertion-failed", "an assertion of the driver failed");
            (verdict, NtStatus::ASSERTION_FAILURE)
        }
        _ => {
            let message = format!("the driver executed int {vector:#x}, which the kernel does not offer");
            (Verdict::error("instruction-refused", message), NtStatus::ACCESS_VIOLATION)
        }
    };
    // One parameter of a breakpoint: what was asked of the debugger. An access violation's: the address, which is unknown.
    let information = match code {
        NtStatus::BREAKPOINT => vec![0],
        NtStatus::ACCESS_VIOLATION => vec![0, u64::MAX],
        _ => Vec::new(),
    };
    exception::raise_here(cx, code, information, verdict)
}

/// The fast fail of control flow guard.
const INVALID_TARGET: u64 = 0xA;

/// `__fastfail`: the code is in `ecx`.
fn fast_fail(cx: &mut Cx<'_>) -> Leave {
    let registers = cx.engine().caller().map(|caller| caller.registers).unwrap_or_default();
    let code = registers.general[1] & 0xFFFF_FFFF;
    let meaning = match code {
        0 => "a stack buffer overrun (old check)",
        1 => "an illegal virtual function table",
        2 => "a stack cookie that does not match: a local buffer was overrun",
        3 => "a LIST_ENTRY that does not hold together: removed twice, overwritten, or never linked",
        5 => "an invalid argument",
        6 => "a stack cookie that was never initialised",
        7 => "a request to end",
        8 => "an array index out of bounds",
        INVALID_TARGET => "an indirect call to what is no valid target",
        0xE => "a reference count that is impossible",
        0x1D => "a damaged red-black tree",
        _ => "a reason of its own",
    };
    let found = match code {
        // By the guard's routines the target is in rax then.
        INVALID_TARGET => format!("{meaning}: {}", ldr::symbols::describe(cx, registers.general[0])),
        _ => meaning.to_owned(),
    };
    let message = format!("the driver ended itself (fast fail {code:#x}): it found {found}");
    cx.stop(Verdict::error("fast-fail", message).bug_check(0x139, [code, 0, 0, 0]))
}

/// `hlt`: until the next interrupt.
fn halt(cx: &mut Cx<'_>) -> Flow<u64> {
    let now = cx.engine().now();
    let enabled = cx.with(|k| k.ke.interrupt_flag());
    let due = cx.with(|k| [k.ke.timing.timers().deadline(), k.hal.deadline()].into_iter().flatten().min());
    match due {
        _ if !enabled => {
            let message = "the driver executed hlt with interrupts disabled: the processor stops for ever";
            Err(cx.stop(Verdict::error("halted", message).bug_check(0x101, [0; 4])))
        }
        // The clock ticks anyway.
        _ => {
            let tick = (now / time::TICK + 1) * time::TICK;
            stall::pass(cx, due.map_or(tick, |due| due.min(tick)).max(now))?;
            interrupt::deliver(cx)?;
            Ok(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_has_sse4_2_and_no_avx_and_no_hypervisor() {
        let cpuid = |leaf| cpuid(Cpu::X86_64V2, leaf, 0, 0, 1);
        let [_, _, ecx, edx] = cpuid(1);
        assert_ne!(ecx & 1 << 20, 0, "SSE4.2");
        assert_ne!(ecx & 1 << 13, 0, "CMPXCHG16B");
        assert_ne!(ecx & 1 << 23, 0, "POPCNT");
        assert_eq!(
            ecx & (1 << 26 | 1 << 27 | 1 << 28 | 1 << 30 | 1 << 31),
            0,
            "XSAVE OSXSAVE AVX RDRAND hypervisor"
        );
        assert_ne!(edx & 1 << 26, 0, "SSE2");
        assert_eq!(cpuid(7), [0; 4]);
        assert_eq!(cr4(Cpu::X86_64V2) & OSXSAVE, 0);
    }

    #[test]
    fn the_other_processor_has_avx2_and_an_operating_system_that_saves_its_registers() {
        let cpuid = |leaf, subleaf| cpuid(Cpu::X86_64V3, leaf, subleaf, 0, 1);
        assert!(cpuid(0, 0)[0] >= 0xD);
        let ecx = cpuid(1, 0)[2];
        for (bit, name) in
            [(12, "FMA"), (22, "MOVBE"), (26, "XSAVE"), (27, "OSXSAVE"), (28, "AVX"), (29, "F16C")]
        {
            assert_ne!(ecx & 1 << bit, 0, "{name}");
        }
        assert_eq!(ecx & (1 << 25 | 1 << 30 | 1 << 31), 0, "AES RDRAND hypervisor");
        assert_eq!(cpuid(7, 0)[1], 1 << 3 | 1 << 5 | 1 << 8, "BMI1 AVX2 BMI2");
        let (size, [avx, offset, ..]) = (cpuid(0xD, 0)[1], cpuid(0xD, 2));
        assert_eq!(avx + offset, size);
        assert_ne!(cpuid(0x8000_0001, 0)[2] & 1 << 5, 0, "LZCNT");
        assert_ne!(cr4(Cpu::X86_64V3) & OSXSAVE, 0);
    }

    #[test]
    fn processors_tell_their_own_number() {
        let cpuid = |leaf, subleaf, number, count| cpuid(Cpu::X86_64V2, leaf, subleaf, number, count);
        assert_eq!(cpuid(1, 0, 3, 4)[1] >> 24, 3);
        assert_eq!(cpuid(0xB, 1, 3, 4), [2, 4, 0x201, 3]);
        let name: Vec<u8> = (0x8000_0002..=0x8000_0004)
            .flat_map(|leaf| cpuid(leaf, 0, 0, 1))
            .flat_map(u32::to_le_bytes)
            .collect();
        assert!(name.starts_with(b"dirql virtual processor, x86-64-v2"));
    }
}
