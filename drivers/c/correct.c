/*
 * correct.sys: a gallery of what correct drivers do. Each idiom of the folder correct is a story that \\.\DirqlCorrect tells
 * by its name (IOCTL_TELL_STORY of control.h). No run of it may end in a verdict, whatever the schedule. What needs a card or
 * requests of applications is in drivers of its own.
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

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlCorrect");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlCorrect");

#define IDIOM(Name) STORY(Name),
static const STORY Idioms[] = {
    DPC_IDIOMS EXCLUSION_IDIOMS FORWARDING_IDIOMS MEMORY_IDIOMS OWN_REQUEST_IDIOMS QUEUE_IDIOMS SECTION_IDIOMS
        SYSTEM_IDIOMS THREAD_IDIOMS TIMER_IDIOMS WORK_ITEM_IDIOMS
};
#undef IDIOM

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Idioms, RTL_NUMBER_OF(Idioms));
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
