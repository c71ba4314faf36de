/*
 * A computing card: applications queue numbers, the card computes their factorials one after the other, urgent ones
 * first, and each request ends when its result is there.
 *
 * The bug: the request that the card works on when the device leaves D0 is not begun again when it is back in D0, so it never ends, and neither do those behind it.
 * Shows by: a computation is in progress when the device is powered down, and the device is powered up again.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-forgotten, irp-never-completed
 * Needs: ioctl, power
 */
#include "../include/pci_kit.h"

#define MATH_TAG            'htaM'
#define MATH_MAX_QUEUED     64
#define MATH_MAX_NUMBER     34                      /* beyond it the 32-bit result is always 0 */

#define EDU_IDENTIFICATION  0x00
#define EDU_LIVENESS        0x04
#define EDU_FACTORIAL       0x08
#define EDU_STATUS          0x20
#define EDU_CAUSES          0x24
#define EDU_ACKNOWLEDGE     0x64
#define EDU_WINDOW          0x100
#define EDU_BUSY            0x01u
#define EDU_INTERRUPTS      0x80u
#define EDU_FACTORIAL_DONE  0x01u

#define IOCTL_MATH_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x980, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MATH_ABANDON   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x981, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MATH_STATS     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x982, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MATH_SELFTEST  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x983, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* {A83E5D10-94C2-4C57-8F6B-6E0B5A77D501} */
static const GUID MathInterface = { 0xa83e5d10, 0x94c2, 0x4c57, { 0x8f, 0x6b, 0x6e, 0x0b, 0x5a, 0x77, 0xd5, 0x01 } };

typedef struct _MATH_JOB { ULONG Number; ULONG Urgent; } MATH_JOB;
typedef struct _MATH_RESULT { ULONG Number; ULONG Factorial; } MATH_RESULT;
typedef struct _MATH_STATS { ULONG Queued; ULONG Busy; ULONG Done; ULONG Cancelled; ULONG Mine; } MATH_STATS;

typedef struct _MATH_FILE { ULONG Done; } MATH_FILE, *PMATH_FILE;

typedef struct _MATH {
    FDO_KIT Kit;
    PCI_HW Hw;

    KSPIN_LOCK Lock;                    /* guards what follows, and the card but for its interrupt's causes */
    BOOLEAN Online;
    BOOLEAN Gone;
    LIST_ENTRY Queue;                   /* urgent jobs first */
    ULONG Queued;
    PIRP Active;                        /* off the queue: the card has it */
    BOOLEAN ActiveCancelled;            /* its result is not wanted */
    BOOLEAN Selftest;                   /* the card is kept from the queue */
    ULONG Done, Cancelled;

    BOOLEAN Fired;                      /* under the interrupt's lock */
} MATH, *PMATH;

typedef struct _SYNC { PMATH Math; BOOLEAN Fired; } SYNC;

static BOOLEAN NTAPI MathInterrupt(PKINTERRUPT Interrupt, PVOID Context)
{
    PMATH math = Context;
    ULONG causes;
    UNREFERENCED_PARAMETER(Interrupt);

    if (!math->Hw.Live) return FALSE;
    causes = HwRead(&math->Hw, EDU_CAUSES);
    if (causes == 0 || causes == ~0u) return FALSE;
    HwWrite(&math->Hw, EDU_ACKNOWLEDGE, causes);
    if (causes & EDU_FACTORIAL_DONE) {
        math->Fired = TRUE;
        IoRequestDpc(math->Kit.Self, NULL, math);
    }
    return TRUE;
}

static BOOLEAN NTAPI MathTakeFired(PVOID Context)
{
    SYNC *sync = Context;
    sync->Fired = sync->Math->Fired;
    sync->Math->Fired = FALSE;
    return TRUE;
}

/* Jobs */

static VOID MathFinish(PMATH Math, PIRP Irp, NTSTATUS Status, ULONG Bytes)
{
    KitComplete(Irp, Status, Bytes);
    IoReleaseRemoveLock(&Math->Kit.RemoveLock, Irp);
}

static PMATH_FILE MathFileOf(PIRP Irp)
{
    return IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
}

static const MATH_JOB *MathJobOf(PIRP Irp)
{
    return Irp->AssociatedIrp.SystemBuffer;
}

/* With Lock held: the card begins the active job. */
static VOID MathRun(PMATH Math)
{
    HwWrite(&Math->Hw, EDU_FACTORIAL, MathJobOf(Math->Active)->Number);
}

/* With Lock held: the card gets the next job, if it has none. */
static VOID MathStartNext(PMATH Math)
{
    while (Math->Online && !Math->Selftest && !Math->Active && !IsListEmpty(&Math->Queue)) {
        PLIST_ENTRY e = RemoveHeadList(&Math->Queue);
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);

        InitializeListHead(e);
        Math->Queued--;
        if (!IoSetCancelRoutine(irp, NULL)) continue;       /* its cancel routine ends it */
        Math->Active = irp;
        Math->ActiveCancelled = FALSE;
        MathRun(Math);
    }
}

static VOID NTAPI MathDpc(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Unused, PVOID Context)
{
    PMATH math = Context;
    SYNC sync = { math, FALSE };
    BOOLEAN cancelled = FALSE;
    PIRP irp = NULL;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Unused);

    KeAcquireSpinLockAtDpcLevel(&math->Lock);
    if (math->Online) {
        KeSynchronizeExecution(math->Hw.Interrupt, MathTakeFired, &sync);
        if (sync.Fired && math->Active && !(HwRead(&math->Hw, EDU_STATUS) & EDU_BUSY)) {
            MATH_RESULT *result;
            irp = math->Active;
            math->Active = NULL;
            cancelled = math->ActiveCancelled;
            result = irp->AssociatedIrp.SystemBuffer;
            result->Factorial = HwRead(&math->Hw, EDU_FACTORIAL);       /* the number stays in front of it */
            if (cancelled) math->Cancelled++;
            else {
                math->Done++;
                MathFileOf(irp)->Done++;
            }
            MathStartNext(math);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&math->Lock);
    if (irp) MathFinish(math, irp, cancelled ? STATUS_CANCELLED : STATUS_SUCCESS, cancelled ? 0 : sizeof(MATH_RESULT));
}

static VOID NTAPI MathCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMATH math = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&math->Lock, &irql);
    if (!IsListEmpty(&Irp->Tail.Overlay.ListEntry)) {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        math->Queued--;
    }
    math->Cancelled++;
    KeReleaseSpinLock(&math->Lock, irql);
    MathFinish(math, Irp, STATUS_CANCELLED, 0);
}

/* Ends jobs that wait: a file's, or all. The card cannot be stopped: a file's active one ends as cancelled when it is over. */
static VOID MathEndQueued(PMATH Math, PFILE_OBJECT File, NTSTATUS Status)
{
    LIST_ENTRY done, *e, *next;
    KIRQL irql;

    InitializeListHead(&done);
    KeAcquireSpinLock(&Math->Lock, &irql);
    for (e = Math->Queue.Flink; e != &Math->Queue; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        next = e->Flink;
        if ((File && IoGetCurrentIrpStackLocation(irp)->FileObject != File) || !IoSetCancelRoutine(irp, NULL)) continue;
        RemoveEntryList(e);
        Math->Queued--;
        Math->Cancelled++;
        InsertTailList(&done, e);
    }
    if (File && Math->Active && IoGetCurrentIrpStackLocation(Math->Active)->FileObject == File) Math->ActiveCancelled = TRUE;
    KeReleaseSpinLock(&Math->Lock, irql);
    while (!IsListEmpty(&done)) MathFinish(Math, CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry), Status, 0);
}

/* With Lock held: behind the last urgent job, or at the end. */
static VOID MathInsert(PMATH Math, PIRP Irp)
{
    PLIST_ENTRY e = &Math->Queue;

    if (MathJobOf(Irp)->Urgent)
        for (e = Math->Queue.Flink; e != &Math->Queue; e = e->Flink)
            if (!MathJobOf(CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry))->Urgent) break;
    InsertTailList(e, &Irp->Tail.Overlay.ListEntry);
    Math->Queued++;
}

static NTSTATUS MathFactorial(PMATH Math, PIRP Irp, ULONG In, ULONG Out)
{
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (In < sizeof(MATH_JOB) || Out < sizeof(MATH_RESULT) || MathJobOf(Irp)->Number > MATH_MAX_NUMBER) return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Math->Lock, &irql);
    if (Math->Gone) status = STATUS_NO_SUCH_DEVICE;
    else if (Math->Queued >= MATH_MAX_QUEUED) status = STATUS_DEVICE_BUSY;
    if (!NT_SUCCESS(status)) {
        KeReleaseSpinLock(&Math->Lock, irql);
        return status;
    }
    IoMarkIrpPending(Irp);
    MathInsert(Math, Irp);
    IoSetCancelRoutine(Irp, MathCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        Math->Queued--;
        Math->Cancelled++;
        KeReleaseSpinLock(&Math->Lock, irql);
        MathFinish(Math, Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    MathStartNext(Math);
    KeReleaseSpinLock(&Math->Lock, irql);
    return STATUS_PENDING;
}

/* Other requests */

static VOID MathStats(PMATH Math, PMATH_FILE File, MATH_STATS *Stats)
{
    KIRQL irql;

    KeAcquireSpinLock(&Math->Lock, &irql);
    Stats->Queued = Math->Queued;
    Stats->Busy = Math->Active != NULL;
    Stats->Done = Math->Done;
    Stats->Cancelled = Math->Cancelled;
    Stats->Mine = File->Done;
    KeReleaseSpinLock(&Math->Lock, irql);
}

/* Whether the card answers: its liveness register holds the complement of what was written. */
static NTSTATUS MathSelftest(PMATH Math)
{
    static const ULONG patterns[] = { 0x00000000, 0xFFFFFFFF, 0x5A5A5A5A, 0x12345678 };
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;
    ULONG i;

    KeAcquireSpinLock(&Math->Lock, &irql);
    if (!Math->Online) status = STATUS_DEVICE_NOT_READY;
    else if (Math->Selftest) status = STATUS_DEVICE_BUSY;
    else Math->Selftest = TRUE;
    KeReleaseSpinLock(&Math->Lock, irql);
    if (!NT_SUCCESS(status)) return status;

    for (i = 0; i < sizeof(patterns) / sizeof(patterns[0]) && NT_SUCCESS(status); i++) {
        KeAcquireSpinLock(&Math->Lock, &irql);
        if (!Math->Online) status = STATUS_DEVICE_NOT_READY;
        else {
            HwWrite(&Math->Hw, EDU_LIVENESS, patterns[i]);
            if (HwRead(&Math->Hw, EDU_LIVENESS) != ~patterns[i]) status = STATUS_IO_DEVICE_ERROR;
        }
        KeReleaseSpinLock(&Math->Lock, irql);
    }
    KeAcquireSpinLock(&Math->Lock, &irql);
    Math->Selftest = FALSE;
    MathStartNext(Math);
    KeReleaseSpinLock(&Math->Lock, irql);
    return status;
}

static NTSTATUS NTAPI MathControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMATH math = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG information = 0;
    NTSTATUS status = KitEnter(&math->Kit, Irp);

    if (!NT_SUCCESS(status)) return KitComplete(Irp, status, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MATH_FACTORIAL:
        status = MathFactorial(math, Irp, in, out);
        if (status == STATUS_PENDING) return status;
        break;
    case IOCTL_MATH_ABANDON:
        MathEndQueued(math, sp->FileObject, STATUS_CANCELLED);
        break;
    case IOCTL_MATH_STATS:
        if (out < sizeof(MATH_STATS)) status = STATUS_BUFFER_TOO_SMALL;
        else {
            MathStats(math, sp->FileObject->FsContext, Irp->AssociatedIrp.SystemBuffer);
            information = sizeof(MATH_STATS);
        }
        break;
    case IOCTL_MATH_SELFTEST:
        status = MathSelftest(math);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    KitComplete(Irp, status, information);
    IoReleaseRemoveLock(&math->Kit.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI MathCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMATH math = Device->DeviceExtension;
    PMATH_FILE file = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(MATH_FILE), MATH_TAG);
    NTSTATUS status;

    if (!file) return KitComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    file->Done = 0;
    status = KitOpen(&math->Kit);
    if (!NT_SUCCESS(status)) ExFreePoolWithTag(file, MATH_TAG);
    else IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = file;
    return KitComplete(Irp, status, 0);
}

static NTSTATUS NTAPI MathCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    MathEndQueued(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI MathClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMATH math = Device->DeviceExtension;

    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, MATH_TAG);
    KitClosed(&math->Kit);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

/* The device */

static VOID MathPowerUp(PVOID Ext)
{
    PMATH math = Ext;
    KIRQL irql;

    HwSetLive(&math->Hw, TRUE);
    KeAcquireSpinLock(&math->Lock, &irql);
    math->Online = TRUE;
    HwWrite(&math->Hw, EDU_STATUS, EDU_INTERRUPTS);
#ifdef FIXED
    if (math->Active) MathRun(math);
#endif
    MathStartNext(math);
    KeReleaseSpinLock(&math->Lock, irql);
}

static VOID MathOffline(PMATH Math, BOOLEAN Gone)
{
    SYNC sync = { Math, FALSE };
    KIRQL irql;

    KeAcquireSpinLock(&Math->Lock, &irql);
    if (Math->Online && !Gone) HwWrite(&Math->Hw, EDU_STATUS, 0);
    Math->Online = FALSE;
    KeReleaseSpinLock(&Math->Lock, irql);
    if (Math->Hw.Interrupt) {
        HwSetLive(&Math->Hw, FALSE);
        KeSynchronizeExecution(Math->Hw.Interrupt, MathTakeFired, &sync);
    }
}

static VOID MathPowerDown(PVOID Ext) { MathOffline(Ext, FALSE); }

static NTSTATUS MathStart(PVOID Ext, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PMATH math = Ext;
    NTSTATUS status = HwAcquire(&math->Hw, Translated, EDU_WINDOW, MathInterrupt, math);
    ULONG causes;
    UNREFERENCED_PARAMETER(Raw);

    if (!NT_SUCCESS(status)) return status;
    HwWrite(&math->Hw, EDU_STATUS, 0);
    causes = HwRead(&math->Hw, EDU_CAUSES);
    if (causes != ~0u) HwWrite(&math->Hw, EDU_ACKNOWLEDGE, causes);
    MathPowerUp(math);
    return STATUS_SUCCESS;
}

static VOID MathStop(PVOID Ext, BOOLEAN Gone)
{
    PMATH math = Ext;
    PIRP irp;
    KIRQL irql;

    MathOffline(math, Gone);
    HwDisconnect(&math->Hw);
    KeAcquireSpinLock(&math->Lock, &irql);
    irp = math->Active;
    math->Active = NULL;
    KeReleaseSpinLock(&math->Lock, irql);
    if (irp) MathFinish(math, irp, STATUS_NO_SUCH_DEVICE, 0);
    HwUnmap(&math->Hw);
}

static VOID MathFlush(PVOID Ext)
{
    PMATH math = Ext;
    KIRQL irql;

    KeAcquireSpinLock(&math->Lock, &irql);
    math->Gone = TRUE;
    KeReleaseSpinLock(&math->Lock, irql);
    MathEndQueued(math, NULL, STATUS_NO_SUCH_DEVICE);
}

static const FDO_HOOKS MathHooks = { MathStart, MathStop, MathFlush, MathPowerUp, MathPowerDown, NULL };

static NTSTATUS NTAPI MathAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO_KIT kit;
    PMATH math;
    NTSTATUS status = KitAdd(Driver, Pdo, sizeof(MATH), &MathInterface, &MathHooks, MATH_TAG, &kit);

    if (!NT_SUCCESS(status)) return status;
    math = (PMATH)kit;
    KeInitializeSpinLock(&math->Lock);
    InitializeListHead(&math->Queue);
    IoInitializeDpcRequest(kit->Self, MathDpc);
    kit->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI MathUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = MathAddDevice;
    Driver->MajorFunction[IRP_MJ_CREATE] = MathCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = MathCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = MathClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MathControl;
    Driver->MajorFunction[IRP_MJ_PNP] = KitPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = KitPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = KitSystemControl;
    Driver->DriverUnload = MathUnload;
    return STATUS_SUCCESS;
}
