//! Dispatcher objects, DPCs, APCs, device queues and lists: what the kernel proper (`Ke`) shares with drivers.
//!
//! Pages: *KEVENT*, *KDPC*, *KTIMER* and their neighbours in *Windows kernel opaque structures*; `wdm.h`.
//! Initial values and behaviour are the kernel's; here are only sizes and places.

use crate::constant::constants;
use crate::field::layouts;
use crate::{Code, DriverPtr, LIST_ENTRY};

layouts! {
    /// What every waitable object starts with.
    DISPATCHER_HEADER [size 0x18, align 8] {
        0x00 Type: u8,
        0x01 TimerControlFlags: u8,
        0x01 Abandoned: u8,
        0x01 Signalling: u8,
        0x02 ThreadControlFlags: u8,
        0x02 Size: u8,
        0x02 Hand: u8,
        0x03 TimerMiscFlags: u8,
        0x03 DebugActive: u8,
        0x03 DpcActive: u8,
        0x00 Lock: i32,
        0x04 SignalState: i32,
        0x08 WaitListHead: LIST_ENTRY,
    }

    /// An event: notification or synchronization, as `Header.Type` says.
    KEVENT [size 0x18, align 8] {
        0x00 Header: DISPATCHER_HEADER,
    }

    /// A semaphore.
    KSEMAPHORE [size 0x20, align 8] {
        0x00 Header: DISPATCHER_HEADER,
        0x18 Limit: i32,
    }

    /// A mutex (`KMUTEX` and `KMUTANT` are one type).
    KMUTANT [size 0x38, align 8] {
        0x00 Header: DISPATCHER_HEADER,
        0x18 MutantListEntry: LIST_ENTRY,
        0x28 OwnerThread: DriverPtr<KTHREAD>,
        0x30 Abandoned: u8,
        0x31 ApcDisable: u8,
    }

    /// A timer; `DueTime` is interrupt time in units of 100 ns.
    KTIMER [size 0x40, align 8] {
        0x00 Header: DISPATCHER_HEADER,
        0x18 DueTime: u64,
        0x20 TimerListEntry: LIST_ENTRY,
        0x30 Dpc: DriverPtr<KDPC>,
        0x38 Processor: u32,
        0x3c Period: u32,
    }

    /// A deferred procedure call.
    KDPC [size 0x40, align 8] {
        0x00 Type: u8,
        0x00 TargetInfoAsUlong = "": u32,
        0x01 Importance: u8,
        0x02 Number: u16,
        0x08 DpcListEntry: LIST_ENTRY,
        0x18 DeferredRoutine: DriverPtr<Code>,
        0x20 DeferredContext: DriverPtr<()>,
        0x28 SystemArgument1: DriverPtr<()>,
        0x30 SystemArgument2: DriverPtr<()>,
        0x38 DpcData: DriverPtr<()>,
    }

    /// An asynchronous procedure call.
    KAPC [size 0x58, align 8] {
        0x00 Type: u8,
        0x01 SpareByte0: u8,
        0x02 Size: u8,
        0x03 SpareByte1: u8,
        0x04 SpareLong0: u32,
        0x08 Thread: DriverPtr<KTHREAD>,
        0x10 ApcListEntry: LIST_ENTRY,
        0x20 KernelRoutine: DriverPtr<Code>,
        0x28 RundownRoutine: DriverPtr<Code>,
        0x30 NormalRoutine: DriverPtr<Code>,
        0x38 NormalContext: DriverPtr<()>,
        0x40 SystemArgument1: DriverPtr<()>,
        0x48 SystemArgument2: DriverPtr<()>,
        0x50 ApcStateIndex: u8,
        0x51 ApcMode: u8,
        0x52 Inserted: u8,
    }

    /// A device queue: busy or not, and the entries that wait.
    KDEVICE_QUEUE [size 0x28, align 8] {
        0x00 Type: i16,
        0x02 Size: i16,
        0x08 DeviceListHead: LIST_ENTRY,
        0x18 Lock: u64,
        0x20 Busy: u8,
    }

    /// An entry of a device queue.
    KDEVICE_QUEUE_ENTRY [size 0x18, align 8] {
        0x00 DeviceListEntry: LIST_ENTRY,
        0x10 SortKey: u32,
        0x14 Inserted: u8,
    }

    /// A queue of entries on which threads wait, so many of which run at once.
    KQUEUE [size 0x40, align 8, not_in_mingw "of ntifs.h, which is not among the headers compared with"] {
        0x00 Header: DISPATCHER_HEADER,
        0x18 EntryListHead: LIST_ENTRY,
        0x28 CurrentCount: u32,
        0x2c MaximumCount: u32,
        0x30 ThreadListHead: LIST_ENTRY,
    }

    /// One object a thread waits for.
    KWAIT_BLOCK [size 0x30, align 8, not_in_mingw "mingw has the order of members before Windows 8"] {
        0x00 WaitListEntry: LIST_ENTRY,
        0x10 WaitType: u8,
        0x11 BlockState: u8,
        0x12 WaitKey: u16,
        0x14 SpareLong: i32,
        0x18 Thread: DriverPtr<KTHREAD>,
        0x20 Object: DriverPtr<()>,
        0x28 SparePtr: DriverPtr<()>,
    }

    /// A processor's place in a queued spin lock.
    KSPIN_LOCK_QUEUE [size 0x10, align 8] {
        0x00 Next: DriverPtr<KSPIN_LOCK_QUEUE>,
        0x08 Lock: DriverPtr<u64>,
    }

    /// What the caller of `KeAcquireInStackQueuedSpinLock` provides.
    KLOCK_QUEUE_HANDLE [size 0x18, align 8] {
        0x00 LockQueue: KSPIN_LOCK_QUEUE,
        0x10 OldIrql: u8,
    }

    /// A guarded mutex.
    KGUARDED_MUTEX [size 0x38, align 8] {
        0x00 Count: i32,
        0x08 Owner: DriverPtr<KTHREAD>,
        0x10 Contention: u32,
        0x18 Gate_Header = "Gate.Header": DISPATCHER_HEADER,
        0x30 KernelApcDisable: i16,
        0x32 SpecialApcDisable: i16,
        0x30 CombinedApcDisable: u32,
    }

    /// Answer of `KeQueryDpcWatchdogInformation`, in clock ticks.
    KDPC_WATCHDOG_INFORMATION [size 0x14, align 4] {
        0x00 DpcTimeLimit: u32,
        0x04 DpcTimeCount: u32,
        0x08 DpcWatchdogLimit: u32,
        0x0c DpcWatchdogCount: u32,
        0x10 Reserved: u32,
    }

    /// Where x64 saves nothing: floating point belongs to the thread.
    KFLOATING_SAVE [size 0x4, align 4] {
        0x00 Dummy: u32,
    }

    /// A thread. Opaque but for the header that makes it waitable.
    KTHREAD [size 0x18, align 8, not_in_mingw "opaque: only that it starts with a dispatcher header is public"] {
        0x00 Header: DISPATCHER_HEADER,
    }

    /// Where a thread was before it attached to a process. Opaque, but for its size.
    KAPC_STATE [size 0x30, align 8] {
        0x00 ApcListHead: [LIST_ENTRY; 2],
        0x20 Process: DriverPtr<KPROCESS>,
    }

    /// A process. Opaque but for the header that makes it waitable.
    KPROCESS [size 0x18, align 8, not_in_mingw "opaque: only that it starts with a dispatcher header is public"] {
        0x00 Header: DISPATCHER_HEADER,
    }
}

/// Drivers' name for a mutex.
pub type KMUTEX = KMUTANT;

constants! {
    u32 {
        // Kinds of event and timer.
        NotificationEvent = 0;
        SynchronizationEvent = 1;
        NotificationTimer = 0;
        SynchronizationTimer = 1;
    }
    u32 {
        // Importance of a DPC.
        LowImportance = 0;
        MediumImportance = 1;
        HighImportance = 2;
        MediumHighImportance = 3;
    }
    u32 {
        // Waits.
        WaitAll = 0;
        WaitAny = 1;
        Executive = 0;
        FreePage = 1;
        PageIn = 2;
        PoolAllocation = 3;
        DelayExecution = 4;
        Suspended = 5;
        UserRequest = 6;
        WrExecutive = 7;
        WrFreePage = 8;
        WrPageIn = 9;
        WrPoolAllocation = 10;
        WrDelayExecution = 11;
        WrSuspended = 12;
        WrUserRequest = 13;
        WrSpare0 = 14;
        WrQueue = 15;
        WrLpcReceive = 16;
        WrLpcReply = 17;
        WrVirtualMemory = 18;
        WrPageOut = 19;
        WrRendezvous = 20;
        WrKeyedEvent = 21;
        WrTerminated = 22;
        WrProcessInSwap = 23;
        WrCpuRateControl = 24;
        WrCalloutStack = 25;
        WrKernel = 26;
        WrResource = 27;
        WrPushLock = 28;
        WrMutex = 29;
        WrQuantumEnd = 30;
        WrDispatchInt = 31;
        WrPreempted = 32;
        WrYieldExecution = 33;
        WrFastMutex = 34;
        WrGuardedMutex = 35;
        WrRundown = 36;
        WrAlertByThreadId = 37;
        WrDeferredPreempt = 38;
        WrPhysicalFault = 39;
        MaximumWaitReason = 40;
        MAXIMUM_WAIT_OBJECTS = 64;
        THREAD_WAIT_OBJECTS = 3;
    }
    u32 {
        // Priority boosts.
        EVENT_INCREMENT = 1;
        SEMAPHORE_INCREMENT = 1;
    }
    i32 {
        // Priorities of threads.
        LOW_PRIORITY = 0;
        LOW_REALTIME_PRIORITY = 16;
        HIGH_PRIORITY = 31;
        MAXIMUM_PRIORITY = 32;
    }
    u32 {
        // Rights.
        EVENT_QUERY_STATE = 0x1;
        EVENT_MODIFY_STATE = 0x2;
        EVENT_ALL_ACCESS = 0x001f_0003;
    }
    u8, not_in_mingw "KOBJECTS is in no header; from public symbols" {
        // `DISPATCHER_HEADER::Type`, and `Type` of what else the kernel proper makes.
        EventNotificationObject = 0;
        EventSynchronizationObject = 1;
        MutantObject = 2;
        ProcessObject = 3;
        QueueObject = 4;
        SemaphoreObject = 5;
        ThreadObject = 6;
        GateObject = 7;
        TimerNotificationObject = 8;
        TimerSynchronizationObject = 9;
        ApcObject = 18;
        DpcObject = 19;
        DeviceQueueObject = 20;
        EventPairObject = 21;
        InterruptObject = 22;
        ProfileObject = 23;
        ThreadedDpcObject = 24;
    }
    u8, not_in_mingw "in no header; from public symbols" {
        // `KAPC::ApcStateIndex`.
        OriginalApcEnvironment = 0;
        AttachedApcEnvironment = 1;
        CurrentApcEnvironment = 2;
        InsertApcEnvironment = 3;
    }
}
