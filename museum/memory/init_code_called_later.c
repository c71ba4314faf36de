/*
 * A generator of numbers that can be reset.
 *
 * The bug: the routine that sets it up is in the section INIT, which is discarded when DriverEntry has returned, and is called again for IOCTL_GENERATOR_RESET. It
 * shows with the first reset.
 *
 * Device: none
 * Rule: wild-call, execute-of-data, use-after-free, invalid-opcode
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Generator"
#define LINK_NAME L"\\DosDevices\\Generator"
#include "../include/legacy.h"

#define IOCTL_GENERATOR_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0xAB0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#ifdef FIXED
#define SET_UP_CODE
#else
#define SET_UP_CODE __attribute__((section("INIT")))
#endif

static ULONG State[16];

__attribute__((noinline)) SET_UP_CODE static VOID SetUp(ULONG Seed)
{
    ULONG Index;

    for (Index = 0; Index < 16; Index++) {
        Seed = Seed * 69069 + 1;
        State[Index] = Seed;
    }
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_GENERATOR_RESET) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    SetUp(State[15]);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        SetUp(1);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
