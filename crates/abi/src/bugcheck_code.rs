//! The codes of bug checks a driver can cause.
//!
//! Page: *Bug Check Code Reference*; `bugcodes.h`. Codes that only hardware or Windows itself causes are left out; the
//! meaning of parameters is documented where the kernel stops.

use crate::constant::constants;

constants! {
    u32 {
        /// Thread leaves a system call with its APC disable count changed (unpaired enter/leave).
        APC_INDEX_MISMATCH = 0x1;
        /// Process attach while already attached, or from a DPC.
        INVALID_PROCESS_ATTACH_ATTEMPT = 0x5;
        /// Process detach that does not match the attach.
        INVALID_PROCESS_DETACH_ATTEMPT = 0x6;
        /// A routine that needs IRQL 2 ran at another level.
        IRQL_NOT_DISPATCH_LEVEL = 0x8;
        /// IRQL is lower than the requested or expected one.
        IRQL_NOT_GREATER_OR_EQUAL = 0x9;
        /// Kernel touched an invalid or pageable address at raised IRQL.
        IRQL_NOT_LESS_OR_EQUAL = 0xa;
        /// KeWaitForMultipleObjects with too many objects, or more than the wait block array holds.
        MAXIMUM_WAIT_OBJECTS_EXCEEDED = 0xc;
        /// Spin lock asked for by the processor that already holds it (recursion).
        SPIN_LOCK_ALREADY_OWNED = 0xf;
        /// Spin lock released that is not held.
        SPIN_LOCK_NOT_OWNED = 0x10;
        /// Mutex released by a thread that does not own it.
        THREAD_NOT_MUTEX_OWNER = 0x11;
        /// Object reference count invalid: one dereference too many, or a reference to a dead object.
        REFERENCE_BY_POINTER = 0x18;
        BAD_POOL_HEADER = 0x19;
        /// Memory manager found its own structures inconsistent.
        MEMORY_MANAGEMENT = 0x1a;
        /// Unhandled exception in kernel mode.
        KMODE_EXCEPTION_NOT_HANDLED = 0x1e;
        /// Thread ends with an APC pending or a nonzero APC disable count.
        KERNEL_APC_PENDING_DURING_EXIT = 0x20;
        /// More quota returned to a process than it was charged.
        QUOTA_UNDERFLOW = 0x21;
        /// IoCallDriver on an IRP with no stack location left.
        NO_MORE_IRP_STACK_LOCATIONS = 0x35;
        /// Device object deleted while its reference count is above zero.
        DEVICE_REFERENCE_COUNT_NOT_ZERO = 0x36;
        /// Work item routine returned while owning a mutex.
        SYSTEM_EXIT_OWNED_MUTEX = 0x39;
        /// No run of system PTEs large enough, usually one large or leaked mapping.
        NO_MORE_SYSTEM_PTES = 0x3f;
        /// IoBuildPartialMdl: target MDL too small for the range.
        TARGET_MDL_TOO_SMALL = 0x40;
        /// IRP completed twice (IoCompleteRequest on a completed packet).
        MULTIPLE_IRP_COMPLETE_REQUESTS = 0x44;
        /// IRP completed while its cancel routine was still set, or cancelled after completion.
        CANCEL_STATE_IN_COMPLETED_IRP = 0x48;
        /// Thread goes back to user mode with IRQL above 0.
        IRQL_GT_ZERO_AT_SYSTEM_SERVICE = 0x4a;
        PFN_LIST_CORRUPT = 0x4e;
        /// Access to an invalid system address, freed memory included.
        PAGE_FAULT_IN_NONPAGED_AREA = 0x50;
        PROCESS_HAS_LOCKED_PAGES = 0x76;
        /// Unhandled exception in a system thread.
        SYSTEM_THREAD_EXCEPTION_NOT_HANDLED = 0x7e;
        UNEXPECTED_KERNEL_MODE_TRAP = 0x7f;
        /// Unhandled exception in kernel mode.
        KERNEL_MODE_EXCEPTION_NOT_HANDLED = 0x8e;
        INVALID_KERNEL_HANDLE = 0x93;
        /// Thread ends with its kernel stack marked not swappable.
        KERNEL_STACK_LOCKED_AT_EXIT = 0x94;
        /// Work queue entry with null links: item reused or freed while queued.
        INVALID_WORK_QUEUE_ITEM = 0x96;
        INTERNAL_POWER_ERROR = 0xa0;
        /// Wait, attach or yield attempted from a DPC.
        ATTEMPTED_SWITCH_FROM_DPC = 0xb8;
        /// Write to read-only memory.
        ATTEMPTED_WRITE_TO_READONLY_MEMORY = 0xbe;
        SPECIAL_POOL_DETECTED_MEMORY_CORRUPTION = 0xc1;
        BAD_POOL_CALLER = 0xc2;
        /// Pool walk hit invalid memory at raised IRQL; a small pool block was damaged earlier.
        DRIVER_CORRUPTED_EXPOOL = 0xc5;
        /// Freed pool touched.
        DRIVER_CAUGHT_MODIFYING_FREED_POOL = 0xc6;
        /// IRQL not what it should be.
        IRQL_UNEXPECTED_VALUE = 0xc8;
        PNP_DETECTED_FATAL_ERROR = 0xca;
        /// I/O ended with pages still locked.
        DRIVER_LEFT_LOCKED_PAGES_IN_PROCESS = 0xcb;
        /// Code of an unloaded driver ran or was touched: timer, DPC, work item left behind.
        DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS = 0xce;
        /// Pool walk hit invalid memory at raised IRQL; a large pool block was damaged earlier.
        DRIVER_CORRUPTED_MMPOOL = 0xd0;
        /// Driver touched a pageable or invalid address at raised IRQL.
        DRIVER_IRQL_NOT_LESS_OR_EQUAL = 0xd1;
        /// Driver code or data marked pageable was touched at raised IRQL.
        DRIVER_PORTION_MUST_BE_NONPAGED = 0xd3;
        /// Unloaded driver's code or data touched at raised IRQL: operation left pending.
        SYSTEM_SCAN_AT_RAISED_IRQL_CAUGHT_IMPROPER_DRIVER_UNLOAD = 0xd4;
        /// System PTEs used up.
        DRIVER_USED_EXCESSIVE_PTES = 0xd8;
        /// Work item routine returned at IRQL 2 or above.
        WORKER_THREAD_RETURNED_AT_BAD_IRQL = 0xe1;
        /// ERESOURCE released by a thread that does not own it.
        RESOURCE_NOT_OWNED = 0xe3;
        WORKER_INVALID = 0xe4;
        /// IoCancelFileOpen with a file object whose reference count is not one.
        INVALID_CANCEL_OF_FILE_OPEN = 0xe8;
        /// Worker thread ended inside a work item.
        ACTIVE_EX_WORKER_THREAD_TERMINATION = 0xe9;
        /// Thread spins forever in a driver (display drivers mostly).
        THREAD_STUCK_IN_DEVICE_DRIVER = 0xea;
        /// Jump to memory that is not executable.
        ATTEMPTED_EXECUTE_OF_NOEXECUTE_MEMORY = 0xfc;
    }
    u32, not_in_mingw "mingw's bugcodes.h lacks it" {
        /// Unhandled exception inside a system call.
        SYSTEM_SERVICE_EXCEPTION = 0x3b;
        /// Exception in interrupt code found no handler.
        INTERRUPT_EXCEPTION_NOT_HANDLED = 0x3d;
        DRIVER_POWER_STATE_FAILURE = 0x9f;
        /// Thread acquires a mutex it already owns where that is not allowed.
        MUTEX_ALREADY_OWNED = 0xbf;
        DRIVER_VERIFIER_DETECTED_VIOLATION = 0xc4;
        TIMER_OR_DPC_INVALID = 0xc7;
        DRIVER_VERIFIER_IOMANAGER_VIOLATION = 0xc9;
        /// Freed special pool touched by the system.
        PAGE_FAULT_IN_FREED_SPECIAL_POOL = 0xcc;
        /// Access beyond a special pool block by the system.
        PAGE_FAULT_BEYOND_END_OF_ALLOCATION = 0xcd;
        /// Session address used from the system process context.
        TERMINAL_SERVER_DRIVER_MADE_INCORRECT_MEMORY_REFERENCE = 0xcf;
        /// Driver touched freed special pool.
        DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL = 0xd5;
        /// Driver touched memory beyond a special pool block.
        DRIVER_PAGE_FAULT_BEYOND_END_OF_ALLOCATION = 0xd6;
        /// Unmap of a view that is not mapped.
        DRIVER_UNMAPPING_INVALID_VIEW = 0xd7;
        LOCKED_PAGES_TRACKER_CORRUPTION = 0xd9;
        SYSTEM_PTE_MISUSE = 0xda;
        /// Invalid memory touched at raised IRQL after system PTEs were damaged.
        DRIVER_CORRUPTED_SYSPTES = 0xdb;
        /// Driver touched stack memory below the stack pointer.
        DRIVER_INVALID_STACK_ACCESS = 0xdc;
        /// Pool memory that holds file pages was damaged.
        POOL_CORRUPTION_IN_FILE_AREA = 0xde;
        DRIVER_VERIFIER_DMA_VIOLATION = 0xe6;
        INVALID_FLOATING_POINT_STATE = 0xe7;
        /// Level-triggered interrupt stays asserted.
        HARDWARE_INTERRUPT_STORM = 0xf2;
        /// Stack cookie overwritten (/GS).
        DRIVER_OVERRAN_STACK_BUFFER = 0xf7;
        BUGCODE_USB_DRIVER = 0xfe;
        /// Another processor takes no clock interrupt.
        CLOCK_WATCHDOG_TIMEOUT = 0x101;
        /// Cancel routine returned with the cancel spin lock held.
        DRIVER_RETURNED_HOLDING_CANCEL_LOCK = 0x11b;
        DRIVER_VIOLATION = 0x121;
        /// Work item routine left the thread's I/O priority changed.
        WORKER_THREAD_RETURNED_WITH_BAD_IO_PRIORITY = 0x128;
        /// IoBuildPartialMdl: range not inside the source MDL.
        INVALID_MDL_RANGE = 0x12e;
        /// Invalid resource owner pointer given.
        RESOURCE_OWNER_POINTER_INVALID = 0x132;
        DPC_WATCHDOG_VIOLATION = 0x133;
        KERNEL_SECURITY_CHECK_FAILURE = 0x139;
        KERNEL_MODE_HEAP_CORRUPTION = 0x13a;
        PASSIVE_INTERRUPT_ERROR = 0x13b;
        /// Push lock routine given invalid flags.
        INVALID_PUSH_LOCK_FLAGS = 0x152;
        /// Thread ended without releasing a tracked lock.
        KERNEL_LOCK_ENTRY_LEAKED_ON_THREAD_TERMINATION = 0x153;
        /// Work item routine left the thread's page priority raised.
        WORKER_THREAD_RETURNED_WITH_SYSTEM_PAGE_PRIORITY_ACTIVE = 0x15b;
        /// Tracked lock released by a thread that does not own it.
        KERNEL_AUTO_BOOST_INVALID_LOCK_RELEASE = 0x162;
        /// ExReleaseResourceForThreadLite with an invalid thread value.
        ERESOURCE_INVALID_RELEASE = 0x16e;
        /// Tracked lock acquired at IRQL 2 or above.
        KERNEL_AUTO_BOOST_LOCK_ACQUISITION_WITH_RAISED_IRQL = 0x192;
        /// Driver did not finish a PnP operation in time.
        DRIVER_PNP_WATCHDOG = 0x1d5;
    }
    u32, not_in_mingw "mingw's bugcodes.h has 0xFA, against Microsoft's page" {
        /// Work item routine returned while impersonating.
        IMPERSONATING_WORKER_THREAD = 0xdf;
    }
}

/// The symbolic name of a bug check, where this crate knows it.
#[must_use]
pub fn bug_check_name(code: u32) -> Option<&'static str> {
    CONSTANTS
        .iter()
        .copied()
        .flatten()
        .find(|constant| constant.value == u64::from(code))
        .map(|constant| constant.name)
}
