/* Devices, drivers, files, threads. */
#include "damage.h"

static PDEVICE_OBJECT Upper;
static HANDLE TheFile;

static PVOID PrepareDevice(VOID)
{
    PDEVICE_OBJECT Device = NULL;

    IoCreateDevice(TheDriver, 64, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Upper);
    IoCreateDevice(TheDriver, 64, NULL, FILE_DEVICE_DISK, 0, FALSE, &Device);
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    Upper->Flags &= ~DO_DEVICE_INITIALIZING;
    return Device;
}
static PDEVICE_OBJECT Shown; /* the device whose extension is damaged */
static PVOID PrepareDeviceExtension(VOID) { Shown = PrepareDevice(); return Shown->DeviceObjectExtension; }
static PDEVICE_OBJECT DeviceOf(PVOID At) { return Shown != NULL ? Shown : At; }

static VOID NTAPI TickIt(PDEVICE_OBJECT Device, PVOID Context) { UNREFERENCED_PARAMETER(Device); UNREFERENCED_PARAMETER(Context); }
static VOID SendTo(PVOID At)
{
    PIRP Irp = IoAllocateIrp(4, FALSE);

    IoGetNextIrpStackLocation(Irp)->MajorFunction = IRP_MJ_READ;
    IoCallDriver(DeviceOf(At), Irp);
}
static VOID AttachTo(PVOID At)
{
    PDEVICE_OBJECT Below = IoAttachDeviceToDeviceStack(Upper, DeviceOf(At));

    IoGetAttachedDevice(DeviceOf(At));
    if (Below != NULL) {
        IoDetachDevice(Below);
    }
}
static VOID AttachOver(PVOID At)
{
    PDEVICE_OBJECT Below = IoAttachDeviceToDeviceStack(DeviceOf(At), Upper);

    if (Below != NULL) {
        IoDetachDevice(Below);
    }
}
static VOID DeleteIt(PVOID At) { IoDeleteDevice(DeviceOf(At)); }
static VOID TopOf(PVOID At) { ObDereferenceObject(IoGetAttachedDeviceReference(DeviceOf(At))); }
static VOID StartItsPacket(PVOID At)
{
    IoStartPacket(DeviceOf(At), IoAllocateIrp(1, FALSE), NULL, NULL);
    IoStartPacket(DeviceOf(At), IoAllocateIrp(1, FALSE), NULL, NULL);
    IoStartNextPacket(DeviceOf(At), TRUE);
    IoStartNextPacketByKey(DeviceOf(At), FALSE, 3);
}
static VOID TimeIt(PVOID At)
{
    if (IoInitializeTimer(DeviceOf(At), TickIt, NULL) == STATUS_SUCCESS) {
        IoStartTimer(DeviceOf(At));
        Pause(1100);
        IoStopTimer(DeviceOf(At));
    }
}
static VOID BuildFor(PVOID At)
{
    IO_STATUS_BLOCK Block;
    LARGE_INTEGER Offset = {.QuadPart = 0};
    KEVENT *Event = Fresh(sizeof(KEVENT));
    PIRP Irp;

    KeInitializeEvent(Event, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_READ, DeviceOf(At), Fresh(64), 64, &Offset, Event, &Block);
    if (Irp != NULL) {
        IoCallDriver(DeviceOf(At), Irp);
    }
}
static VOID LogFor(PVOID At)
{
    PVOID Entry = IoAllocateErrorLogEntry(DeviceOf(At), 0x40);

    if (Entry != NULL) {
        IoWriteErrorLogEntry(Entry);
    }
}
static VOID WorkFor(PVOID At)
{
    PIO_WORKITEM Item = IoAllocateWorkItem(DeviceOf(At));

    if (Item != NULL) {
        IoFreeWorkItem(Item);
    }
    IoRegisterShutdownNotification(DeviceOf(At));
    IoUnregisterShutdownNotification(DeviceOf(At));
}
static VOID AskDevice(PVOID At)
{
    ULONG Number, Length;

    IoGetDeviceProperty(DeviceOf(At), DevicePropertyBusNumber, sizeof(Number), &Number, &Length);
    IoInvalidateDeviceState(DeviceOf(At));
    IoInvalidateDeviceRelations(DeviceOf(At), BusRelations);
}
static VOID DeleteOther(PVOID At) { UNREFERENCED_PARAMETER(At); IoDeleteDevice(Upper); }
static const USE DeviceUses[] = {SendTo, AttachTo, AttachOver, DeleteIt, TopOf, StartItsPacket, TimeIt, BuildFor, LogFor,
                                 WorkFor, AskDevice, DeleteOther, NULL};

static PVOID PrepareDriver(VOID) { return TheDriver; }
static PVOID PrepareDriverExtension(VOID) { return TheDriver->DriverExtension; }
static VOID MakeDevice(PVOID At)
{
    PDEVICE_OBJECT Device;

    UNREFERENCED_PARAMETER(At);
    if (IoCreateDevice(TheDriver, 16, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Device) == STATUS_SUCCESS) {
        SendTo(Device);
        IoDeleteDevice(Device);
    }
}
static VOID ExtendDriver(PVOID At)
{
    PVOID Extension;

    UNREFERENCED_PARAMETER(At);
    IoAllocateDriverObjectExtension(TheDriver, TheDriver, 16, &Extension);
    IoGetDriverObjectExtension(TheDriver, TheDriver);
    IoAllocateErrorLogEntry(TheDriver, 0x40);
}
static VOID LeaveDriver(PVOID At) { UNREFERENCED_PARAMETER(At); } /* the end of the run uses it */
static const USE DriverUses[] = {MakeDevice, ExtendDriver, LeaveDriver, NULL};

static PVOID PrepareFile(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\DirqlDamage");
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Block;
    PVOID File = NULL;

    InitializeObjectAttributes(&Attributes, &Name, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (ZwCreateFile(&TheFile, GENERIC_READ | SYNCHRONIZE, &Attributes, &Block, NULL, 0, 0, FILE_OPEN,
                     FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0) == STATUS_SUCCESS) {
        ObReferenceObjectByHandle(TheFile, 0, NULL, KernelMode, &File, NULL);
    }
    return File;
}
static VOID ReadFile(PVOID At)
{
    LARGE_INTEGER Offset = {.QuadPart = 0};
    IO_STATUS_BLOCK Block;
    UCHAR Bytes[4];

    UNREFERENCED_PARAMETER(At);
    ZwReadFile(TheFile, NULL, NULL, NULL, &Block, Bytes, 4, NULL, NULL);
    ZwWriteFile(TheFile, NULL, NULL, NULL, &Block, Bytes, 4, &Offset, NULL);
}
static VOID CloseFile(PVOID At) { ZwClose(TheFile); ObDereferenceObject(At); }
static VOID DeviceOfFile(PVOID At) { IoGetRelatedDeviceObject(At); CloseFile(At); }
static VOID ShareFile(PVOID At)
{
    SHARE_ACCESS Access;

    IoSetShareAccess(FILE_READ_DATA, FILE_SHARE_READ, At, &Access);
    IoCheckShareAccess(FILE_READ_DATA, FILE_SHARE_READ, At, &Access, TRUE);
    IoRemoveShareAccess(At, &Access);
}
static const USE FileUses[] = {ReadFile, CloseFile, DeviceOfFile, ShareFile, NULL};

static VOID NTAPI Rest(PVOID Context)
{
    LARGE_INTEGER Limit = {.QuadPart = -30000};

    KeDelayExecutionThread(KernelMode, FALSE, &Limit);
    UNREFERENCED_PARAMETER(Context);
    PsTerminateSystemThread(STATUS_SUCCESS);
}
static PVOID PrepareThread(VOID)
{
    OBJECT_ATTRIBUTES Attributes;
    PVOID Thread = NULL;
    HANDLE Handle;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, Rest, NULL) == STATUS_SUCCESS) {
        ObReferenceObjectByHandle(Handle, 0, NULL, KernelMode, &Thread, NULL);
        ZwClose(Handle);
        Pause(1);
    }
    return Thread;
}
static PVOID PrepareProcess(VOID) { return PsGetCurrentProcess(); }
static VOID AskProcess(PVOID At)
{
    ObReferenceObject(At);
    IoGetRequestorProcessId(OwnRequest);
    WaitBriefly(At);
    ObDereferenceObject(At);
}
static const USE ProcessUses[] = {AskProcess, NULL};
static VOID RankThread(PVOID At) { KeSetPriorityThread(At, 12); KeQueryPriorityThread(At); Pause(5); }
static VOID WaitThread(PVOID At)
{
    LARGE_INTEGER Limit = {.QuadPart = -100000};

    KeWaitForSingleObject(At, Executive, KernelMode, FALSE, &Limit);
    ObDereferenceObject(At);
}
static VOID OutliveThread(PVOID At) { UNREFERENCED_PARAMETER(At); Pause(5); }
static const USE ThreadUses[] = {RankThread, WaitThread, OutliveThread, NULL};
