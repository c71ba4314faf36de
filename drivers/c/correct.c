/*
 * correct.sys: a gallery of what correct drivers do. Each idiom of the folder correct runs by its name: one control code
 * (CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)) to \\.\DirqlCorrect takes the name and answers
 * with a STORY_RESULT; another (0x801) answers with all names, a line each. No run of it may end in a verdict, whatever the
 * schedule. What needs a card or requests of applications is in drivers of its own.
 */
#include "correct/dpcs.h"
#include "correct/exclusion.h"
#include "correct/forwarding.h"
#include "correct/memory.h"
#include "correct/own_requests.h"
#include "correct/queues.h"
#include "correct/sections.h"
#include "correct/system.h"
#include "correct/threads.h"
#include "correct/timers.h"
#include "correct/work_items.h"

#define TELL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlCorrect");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlCorrect");

typedef struct _IDIOM {
    const char *Name;
    ULONG (*Tell)(VOID);
} IDIOM;

#define IDIOM(Name) {#Name, Name},
static const IDIOM Idioms[] = {
    DPC_IDIOMS EXCLUSION_IDIOMS FORWARDING_IDIOMS MEMORY_IDIOMS OWN_REQUEST_IDIOMS QUEUE_IDIOMS SECTION_IDIOMS
        SYSTEM_IDIOMS THREAD_IDIOMS TIMER_IDIOMS WORK_ITEM_IDIOMS
};
#undef IDIOM

/* The idiom whose name these bytes are, or NULL. */
static const IDIOM *Find(const char *Name, ULONG Length)
{
    for (ULONG Index = 0; Index < RTL_NUMBER_OF(Idioms); Index++) {
        if (strlen(Idioms[Index].Name) == Length && RtlCompareMemory(Idioms[Index].Name, Name, Length) == Length) {
            return &Idioms[Index];
        }
    }
    return NULL;
}

static NTSTATUS Tell(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    const IDIOM *Idiom =
        Find(Irp->AssociatedIrp.SystemBuffer, Stack->Parameters.DeviceIoControl.InputBufferLength);

    return Idiom == NULL ? Complete(Irp, STATUS_NOT_FOUND, 0) : TellStory(Irp, &Idiom->Tell, 0, 1);
}

static NTSTATUS List(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    char *Names = Irp->AssociatedIrp.SystemBuffer;
    ULONG Length = 0, Room = Stack->Parameters.DeviceIoControl.OutputBufferLength;

    for (ULONG Index = 0; Index < RTL_NUMBER_OF(Idioms); Index++) {
        ULONG More = (ULONG)strlen(Idioms[Index].Name);

        if (Room - Length < More + 1) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        RtlCopyMemory(Names + Length, Idioms[Index].Name, More);
        Names[Length + More] = '\n';
        Length += More + 1;
    }
    return Complete(Irp, STATUS_SUCCESS, Length);
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    UNREFERENCED_PARAMETER(Device);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case TELL:
        return Tell(Irp, Stack);
    case LIST:
        return List(Irp, Stack);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI DispatchInternalControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    return Device == TheDevice ? DispatchQueues(Device, Irp) : Forward(Irp);
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    TheDevice = Driver->DeviceObject;
    Driver->MajorFunction[IRP_MJ_INTERNAL_DEVICE_CONTROL] = DispatchInternalControl;
    Driver->DriverStartIo = StartIo;
    return STATUS_SUCCESS;
}
