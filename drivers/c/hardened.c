/*
 * hardened.sys: a driver without hardware, compiled by clang with /GS and control flow guard, whose control codes tell
 * stories of both. \\.\DirqlHardened, CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), N being
 * the index into Stories below; each answers with one STORY_RESULT. From 0xA00 on: the bugs of Bugs, each of which ends the run.
 */
#include "hardened/faulty.h"
#include "hardened/stories.h"

#define FIRST_STORY 0x800
#define FIRST_BUG 0xA00

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlHardened");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlHardened");

static ULONG (*const Stories[])(VOID) = {
    CookieHolds, GuardedCalls, GuardChecks, BigFrames, JumpTable,
};

static ULONG (*const Bugs[])(VOID) = {
    Overrun, OverrunReportedOldWay, CallIntoMiddle, CallNull, /* from 0 on */
    CallData, CallIntoKernel, CheckMiddle, ProbeOverflows, /* from 4 on */
    ListCorrupt, CookieNotInitialised, OwnCode, LeavesDirection, /* from 8 on */
    LeavesControl, PutsBoth, /* from 12 on */
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Function = (Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF;

    UNREFERENCED_PARAMETER(Device);
    if (Function >= FIRST_BUG && Function - FIRST_BUG < RTL_NUMBER_OF(Bugs)) {
        return Complete(Irp, STATUS_SUCCESS, Bugs[Function - FIRST_BUG]());
    }
    return TellStory(Irp, Stories, Function - FIRST_STORY, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    if (__security_cookie == DEFAULT_COOKIE) {
        FastFail(6);
    }
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}
