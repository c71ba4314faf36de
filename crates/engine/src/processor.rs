//! The processor that driver code finds: which instructions it has, whatever the host has besides. The levels are those of
//! the x86-64 ABI's supplement (*Micro-Architecture Levels*).
//!
//! What `cpuid` and control registers say of it is the guest's to keep consistent.

use iced_x86::{CpuidFeature, DecoderOptions, EncodingKind, Instruction, Mnemonic};

/// A level of x86-64.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Cpu {
    /// Up to SSE4.2 and POPCNT.
    #[default]
    X86_64V2,
    /// AVX, AVX2, FMA, F16C, BMI1, BMI2, LZCNT and MOVBE besides.
    X86_64V3,
}

impl Cpu {
    /// What the host lacks of it; empty where it can run.
    #[must_use]
    pub fn missing(self) -> Vec<&'static str> {
        macro_rules! lacking {
            ($($feature:tt)*) => { [$(($feature, is_x86_feature_detected!($feature))),*] };
        }
        let second = lacking!("sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "cmpxchg16b");
        let third = lacking!("avx" "avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt" "movbe");
        let third = third.into_iter().filter(|_| self == Self::X86_64V3);
        second.into_iter().chain(third).filter(|(_, has)| !has).map(|(name, _)| name).collect()
    }

    /// How its instructions are decoded: without BMI1 and LZCNT a prefix that would make `bsf` and `bsr` theirs is ignored.
    pub(crate) const fn decoding(self) -> u32 {
        match self {
            Self::X86_64V2 => DecoderOptions::NO_MPFX_0FBC | DecoderOptions::NO_MPFX_0FBD,
            Self::X86_64V3 => DecoderOptions::NONE,
        }
    }

    /// An instruction without prefixes that it ignores and the host may not.
    pub(crate) fn understood(self, mut instruction: Instruction) -> Instruction {
        if encoded_anew(&instruction) {
            instruction.set_has_rep_prefix(false);
            instruction.set_has_repne_prefix(false);
        }
        instruction
    }

    /// Whether it has this unprivileged instruction.
    pub(crate) fn has(self, instruction: &Instruction) -> bool {
        use CpuidFeature as F;
        let features = instruction.cpuid_features();
        match instruction.encoding() {
            EncodingKind::Legacy | EncodingKind::D3NOW => !features.iter().any(|feature| match feature {
                F::MOVBE | F::LZCNT | F::BMI1 => self == Self::X86_64V2,
                feature => NEWER.contains(feature),
            }),
            EncodingKind::VEX => {
                let known =
                    |feature: &F| matches!(feature, F::AVX | F::AVX2 | F::FMA | F::F16C | F::BMI1 | F::BMI2);
                self == Self::X86_64V3 && features.iter().all(known)
            }
            _ => false,
        }
    }
}

/// What neither level has, of instructions that are encoded as the first ones were.
const NEWER: [CpuidFeature; 20] = [
    CpuidFeature::ADX,
    CpuidFeature::AES,
    CpuidFeature::AESKLE,
    CpuidFeature::CLFLUSHOPT,
    CpuidFeature::CLWB,
    CpuidFeature::CLZERO,
    CpuidFeature::D3NOW,
    CpuidFeature::D3NOWEXT,
    CpuidFeature::ENQCMD,
    CpuidFeature::GFNI,
    CpuidFeature::HRESET,
    CpuidFeature::MOVDIR64B,
    CpuidFeature::MOVDIRI,
    CpuidFeature::PCLMULQDQ,
    CpuidFeature::PTWRITE,
    CpuidFeature::SERIALIZE,
    CpuidFeature::SHA,
    CpuidFeature::SSE4A,
    CpuidFeature::UINTR,
    CpuidFeature::WAITPKG,
];

/// Whether the instruction's bytes may mean another one to the host.
pub(crate) fn encoded_anew(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Bsf | Mnemonic::Bsr)
}

/// Whether it touches only what a mask in a vector register says: a masked move, or a gather.
pub(crate) fn is_masked(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let moves = matches!(
        instruction.mnemonic(),
        M::Maskmovq
            | M::Maskmovdqu
            | M::Vmaskmovdqu
            | M::Vmaskmovps
            | M::Vmaskmovpd
            | M::Vpmaskmovd
            | M::Vpmaskmovq
    );
    moves || instruction.is_vsib()
}
