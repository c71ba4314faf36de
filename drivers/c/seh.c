/*
 * seh.sys: a driver without hardware, compiled by clang for the msvc target, whose control codes tell stories of
 * structured exception handling and check them. \\.\DirqlSeh, CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N,
 * METHOD_BUFFERED, FILE_ANY_ACCESS), N being the index into Stories below; each answers with one STORY_RESULT. From
 * 0xA00 on: the bugs of Bugs, each of which ends the run.
 */
#include "seh/crossing.h"
#include "seh/faulty.h"
#include "seh/handlers.h"
#include "seh/nested.h"
#include "seh/raised.h"
#include "seh/unwinding.h"

#define FIRST_STORY 0x800
#define FIRST_BUG 0xA00

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlSeh");

static ULONG (*const Stories[])(VOID) = {
    Caught, FinallyOrder, ContinuedSearch, ContinuedExecution, /* from 0 on */
    Kinds, Raised, HandledInside, FinallyRaises, /* from 4 on */
    FilterRaises, ThroughTheKernel, InADpc, OwnWalk, /* from 8 on */
    Restored, OwnLanguageHandler, DispatchRaises, StartIoRaises, /* from 12 on */
    QueryRaises, ModeOfZw, WhatPagesRaise, CapturesAll, /* from 16 on */
    HandledOnExpanded, UnwindsPlainly, /* from 20 on */
};

static ULONG (*const Bugs[])(VOID) = {
    KernelAddress, UserAddressAtDispatch, NobodyTakesIt, RaiseAtDispatch, /* from 0 on */
    DpcFaults, GoesOn, FilterFaults, LevelStays, /* from 4 on */
    UnwindNowhere, ZwRaises, CancelRaises, ThreadRaises, /* from 8 on */
    SemaphoreUnhandled, MutexUnhandled, MendsNothing, MendsNothingForLong, /* from 12 on */
    ExpandedRaises,
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Function = (Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF;

    UNREFERENCED_PARAMETER(Device);
    if (Function >= FIRST_BUG && Function - FIRST_BUG < RTL_NUMBER_OF(Bugs)) {
        Sink = Bugs[Function - FIRST_BUG]();
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return TellStory(Irp, Stories, Function - FIRST_STORY, RTL_NUMBER_OF(Stories));
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
