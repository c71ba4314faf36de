/*
 * A virtual device that tells programs what its bus says it can do (IOCTL_ABILITIES_GET). Each handle has a request of its own to ask the bus with,
 * which is charged to the process that opened it, and is used again and again.
 *
 * The bug: before it is used again the request is initialised by IoInitializeIrp, which is not for one of IoAllocateIrp's: that quota was charged for
 * it is forgotten, and so the process never gets it back. It shows when a program asks.
 *
 * Device: Root\VirtualAbilities
 * Rule: irp-initialized-again
 * Needs: ioctl
 */
#include "../include/function.h"

#define IOCTL_ABILITIES_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA78, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo;
} DEVICE, *PDEVICE;

/* What belongs to a handle. */
typedef struct _ASKER {
    PIRP Irp;
    KEVENT Free; /* the request is not in use */
} ASKER, *PASKER;

#define ASKER_TAG 'rksA'

static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PASKER Asker;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    Asker = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Asker), ASKER_TAG);
    if (Asker == NULL) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    KeInitializeEvent(&Asker->Free, SynchronizationEvent, TRUE);
    Asker->Irp = IoAllocateIrp(Own->Fdo.Lower->StackSize, TRUE);
    if (Asker->Irp == NULL) {
        ExFreePoolWithTag(Asker, ASKER_TAG);
        return FdoEnd(&Own->Fdo, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = Asker;
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PASKER Asker = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    UNREFERENCED_PARAMETER(Device);
    IoFreeIrp(Asker->Irp);
    ExFreePoolWithTag(Asker, ASKER_TAG);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* The request is the caller's. */
static NTSTATUS Ask(PDEVICE Own, PIRP Irp, PDEVICE_CAPABILITIES Capabilities)
{
    PIO_STACK_LOCATION Stack;
    KEVENT Done;

#ifdef FIXED
    IoReuseIrp(Irp, STATUS_NOT_SUPPORTED);
#else
    IoInitializeIrp(Irp, IoSizeOfIrp(Own->Fdo.Lower->StackSize), Own->Fdo.Lower->StackSize);
    Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
#endif
    RtlZeroMemory(Capabilities, sizeof(*Capabilities));
    Capabilities->Size = sizeof(*Capabilities);
    Capabilities->Version = 1;
    Capabilities->Address = MAXULONG;
    Capabilities->UINumber = MAXULONG;
    Stack = IoGetNextIrpStackLocation(Irp);
    Stack->MajorFunction = IRP_MJ_PNP;
    Stack->MinorFunction = IRP_MN_QUERY_CAPABILITIES;
    Stack->Parameters.DeviceCapabilities.Capabilities = Capabilities;
    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    IoSetCompletionRoutine(Irp, FdoIsDone, &Done, TRUE, TRUE, TRUE);
    if (IoCallDriver(Own->Fdo.Lower, Irp) == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
    }
    return Irp->IoStatus.Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PASKER Asker = Stack->FileObject->FsContext;
    DEVICE_CAPABILITIES Capabilities;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_ABILITIES_GET) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(Capabilities)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&Asker->Free, Executive, KernelMode, FALSE, NULL);
    Status = Ask(Own, Asker->Irp, &Capabilities);
    KeSetEvent(&Asker->Free, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
    if (!NT_SUCCESS(Status)) {
        return FdoEnd(&Own->Fdo, Irp, Status, 0);
    }
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Capabilities, sizeof(Capabilities));
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(Capabilities));
}

static const GUID FdoInterface = FDO_GUID(0x10c3e062);
static const HOOKS Hooks;

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
