/*
 * An expander: its input is a count and so many letters, its output each letter twice.
 *
 * The bug: input and output of a buffered request are the same memory: the first letters are written over those that are still to be read, and over the
 * count, which bounds the loop. It shows with an input whose letters make a large count.
 *
 * Device: none
 * Rule: pool-overrun, wild-write, wild-read
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Expander"
#define LINK_NAME L"\\DosDevices\\Expander"
#include "../include/legacy.h"

#define MOST 32
#define IOCTL_EXPAND CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC33, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _LETTERS {
    ULONG Count;
    UCHAR Letters[MOST];
} LETTERS, *PLETTERS;

static ULONG Expand(volatile LETTERS *Input, PUCHAR Output)
{
    ULONG Index;
#ifdef FIXED
    ULONG Count = Input->Count;
    UCHAR Copy[MOST];

    for (Index = 0; Index < Count; Index++) {
        Copy[Index] = Input->Letters[Index];
    }
    for (Index = 0; Index < Count; Index++) {
        Output[2 * Index] = Copy[Index];
        Output[2 * Index + 1] = Copy[Index];
    }
#else
    for (Index = 0; Index < Input->Count; Index++) {
        Output[2 * Index] = Input->Letters[Index];
        Output[2 * Index + 1] = Output[2 * Index];
    }
#endif
    return 2 * Index;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PLETTERS Input = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_EXPAND) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(LETTERS) || Input->Count > MOST || OutputOf(Stack) < 2 * MOST) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    return Complete(Irp, STATUS_SUCCESS, Expand(Input, (PUCHAR)Input));
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
