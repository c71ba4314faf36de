/*
 * thermo: an invented temperature card. IOCTL_TH_READ reads the temperature (tenths of a degree), IOCTL_TH_LIMIT
 * sets the alarm limit, IOCTL_TH_ALARM waits for an alarm. Each alarm is noted in the
 * device's hardware key (values Alarms, LastAlarm) by a work item.
 * Registers (BAR0): 0x00 identification 0x7E4A0003, 0x04 interrupt status (1 alarm; write 1
 * to clear; again at each measurement above the limit), 0x08 interrupt enable, 0x0C temperature, 0x10 limit.
 *
 * The bug: the DPC queues the work item again though it may still be queued.
 *
 * Device: PCI\VEN_1DA7&DEV_0003
 * Rule: work-item-queued
 * Needs: schedule, device
 */
#include "../include/pausing_frame.h"

#define R_ID     0x00
#define R_STATUS 0x04
#define R_ENABLE 0x08
#define R_TEMP   0x0C
#define R_LIMIT  0x10
#define LIMIT_MAX 1500u

#define IOCTL_TH_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x950, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TH_LIMIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TH_ALARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x952, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID ThermoInterface = { 0xd2b70c11, 0x3f7e, 0x4a02, { 0x90, 0x6b, 0x27, 0xe1, 0x5d, 0x03, 0xc4, 0x03 } };

typedef struct {
    FRAME Frame;
    FRQ Waits;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    PIO_WORKITEM Item;
    volatile LONG Queued;
    volatile LONG Alarms;
    volatile LONG Last;         /* temperature at the last alarm */
    volatile LONG Limit;
} THERMO, *PTHERMO;

static inline ULONG Rd(PTHERMO T, ULONG R) { return READ_REGISTER_ULONG((PULONG)(T->Regs + R)); }
static inline VOID Wr(PTHERMO T, ULONG R, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(T->Regs + R), V); }

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Ctx)
{
    PTHERMO t = Ctx;
    ULONG status = Rd(t, R_STATUS);
    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0xFFFFFFFF || !(status & 1))
        return FALSE;
    Wr(t, R_STATUS, 1);
    InterlockedExchange(&t->Last, (LONG)Rd(t, R_TEMP));
    InterlockedIncrement(&t->Alarms);
    KeInsertQueueDpc(&t->Dpc, NULL, NULL);
    return TRUE;
}

/* PASSIVE_LEVEL; ends with giving back the remove lock that the DPC took for it */
static VOID NoteAlarm(PDEVICE_OBJECT Dev, PVOID Ctx)
{
    PTHERMO t = Ctx;
    UNICODE_STRING alarms = RTL_CONSTANT_STRING(L"Alarms");
    UNICODE_STRING last = RTL_CONSTANT_STRING(L"LastAlarm");
    HANDLE key;
    LONG value;
    UNREFERENCED_PARAMETER(Dev);

    InterlockedExchange(&t->Queued, 0);     /* alarms from here on want another run */
    if (NT_SUCCESS(IoOpenDeviceRegistryKey(t->Frame.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_WRITE, &key))) {
        value = t->Alarms;
        ZwSetValueKey(key, &alarms, 0, REG_DWORD, &value, sizeof value);
        value = t->Last;
        ZwSetValueKey(key, &last, 0, REG_DWORD, &value, sizeof value);
        ZwClose(key);
    }
    IoReleaseRemoveLock(&t->Frame.Lock, t->Item);
}

static VOID DpcRoutine(PKDPC Dpc, PVOID Ctx, PVOID A, PVOID B)
{
    PTHERMO t = Ctx;
    ULONG left;
    PIRP irp;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    for (left = *(volatile ULONG *)&t->Waits.Count; left && (irp = FrqTake(&t->Waits, NULL)) != NULL; left--) {
        *(LONG *)irp->AssociatedIrp.SystemBuffer = t->Last;
        irp->IoStatus.Information = sizeof(LONG);
        FrDone(&t->Frame, irp, STATUS_SUCCESS);
    }
#ifdef FIXED
    if (InterlockedExchange(&t->Queued, 1))
        return;                             /* it will see this alarm too */
#else
    InterlockedExchange(&t->Queued, 1);
#endif
    if (NT_SUCCESS(IoAcquireRemoveLock(&t->Frame.Lock, t->Item)))
        IoQueueWorkItem(t->Item, NoteAlarm, DelayedWorkQueue, t);
}

static VOID Stop(PDEVICE_OBJECT Dev)
{
    PTHERMO t = Dev->DeviceExtension;
    if (t->Interrupt) {
        Wr(t, R_ENABLE, 0);
        IoDisconnectInterrupt(t->Interrupt);
        t->Interrupt = NULL;
    }
    KeFlushQueuedDpcs();
    if (t->Regs)
        MmUnmapIoSpace(t->Regs, 0x20);
    t->Regs = NULL;
}

static VOID Free(PDEVICE_OBJECT Dev)        /* all work is done: the remove lock was awaited */
{
    IoFreeWorkItem(((PTHERMO)Dev->DeviceExtension)->Item);
}

static NTSTATUS Start(PDEVICE_OBJECT Dev, PCM_RESOURCE_LIST Translated, PCM_RESOURCE_LIST Raw)
{
    PTHERMO t = Dev->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = FrResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = FrResource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Raw);
    if (!mem || !irq || mem->u.Memory.Length < 0x20)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    t->Regs = MmMapIoSpace(mem->u.Memory.Start, 0x20, MmNonCached);
    if (!t->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Rd(t, R_ID) != 0x7E4A0003) {
        Stop(Dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    Wr(t, R_ENABLE, 0);
    Wr(t, R_LIMIT, (ULONG)t->Limit);
    Wr(t, R_STATUS, 1);
    status = FrConnect(&t->Interrupt, Isr, t, irq);
    if (!NT_SUCCESS(status)) {
        t->Interrupt = NULL;
        Stop(Dev);
        return status;
    }
    Wr(t, R_ENABLE, 1);
    return STATUS_SUCCESS;
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    Wr(Dev->DeviceExtension, R_ENABLE, 0);
    KeFlushQueuedDpcs();
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PTHERMO t = Dev->DeviceExtension;
    Wr(t, R_LIMIT, (ULONG)t->Limit);
    Wr(t, R_STATUS, 1);
    Wr(t, R_ENABLE, 1);
}

static VOID Flush(PDEVICE_OBJECT Dev) { FrqShut(&((PTHERMO)Dev->DeviceExtension)->Waits); }
static VOID Cleanup(PDEVICE_OBJECT Dev, PFILE_OBJECT File) { FrqCancelFile(&((PTHERMO)Dev->DeviceExtension)->Waits, File); }

static NTSTATUS Io(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PTHERMO t = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buf = Irp->AssociatedIrp.SystemBuffer;
    ULONG value;
    NTSTATUS status;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TH_READ:
        if (out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        status = FrEnter(&t->Frame);
        if (!NT_SUCCESS(status))
            return status;
        value = Rd(t, R_TEMP);
        FrLeave(&t->Frame);
        if (value == 0xFFFFFFFF)
            return STATUS_DEVICE_NOT_CONNECTED;
        *buf = value;
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    case IOCTL_TH_LIMIT:
        if (in < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        value = *buf;
        if (value > LIMIT_MAX)
            return STATUS_INVALID_PARAMETER;
        status = FrEnter(&t->Frame);
        if (NT_SUCCESS(status)) {
            InterlockedExchange(&t->Limit, (LONG)value);
            Wr(t, R_LIMIT, value);
            FrLeave(&t->Frame);
        }
        return status;
    case IOCTL_TH_ALARM:
        return out < sizeof(LONG) ? STATUS_BUFFER_TOO_SMALL : FrqPut(&t->Waits, Irp);
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const FRAME_OPS Ops = {
    .Start = Start, .Stop = Stop, .Flush = Flush, .Free = Free, .PowerDown = PowerDown, .PowerUp = PowerUp,
    .Cleanup = Cleanup, .Io = Io
};

static NTSTATUS Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PTHERMO t;
    NTSTATUS status = FrAdd(Driver, Pdo, sizeof(THERMO), &Ops, &ThermoInterface, 0, &dev);
    if (!NT_SUCCESS(status))
        return status;
    t = dev->DeviceExtension;
    t->Limit = 700;
    KeInitializeDpc(&t->Dpc, DpcRoutine, t);
    status = FrqInit(&t->Waits, &t->Frame);
    if (NT_SUCCESS(status)) {
        t->Item = IoAllocateWorkItem(dev);
        if (!t->Item)
            status = STATUS_INSUFFICIENT_RESOURCES;
    }
    if (!NT_SUCCESS(status)) {
        FrUnadd(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    FrInit(Driver, Add);
    return STATUS_SUCCESS;
}
