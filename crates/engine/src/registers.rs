//! The registers of driver code: the integer ones, in the order of their encodings.

/// `rax rcx rdx rbx rsp rbp rsi rdi r8 … r15`, with flags.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Registers {
    /// Indexed by the register's number in instruction encodings: 0 `rax`, 1 `rcx`, 2 `rdx`, 3 `rbx`, 4 `rsp`, 5 `rbp`,
    /// 6 `rsi`, 7 `rdi`, 8–15 `r8`–`r15`.
    pub general: [u64; 16],
    /// `rflags`.
    pub flags: u64,
}

impl Registers {
    /// The stack pointer.
    #[must_use]
    pub const fn rsp(&self) -> u64 {
        self.general[4]
    }
}

/// All registers of driver code at an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Context {
    /// The instruction, an original address.
    pub rip: u64,
    /// The integer registers and flags.
    pub registers: Registers,
    /// `xmm0`–`xmm15`.
    pub xmm: [u128; 16],
    /// SSE control and status.
    pub mxcsr: u32,
}

/// What a routine left in the registers that the calling convention has it leave alone, but no code looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeftBehind {
    /// The direction flag, which is to be clear.
    pub direction: bool,
    /// SSE control and status, of which the control bits are to be kept.
    pub mxcsr: u32,
}

impl Default for LeftBehind {
    fn default() -> Self {
        Self { direction: false, mxcsr: 0x1F80 }
    }
}

/// Numbers in [`Registers::general`].
pub(crate) mod number {
    pub(crate) const RAX: usize = 0;
    pub(crate) const RCX: usize = 1;
    pub(crate) const RDX: usize = 2;
    pub(crate) const RSP: usize = 4;
    pub(crate) const RSI: usize = 6;
    pub(crate) const RDI: usize = 7;
}
