/*
 * controllers.sys: a controller object that two disks without hardware share. \\.\DirqlControllers tells each story of Stories below by its name
 * (IOCTL_TELL_STORY of control.h); \\.\DirqlDisk0 and \\.\DirqlDisk1 answer reads and
 * writes: StartIo asks for the controller, its ControllerControl routine starts a "transfer", whose end is a timer's DPC, which gives the
 * controller back. A request of no bytes is a seek: it needs the controller for a moment only (DeallocateObject).
 */
#include "seh/clang.h"

#define STORIES "controllers"
#include "control.h"
#include "waits.h"

#define DISKS 2
#define SECTOR 16

typedef struct _DISK {
    KTIMER Timer;
    KDPC Dpc;
    UCHAR Sector[SECTOR];
    ULONG Seeks;
} DISK, *PDISK;

typedef struct _SHARED {
    PDEVICE_OBJECT Holder; /* whose transfer is under way */
    ULONG Transfers;
} SHARED, *PSHARED;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlControllers");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlControllers");
static UNICODE_STRING DiskName[DISKS] = {RTL_CONSTANT_STRING(L"\\Device\\DirqlDisk0"),
                                         RTL_CONSTANT_STRING(L"\\Device\\DirqlDisk1")};
static UNICODE_STRING DiskLink[DISKS] = {RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlDisk0"),
                                         RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlDisk1")};

static PDRIVER_OBJECT TheDriver;
static PDEVICE_OBJECT ControlDevice, Disks[DISKS];
static PCONTROLLER_OBJECT Shared;

/* ---- the disks ---- */

static IO_ALLOCATION_ACTION NTAPI ControllerControl(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapRegisterBase, PVOID Context)
{
    PDISK Disk = Device->DeviceExtension;
    PSHARED State = Context;

    if (State->Holder != NULL || MapRegisterBase != NULL || Irp != Device->CurrentIrp) {
        KeBugCheckEx(0xE2, 1, (ULONG_PTR)State->Holder, (ULONG_PTR)Irp, 0);
    }
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0) {
        Disk->Seeks++;
        KeInsertQueueDpc(&Disk->Dpc, NULL, NULL);
        return DeallocateObject;
    }
    State->Holder = Device;
    KeSetTimer(&Disk->Timer, After(-50), &Disk->Dpc);
    return KeepObject;
}

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    IoAllocateController(Shared, Device, ControllerControl, Shared->ControllerExtension);
}

/* The transfer, or the seek, is over. */
static VOID NTAPI Finished(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE_OBJECT Device = Context;
    PDISK Disk = Device->DeviceExtension;
    PIRP Irp = Device->CurrentIrp;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = min(Stack->Parameters.Read.Length, SECTOR);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (Length != 0) {
        PSHARED State = Shared->ControllerExtension;

        if (Stack->MajorFunction == IRP_MJ_WRITE) {
            RtlCopyMemory(Disk->Sector, Irp->AssociatedIrp.SystemBuffer, Length);
        } else {
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Disk->Sector, Length);
        }
        if (State->Holder != Device) {
            KeBugCheckEx(0xE2, 2, (ULONG_PTR)State->Holder, (ULONG_PTR)Device, 0);
        }
        State->Holder = NULL;
        State->Transfers++;
        IoFreeController(Shared);
    }
    IoStartNextPacket(Device, FALSE);
    Complete(Irp, STATUS_SUCCESS, Length);
}

static NTSTATUS NTAPI DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (Device == ControlDevice) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    IoMarkIrpPending(Irp);
    IoStartPacket(Device, Irp, NULL, NULL);
    return STATUS_PENDING;
}

/* ---- stories ---- */

#define WAITERS 4
#include "waiters.h"

static PVOID ExpectedContext;

static IO_ALLOCATION_ACTION NTAPI Notes(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapRegisterBase, PVOID Context)
{
    ULONG Index;

    for (Index = 0; Index < WAITERS && Waiters[Index] != Device; Index++) {
    }
    Mistakes += Irp != NumberOf(Index) || MapRegisterBase != NULL || KeGetCurrentIrql() != DISPATCH_LEVEL ||
                Context != (PVOID)((PUCHAR)ExpectedContext + Index);
    Order[Ordered++] = Index;
    return Action;
}

static VOID Ask(PCONTROLLER_OBJECT Controller, ULONG Index)
{
    IoAllocateController(Controller, Waiters[Index], Notes, (PUCHAR)ExpectedContext + Index);
}

/* What IoCreateController makes. */
static ULONG Layout(VOID)
{
    PCONTROLLER_OBJECT Controller = IoCreateController(100);
    ULONG Index;

    CHECK(sizeof(CONTROLLER_OBJECT) == 0x48);
    CHECK(Controller != NULL && Controller->Type == IO_TYPE_CONTROLLER);
    CHECK(Controller->Size >= (CSHORT)sizeof(CONTROLLER_OBJECT));
    CHECK(Controller->ControllerExtension == (PVOID)(Controller + 1));
    for (Index = 0; Index < 100; Index++) {
        CHECK(((PUCHAR)Controller->ControllerExtension)[Index] == 0);
    }
    CHECK(Controller->DeviceWaitQueue.Size == sizeof(KDEVICE_QUEUE) && !Controller->DeviceWaitQueue.Busy);
    CHECK(IsListEmpty(&Controller->DeviceWaitQueue.DeviceListHead));
    IoDeleteController(Controller);
    return 0;
}

/* Each device gets it in the order of asking, when the one before gives it back. */
static ULONG InOrder(VOID)
{
    PCONTROLLER_OBJECT Controller = IoCreateController(sizeof(ULONG));
    KIRQL Irql;
    ULONG Index;

    CHECK(Controller != NULL);
    CHECK_ALL(MakeWaiters());
    ExpectedContext = Controller->ControllerExtension;
    Action = KeepObject;
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Ask(Controller, 2);
    Ask(Controller, 0);
    Ask(Controller, 3);
    Ask(Controller, 1);
    KeLowerIrql(Irql);
    CHECK(Ordered == 1 && Order[0] == 2 && Controller->DeviceWaitQueue.Busy);
    CHECK(Controller->DeviceWaitQueue.DeviceListHead.Flink ==
          &Waiters[0]->Queue.Wcb.WaitQueueEntry.DeviceListEntry);
    CHECK(Waiters[3]->Queue.Wcb.WaitQueueEntry.Inserted && Waiters[3]->Queue.Wcb.DeviceRoutine == Notes);
    for (Index = 1; Index < WAITERS; Index++) {
        KeRaiseIrql(DISPATCH_LEVEL, &Irql);
        IoFreeController(Controller);
        KeLowerIrql(Irql);
        CHECK(Ordered == Index + 1 && Controller->DeviceWaitQueue.Busy);
    }
    CHECK(Order[1] == 0 && Order[2] == 3 && Order[3] == 1);
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    IoFreeController(Controller);
    KeLowerIrql(Irql);
    CHECK(Ordered == WAITERS && !Controller->DeviceWaitQueue.Busy && Mistakes == 0);
    IoDeleteController(Controller);
    DeleteWaiters();
    return 0;
}

/* DeallocateObject gives it to the next at once: one call of IoFreeController serves all that wait. */
static ULONG AtOnce(VOID)
{
    PCONTROLLER_OBJECT Controller = IoCreateController(sizeof(ULONG));
    KIRQL Irql;

    CHECK(Controller != NULL);
    CHECK_ALL(MakeWaiters());
    ExpectedContext = Controller->ControllerExtension;
    Action = DeallocateObject;
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Ask(Controller, 1);
    Ask(Controller, 0);
    KeLowerIrql(Irql);
    CHECK(Ordered == 2 && Order[0] == 1 && Order[1] == 0 && !Controller->DeviceWaitQueue.Busy);
    Action = KeepObject;
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Ask(Controller, 3);
    Ask(Controller, 2);
    Ask(Controller, 0);
    Ask(Controller, 1);
    Action = DeallocateObject;
    IoFreeController(Controller);
    KeLowerIrql(Irql);
    CHECK(Ordered == 6 && Order[2] == 3 && Order[3] == 2 && Order[4] == 0 && Order[5] == 1);
    CHECK(!Controller->DeviceWaitQueue.Busy && Mistakes == 0);
    IoDeleteController(Controller);
    DeleteWaiters();
    return 0;
}

/* What the disks have done: all was transferred, and nothing waits. */
static ULONG Disked(VOID)
{
    PSHARED State = Shared->ControllerExtension;

    CHECK(State->Holder == NULL && !Shared->DeviceWaitQueue.Busy);
    CHECK(State->Transfers == 8);
    CHECK(((PDISK)Disks[0]->DeviceExtension)->Seeks == 1 && ((PDISK)Disks[1]->DeviceExtension)->Seeks == 1);
    return 0;
}

static const STORY Stories[] = {
    STORY(Layout), STORY(InOrder), STORY(AtOnce), STORY(Disked),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ULONG Index;

    for (Index = 0; Index < DISKS; Index++) {
        if (Disks[Index] != NULL) {
            IoDeleteSymbolicLink(&DiskLink[Index]);
            IoDeleteDevice(Disks[Index]);
        }
    }
    if (Shared != NULL) {
        IoDeleteController(Shared);
    }
    ControlUnload(Driver);
}

static NTSTATUS MakeDisk(PDRIVER_OBJECT Driver, ULONG Index)
{
    PDEVICE_OBJECT Device;
    PDISK Disk;
    NTSTATUS Status =
        IoCreateDevice(Driver, sizeof(DISK), &DiskName[Index], FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = IoCreateSymbolicLink(&DiskLink[Index], &DiskName[Index]);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Disk = Device->DeviceExtension;
    KeInitializeTimer(&Disk->Timer);
    KeInitializeDpc(&Disk->Dpc, Finished, Device);
    Device->Flags |= DO_BUFFERED_IO;
    Disks[Index] = Device;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
    ULONG Index;

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    TheDriver = Driver;
    ControlDevice = Driver->DeviceObject;
    Driver->MajorFunction[IRP_MJ_READ] = DispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchReadWrite;
    Driver->DriverStartIo = StartIo;
    Driver->DriverUnload = Unload;
    Shared = IoCreateController(sizeof(SHARED));
    Status = Shared == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
    for (Index = 0; Index < DISKS && NT_SUCCESS(Status); Index++) {
        Status = MakeDisk(Driver, Index);
    }
    if (!NT_SUCCESS(Status)) {
        Unload(Driver);
    }
    return Status;
}
