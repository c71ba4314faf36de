/*
 * rulemill: a root-enumerated rule engine.  A periodic DPC compares the inputs (IOCTL_MILL_INPUT) with a table of
 * rules (IOCTL_MILL_RULES) and counts the hits; IOCTL_MILL_WAIT pends until a rule hits.  The period comes from the
 * device's registry key ("PeriodMs").
 *
 * The bug: the DPC reads rules that are in paged pool.
 *
 * Device: ROOT\RULEMILL
 * Rule: paged-at-raised-irql
 * Needs: ioctl
 */
#include "../include/dkit.h"

#define IOCTL_MILL_RULES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x890, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MILL_INPUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_MILL_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MILL_HITS  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x893, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'mRuB'
#define MAX_RULES 512
#define DEFAULT_PERIOD 50

typedef struct _RULE {
    ULONG Mask;
    ULONG Value;
} RULE;

typedef struct _RULES {
    ULONG Count;
    ULONG Reserved;
    RULE Rule[];
} RULES, *PRULES;

typedef struct _HITS {
    ULONG Evaluations;
    ULONG Hits;
    ULONG LastRule;
} HITS;

typedef struct _MILL {
    DK Dk;
    DKQ Waiters;
    KSPIN_LOCK Lock;
    PRULES Rules;
    ULONG Input;
    HITS Hits;
    KTIMER Timer;
    KDPC Dpc;
    ULONG Period;
    BOOLEAN Started;
    BOOLEAN Powered;
} MILL, *PMILL;

DRIVER_INITIALIZE DriverEntry;
static const GUID MillClass = {0x0e57c4a3, 0x62f8, 0x4b11, {0xa6, 0x4d, 0x70, 0xc5, 0x19, 0x8e, 0x33, 0x01}};

static VOID NTAPI Evaluate(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PMILL M = Context;
    BOOLEAN Hit = FALSE;
    HITS Now;
    PIRP Irp;
    ULONG i;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

    KeAcquireSpinLockAtDpcLevel(&M->Lock);
    if (M->Rules) {
        M->Hits.Evaluations++;
        for (i = 0; i < M->Rules->Count; i++) {
            if ((M->Input & M->Rules->Rule[i].Mask) == M->Rules->Rule[i].Value) {
                M->Hits.Hits++;
                M->Hits.LastRule = i;
                Hit = TRUE;
                break;
            }
        }
    }
    Now = M->Hits;
    KeReleaseSpinLockFromDpcLevel(&M->Lock);

    if (!Hit)
        return;
    while ((Irp = IoCsqRemoveNextIrp(&M->Waiters.Csq, NULL)) != NULL) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Now, sizeof(Now));
        DkFinish(Irp, STATUS_SUCCESS, sizeof(Now));
        IoReleaseRemoveLock(&M->Dk.Lock, Irp);
    }
}

/* With the lock. */
static VOID SetTimer(PMILL M)
{
    LARGE_INTEGER Due;
    if (M->Started && M->Powered) {
        Due.QuadPart = -10000LL * M->Period;
        KeSetTimerEx(&M->Timer, Due, (LONG)M->Period, &M->Dpc);
    } else {
        KeCancelTimer(&M->Timer);
    }
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    PMILL M = Dev->DeviceExtension;
    KIRQL Irql;
    KeAcquireSpinLock(&M->Lock, &Irql);
    M->Powered = FALSE;
    SetTimer(M);
    KeReleaseSpinLock(&M->Lock, Irql);
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PMILL M = Dev->DeviceExtension;
    KIRQL Irql;
    KeAcquireSpinLock(&M->Lock, &Irql);
    M->Powered = TRUE;
    SetTimer(M);
    KeReleaseSpinLock(&M->Lock, Irql);
}

static VOID Halt(PMILL M)
{
    KIRQL Irql;
    KeAcquireSpinLock(&M->Lock, &Irql);
    M->Started = FALSE;
    SetTimer(M);
    KeReleaseSpinLock(&M->Lock, Irql);
    KeFlushQueuedDpcs();
}

static NTSTATUS SetRules(PMILL M, const RULE *In, ULONG Bytes)
{
    ULONG Count = Bytes / sizeof(RULE);
    PRULES New, Old;
    KIRQL Irql;

    if (Count == 0 || Bytes % sizeof(RULE) || Count > MAX_RULES)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    New = ExAllocatePoolWithTag(NonPagedPool, sizeof(RULES) + Count * sizeof(RULE), TAG);
#else
    New = ExAllocatePoolWithTag(PagedPool, sizeof(RULES) + Count * sizeof(RULE), TAG);
#endif
    if (!New)
        return STATUS_INSUFFICIENT_RESOURCES;
    New->Count = Count;
    New->Reserved = 0;
    RtlCopyMemory(New->Rule, In, Count * sizeof(RULE));

    KeAcquireSpinLock(&M->Lock, &Irql);
    Old = M->Rules;
    M->Rules = New;
    KeReleaseSpinLock(&M->Lock, Irql);
    if (Old)
        ExFreePoolWithTag(Old, TAG);
    return STATUS_SUCCESS;
}

static ULONG ReadPeriod(PDEVICE_OBJECT Pdo)
{
    struct {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        ULONG Room;
    } Value;
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"PeriodMs");
    ULONG Period = DEFAULT_PERIOD, Got;
    HANDLE Key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &Key)))
        return Period;
    if (NT_SUCCESS(ZwQueryValueKey(Key, &Name, KeyValuePartialInformation, &Value, sizeof(Value), &Got)) &&
        Value.Info.Type == REG_DWORD && Value.Info.DataLength == sizeof(ULONG)) {
        RtlCopyMemory(&Period, &Value.Info.Data, sizeof(ULONG));
        if (Period < 10 || Period > 10000)
            Period = DEFAULT_PERIOD;
    }
    ZwClose(Key);
    return Period;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PMILL M = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Info = 0;
    KIRQL Irql;
    NTSTATUS Status = IoAcquireRemoveLock(&M->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MILL_RULES:
        Status = SetRules(M, Buffer, In);
        break;
    case IOCTL_MILL_INPUT:
        if (In < sizeof(ULONG)) {
            Status = STATUS_INVALID_PARAMETER;
        } else {
            KeAcquireSpinLock(&M->Lock, &Irql);
            M->Input = *(PULONG)Buffer;
            KeReleaseSpinLock(&M->Lock, Irql);
        }
        break;
    case IOCTL_MILL_WAIT:
        if (Out < sizeof(HITS)) {
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            Status = IoCsqInsertIrpEx(&M->Waiters.Csq, Irp, NULL, NULL);
            if (NT_SUCCESS(Status))
                return STATUS_PENDING;
        }
        break;
    case IOCTL_MILL_HITS:
        if (Out < sizeof(HITS)) {
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            KeAcquireSpinLock(&M->Lock, &Irql);
            *(HITS *)Buffer = M->Hits;
            KeReleaseSpinLock(&M->Lock, Irql);
            Info = sizeof(HITS);
        }
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    DkFinish(Irp, Status, Info);
    IoReleaseRemoveLock(&M->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PMILL M = Dev->DeviceExtension;
    if (!NT_SUCCESS(IoAcquireRemoveLock(&M->Dk.Lock, Irp)))
        return DkFinish(Irp, STATUS_SUCCESS, 0);
    DkqCleanup(&M->Waiters, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    DkFinish(Irp, STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&M->Dk.Lock, Irp);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PMILL M = Dev->DeviceExtension;
    ULONG Period;
    KIRQL Irql;
    NTSTATUS Status = IoAcquireRemoveLock(&M->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = DkForwardWait(&M->Dk, Irp);
        if (NT_SUCCESS(Status)) {
            Period = ReadPeriod(M->Dk.Pdo);
            KeAcquireSpinLock(&M->Lock, &Irql);
            M->Period = Period;
            M->Started = TRUE;
            M->Powered = TRUE;
            SetTimer(M);
            KeReleaseSpinLock(&M->Lock, Irql);
            IoSetDeviceInterfaceState(&M->Dk.Link, TRUE);
        }
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&M->Dk.Lock, Irp);
        return Status;
    case IRP_MN_STOP_DEVICE:
        Halt(M);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&M->Dk.Link, FALSE);
        Halt(M);
        DkqSetClosed(&M->Waiters, STATUS_DELETE_PENDING);
        DkqFlush(&M->Waiters, NULL, STATUS_DELETE_PENDING);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        Halt(M);
        DkqSetClosed(&M->Waiters, STATUS_DELETE_PENDING);
        DkqFlush(&M->Waiters, NULL, STATUS_DELETE_PENDING);
        DkRemoveWait(&M->Dk, Irp);
        KeFlushQueuedDpcs();
        if (M->Rules)
            ExFreePoolWithTag(M->Rules, TAG);
        return DkRemoveFinish(&M->Dk, Irp);
    }
    return DkPassRelease(&M->Dk, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Dev;
    PMILL M;
    NTSTATUS Status = DkAddDevice(Driver, Pdo, sizeof(MILL), &MillClass, PowerDown, PowerUp, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    M = Dev->DeviceExtension;
    DkqInit(&M->Waiters, &M->Dk.Lock);
    KeInitializeSpinLock(&M->Lock);
    KeInitializeTimer(&M->Timer);
    KeInitializeDpc(&M->Dpc, Evaluate, M);
    M->Period = DEFAULT_PERIOD;
    Dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DkSystemControl;
    Driver->MajorFunction[IRP_MJ_POWER] = DkPower;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
