/*
 * seh.sys: a driver without hardware, compiled by clang for the msvc target, whose control codes tell stories of
 * structured exception handling and check them. \\.\DirqlSeh tells each story of Stories below by its name
 * (IOCTL_TELL_STORY of control.h).
 */
#include "seh/crossing.h"
#include "seh/faulty.h"
#include "seh/handlers.h"
#include "seh/nested.h"
#include "seh/raised.h"
#include "seh/unwinding.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlSeh");

static const STORY Stories[] = {
    STORY(Caught), STORY(FinallyOrder), STORY(ContinuedSearch), STORY(ContinuedExecution), STORY(Kinds),
    STORY(Raised), STORY(HandledInside), STORY(FinallyRaises), STORY(FilterRaises), STORY(ThroughTheKernel),
    STORY(InADpc), STORY(OwnWalk), STORY(Restored), STORY(OwnLanguageHandler), STORY(DispatchRaises),
    STORY(StartIoRaises), STORY(QueryRaises), STORY(ModeOfZw), STORY(WhatPagesRaise), STORY(CapturesAll),
    STORY(HandledOnExpanded), STORY(UnwindsPlainly),
    /* What ends the run. */
    STORY(KernelAddress), STORY(UserAddressAtDispatch), STORY(NobodyTakesIt), STORY(RaiseAtDispatch),
    STORY(DpcFaults), STORY(GoesOn), STORY(FilterFaults), STORY(LevelStays), STORY(UnwindNowhere), STORY(ZwRaises),
    STORY(CancelRaises), STORY(ThreadRaises), STORY(SemaphoreUnhandled), STORY(MutexUnhandled), STORY(MendsNothing),
    STORY(MendsNothingForLong), STORY(ExpandedRaises),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    TheDevice = Driver->DeviceObject;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    Driver->MajorFunction[IRP_MJ_INTERNAL_DEVICE_CONTROL] = DispatchInternal;
    Driver->DriverStartIo = StartIo;
    return STATUS_SUCCESS;
}
