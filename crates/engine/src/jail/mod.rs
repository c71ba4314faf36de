//! The jail of a process that runs a machine: which system calls it may still make, once everything is open and read.
//!
//! Memory, signals, writing to files named before, and exit; nothing that opens, connects, starts or looks at anything.
//! Any other call is not made: its number and address go to the emergency log and the process ends by SIGSYS. It guards
//! against what should be impossible: driver code makes no system calls (the translator and syscall user dispatch see to that).
//! Not reversible, and for the calling thread only: a process that jails itself runs one machine and ends.

mod names;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::emergency_log::{self, Words};
use crate::host::StartError;
use crate::signals::SIGNALS;

/// What may still be done from inside, beside what every machine needs.
#[derive(Clone, Debug)]
pub struct Jail {
    may_write: Vec<i32>,
    emergency_log: Option<i32>,
}

impl Default for Jail {
    fn default() -> Self {
        Self::new()
    }
}

/// System calls that are allowed whatever their arguments: none of them reaches beyond the process's own memory.
const HARMLESS: [i64; 18] = [
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
];

impl Jail {
    /// One from which standard output and standard error can be written.
    #[must_use]
    pub const fn new() -> Self {
        Self { may_write: Vec::new(), emergency_log: None }
    }

    /// This open file can be written too. It must stay open.
    #[must_use]
    pub fn may_write(mut self, file: impl AsFd) -> Self {
        self.may_write.push(file.as_fd().as_raw_fd());
        self
    }

    /// This open file gets what is said when the process cannot go on, instead of standard error. It must stay open.
    #[must_use]
    pub fn emergency_log(mut self, file: impl AsFd) -> Self {
        self.emergency_log = Some(file.as_fd().as_raw_fd());
        self
    }

    /// Locks the calling thread in. `memory` is the file that the machine's memory is mapped from.
    pub(crate) fn lock(&self, memory: i32) -> Result<(), StartError> {
        let refused = |error| StartError::Host("a seccomp filter around the machine", error);
        let filter = self.filter(memory).map_err(|error| refused(io::Error::other(error)))?;
        seccompiler::apply_filter(&filter).map_err(|error| refused(io::Error::other(error.to_string())))?;
        if let Some(file) = self.emergency_log {
            emergency_log::send_to(file);
        }
        Ok(())
    }

    fn filter(&self, memory: i32) -> Result<BpfProgram, seccompiler::BackendError> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = HARMLESS.map(|call| (call, Vec::new())).into();
        let writes: Vec<_> = [1, 2].iter().chain(&self.may_write).chain(&self.emergency_log).collect();
        for call in [libc::SYS_write, libc::SYS_writev] {
            rules.insert(call, any_of(writes.iter().map(|file| vec![(0, Eq, unsigned(**file))]))?);
        }
        let not_executable = (2, MaskedEq(unsigned(libc::PROT_EXEC)), 0);
        let anonymous = unsigned(libc::MAP_ANONYMOUS);
        rules.insert(libc::SYS_mprotect, any_of([vec![not_executable.clone()]])?);
        let kinds = [(3, MaskedEq(anonymous), anonymous), (4, Eq, unsigned(memory))];
        rules.insert(libc::SYS_mmap, any_of(kinds.map(|kind| vec![not_executable.clone(), kind]))?);
        // What ends a process by a signal: `abort`, and a handler that gives the signal back to the host.
        let signals = SIGNALS.into_iter().chain([libc::SIGABRT]);
        rules.insert(libc::SYS_rt_sigaction, any_of(signals.map(|signal| vec![(0, Eq, unsigned(signal))]))?);
        let own = u64::from(std::process::id());
        rules.insert(libc::SYS_tgkill, any_of([vec![(0, Eq, own)]])?);
        rules.insert(libc::SYS_fcntl, any_of([vec![(1, Eq, unsigned(libc::F_GETFD))]])?);
        // `gs:` on hosts without FSGSBASE.
        rules.insert(libc::SYS_arch_prctl, any_of([vec![(0, Eq, 0x1001)]])?);
        let filter =
            SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)?;
        BpfProgram::try_from(filter)
    }
}

type Condition = (u8, seccompiler::SeccompCmpOp, u64);

/// Rules of which one must hold; of each, all conditions: which argument, how compared, to what.
fn any_of(
    rules: impl IntoIterator<Item = Vec<Condition>>,
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let condition = |(argument, how, value)| {
        // Files, protections, signals are `int`s: the upper halves of their registers mean nothing to the kernel.
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value)
    };
    let rule = |conditions: Vec<Condition>| {
        SeccompRule::new(conditions.into_iter().map(condition).collect::<Result<_, _>>()?)
    };
    rules.into_iter().map(rule).collect()
}

fn unsigned(number: i32) -> u64 {
    u64::from(number.unsigned_abs())
}

/// A message about a panic of ours is being written: its backtrace tries to open the program's own file.
static TELLING: AtomicBool = AtomicBool::new(false);

/// Runs `f`, which writes about a panic; the system calls it tries from inside a jail fail instead of ending the process.
pub(crate) fn telling(f: impl FnOnce()) {
    TELLING.store(true, Ordering::Relaxed);
    f();
    TELLING.store(false, Ordering::Relaxed);
}

/// What SIGSYS says of a call that the jail refused (and not user dispatch).
const SYS_SECCOMP: i32 = 1;

/// Whether this signal is the jail's.
pub(crate) fn is_refusal(signal: i32, info: &libc::siginfo_t) -> bool {
    signal == libc::SIGSYS && info.si_code == SYS_SECCOMP
}

/// A system call was refused: false if the process may go on as if it had failed.
pub(crate) fn refused(registers: &mut [i64; 23]) -> bool {
    let (number, rip) = (registers[libc::REG_RAX as usize], registers[libc::REG_RIP as usize]);
    if TELLING.load(Ordering::Relaxed) {
        registers[libc::REG_RAX as usize] = -i64::from(libc::EPERM);
        return false;
    }
    let name = names::name(number);
    emergency_log::say(&[
        Words::Text("the jail refused the system call "),
        Words::Text(name.strip_prefix("SYS_").unwrap_or("unnamed")),
        Words::Text(" ("),
        Words::Number(number.cast_unsigned()),
        Words::Text(") at "),
        Words::Hex(rip.cast_unsigned()),
    ]);
    true
}
