/*
 * damage.sys: damages one field of one structure that it shares with the kernel, and then calls a routine that uses it.
 * \\.\DirqlDamage, CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS) with a DAMAGE as input does one such
 * deed; code 0x801 with an index answers a SUBJECT_INFO of that structure, so that the test knows what there is.
 *
 * No driver does this by mistake in such order: what is asked for is that the kernel ends in an answer or in a verdict, never in
 * a fault of its own. The subjects are in the folder damage.
 */
#include "damage/damage.h"
#include "damage/dispatcher.h"
#include "damage/locks.h"
#include "damage/memory.h"
#include "damage/requests.h"
#include "damage/devices.h"
#include "damage/texts.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlDamage");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlDamage");

static const SUBJECT Subjects[] = {
    {"KEVENT", PrepareEvent, EventUses},
    {"KSEMAPHORE", PrepareSemaphore, SemaphoreUses},
    {"KMUTANT", PrepareMutex, MutexUses},
    {"KTIMER", PrepareTimer, TimerUses},
    {"KTIMER", PrepareSetTimer, TimerUses},
    {"KDPC", PrepareDpc, DpcUses},
    {"KDPC", PrepareQueuedDpc, DpcUses},
    {"KEVENT", PrepareWaitedEvent, EventUses},
    {"KDEVICE_QUEUE", PrepareDeviceQueue, DeviceQueueUses},
    {"KDEVICE_QUEUE_ENTRY", PrepareDeviceQueueEntry, DeviceQueueUses},
    {"FAST_MUTEX", PrepareFastMutex, FastMutexUses},
    {"FAST_MUTEX", PrepareOwnedFastMutex, FastMutexUses},
    {"ERESOURCE", PrepareResource, ResourceUses},
    {"ERESOURCE", PrepareOwnedResource, ResourceUses},
    {"IO_REMOVE_LOCK", PrepareRemoveLock, RemoveLockUses},
    {"EX_RUNDOWN_REF", PrepareRundown, RundownUses},
    {"EX_RUNDOWN_REF", PrepareSpinLock, SpinLockUses},
    {"LIST_ENTRY", PrepareList, ListUses},
    {"SLIST_HEADER", PrepareSequencedList, SequencedListUses},
    {"NPAGED_LOOKASIDE_LIST", PrepareLookaside, LookasideUses},
    {"LOOKASIDE_LIST_EX", PrepareLookasideEx, LookasideExUses},
    {"MDL", PrepareBuiltMdl, MdlUses},
    {"MDL", PrepareLockedMdl, MdlUses},
    {"RTL_BITMAP", PrepareBitMap, BitMapUses},
    {"IRP", PrepareIrp, IrpUses},
    {"IRP", PrepareOwnRequest, OwnRequestUses},
    {"IO_STACK_LOCATION", PrepareNextLocation, IrpUses},
    {"IO_STACK_LOCATION", PrepareOwnLocation, OwnRequestUses},
    {"IO_CSQ", PrepareQueue, QueueUses},
    {"WORK_QUEUE_ITEM", PrepareWorkItem, WorkItemUses},
    {"KTHREAD", PrepareIoWorkItem, IoWorkItemUses}, /* opaque; any layout will do */
    {"DEVICE_OBJECT", PrepareDevice, DeviceUses},
    {"DEVOBJ_EXTENSION", PrepareDeviceExtension, DeviceUses},
    {"DRIVER_OBJECT", PrepareDriver, DriverUses},
    {"DRIVER_EXTENSION", PrepareDriverExtension, DriverUses},
    {"FILE_OBJECT", PrepareFile, FileUses},
    {"KTHREAD", PrepareThread, ThreadUses},
    {"KPROCESS", PrepareProcess, ProcessUses},
    {"UNICODE_STRING", PrepareText, TextUses},
    {"STRING", PrepareAnsiText, AnsiTextUses},
    {"OBJECT_ATTRIBUTES", PrepareAttributes, AttributesUses},
    {"RTL_QUERY_REGISTRY_TABLE", PrepareRegistryTable, RegistryTableUses},
};

static ULONG CountOf(const USE *Uses)
{
    ULONG Count = 0;

    while (Uses[Count] != NULL) {
        Count++;
    }
    return Count;
}

static NTSTATUS TellSubject(PIRP Irp, ULONG Index)
{
    SUBJECT_INFO *Info = Irp->AssociatedIrp.SystemBuffer;
    ULONG Length;

    if (Index >= RTL_NUMBER_OF(Subjects)) {
        return Complete(Irp, STATUS_NO_MORE_ENTRIES, 0);
    }
    RtlZeroMemory(Info, sizeof(*Info));
    Info->Uses = CountOf(Subjects[Index].Uses);
    for (Length = 0; Subjects[Index].Layout[Length] != 0 && Length < sizeof(Info->Layout) - 1; Length++) {
        Info->Layout[Length] = Subjects[Index].Layout[Length];
    }
    return Complete(Irp, STATUS_SUCCESS, sizeof(*Info));
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    DAMAGE Damage;
    PUCHAR At;

    if (Device != TheDevice) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(Damage) ||
        Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SUBJECT_INFO)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Damage = *(DAMAGE *)Irp->AssociatedIrp.SystemBuffer;
    if (Stack->Parameters.DeviceIoControl.IoControlCode == TELL_CODE) {
        return TellSubject(Irp, Damage.Subject);
    }
    if (Damage.Subject >= RTL_NUMBER_OF(Subjects) || Damage.Use >= CountOf(Subjects[Damage.Subject].Uses)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    OwnRequest = Irp;
    OwnRequestDone = FALSE;
    At = Subjects[Damage.Subject].Prepare();
    if (At != NULL) {
        Inflict(At, &Damage);
        Subjects[Damage.Subject].Uses[Damage.Use](At);
    }
    return OwnRequestDone ? STATUS_SUCCESS : Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&LinkName);
    while (Driver->DeviceObject != NULL) {
        IoDeleteDevice(Driver->DeviceObject);
    }
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    static const UCHAR Majors[] = {IRP_MJ_READ, IRP_MJ_WRITE, IRP_MJ_INTERNAL_DEVICE_CONTROL, IRP_MJ_PNP, IRP_MJ_POWER};
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
    ULONG Index;

    UNREFERENCED_PARAMETER(RegistryPath);
    TheDriver = Driver;
    TheDevice = Driver->DeviceObject;
    for (Index = 0; Index < RTL_NUMBER_OF(Majors); Index++) {
        Driver->MajorFunction[Majors[Index]] = DispatchSucceed;
    }
    Driver->DriverStartIo = StartIo;
    Driver->DriverUnload = Unload;
    return Status;
}
