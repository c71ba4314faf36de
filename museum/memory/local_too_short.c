/*
 * A rhyme index: a control code is answered with a number that lines of the same ending share. The line is folded in a copy of it, to small letters.
 *
 * The bug: the copy lies on the stack and has 40 bytes, and as many are copied as the application gives: what is longer is written over the routine's return
 * address. It shows with a line that is longer.
 *
 * Device: none
 * Rule: stack-overrun
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Rhymes"
#define LINK_NAME L"\\DosDevices\\Rhymes"
#include "../include/legacy.h"

#define IOCTL_RHYME CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE19, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define LINE 40
#define ENDING 3

__attribute__((noinline)) static ULONG Rhyme(const VOID *Text, ULONG Length)
{
    volatile UCHAR Line[LINE];
    ULONG Index, Number = 0;

#ifdef FIXED
    if (Length > LINE) {
        Text = (const UCHAR *)Text + (Length - LINE);
        Length = LINE;
    }
#endif
    RtlCopyMemory((PVOID)Line, Text, Length);
    for (Index = 0; Index < Length; Index++) {
        if (Line[Index] >= 'A' && Line[Index] <= 'Z') {
            Line[Index] = (UCHAR)(Line[Index] - 'A' + 'a');
        }
    }
    for (Index = Length > ENDING ? Length - ENDING : 0; Index < Length; Index++) {
        Number = Number * 31 + Line[Index];
    }
    return Number;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_RHYME) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) == 0 || OutputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    *(PULONG)Buffer = Rhyme(Buffer, InputOf(Stack));
    return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
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
