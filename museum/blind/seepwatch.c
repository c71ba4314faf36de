/*
 * seepwatch: watches leak sensors on a card of 16 inputs; each alarm is counted, and which inputs ever gave one is
 * kept in the device's registry key by a work item.
 *
 * Registers (BAR0, 32 bits each): 0x00 identity (0x53454550); 0x04 alarms, bits 0-15 (cleared by
 * writing ones); 0x08 mask (it interrupts while an alarm and its bit in the mask are both 1); 0x0C the inputs' present levels.
 *
 * The bug: the DPC queues the work item at every alarm, also while it is still queued from the one before.
 *
 * Device: PCI\VEN_1DA7&DEV_0003
 * Rule: work-item-queued
 * Needs: device
 */
#include "../include/held_core.h"

#define IOCTL_SEEP_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SEEP_MASK  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C2, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define SEEP_ID     0x53454550
#define SEEP_INPUTS 16
#define SEEP_ALL    0xFFFF

static const GUID InterfaceGuid = { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x03, 0x03 } };

typedef volatile struct _SEEP_REGS {
    ULONG Id, Alarms, Mask, Levels;
} SEEP_REGS;

typedef struct _SEEP_STATE {
    ULONG Levels;
    ULONG Mask;
    ULONG Count[SEEP_INPUTS];
} SEEP_STATE;

typedef struct _DEV {
    CORE Core;
    SEEP_REGS *Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN Awake;
    ULONG Mask;                 /* under the interrupt's lock */
    volatile LONG Fresh;        /* alarms of the ISR, for the DPC */
    volatile LONG Unsaved;      /* alarms of the DPC, for the work item */
    volatile LONG Queued;       /* the work item is queued, or will be */
    volatile LONG Count[SEEP_INPUTS];
    PIO_WORKITEM Work;
    FAST_MUTEX Gate;
} DEV;

static BOOLEAN NTAPI SeepIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    DEV *dev = Context;
    ULONG alarms;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!dev->Awake)
        return FALSE;
    alarms = READ_REGISTER_ULONG(&dev->Regs->Alarms);
    if (alarms == MAXULONG || !(alarms & dev->Mask))
        return FALSE;
    alarms &= dev->Mask;
    WRITE_REGISTER_ULONG(&dev->Regs->Alarms, alarms);
    InterlockedOr(&dev->Fresh, (LONG)alarms);
    KeInsertQueueDpc(&dev->Dpc, NULL, NULL);
    return TRUE;
}

/* Adds to the value "Seen" of the device's key. */
static VOID SaveSeen(DEV *Dev, ULONG Alarms)
{
    UCHAR buffer[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + sizeof(ULONG)] __attribute__((aligned(8)));
    PKEY_VALUE_PARTIAL_INFORMATION value = (PVOID)buffer;
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"Seen");
    ULONG seen = 0, got;
    HANDLE key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Dev->Core.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ | KEY_WRITE, &key)))
        return;
    if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, value, sizeof(buffer), &got)) &&
        value->Type == REG_DWORD && value->DataLength == sizeof(ULONG))
        RtlCopyMemory(&seen, value->Data, sizeof(seen));
    if ((seen | Alarms) != seen) {
        seen |= Alarms;
        ZwSetValueKey(key, &name, 0, REG_DWORD, &seen, sizeof(seen));
    }
    ZwClose(key);
}

static VOID NTAPI SeepWork(PDEVICE_OBJECT Device, PVOID Context)
{
    DEV *dev = Context;
    LONG alarms;

    UNREFERENCED_PARAMETER(Device);
    InterlockedExchange(&dev->Queued, 0);           /* from here on it may be queued anew */
    alarms = InterlockedExchange(&dev->Unsaved, 0);
    if (alarms)
        SaveSeen(dev, (ULONG)alarms);
    IoReleaseRemoveLock(&dev->Core.Lock, dev->Work);
}

static VOID NTAPI SeepDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    DEV *dev = Context;
    LONG alarms = InterlockedExchange(&dev->Fresh, 0);
    ULONG i;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    if (!alarms)
        return;
    for (i = 0; i < SEEP_INPUTS; i++) {
        if (alarms & (1 << i))
            InterlockedIncrement(&dev->Count[i]);
    }
    InterlockedOr(&dev->Unsaved, alarms);
#ifdef FIXED
    if (InterlockedExchange(&dev->Queued, 1) != 0)
        return;
#endif
    if (NT_SUCCESS(IoAcquireRemoveLock(&dev->Core.Lock, dev->Work)))
        IoQueueWorkItem(dev->Work, SeepWork, DelayedWorkQueue, dev);
    else
        InterlockedExchange(&dev->Queued, 0);
}

typedef struct _MASK_ARGS {
    DEV *Dev;
    ULONG Mask;
} MASK_ARGS;

static BOOLEAN NTAPI SyncSetMask(PVOID Context)
{
    MASK_ARGS *args = Context;

    args->Dev->Mask = args->Mask;
    WRITE_REGISTER_ULONG(&args->Dev->Regs->Mask, args->Mask);
    return TRUE;
}

static NTSTATUS NTAPI SeepControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG code = stack->Parameters.DeviceIoControl.IoControlCode;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    DEV *dev = Device->DeviceExtension;
    NTSTATUS status = CoreEnter(&dev->Core, Irp);
    SEEP_STATE *state = buffer;
    ULONG_PTR info = 0;
    ULONG i;

    if (!NT_SUCCESS(status))
        return status;
    if (code != IOCTL_SEEP_STATE && code != IOCTL_SEEP_MASK)
        status = STATUS_INVALID_DEVICE_REQUEST;
    else if (code == IOCTL_SEEP_STATE && stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SEEP_STATE))
        status = STATUS_BUFFER_TOO_SMALL;
    else if (code == IOCTL_SEEP_MASK && (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG) ||
                                         *(PULONG)buffer > SEEP_ALL))
        status = STATUS_INVALID_PARAMETER;
    if (!NT_SUCCESS(status))
        goto done;
    ExAcquireFastMutex(&dev->Gate);
    if (dev->Core.Hold) {
        status = STATUS_DEVICE_NOT_READY;
    } else if (code == IOCTL_SEEP_MASK) {
        MASK_ARGS args = { dev, *(PULONG)buffer };

        KeSynchronizeExecution(dev->Interrupt, SyncSetMask, &args);
    } else {
        state->Levels = READ_REGISTER_ULONG(&dev->Regs->Levels);
        state->Mask = dev->Mask;
        for (i = 0; i < SEEP_INPUTS; i++)
            state->Count[i] = (ULONG)dev->Count[i];
        if (state->Levels == MAXULONG)      /* no card answers */
            status = STATUS_DEVICE_NOT_CONNECTED;
        else
            info = sizeof(*state);
    }
    ExReleaseFastMutex(&dev->Gate);
done:
    CoreComplete(&dev->Core, Irp, status, info);
    return status;
}

static BOOLEAN NTAPI SyncOn(PVOID Context)
{
    DEV *dev = Context;

    dev->Awake = TRUE;
    WRITE_REGISTER_ULONG(&dev->Regs->Alarms, SEEP_ALL);
    WRITE_REGISTER_ULONG(&dev->Regs->Mask, dev->Mask);
    return TRUE;
}

static BOOLEAN NTAPI SyncOff(PVOID Context)
{
    DEV *dev = Context;

    WRITE_REGISTER_ULONG(&dev->Regs->Mask, 0);
    WRITE_REGISTER_ULONG(&dev->Regs->Alarms, SEEP_ALL);
    dev->Awake = FALSE;
    return TRUE;
}

static VOID HwQuiesce(CORE *Core)
{
    ExAcquireFastMutex(&((DEV *)Core)->Gate);
    ExReleaseFastMutex(&((DEV *)Core)->Gate);
}

static VOID HwSleep(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncOff, Core); }
static VOID HwWake(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncOn, Core); }
static VOID HwKick(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwAbort(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwFini(CORE *Core) { IoFreeWorkItem(((DEV *)Core)->Work); }

static NTSTATUS HwStart(CORE *Core, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR bar = CoreResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = CoreResource(Translated, CmResourceTypeInterrupt, 0);
    DEV *dev = (DEV *)Core;
    NTSTATUS status = STATUS_NO_SUCH_DEVICE;

    if (!bar || !irq || bar->u.Memory.Length < sizeof(SEEP_REGS))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    dev->Regs = MmMapIoSpace(bar->u.Memory.Start, sizeof(SEEP_REGS), MmNonCached);
    if (!dev->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (READ_REGISTER_ULONG(&dev->Regs->Id) == SEEP_ID) {
        WRITE_REGISTER_ULONG(&dev->Regs->Mask, 0);
        WRITE_REGISTER_ULONG(&dev->Regs->Alarms, SEEP_ALL);
        status = CoreConnect(&dev->Interrupt, SeepIsr, dev, irq);
    }
    if (!NT_SUCCESS(status)) {
        dev->Interrupt = NULL;
        MmUnmapIoSpace((PVOID)dev->Regs, sizeof(SEEP_REGS));
        dev->Regs = NULL;
        return status;
    }
    KeSynchronizeExecution(dev->Interrupt, SyncOn, dev);
    return STATUS_SUCCESS;
}

static VOID HwStop(CORE *Core, BOOLEAN Touch)
{
    DEV *dev = (DEV *)Core;

    if (Touch)
        HwSleep(Core);
    IoDisconnectInterrupt(dev->Interrupt);
    dev->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace((PVOID)dev->Regs, sizeof(SEEP_REGS));
    dev->Regs = NULL;
}

static NTSTATUS NTAPI SeepAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    CORE *core;
    NTSTATUS status = CoreAdd(Driver, Pdo, sizeof(DEV), &InterfaceGuid, &core);
    DEV *dev;

    if (!NT_SUCCESS(status))
        return status;
    dev = (DEV *)core;
    dev->Work = IoAllocateWorkItem(core->Self);
    if (!dev->Work) {
        IoDetachDevice(core->Lower);
        RtlFreeUnicodeString(&core->Link);
        IoDeleteDevice(core->Self);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    dev->Mask = SEEP_ALL;
    ExInitializeFastMutex(&dev->Gate);
    KeInitializeDpc(&dev->Dpc, SeepDpc, dev);
    core->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    CoreEntry(Driver, SeepAdd);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SeepControl;
    return STATUS_SUCCESS;
}
