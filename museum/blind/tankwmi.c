/*
 * tankwmi: a simulated tank whose level, capacity, alarm mark and name are a WMI data block.
 * A WMI client reads them and may set the alarm mark (item 3); an application with a
 * handle fills and drains the tank and names it (IOCTL_TW_FLOW, IOCTL_TW_NAME).
 *
 * The bug: the WMI query writes the block when any room is left in the buffer, without comparing it with the block's size.
 *
 * Device: ROOT\TANKWMI
 * Rule: pool-overrun
 * Needs: ioctl
 */
#include "../include/pausing_frame.h"
#include <wmistr.h>
#include <ddk/wmilib.h>

#define NAME_MAX 200        /* characters */
#define IOCTL_TW_FLOW CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TW_NAME CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID TankInterface = { 0x91e2b0c4, 0x2b57, 0x4d0f, { 0xa3, 0x11, 0x70, 0x0d, 0x52, 0xe8, 0x90, 0x01 } };
static GUID TankBlock = { 0x91e2b0c4, 0x2b57, 0x4d0f, { 0xa3, 0x11, 0x70, 0x0d, 0x52, 0xe8, 0x90, 0x02 } };

/* class Tank { uint32 Level; uint32 Capacity; uint32 Alarm; string Name; } */
#include <pshpack1.h>
typedef struct { ULONG Level, Capacity, Alarm; USHORT NameBytes; WCHAR Name[1]; } TANK_BLOCK;
#include <poppack.h>
#define BLOCK_HEAD ((ULONG)FIELD_OFFSET(TANK_BLOCK, Name))

typedef struct {
    FRAME Frame;
    BOOLEAN Registered;
    WMILIB_CONTEXT Wmi;
    FAST_MUTEX Mutex;           /* guards what follows */
    ULONG Level, Capacity, Alarm;
    USHORT NameBytes;
    WCHAR Name[NAME_MAX];
} TANK, *PTANK;

static WMIGUIDREGINFO TankGuids[] = { { &TankBlock, 1, 0 } };
static UNICODE_STRING ServicePath;

static NTSTATUS TankRegInfo(PDEVICE_OBJECT Dev, PULONG Flags, PUNICODE_STRING Instance, PUNICODE_STRING *Path,
                            PUNICODE_STRING Mof, PDEVICE_OBJECT *Pdo)
{
    UNREFERENCED_PARAMETER(Instance);
    UNREFERENCED_PARAMETER(Mof);
    *Flags = WMIREG_FLAG_INSTANCE_PDO;
    *Path = &ServicePath;
    *Pdo = FRAMEOF(Dev)->Pdo;
    return STATUS_SUCCESS;
}

static NTSTATUS TankQuery(PDEVICE_OBJECT Dev, PIRP Irp, ULONG Guid, ULONG Instance, ULONG Count,
                          PULONG Lengths, ULONG Avail, PUCHAR Buffer)
{
    PTANK t = Dev->DeviceExtension;
    TANK_BLOCK *b = (TANK_BLOCK *)Buffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG size;

    if (Guid != 0)
        return WmiCompleteRequest(Dev, Irp, STATUS_WMI_GUID_NOT_FOUND, 0, IO_NO_INCREMENT);
    if (Instance != 0 || Count != 1)
        return WmiCompleteRequest(Dev, Irp, STATUS_WMI_INSTANCE_NOT_FOUND, 0, IO_NO_INCREMENT);
    ExAcquireFastMutex(&t->Mutex);
    size = BLOCK_HEAD + t->NameBytes;
#ifdef FIXED
    if (!Lengths || Avail < size)
#else
    if (!Lengths || Avail == 0)
#endif
        status = STATUS_BUFFER_TOO_SMALL;
    else {
        b->Level = t->Level;
        b->Capacity = t->Capacity;
        b->Alarm = t->Alarm;
        b->NameBytes = t->NameBytes;
        RtlCopyMemory(Buffer + BLOCK_HEAD, t->Name, t->NameBytes);
        Lengths[0] = size;
    }
    ExReleaseFastMutex(&t->Mutex);
    return WmiCompleteRequest(Dev, Irp, status, size, IO_NO_INCREMENT);
}

static NTSTATUS TankSetItem(PDEVICE_OBJECT Dev, PIRP Irp, ULONG Guid, ULONG Instance, ULONG Item, ULONG Size, PUCHAR Buffer)
{
    PTANK t = Dev->DeviceExtension;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG mark;

    if (Guid != 0)
        status = STATUS_WMI_GUID_NOT_FOUND;
    else if (Instance != 0)
        status = STATUS_WMI_INSTANCE_NOT_FOUND;
    else if (Item == 1 || Item == 2 || Item == 4)
        status = STATUS_WMI_READ_ONLY;
    else if (Item != 3)
        status = STATUS_WMI_ITEMID_NOT_FOUND;
    else if (Size < sizeof mark)
        status = STATUS_WMI_SET_FAILURE;
    else {
        RtlCopyMemory(&mark, Buffer, sizeof mark);
        ExAcquireFastMutex(&t->Mutex);
        if (mark <= t->Capacity)
            t->Alarm = mark;
        else
            status = STATUS_WMI_SET_FAILURE;
        ExReleaseFastMutex(&t->Mutex);
    }
    return WmiCompleteRequest(Dev, Irp, status, 0, IO_NO_INCREMENT);
}

static NTSTATUS TankWmi(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PTANK t = Dev->DeviceExtension;
    SYSCTL_IRP_DISPOSITION what;
    NTSTATUS status = WmiSystemControl(&t->Wmi, Dev, Irp, &what);
    switch (what) {
    case IrpProcessed:
        return status;
    case IrpNotCompleted:
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    default:
        IoSkipCurrentIrpStackLocation(Irp);
        return IoCallDriver(t->Frame.Lower, Irp);
    }
}

static NTSTATUS TankStart(PDEVICE_OBJECT Dev, PCM_RESOURCE_LIST Translated, PCM_RESOURCE_LIST Raw)
{
    PTANK t = Dev->DeviceExtension;
    UNREFERENCED_PARAMETER(Translated);
    UNREFERENCED_PARAMETER(Raw);
    if (!t->Registered)         /* the device works without WMI as well */
        t->Registered = NT_SUCCESS(IoWMIRegistrationControl(Dev, WMIREG_ACTION_REGISTER));
    return STATUS_SUCCESS;
}

static VOID TankFlush(PDEVICE_OBJECT Dev)
{
    PTANK t = Dev->DeviceExtension;
    if (t->Registered) {
        t->Registered = FALSE;
        IoWMIRegistrationControl(Dev, WMIREG_ACTION_DEREGISTER);
    }
}

static NTSTATUS TankIo(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PTANK t = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    NTSTATUS status = STATUS_SUCCESS;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TW_FLOW: {
        LONGLONG level;
        BOOLEAN answer = sp->Parameters.DeviceIoControl.OutputBufferLength >= sizeof(ULONG);
        if (in < sizeof(LONG))
            return STATUS_BUFFER_TOO_SMALL;
        ExAcquireFastMutex(&t->Mutex);
        level = (LONGLONG)t->Level + *(LONG *)buf;
        if (level < 0 || level > t->Capacity)
            status = STATUS_INVALID_PARAMETER;
        else {
            t->Level = (ULONG)level;
            if (answer) {
                *(ULONG *)buf = t->Level;
                Irp->IoStatus.Information = sizeof(ULONG);
            }
        }
        ExReleaseFastMutex(&t->Mutex);
        return status;
    }
    case IOCTL_TW_NAME:
        if (in % sizeof(WCHAR) || in > NAME_MAX * sizeof(WCHAR))
            return STATUS_INVALID_PARAMETER;
        ExAcquireFastMutex(&t->Mutex);
        t->NameBytes = (USHORT)in;
        if (in)
            RtlCopyMemory(t->Name, buf, in);
        ExReleaseFastMutex(&t->Mutex);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const FRAME_OPS TankOps = { .Start = TankStart, .Flush = TankFlush, .Io = TankIo, .Wmi = TankWmi };

static NTSTATUS TankAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PTANK t;
    NTSTATUS status = FrAdd(Driver, Pdo, sizeof(TANK), &TankOps, &TankInterface, 0, &dev);
    if (!NT_SUCCESS(status))
        return status;
    t = dev->DeviceExtension;
    ExInitializeFastMutex(&t->Mutex);
    t->Capacity = 10000;
    t->Alarm = 9000;
    t->NameBytes = 4 * sizeof(WCHAR);
    RtlCopyMemory(t->Name, L"Tank", t->NameBytes);
    t->Wmi.GuidCount = 1;
    t->Wmi.GuidList = TankGuids;
    t->Wmi.QueryWmiRegInfo = TankRegInfo;
    t->Wmi.QueryWmiDataBlock = TankQuery;
    t->Wmi.SetWmiDataItem = TankSetItem;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID TankUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    ExFreePoolWithTag(ServicePath.Buffer, FR_TAG);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    ServicePath.Buffer = ExAllocatePoolWithTag(PagedPool, Path->Length, FR_TAG);
    if (!ServicePath.Buffer)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(ServicePath.Buffer, Path->Buffer, Path->Length);
    ServicePath.Length = ServicePath.MaximumLength = Path->Length;
    FrInit(Driver, TankAdd);
    Driver->DriverUnload = TankUnload;
    return STATUS_SUCCESS;
}
