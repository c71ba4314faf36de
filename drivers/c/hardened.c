/*
 * hardened.sys: a driver without hardware, compiled by clang with /GS and control flow guard, whose control codes
 * tell stories of both. \\.\DirqlHardened tells each story of Stories below by its name (IOCTL_TELL_STORY of
 * control.h).
 */
#include "hardened/faulty.h"
#include "hardened/stories.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlHardened");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlHardened");

static const STORY Stories[] = {
    STORY(CookieHolds), STORY(GuardedCalls), STORY(GuardChecks), STORY(BigFrames), STORY(JumpTable),
    /* What ends the run. */
    STORY(Overrun), STORY(OverrunReportedOldWay), STORY(CallIntoMiddle), STORY(CallNull), STORY(CallData),
    STORY(CallIntoKernel), STORY(CheckMiddle), STORY(ProbeOverflows), STORY(ListCorrupt), STORY(CookieNotInitialised),
    STORY(OwnCode), STORY(LeavesDirection), STORY(LeavesControl), STORY(PutsBoth),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    if (__security_cookie == DEFAULT_COOKIE) {
        FastFail(6);
    }
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}
