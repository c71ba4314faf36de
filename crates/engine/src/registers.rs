//! The integer registers of driver code, in the order of their encodings.

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
