//! Which random instructions a sequence may hold, and where their operands go.

use iced_x86::{
    CpuidFeature, Encoder, EncodingKind, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

use super::file::OPERANDS;
use super::{Family, Random, is_far_bit_test, is_vex};
use crate::rig::CODE;

/// Registers the frame of the generated function needs.
const KEPT: [Register; 2] = [Register::RSP, Register::R15];

/// The instruction as it may stand in a sequence whose data page is at `page`.
pub(super) fn tame(
    mut instruction: Instruction,
    family: Family,
    random: &mut Random,
    page: u64,
) -> Option<Instruction> {
    let legacy = instruction.op_code().encoding() == EncodingKind::Legacy;
    let encoded = legacy || family == Family::Avx && is_vex(&instruction);
    if instruction.is_invalid() || !encoded || instruction.flow_control() != FlowControl::Next {
        return None;
    }
    if instruction.is_privileged()
        || !reproducible(&instruction, family)
        || instruction.is_stack_instruction()
    {
        return None;
    }
    if (0..instruction.op_count()).any(|i| instruction.op_register(i).is_segment_register()) {
        return None;
    }
    for i in 0..instruction.op_count() {
        match instruction.op_kind(i) {
            OpKind::Memory => redirect(&mut instruction, random, page),
            OpKind::MemorySegRSI | OpKind::MemoryESRDI | OpKind::MemorySegRDI | OpKind::MemorySegESI => {
                return None;
            }
            OpKind::MemoryESEDI | OpKind::MemorySegEDI | OpKind::MemorySegSI | OpKind::MemorySegDI => {
                return None;
            }
            OpKind::MemoryESDI => return None,
            _ => {}
        }
    }
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(&instruction);
    let writes_kept = info.used_registers().iter().any(|used| {
        let writes = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
        writes && KEPT.contains(&used.register().full_register())
    });
    let reads_rsp = info.used_registers().iter().any(|used| used.register().full_register() == Register::RSP);
    let encodes = Encoder::new(64).encode(&instruction, CODE).is_ok();
    (!writes_kept && !reads_rsp && encodes && !is_far_bit_test(&instruction)).then_some(instruction)
}

/// Keeps to the virtual processor's instructions, without those that may fault on random data, answer differently
/// elsewhere, or are call-outs.
fn reproducible(instruction: &Instruction, family: Family) -> bool {
    use CpuidFeature as F;
    let known = instruction.cpuid_features().iter().all(|feature| match feature {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::X64 | F::CMOV | F::CX8 => {
            true
        }
        F::SSE | F::SSE2 | F::SSE3 | F::SSSE3 | F::SSE4_1 | F::SSE4_2 | F::POPCNT => true,
        F::AVX | F::AVX2 | F::FMA | F::F16C | F::BMI1 | F::BMI2 | F::LZCNT | F::MOVBE => {
            family == Family::Avx
        }
        F::FPU | F::FPU287 | F::FPU387 | F::MMX => family == Family::X87,
        _ => false,
    });
    let mmx = (0..instruction.op_count()).any(|i| instruction.op_register(i).is_mm());
    known && !excluded(instruction.mnemonic()) && (!mmx || family == Family::X87)
}

fn excluded(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    let integer = matches!(
        mnemonic,
        M::Div
            | M::Idiv
            | M::Lss
            | M::Lfs
            | M::Lgs
            | M::Sldt
            | M::Str
            | M::Smsw
            | M::Lsl
            | M::Lar
            | M::Verr
            | M::Verw
            | M::Sgdt
            | M::Sidt
            | M::In
            | M::Out
            | M::Cli
            | M::Sti
            | M::Xlatb
            | M::Std
    );
    // Random data would unmask exceptions.
    let control =
        matches!(mnemonic, M::Ldmxcsr | M::Vldmxcsr | M::Fldcw | M::Fldenv | M::Frstor | M::Fxrstor);
    // Approximations differ between makers of processors.
    let approximate = matches!(
        mnemonic,
        M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss | M::Vrcpps | M::Vrcpss | M::Vrsqrtps | M::Vrsqrtss
    );
    // Stores the address of the last x87 instruction, which is another one in each copy.
    let tells_where = matches!(mnemonic, M::Fnstenv | M::Fstenv | M::Fnsave | M::Fsave | M::Fxsave);
    let implicit = matches!(mnemonic, M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu);
    integer || control || approximate || tells_where || implicit
}

/// Points the memory operand at the data page: by an absolute base in `r15`, or relative to RIP. A gather keeps its index.
fn redirect(instruction: &mut Instruction, random: &mut Random, page: u64) {
    let offset = random.below(OPERANDS / 32) * 32;
    instruction.set_segment_prefix(Register::None);
    instruction.set_memory_displ_size(8);
    if instruction.is_vsib() {
        instruction.set_memory_base(Register::R15);
        instruction.set_memory_displacement64(offset / 2);
        return;
    }
    instruction.set_memory_index(Register::None);
    instruction.set_memory_index_scale(1);
    if random.below(2) == 0 {
        instruction.set_memory_base(Register::RIP);
        instruction.set_memory_displacement64(page + offset);
    } else {
        instruction.set_memory_base(Register::R15);
        instruction.set_memory_displacement64(offset);
    }
}
