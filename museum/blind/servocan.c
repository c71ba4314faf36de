/*
 * servocan - four-axis servo card (1DA7:0204), MSI or line interrupt
 *
 *   0x00 CAUSE    bits 0..3 axis arrived, bit 7 fault (write 1 to clear)
 *   0x04 ENABLE   same bits
 *   0x10 TARGET[4]
 *   0x20 POSITION[4]
 *   0x30 HALT     bits 0..3
 *
 * Programs move the axes and look where they are; the driver keeps the last
 * 1024 arrivals in a journal that can be read with ReadFile.
 *
 * The bug: the interrupt stays connected where the journal cannot be allocated.
 *
 * Device: PCI\VEN_1DA7&DEV_0204
 * Rule: interrupt-still-connected
 * Needs: failure
 */
#include <ddk/wdm.h>
#include "../include/start_kit.h"

#define SV_TAG              'nvrS'
#define SV_AXES             4
#define SV_JOURNAL          1024u

#define SV_CAUSE            0x00
#define SV_ENABLE           0x04
#define SV_TARGET(n)        (0x10 + 4 * (n))
#define SV_POSITION(n)      (0x20 + 4 * (n))
#define SV_HALT             0x30
#define SV_BYTES            0x34
#define SV_ARRIVED          0x0Fu
#define SV_FAULT            0x80u

#define IOCTL_SV_MOVE       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SV_WHERE      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct { ULONG Axis; LONG Target; } SV_MOVE;
typedef struct { LONG Position[SV_AXES]; ULONG Faults; } SV_WHERE;
typedef struct { LARGE_INTEGER Time; ULONG Axes; ULONG Number; } SV_ENTRY;

typedef struct _SERVO {
    struct fdokit   Kit;

    PUCHAR          Regs;
    SIZE_T          RegsLength;
    ULONG           ConnectVersion;
    union {
        PVOID                      Generic;
        PKINTERRUPT                Line;
        PIO_INTERRUPT_MESSAGE_INFO Messages;
    } Interrupt;
    KDPC            Dpc;
    volatile LONG   IsrOn;
    volatile LONG   Causes;

    KSPIN_LOCK      Lock;
    BOOLEAN         Started, InD0, Online;
    ULONG           Faults;
    SV_ENTRY       *Journal;
    ULONG           First, Used, Number;
} SERVO, *PSERVO;

static const GUID ServoGuid =
    { 0x1f6c8d70, 0x59a3, 0x4e2b, { 0x94, 0xc7, 0xe0, 0x31, 0xfa, 0x08, 0x6b, 0xd2 } };

#define REG_GET(s, r)       READ_REGISTER_ULONG((PULONG)((s)->Regs + (r)))
#define REG_PUT(s, r, v)    WRITE_REGISTER_ULONG((PULONG)((s)->Regs + (r)), (v))

static BOOLEAN NTAPI SvIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PSERVO s = Context;
    ULONG cause;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!s->IsrOn)
        return FALSE;
    cause = REG_GET(s, SV_CAUSE);
    if (cause == MAXULONG || !(cause & (SV_ARRIVED | SV_FAULT)))
        return FALSE;
    REG_PUT(s, SV_CAUSE, cause & (SV_ARRIVED | SV_FAULT));
    InterlockedOr(&s->Causes, (LONG)(cause & (SV_ARRIVED | SV_FAULT)));
    KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI SvMessageIsr(PKINTERRUPT Interrupt, PVOID Context, ULONG MessageId)
{
    UNREFERENCED_PARAMETER(MessageId);
    return SvIsr(Interrupt, Context);
}

static VOID NTAPI SvDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PSERVO s = Context;
    ULONG causes = (ULONG)InterlockedExchange(&s->Causes, 0);
    SV_ENTRY *e;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);

    KeAcquireSpinLockAtDpcLevel(&s->Lock);
    if (s->Online && causes) {
        if (causes & SV_FAULT) {
            s->Faults++;
            REG_PUT(s, SV_HALT, SV_ARRIVED);
        }
        if (causes & SV_ARRIVED) {
            if (s->Used == SV_JOURNAL) {
                s->First = (s->First + 1) % SV_JOURNAL;
                s->Used--;
            }
            e = &s->Journal[(s->First + s->Used++) % SV_JOURNAL];
            KeQuerySystemTime(&e->Time);
            e->Axes = causes & SV_ARRIVED;
            e->Number = ++s->Number;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&s->Lock);
}

static BOOLEAN NTAPI SvNothing(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    return TRUE;
}

/* Returns when no ISR is under way that has seen an older IsrOn.  IRQL <= DISPATCH_LEVEL. */
static VOID SvSetIsr(PSERVO s, LONG On)
{
    ULONG i;

    InterlockedExchange(&s->IsrOn, On);
    if (s->ConnectVersion == CONNECT_MESSAGE_BASED) {
        for (i = 0; i < s->Interrupt.Messages->MessageCount; i++)
            KeSynchronizeExecution(s->Interrupt.Messages->MessageInfo[i].InterruptObject, SvNothing, NULL);
    } else {
        KeSynchronizeExecution(s->Interrupt.Line, SvNothing, NULL);
    }
}

static VOID SvOnline(PSERVO s)
{
    KIRQL irql;

    KeAcquireSpinLock(&s->Lock, &irql);
    if (s->Started && s->InD0 && !s->Online) {
        REG_PUT(s, SV_CAUSE, SV_ARRIVED | SV_FAULT);
        InterlockedExchange(&s->Causes, 0);
        SvSetIsr(s, TRUE);
        s->Online = TRUE;
        REG_PUT(s, SV_HALT, 0);
        REG_PUT(s, SV_ENABLE, SV_ARRIVED | SV_FAULT);
    }
    KeReleaseSpinLock(&s->Lock, irql);
}

static VOID SvOffline(PSERVO s, BOOLEAN Stopping, BOOLEAN Touch)
{
    KIRQL irql;

    KeAcquireSpinLock(&s->Lock, &irql);
    if (Stopping)
        s->Started = FALSE;
    else
        s->InD0 = FALSE;
    if (s->Online) {
        s->Online = FALSE;
        SvSetIsr(s, FALSE);
        if (Touch) {
            REG_PUT(s, SV_ENABLE, 0);
            REG_PUT(s, SV_HALT, SV_ARRIVED);
        }
    }
    KeReleaseSpinLock(&s->Lock, irql);
}

static void SvPowerUp(void *Context)
{
    PSERVO s = Context;
    KIRQL irql;

    KeAcquireSpinLock(&s->Lock, &irql);
    s->InD0 = TRUE;
    KeReleaseSpinLock(&s->Lock, irql);
    SvOnline(s);
}

static void SvPowerDown(void *Context)
{
    SvOffline(Context, FALSE, TRUE);
}

static VOID SvDisconnect(PSERVO s)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS d;

    RtlZeroMemory(&d, sizeof(d));
    d.Version = s->ConnectVersion;
    d.ConnectionContext.Generic = s->Interrupt.Generic;
    IoDisconnectInterruptEx(&d);
    s->Interrupt.Generic = NULL;
    KeRemoveQueueDpc(&s->Dpc);
    KeFlushQueuedDpcs();
}

/* Undoes a successful SvStart; does nothing if there was none. */
static void SvStop(void *Context, BOOLEAN Touch)
{
    PSERVO s = Context;
    BOOLEAN was;
    KIRQL irql;

    KeAcquireSpinLock(&s->Lock, &irql);
    was = s->Started;
    KeReleaseSpinLock(&s->Lock, irql);
    if (!was)
        return;
    SvOffline(s, TRUE, Touch);
    SvDisconnect(s);
    ExFreePoolWithTag(s->Journal, SV_TAG);
    s->Journal = NULL;
    MmUnmapIoSpace(s->Regs, s->RegsLength);
    s->Regs = NULL;
}

static NTSTATUS SvStart(void *Context, PCM_RESOURCE_LIST List)
{
    PSERVO s = Context;
    IO_CONNECT_INTERRUPT_PARAMETERS p;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR r = NULL;
    NTSTATUS status;
    KIRQL irql;
    ULONG i;

    for (i = 0; i < List->List[0].PartialResourceList.Count && !r; i++)
        if (List->List[0].PartialResourceList.PartialDescriptors[i].Type == CmResourceTypeMemory)
            r = &List->List[0].PartialResourceList.PartialDescriptors[i];
    if (!r || r->u.Memory.Length < SV_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;

    s->RegsLength = r->u.Memory.Length;
    s->Regs = MmMapIoSpace(r->u.Memory.Start, s->RegsLength, MmNonCached);
    if (!s->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    REG_PUT(s, SV_ENABLE, 0);

    RtlZeroMemory(&p, sizeof(p));
    p.Version = CONNECT_MESSAGE_BASED;
    p.MessageBased.PhysicalDeviceObject = s->Kit.pdo;
    p.MessageBased.ConnectionContext.Generic = &s->Interrupt.Generic;
    p.MessageBased.MessageServiceRoutine = SvMessageIsr;
    p.MessageBased.FallBackServiceRoutine = SvIsr;
    p.MessageBased.ServiceContext = s;
    status = IoConnectInterruptEx(&p);
    if (!NT_SUCCESS(status))
        goto fail_unmap;
    s->ConnectVersion = p.Version;

    s->Journal = ExAllocatePoolWithTag(NonPagedPool, SV_JOURNAL * sizeof(SV_ENTRY), SV_TAG);
    if (!s->Journal) {
        status = STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
        SvDisconnect(s);
#endif
        goto fail_unmap;
    }

    KeAcquireSpinLock(&s->Lock, &irql);
    s->First = s->Used = 0;
    s->Started = s->InD0 = TRUE;
    KeReleaseSpinLock(&s->Lock, irql);
    SvOnline(s);
    return STATUS_SUCCESS;

fail_unmap:
    MmUnmapIoSpace(s->Regs, s->RegsLength);
    s->Regs = NULL;
    return status;
}

static NTSTATUS NTAPI SvControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSERVO s = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG code = sl->Parameters.DeviceIoControl.IoControlCode;
    SV_MOVE *move = Irp->AssociatedIrp.SystemBuffer;
    SV_WHERE *where = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    NTSTATUS status = IoAcquireRemoveLock(&s->Kit.lock, Irp);
    KIRQL irql;
    ULONG i;

    if (!NT_SUCCESS(status))
        return fdokit_complete(Irp, status, 0);

    if (code == IOCTL_SV_MOVE) {
        if (sl->Parameters.DeviceIoControl.InputBufferLength < sizeof(*move))
            status = STATUS_BUFFER_TOO_SMALL;
        else if (move->Axis >= SV_AXES)
            status = STATUS_INVALID_PARAMETER;
    } else if (code == IOCTL_SV_WHERE) {
        if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*where))
            status = STATUS_BUFFER_TOO_SMALL;
    } else {
        status = STATUS_INVALID_DEVICE_REQUEST;
    }

    if (NT_SUCCESS(status)) {
        KeAcquireSpinLock(&s->Lock, &irql);
        if (!s->Online) {
            status = STATUS_DEVICE_NOT_READY;
        } else if (code == IOCTL_SV_MOVE) {
            REG_PUT(s, SV_TARGET(move->Axis), (ULONG)move->Target);
        } else {
            for (i = 0; i < SV_AXES; i++)
                where->Position[i] = (LONG)REG_GET(s, SV_POSITION(i));
            where->Faults = s->Faults;
            info = sizeof(*where);
        }
        KeReleaseSpinLock(&s->Lock, irql);
    }
    fdokit_complete(Irp, status, info);
    IoReleaseRemoveLock(&s->Kit.lock, Irp);
    return status;
}

static NTSTATUS NTAPI SvRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSERVO s = DeviceObject->DeviceExtension;
    ULONG room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(SV_ENTRY), n = 0;
    SV_ENTRY *out = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = IoAcquireRemoveLock(&s->Kit.lock, Irp);
    KIRQL irql;

    if (!NT_SUCCESS(status))
        return fdokit_complete(Irp, status, 0);
    KeAcquireSpinLock(&s->Lock, &irql);
    if (!s->Started)
        status = STATUS_DEVICE_NOT_READY;
    else
        for (; n < room && s->Used; n++, s->Used--) {
            out[n] = s->Journal[s->First];
            s->First = (s->First + 1) % SV_JOURNAL;
        }
    KeReleaseSpinLock(&s->Lock, irql);
    fdokit_complete(Irp, status, n * sizeof(SV_ENTRY));
    IoReleaseRemoveLock(&s->Kit.lock, Irp);
    return status;
}

static NTSTATUS NTAPI SvAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    struct fdokit *kit;
    PSERVO s;
    NTSTATUS status = fdokit_add(DriverObject, Pdo, sizeof(SERVO), &ServoGuid, SV_TAG, &kit);

    if (!NT_SUCCESS(status))
        return status;
    s = (PSERVO)kit;
    s->Kit.start = SvStart;
    s->Kit.stop = SvStop;
    s->Kit.up = SvPowerUp;
    s->Kit.down = SvPowerDown;
    KeInitializeSpinLock(&s->Lock);
    KeInitializeDpc(&s->Dpc, SvDpc, s);
    s->Kit.self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    fdokit_entry(DriverObject, SvAddDevice);
    DriverObject->MajorFunction[IRP_MJ_READ] = SvRead;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SvControl;
    return STATUS_SUCCESS;
}
