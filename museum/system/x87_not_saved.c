/*
 * The sine of an angle in millionths of a radian, in millionths, as the x87 works it out.
 *
 * The bug: the registers of the x87 are used without having been saved: what was in them is an application's. It shows with the first request.
 *
 * Device: none
 * Rule: extended-state-not-saved
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\SineByX87"
#define LINK_NAME L"\\DosDevices\\SineByX87"
#include "../include/legacy.h"

#define IOCTL_SINE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A4, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define MASK_X87 1
#define MILLIONTHS 1000000

static VOID Work(PLONG Angle)
{
    LONG Scale = MILLIONTHS;

    __asm__ volatile("fildl %1\n\tfildl %0\n\tfdiv %%st(1), %%st\n\tfsin\n\tfmulp\n\tfistpl %0" : "+m"(*Angle) : "m"(Scale) : "cc");
}

static NTSTATUS Sine(PLONG Angle)
{
#ifdef FIXED
    XSTATE_SAVE Save;
    NTSTATUS Status = KeSaveExtendedProcessorState(MASK_X87, &Save);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
#endif
    Work(Angle);
#ifdef FIXED
    KeRestoreExtendedProcessorState(&Save);
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_SINE) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(LONG) || OutputOf(Stack) < sizeof(LONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Status = Sine(Irp->AssociatedIrp.SystemBuffer);
    return Complete(Irp, Status, NT_SUCCESS(Status) ? sizeof(LONG) : 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
