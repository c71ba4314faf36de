//! Signals of a thread that runs a machine: faults of driver code, of the kernel's accessors, and everybody else's.
//!
//! The handler never emulates and never switches stacks: it notes what happened, edits the saved context so that
//! execution goes on in a stub, and returns. Faults that are neither the driver's nor the accessors' go to the handler that
//! had the signal before. All asynchronous signals are blocked on the machine's thread, because one without an alternate
//! stack would leave host data on a driver's stack.

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::OnceLock;

use crate::emergency_log::{Words, say};
use crate::jail;
use crate::machine::try_state;
use crate::memory;
use crate::translate::{self, ALLOWED, HostFault, host_words, scratch};
use crate::view;
use crate::windows::{CACHE, STACKS};

const STACK: usize = 128 << 10;
/// The signals that faults arrive by.
pub(crate) const SIGNALS: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

thread_local! {
    // tidy: no heap behind it.
    static PREPARED: Cell<bool> = const { Cell::new(false) };
}

/// Handlers of the process, the signal stack and mask of this thread; once each.
pub(crate) fn prepare_thread() -> io::Result<()> {
    install()?;
    if PREPARED.get() {
        return Ok(());
    }
    signal_stack()?;
    block_asynchronous()?;
    dispatch_system_calls();
    PREPARED.set(true);
    Ok(())
}

/// What was installed before us, in the order of `SIGNALS`.
// tidy: written once before any machine runs; holds plain values.
static PREVIOUS: OnceLock<Vec<libc::sigaction>> = OnceLock::new();

fn install() -> io::Result<()> {
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    let mut previous = Vec::new();
    for signal in SIGNALS {
        // SAFETY: all-zero is a valid sigaction; the handler has the signature that SA_SIGINFO asks for.
        let old = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let mut old: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            if libc::sigaction(signal, &raw const action, &raw mut old) != 0 {
                return Err(io::Error::last_os_error());
            }
            old
        };
        previous.push(old);
    }
    let _ = PREVIOUS.set(previous);
    Ok(())
}

/// A signal stack with a guard page below it, for the thread's life.
fn signal_stack() -> io::Result<()> {
    // SAFETY: fresh anonymous memory that is never unmapped; its lowest page becomes the guard.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let base = libc::mmap(ptr::null_mut(), STACK, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if base == libc::MAP_FAILED || libc::mprotect(base, 4096, libc::PROT_NONE) != 0 {
            return Err(io::Error::last_os_error());
        }
        let stack = libc::stack_t { ss_sp: base.byte_add(4096), ss_flags: 0, ss_size: STACK - 4096 };
        if libc::sigaltstack(&raw const stack, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn block_asynchronous() -> io::Result<()> {
    // SAFETY: plain calls on a local set.
    let failed = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        for signal in SIGNALS.into_iter().chain([libc::SIGABRT, libc::SIGINT, libc::SIGTERM]) {
            libc::sigdelset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// While driver code runs, a system call from anywhere is a SIGSYS: from the code cache as from the host's own text. Only a
/// signal handler's return goes through. Kernels before 5.11 do not have it, and there the translator, which lets no system call
/// through, is alone with the jail.
fn dispatch_system_calls() {
    const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
    const PR_SYS_DISPATCH_ON: u64 = 1;
    /// Bytes of the C library's `mov rax, 15; syscall`, which ends a handler.
    const RETURN: u64 = 9;
    let selector: *const u8 = host_words().system_calls.as_ptr();
    // SAFETY: the selector is this thread's, and lives as long as it.
    unsafe {
        // The kernel compares with the address behind the instruction.
        let range = return_from_handler();
        libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, range, RETURN + 1, selector);
    }
}

/// Where handlers return to, as the C library has set it in the kernel.
fn return_from_handler() -> u64 {
    #[repr(C)]
    #[derive(Default)]
    struct KernelAction {
        handler: u64,
        flags: u64,
        restorer: u64,
        mask: u64,
    }
    let mut action = KernelAction::default();
    // SAFETY: asks only; the structure is the kernel's.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            libc::SIGSYS,
            ptr::null::<u8>(),
            &raw mut action,
            size_of::<u64>(),
        );
    }
    action.restorer
}

/// The handler's system calls are the host's, whatever code was interrupted.
extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let selector = &host_words().system_calls;
    let before = selector.replace(ALLOWED);
    handle(signal, info, context, before);
    selector.set(before);
}

fn handle(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void, system_calls: u8) {
    // SAFETY: the kernel passes valid pointers to both, ours alone for the handler's duration.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    let registers = &mut context.uc_mcontext.gregs;
    if jail::is_refusal(signal, info) {
        if jail::refused(registers) {
            by_default(signal);
        }
        return;
    }
    let rip = registers[libc::REG_RIP as usize].cast_unsigned();
    if signal == libc::SIGSYS && system_calls != ALLOWED {
        say(&[
            Words::Text("driver code has got past the translator to the system call "),
            Words::Number(registers[libc::REG_RAX as usize].cast_unsigned()),
            Words::Text(" at "),
            Words::Hex(rip),
            Words::Text(", which was not made"),
        ]);
        return by_default(signal);
    }
    if let Some(state) = try_state() {
        if signal == libc::SIGSEGV && is_write(registers) {
            // SAFETY: this signal carries an address.
            if state.rewind.first_write(unsafe { info.si_addr() } as u64) {
                return;
            }
        }
        if CACHE.contains(rip) {
            note(signal, info, registers, rip);
            return;
        }
        if let Some(next) = translate::fixup(rip) {
            registers[libc::REG_RIP as usize] = next.cast_signed();
            return;
        }
    }
    // Of a machine that has ended, too: its memory faults as any that is not mapped.
    if let Some(memory::Fixup { next, report }) = memory::fixup(rip) {
        registers[libc::REG_RIP as usize] = next.cast_signed();
        match report {
            memory::Report::InEax => {} // where it goes on, that is done
            memory::Report::InEdx => registers[libc::REG_RDX as usize] = 1,
            memory::Report::Missed => view::miss(),
        }
        return;
    }
    pass_on(signal, info, context);
}

/// Whether it was a page fault, by a write.
fn is_write(registers: &[i64; 23]) -> bool {
    const PAGE_FAULT: i64 = 14;
    registers[libc::REG_TRAPNO as usize] == PAGE_FAULT && registers[libc::REG_ERR as usize] & 2 != 0
}

/// Driver code faulted: leave it by the common exit, as exit 0.
fn note(signal: i32, info: &libc::siginfo_t, registers: &mut [i64; 23], rip: u64) {
    // SAFETY: these signals carry an address.
    let address = unsafe { info.si_addr() } as u64;
    let trap = u32::try_from(registers[libc::REG_TRAPNO as usize]).unwrap_or(u32::MAX);
    let error = registers[libc::REG_ERR as usize].cast_unsigned();
    host_words().fault.set(HostFault { signal, trap, error, address, rip });
    scratch().rax.set(registers[libc::REG_RAX as usize].cast_unsigned());
    registers[libc::REG_RAX as usize] = 0;
    registers[libc::REG_RIP as usize] = translate::EXIT.cast_signed();
}

/// Not a driver's fault: ours or the host program's. The handler that had the signal before gets it; the default ends the process.
fn pass_on(signal: i32, info: &libc::siginfo_t, context: &mut libc::ucontext_t) {
    // SAFETY: as in `note`.
    if STACKS.contains(unsafe { info.si_addr() } as u64) {
        say(&[Words::Text("a strand's host stack has overflowed")]);
    } else if try_state().is_some() {
        say_ours(signal, info, context);
    }
    let index = SIGNALS.iter().position(|s| *s == signal);
    let previous = index.and_then(|i| PREVIOUS.get().and_then(|all| all.get(i)));
    match previous {
        Some(old) if old.sa_sigaction != libc::SIG_DFL && old.sa_sigaction != libc::SIG_IGN => {
            // SAFETY: the handler was installed for this signal; the signature follows its own flags.
            unsafe {
                if old.sa_flags & libc::SA_SIGINFO != 0 {
                    let handler: extern "C" fn(i32, *const libc::siginfo_t, *mut libc::c_void) =
                        std::mem::transmute(old.sa_sigaction);
                    handler(signal, info, ptr::from_mut(context).cast());
                } else {
                    let handler: extern "C" fn(i32) = std::mem::transmute(old.sa_sigaction);
                    handler(signal);
                }
            }
        }
        _ => by_default(signal),
    }
}

/// What happened, for a report of ours: a fault while a machine is alive that is no driver's.
fn say_ours(signal: i32, info: &libc::siginfo_t, context: &libc::ucontext_t) {
    say(&[
        Words::Text("a fault outside driver code: signal "),
        Words::Number(signal.unsigned_abs().into()),
        Words::Text(" at "),
        Words::Hex(context.uc_mcontext.gregs[libc::REG_RIP as usize].cast_unsigned()),
        Words::Text(", address "),
        // SAFETY: as in `note`.
        Words::Hex(unsafe { info.si_addr() } as u64),
    ]);
}

/// Back to the default, which ends the process: when the instruction faults again, or by the signal itself where the
/// instruction is over already.
fn by_default(signal: i32) {
    // SAFETY: plain calls.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        if matches!(signal, libc::SIGSYS | libc::SIGTRAP) {
            libc::raise(signal);
        }
    }
}

/// Sets what `gs:` means: by `wrgsbase` where the kernel allows it, else by a system call.
pub(crate) fn set_gs(address: u64) {
    const HWCAP2_FSGSBASE: u64 = 1 << 1;
    // SAFETY: nothing of the host's uses GS on x86-64.
    unsafe {
        if libc::getauxval(libc::AT_HWCAP2) & HWCAP2_FSGSBASE != 0 {
            std::arch::asm!("wrgsbase {}", in(reg) address, options(nostack, preserves_flags));
        } else {
            const ARCH_SET_GS: i32 = 0x1001;
            libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, address);
        }
    }
    GS.set(address);
}

thread_local! {
    // tidy: no heap behind it.
    static GS: Cell<u64> = const { Cell::new(0) };
}

/// What `gs:` means now.
pub(crate) fn gs() -> u64 {
    GS.get()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;
    use crate::translate::BLOCKED;

    /// The test begins itself again, and that process does what is to end it.
    #[test]
    fn a_system_call_while_driver_code_runs_is_not_made() {
        const SELF: &str = "DIRQL_TEST_SYSTEM_CALL";
        if std::env::var_os(SELF).is_some() {
            prepare_thread().expect("the host lets signal handlers be");
            // SAFETY: a call without consequences.
            unsafe { libc::syscall(libc::SYS_getppid) };
            host_words().system_calls.set(BLOCKED);
            // SAFETY: as above; it ends the process.
            unsafe { libc::syscall(libc::SYS_getppid) };
            host_words().system_calls.set(ALLOWED);
            std::process::exit(0);
        }
        let name = "signals::tests::a_system_call_while_driver_code_runs_is_not_made";
        let program = std::env::current_exe().expect("it has a name");
        let output = Command::new(program).args(["--exact", name, "--nocapture"]).env(SELF, "1").output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{said}");
        assert!(said.contains("past the translator to the system call 110 at "), "{said}");
    }
}
