/*
 * capread: a virtual sensor hub that tells programs what the bus below says of it: on start it asks the stack for its capabilities and keeps them for
 * IOCTL_CAP_GET, next to the name under which it was found.
 *
 * The bug: the IRP_MN_QUERY_CAPABILITIES that the driver makes itself goes down with the status it was born with (0) and not with
 * STATUS_NOT_SUPPORTED: Driver Verifier stops the machine, and a bus that does not know the request seems to have answered it.
 *
 * Device: ROOT\EECAPREAD
 * Rule: irp-status-not-set
 * Needs: nothing
 */
#include <ddk/wdm.h>
#define EE_PNP
#define EE_START
#include "../include/framed_by_calls.h"

#define IOCTL_CAP_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define NAME_CHARS 64

static const GUID CapGuid = { 0x7b1c0e51, 0x2a41, 0x4c11, { 0x9d, 0x10, 0x5e, 0x01, 0x11, 0x22, 0x33, 0x01 } };

typedef struct _CAP_ANSWER {
    ULONG Flags;                        /* as in DEVICE_CAPABILITIES, its first ULONG after Version */
    ULONG Address;
    ULONG UINumber;
    ULONG D1Latency, D2Latency, D3Latency;
    ULONG States[PowerSystemMaximum];
    ULONG NameBytes;
    WCHAR Name[NAME_CHARS];
} CAP_ANSWER;

typedef struct _DEV {
    EE Ee;                              /* first */
    FAST_MUTEX Mutex;
    BOOLEAN Known;
    CAP_ANSWER Answer;
} DEV;

static NTSTATUS QueryCapabilities(EE *ee, PDEVICE_CAPABILITIES caps)
{
    IO_STATUS_BLOCK ios;
    PIO_STACK_LOCATION sp;
    KEVENT done;
    NTSTATUS st;
    PIRP irp;

    RtlZeroMemory(caps, sizeof(*caps));
    caps->Size = sizeof(*caps);
    caps->Version = 1;
    caps->Address = (ULONG)-1;
    caps->UINumber = (ULONG)-1;
    KeInitializeEvent(&done, NotificationEvent, FALSE);
    irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, ee->Next, NULL, 0, NULL, &done, &ios);
    if (!irp)
        return STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
#endif
    sp = IoGetNextIrpStackLocation(irp);
    sp->MinorFunction = IRP_MN_QUERY_CAPABILITIES;
    sp->Parameters.DeviceCapabilities.Capabilities = caps;
    st = IoCallDriver(ee->Next, irp);
    if (st == STATUS_PENDING) {
        KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
        st = ios.Status;
    }
    return st;
}

/* A stack that does not tell is no reason not to start: programs get STATUS_NOT_SUPPORTED then. */
static NTSTATUS DrvStart(EE *ee, PCM_RESOURCE_LIST list)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    DEVICE_CAPABILITIES caps;
    CAP_ANSWER *a;
    ULONG i, got = 0;
    NTSTATUS st;

    UNREFERENCED_PARAMETER(list);
    a = ExAllocatePoolWithTag(PagedPool, sizeof(*a), EE_TAG);
    if (!a)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(a, sizeof(*a));
    st = QueryCapabilities(ee, &caps);
    if (NT_SUCCESS(st)) {
        RtlCopyMemory(&a->Flags, (PUCHAR)&caps + FIELD_OFFSET(DEVICE_CAPABILITIES, Version) + sizeof(USHORT), sizeof(ULONG));
        a->Address = caps.Address;
        a->UINumber = caps.UINumber;
        a->D1Latency = caps.D1Latency;
        a->D2Latency = caps.D2Latency;
        a->D3Latency = caps.D3Latency;
        for (i = 0; i < PowerSystemMaximum; i++)
            a->States[i] = caps.DeviceState[i];
        if (!NT_SUCCESS(IoGetDeviceProperty(ee->Pdo, DevicePropertyPhysicalDeviceObjectName, sizeof(a->Name), a->Name, &got)) || got > sizeof(a->Name))
            got = 0;
        a->NameBytes = got;
    }
    ExAcquireFastMutex(&d->Mutex);
    d->Known = NT_SUCCESS(st);
    if (d->Known)
        RtlCopyMemory(&d->Answer, a, sizeof(*a));
    ExReleaseFastMutex(&d->Mutex);
    ExFreePoolWithTag(a, EE_TAG);
    return STATUS_SUCCESS;
}

static VOID DrvStop(EE *ee, BOOLEAN touch)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);

    UNREFERENCED_PARAMETER(touch);
    ExAcquireFastMutex(&d->Mutex);
    d->Known = FALSE;
    ExReleaseFastMutex(&d->Mutex);
}

/* No request waits in this driver. */
static VOID DrvGone(EE *ee)
{
    UNREFERENCED_PARAMETER(ee);
}

static NTSTATUS CapGet(DEV *d, PIRP irp, PIO_STACK_LOCATION sp)
{
    NTSTATUS st = STATUS_SUCCESS;

    if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(CAP_ANSWER))
        return EeDone(irp, STATUS_BUFFER_TOO_SMALL, 0);
    ExAcquireFastMutex(&d->Mutex);
    if (d->Known)
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &d->Answer, sizeof(CAP_ANSWER));
    else
        st = STATUS_NOT_SUPPORTED;
    ExReleaseFastMutex(&d->Mutex);
    return EeDone(irp, st, NT_SUCCESS(st) ? sizeof(CAP_ANSWER) : 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    DEV *d = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, irp);

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    if (!d->Ee.Live)
        st = EeDone(irp, STATUS_DEVICE_NOT_READY, 0);
    else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_CAP_GET)
        st = CapGet(d, irp, sp);
    else
        st = EeDone(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    IoReleaseRemoveLock(&d->Ee.Remove, irp);
    return st;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    EE *ee;
    NTSTATUS st = EeNew(drv, pdo, sizeof(DEV), &ee);

    if (!NT_SUCCESS(st))
        return st;
    ExInitializeFastMutex(&CONTAINING_RECORD(ee, DEV, Ee)->Mutex);
    return EeAttach(ee, &CapGuid, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    EeDriver(drv, AddDevice);
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
