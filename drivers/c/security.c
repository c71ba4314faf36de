/*
 * security.sys: identifiers, lists and descriptors of security, tokens and checks of access. \\.\DirqlSecurity, CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + N,
 * METHOD_BUFFERED, FILE_ANY_ACCESS), N being the index into Stories below; each answers with one STORY_RESULT.
 */
#include "security/access.h"
#include "security/descriptors.h"
#include "security/identifiers.h"
#include "security/lists.h"
#include "security/objects.h"

#define FIRST_FUNCTION 0x800

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlSecurity");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlSecurity");

static ULONG (*const Stories[])(VOID) = {
    Identifiers, Texts, GenericRights, Lists, Descriptors, InOnePiece, /* from 0 on */
    Tokens, TokenClasses, Subjects, Checks, Privileges, /* from 6 on */
    Captured, Assigned, OfDevice, PlainUser, Forced, Impersonations, /* from 11 on */
    Restricted, Duplicated, /* from 17 on */
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Index = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_FUNCTION;

    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, Index, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    TheDevice = Driver->DeviceObject;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreate;
    return Status;
}
