/*
 * Units with numbers, of one driver: a request to any of them notes a knock at the one that it names, and is answered with how many that one has had.
 *
 * The bug: the unit is looked up under the mutex of the list, and used after the mutex is released: it may have been removed between. It shows with two
 * units, of which one is removed while the other one is asked.
 *
 * Device: Root\Units
 * Rule: use-after-free
 * Needs: ioctl, removal, schedule
 */
#include "../include/function.h"

#define IOCTL_KNOCK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA2B, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _UNIT {
    FDO Fdo;
    LIST_ENTRY Entry; /* in Units */
    ULONG Number;     /* from 1 on */
    LONG Knocks;
} UNIT, *PUNIT;

static FAST_MUTEX Mutex; /* of Units */
static LIST_ENTRY Units;

static PUNIT Find(ULONG Number)
{
    PLIST_ENTRY Entry;

    for (Entry = Units.Flink; Entry != &Units; Entry = Entry->Flink) {
        if (CONTAINING_RECORD(Entry, UNIT, Entry)->Number == Number) {
            return CONTAINING_RECORD(Entry, UNIT, Entry);
        }
    }
    return NULL;
}

static NTSTATUS Knock(ULONG Number, LONG *Knocks)
{
    PUNIT Unit;

    ExAcquireFastMutex(&Mutex);
    Unit = Find(Number);
#ifdef FIXED
    if (Unit != NULL) {
        *Knocks = InterlockedIncrement(&Unit->Knocks);
    }
    ExReleaseFastMutex(&Mutex);
#else
    ExReleaseFastMutex(&Mutex);
    if (Unit != NULL) {
        *Knocks = InterlockedIncrement(&Unit->Knocks);
    }
#endif
    return Unit == NULL ? STATUS_OBJECT_NAME_NOT_FOUND : STATUS_SUCCESS;
}

static NTSTATUS Add(PFDO Fdo)
{
    PUNIT Unit = (PUNIT)Fdo;

    ExAcquireFastMutex(&Mutex);
    Unit->Number = 1;
    while (Find(Unit->Number) != NULL) {
        Unit->Number++;
    }
    InsertTailList(&Units, &Unit->Entry);
    ExReleaseFastMutex(&Mutex);
    return STATUS_SUCCESS;
}

static VOID Removed(PFDO Fdo)
{
    ExAcquireFastMutex(&Mutex);
    RemoveEntryList(&((PUNIT)Fdo)->Entry);
    ExReleaseFastMutex(&Mutex);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b0f2);
static const HOOKS Hooks = {.Add = Add, .Removed = Removed};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PUNIT Unit = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    LONG Knocks = 0;
    NTSTATUS Status;

    if (!FdoBegin(&Unit->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_KNOCK) {
        return FdoEnd(&Unit->Fdo, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
        Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG)) {
        return FdoEnd(&Unit->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Status = Knock(*(ULONG *)Irp->AssociatedIrp.SystemBuffer, &Knocks);
    if (!NT_SUCCESS(Status)) {
        return FdoEnd(&Unit->Fdo, Irp, Status, 0);
    }
    *(LONG *)Irp->AssociatedIrp.SystemBuffer = Knocks;
    return FdoEnd(&Unit->Fdo, Irp, STATUS_SUCCESS, sizeof(LONG));
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(UNIT), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    ExInitializeFastMutex(&Mutex);
    InitializeListHead(&Units);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
