//! What an instruction needs: to be copied, to end a block as a branch, or to call out.

use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// How the translator treats an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Runs as it is (RIP-relative operands re-encoded).
    Plain,
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
    /// Not on dirql's virtual processor (x86-64-v2): the driver gets an invalid opcode.
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
        FlowControl::UnconditionalBranch if near_target(instruction) => Class::Jump,
        FlowControl::ConditionalBranch if counted(instruction) => Class::CountedJump,
        FlowControl::ConditionalBranch if near_target(instruction) => Class::JumpIf,
        FlowControl::Call if near_target(instruction) => Class::Call,
        FlowControl::IndirectBranch if near_indirect(instruction) => Class::JumpIndirect,
        FlowControl::IndirectCall if near_indirect(instruction) => Class::CallIndirect,
        FlowControl::Return if instruction.code() == Code::Retnq => Class::Return,
        FlowControl::Return if instruction.code() == Code::Retnq_imm16 => Class::CallOut,
        FlowControl::Next => plain_or_refused(instruction),
        _ => Class::NotImplemented,
    }
}

fn plain_or_refused(instruction: &Instruction) -> Class {
    if instruction.segment_prefix() == Register::FS && touches_memory(instruction) {
        // The host thread's own block lies behind FS; the kernel has nothing there on x64.
        return Class::NotImplemented;
    }
    if instruction.is_privileged() {
        return Class::NotImplemented;
    }
    let info = instruction.op_code();
    if matches!(info.encoding(), iced_x86::EncodingKind::Legacy | iced_x86::EncodingKind::D3NOW) {
        Class::Plain
    } else {
        Class::Invalid
    }
}

fn by_mnemonic(instruction: &Instruction) -> Option<Class> {
    use Mnemonic as M;
    Some(match instruction.mnemonic() {
        M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => Class::CallOut,
        M::Cli | M::Sti | M::Hlt | M::Pushfq | M::Popfq | M::Rdtsc | M::Rdtscp | M::Cpuid => Class::CallOut,
        M::Rdmsr | M::Wrmsr | M::Int | M::Int3 => Class::CallOut,
        M::Mov if control_or_segment(instruction) => Class::CallOut,
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
        M::Rdfsbase | M::Rdgsbase | M::Wrfsbase | M::Wrgsbase | M::Ud0 | M::Ud1 | M::Ud2 | M::Int1 => {
            Class::Invalid
        }
        M::Sgdt
        | M::Sidt
        | M::Sldt
        | M::Str
        | M::Smsw
        | M::Lsl
        | M::Lar
        | M::Verr
        | M::Verw
        | M::Syscall
        | M::Sysenter
        | M::Sysret
        | M::Sysexit
        | M::Swapgs
        | M::Pushf
        | M::Popf
        | M::Vmcall
        | M::Vmmcall => Class::NotImplemented,
        M::Pop if is_segment(instruction.op0_register()) => Class::NotImplemented,
        M::Push if is_segment(instruction.op0_register()) => Class::NotImplemented,
        M::Lss | M::Lfs | M::Lgs => Class::NotImplemented,
        _ => return None,
    })
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
