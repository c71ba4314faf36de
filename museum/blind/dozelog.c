/*
 * dozelog: keeps a diary of the machine's sleep: it notes when the system is to go to another power state and when its own device has got there,
 * and programs read the entries.
 *
 * The bug: the result of PoRequestPowerIrp is not looked at. When it fails (no memory), the device's power request never comes, so the system power
 * request that waits for it is never completed: the machine hangs on its way to sleep (or 0x9F DRIVER_POWER_STATE_FAILURE).
 *
 * Device: ROOT\DOZELOG
 * Rule: power-irp-overdue
 * Needs: power, failure
 */
#include <ddk/wdm.h>
#include "../include/held_gate.h"

#define ENTRIES 64u

enum { DozeTold, DozeDone, DozeFailed };

typedef struct _DOZE_ENTRY {
    LONG64 Time;  /* system time */
    ULONG State;  /* SYSTEM_POWER_STATE */
    ULONG What;   /* Doze... */
    LONG Status;
    ULONG Number; /* running */
} DOZE_ENTRY;

#define IOCTL_DOZE_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)

DRIVER_INITIALIZE DriverEntry;

/* {3F2E1D0C-9B8A-4796-8574-635241302F05} */
static const GUID DozeGuid = {0x3f2e1d0c, 0x9b8a, 0x4796, {0x85, 0x74, 0x63, 0x52, 0x41, 0x30, 0x2f, 0x05}};

typedef struct _DOZE {
    XF X;
    KSPIN_LOCK Lock; /* guards the rest; the newest entry overwrites the oldest */
    ULONG Number;
    ULONG First;
    ULONG Used;
    DOZE_ENTRY Entry[ENTRIES];
} DOZE, *PDOZE;

static VOID Note(PDOZE z, ULONG State, ULONG What, NTSTATUS Status)
{
    LARGE_INTEGER Time;
    DOZE_ENTRY *e;
    KIRQL Irql;

    KeQuerySystemTime(&Time);
    KeAcquireSpinLock(&z->Lock, &Irql);
    if (z->Used == ENTRIES) {
        z->First = (z->First + 1) % ENTRIES;
        z->Used--;
    }
    e = &z->Entry[(z->First + z->Used) % ENTRIES];
    z->Used++;
    e->Time = Time.QuadPart;
    e->State = State;
    e->What = What;
    e->Status = Status;
    e->Number = z->Number++;
    KeReleaseSpinLock(&z->Lock, Irql);
}

/* ---------------------------------------------------------------- system power, instead of the frame's */

/* Our device's own power request is done: so is the system's. */
static VOID NTAPI DozeDeviceDone(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Io)
{
    PIRP Irp = Context;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PDOZE z = s->DeviceObject->DeviceExtension;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    Note(z, s->Parameters.Power.State.SystemState, NT_SUCCESS(Io->Status) ? DozeDone : DozeFailed, Io->Status);
    Irp->IoStatus.Status = Io->Status;
    PoStartNextPowerIrp(Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    XfLeave(&z->X);
}

/* The system power request has passed the drivers below: now our device. */
static NTSTATUS NTAPI DozeSystemDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDOZE z = Context;
    SYSTEM_POWER_STATE System = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState;
    NTSTATUS Status = Irp->IoStatus.Status;
    POWER_STATE State;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Status)) {
        State.DeviceState = System == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        Status = PoRequestPowerIrp(z->X.Self, IRP_MN_SET_POWER, State, DozeDeviceDone, Irp, NULL);
#ifdef FIXED
        if (Status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
#else
        return STATUS_MORE_PROCESSING_REQUIRED;
#endif
    }
    Note(z, System, DozeFailed, Status);
    PoStartNextPowerIrp(Irp);
    XfLeave(&z->X);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DozePower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDOZE z = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (s->MinorFunction != IRP_MN_SET_POWER || s->Parameters.Power.Type != SystemPowerState)
        return XfDispatchPower(Device, Irp);
    Status = XfEnter(&z->X);
    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        Irp->IoStatus.Status = Status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return Status;
    }
    Note(z, s->Parameters.Power.State.SystemState, DozeTold, STATUS_SUCCESS);
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, DozeSystemDone, z, TRUE, TRUE, TRUE);
    PoCallDriver(z->X.Lower, Irp);
    return STATUS_PENDING;
}

/* ---------------------------------------------------------------- reading */

static NTSTATUS ReadEntries(PDOZE z, PIRP Irp, ULONG Length)
{
    DOZE_ENTRY *To = Irp->AssociatedIrp.SystemBuffer;
    ULONG n = 0;
    KIRQL Irql;

    if (Length < sizeof(DOZE_ENTRY))
        return STATUS_BUFFER_TOO_SMALL;
    KeAcquireSpinLock(&z->Lock, &Irql);
    while (z->Used != 0 && n < Length / sizeof(DOZE_ENTRY)) {
        To[n++] = z->Entry[z->First];
        z->First = (z->First + 1) % ENTRIES;
        z->Used--;
    }
    KeReleaseSpinLock(&z->Lock, Irql);
    Irp->IoStatus.Information = n * sizeof(DOZE_ENTRY);
    return STATUS_SUCCESS;
}

static NTSTATUS DevCheck(PXF x, PIRP Irp)
{
    PDOZE z = CONTAINING_RECORD(x, DOZE, X);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    KIRQL Irql;

    if (s->MajorFunction == IRP_MJ_READ)
        return ReadEntries(z, Irp, s->Parameters.Read.Length);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL || s->Parameters.DeviceIoControl.IoControlCode != IOCTL_DOZE_CLEAR)
        return STATUS_INVALID_DEVICE_REQUEST;
    KeAcquireSpinLock(&z->Lock, &Irql);
    z->Used = 0;
    KeReleaseSpinLock(&z->Lock, Irql);
    return STATUS_SUCCESS;
}

/* Nothing goes through the queue. */
static VOID DevIo(PXF x, PIRP Irp)
{
    XfFinish(x, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS DevInit(PXF x)
{
    KeInitializeSpinLock(&CONTAINING_RECORD(x, DOZE, X)->Lock);
    return STATUS_SUCCESS;
}

static VOID DevFree(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(List);
    return STATUS_SUCCESS;
}

static VOID DevStop(PXF x, BOOLEAN Alive)
{
    UNREFERENCED_PARAMETER(x);
    UNREFERENCED_PARAMETER(Alive);
}

static VOID DevUp(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevDown(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevGone(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    XfInit(Driver, sizeof(DOZE), &DozeGuid, DO_BUFFERED_IO);
    Driver->MajorFunction[IRP_MJ_POWER] = DozePower;
    return STATUS_SUCCESS;
}
