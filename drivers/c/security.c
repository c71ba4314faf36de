/*
 * security.sys: identifiers, lists and descriptors of security, tokens and checks of access. \\.\DirqlSecurity tells
 * each story of Stories below by its name (IOCTL_TELL_STORY of control.h).
 */
#include "security/access.h"
#include "security/descriptors.h"
#include "security/identifiers.h"
#include "security/lists.h"
#include "security/objects.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlSecurity");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlSecurity");

static const STORY Stories[] = {
    STORY(Identifiers), STORY(Texts), STORY(GenericRights), STORY(Lists), STORY(Descriptors), STORY(InOnePiece),
    STORY(Tokens), STORY(TokenClasses), STORY(Subjects), STORY(Checks), STORY(Privileges), STORY(Captured),
    STORY(Assigned), STORY(OfDevice), STORY(PlainUser), STORY(Forced), STORY(Impersonations), STORY(Restricted),
    STORY(Duplicated), STORY(Adjusted),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    TheDevice = Driver->DeviceObject;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    return Status;
}
