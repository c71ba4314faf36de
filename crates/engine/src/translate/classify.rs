//! What an instruction needs: to be copied, to end a block as a branch, or to call out.

use super::extended::extended;
use super::frame::{USED_FLAGS, USED_MXCSR, USED_X87, USED_XMM0, USED_XMM6, USED_YMM};
use super::system;
use crate::guest::Extended;
use crate::machine::state;
use crate::processor::Cpu;
use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// How the translator treats an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Runs as it is (RIP-relative operands re-encoded).
    Plain,
    /// `mov` to or from CR8: done in the block where the guest allows it.
    Level,
    /// `jmp target`.
    Jump,
    /// `jcc target`.
    JumpIf,
    /// `loop`, `jrcxz` and their kind.
    CountedJump,
    /// `jmp r/m`.
    JumpIndirect,
    /// `call target`.
    Call,
    /// `call r/m`.
    CallIndirect,
    /// `ret`.
    Return,
    /// The engine does it, with all registers (see `callout`).
    CallOut,
    /// Not on dirql's virtual processor ([`Cpu`]): the driver gets an invalid opcode.
    Invalid,
    /// dirql knows it and does not run it; the verdict names it.
    NotImplemented,
}

/// Classifies a decoded instruction.
pub(crate) fn classify(instruction: &Instruction) -> Class {
    if instruction.is_invalid() {
        return Class::Invalid;
    }
    if let Some(class) = by_mnemonic(instruction) {
        return class;
    }
    match instruction.flow_control() {
        FlowControl::UnconditionalBranch if is_direct_jump(instruction) => Class::Jump,
        FlowControl::ConditionalBranch if counted(instruction) => Class::CountedJump,
        FlowControl::ConditionalBranch if near_target(instruction) => Class::JumpIf,
        FlowControl::Call if near_target(instruction) => Class::Call,
        FlowControl::IndirectBranch if near_indirect(instruction) => Class::JumpIndirect,
        FlowControl::IndirectCall if near_indirect(instruction) => Class::CallIndirect,
        FlowControl::Return if instruction.code() == Code::Retnq => Class::Return,
        FlowControl::Return if instruction.code() == Code::Retnq_imm16 => Class::CallOut,
        FlowControl::IndirectBranch | FlowControl::IndirectCall
            if instruction.segment_prefix() == Register::FS =>
        {
            Class::CallOut
        }
        FlowControl::Next => plain_or_refused(instruction),
        _ => Class::NotImplemented,
    }
}

fn plain_or_refused(instruction: &Instruction) -> Class {
    if instruction.segment_prefix() == Register::FS && touches_memory(instruction) {
        // The host thread's own block lies behind FS; the kernel has nothing there on x64.
        return Class::CallOut;
    }
    if instruction.is_privileged() {
        // What is left of them is for virtual machines and for extensions that the processor does not have.
        return Class::Invalid;
    }
    if state().cpu.get().has(instruction) { Class::Plain } else { Class::Invalid }
}

fn by_mnemonic(instruction: &Instruction) -> Option<Class> {
    use Mnemonic as M;
    let avx = state().cpu.get() == Cpu::X86_64V3;
    Some(match instruction.mnemonic() {
        M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => Class::CallOut,
        M::Cli | M::Sti | M::Hlt | M::Pushfq | M::Popfq | M::Rdtsc | M::Rdtscp | M::Cpuid => Class::CallOut,
        M::Rdmsr | M::Wrmsr | M::Int | M::Int3 => Class::CallOut,
        M::Mov if instruction.op0_register() == Register::CR8 => Class::Level,
        M::Mov if instruction.op1_register() == Register::CR8 => Class::Level,
        M::Mov if control_or_segment(instruction) => Class::CallOut,
        M::Xgetbv if avx => Class::CallOut,
        M::Xsetbv | M::Xsave | M::Xsave64 | M::Xrstor | M::Xrstor64 if avx => Class::NotImplemented,
        M::Rdrand
        | M::Rdseed
        | M::Rdpid
        | M::Xgetbv
        | M::Xsetbv
        | M::Xbegin
        | M::Xend
        | M::Xabort
        | M::Xtest => Class::Invalid,
        M::Xsave
        | M::Xsave64
        | M::Xrstor
        | M::Xrstor64
        | M::Xsaveopt
        | M::Xsaveopt64
        | M::Xsavec
        | M::Xsaves => Class::Invalid,
        M::Rdfsbase | M::Rdgsbase | M::Wrfsbase | M::Wrgsbase | M::Ud0 | M::Ud1 | M::Ud2 => Class::Invalid,
        // No hypervisor, no virtual machines, no SMAP, no monitor: CPUID says so, and the processor refuses them.
        M::Vmcall | M::Vmmcall | M::Vmfunc | M::Clac | M::Stac | M::Monitor | M::Mwait => Class::Invalid,
        M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw | M::Lsl | M::Lar | M::Verr | M::Verw => {
            Class::CallOut
        }
        M::Lgdt | M::Lidt | M::Lldt | M::Ltr | M::Lmsw | M::Clts | M::Invlpg => Class::CallOut,
        M::Wbinvd | M::Wbnoinvd | M::Invd | M::Swapgs | M::Pushf | M::Popf | M::Int1 => Class::CallOut,
        M::Syscall | M::Sysenter | M::Sysret | M::Sysretq | M::Sysexit | M::Sysexitq => Class::CallOut,
        M::Retf | M::Iret | M::Iretd | M::Iretq | M::Lss | M::Lfs | M::Lgs => Class::CallOut,
        M::Jmp | M::Call if system::is_far(instruction) => Class::CallOut,
        M::Pop | M::Push if is_segment(instruction.op0_register()) => Class::CallOut,
        M::Rdpmc => Class::CallOut,
        _ => return None,
    })
}

/// Whether it reads and writes memory in one go that other processors cannot come between: `lock`, and `xchg` with memory.
pub(crate) fn is_interlocked(instruction: &Instruction) -> bool {
    touches_memory(instruction) && (instruction.has_lock_prefix() || instruction.mnemonic() == Mnemonic::Xchg)
}

/// Whether what an interlocked one stores follows from what is there.
pub(crate) fn adds(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    !matches!(instruction.mnemonic(), M::Xchg | M::Cmpxchg | M::Cmpxchg8b | M::Cmpxchg16b)
}

/// Whether it is one of the plain ones that empty the processor's write-combining buffers: `lfence` is none.
pub(crate) fn is_fence(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Sfence | Mnemonic::Mfence) || is_interlocked(instruction)
}

/// Whether it is serializing, and the engine does it: as the SDM lists them, with those that bring an interrupt. Ports are accessed by their own way.
pub(crate) fn is_serializing(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let to = instruction.op0_register();
    match instruction.mnemonic() {
        M::Cpuid | M::Wrmsr | M::Invd | M::Wbinvd | M::Wbnoinvd | M::Invlpg | M::Hlt => true,
        M::Lgdt | M::Lidt | M::Lldt | M::Ltr | M::Iret | M::Iretd | M::Iretq => true,
        M::Int | M::Int3 | M::Int1 => true,
        M::Mov => to.is_cr() || to.is_dr(),
        _ => false,
    }
}

/// Whether the guest can be asked before it because others touch the memory that it touches. It is not asked anyway, and does
/// more with memory than to push or pop its own return address.
pub(crate) fn may_be_watched(instruction: &Instruction) -> bool {
    match classify(instruction) {
        Class::Plain => !is_interlocked(instruction),
        Class::CallIndirect | Class::JumpIndirect => touches_memory(instruction),
        _ => false,
    }
}

/// What the instruction may change or look at, of the state that a frame saves only if it was used.
pub(crate) fn rare_state(instruction: &Instruction) -> u32 {
    use Mnemonic as M;
    let high = |register: Register| register.is_vector_register() && register.number() >= 6;
    let (mut vector, mut state) = (false, 0);
    let operands = (0..instruction.op_count()).map(|index| instruction.op_register(index));
    // A gather's index is no operand of its own.
    for register in operands.chain([instruction.memory_index()]) {
        vector |= register.is_vector_register();
        if vector {
            // Also what a few instructions do to `xmm0` without an operand that says so.
            state |= USED_XMM0;
        }
        if high(register) {
            state |= USED_XMM6;
        }
        if register.is_ymm() {
            state |= USED_YMM;
        }
    }
    if extended(instruction) == Some(Extended::X87) {
        state |= USED_X87;
    }
    match instruction.mnemonic() {
        M::Std | M::Popfq | M::Popf | M::Iret | M::Iretd | M::Iretq => USED_FLAGS,
        M::Ldmxcsr | M::Stmxcsr | M::Vldmxcsr | M::Vstmxcsr => state | USED_MXCSR,
        M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64 => USED_MXCSR | USED_XMM0 | USED_XMM6 | USED_X87,
        mnemonic if vector && !only_moves(mnemonic) => state | USED_MXCSR,
        _ => state,
    }
}

/// Vector instructions that neither read MXCSR nor set a flag in it: moves, shuffles, logic, integer arithmetic.
fn only_moves(mnemonic: Mnemonic) -> bool {
    let name = format!("{mnemonic:?}");
    let name =
        name.strip_prefix('V').map_or(name.clone(), |legacy| legacy[..1].to_uppercase() + &legacy[1..]);
    let harmless = ["Mov", "P", "And", "Or", "Xor", "Unpck", "Shuf", "Lddqu", "Mask", "Insert", "Extract"];
    harmless.iter().any(|prefix| name.starts_with(prefix))
}

fn control_or_segment(instruction: &Instruction) -> bool {
    let special = |r: Register| r.is_cr() || r.is_dr() || r.is_segment_register();
    special(instruction.op0_register()) || special(instruction.op1_register())
}

fn is_segment(register: Register) -> bool {
    register.is_segment_register()
}

fn near_target(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::NearBranch64
}

/// Whether it is a [`Class::Jump`].
pub(crate) fn is_direct_jump(instruction: &Instruction) -> bool {
    instruction.is_jmp_short_or_near() && near_target(instruction)
}

fn near_indirect(instruction: &Instruction) -> bool {
    matches!(instruction.code(), Code::Jmp_rm64 | Code::Call_rm64)
        && instruction.segment_prefix() != Register::FS
}

fn counted(instruction: &Instruction) -> bool {
    instruction.is_loop() || instruction.is_loopcc() || instruction.is_jcx_short()
}

pub(crate) fn touches_memory(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|i| {
        matches!(
            instruction.op_kind(i),
            OpKind::Memory
                | OpKind::MemorySegSI
                | OpKind::MemorySegESI
                | OpKind::MemorySegRSI
                | OpKind::MemoryESDI
                | OpKind::MemoryESEDI
                | OpKind::MemoryESRDI
                | OpKind::MemorySegRDI
                | OpKind::MemorySegEDI
        )
    })
}
