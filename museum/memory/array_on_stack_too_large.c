/*
 * A device that sorts up to 4096 numbers of its input, on its stack.
 *
 * The bug: an array of 16 KiB on the stack, and a routine beneath with another one of 8 KiB, are more than a kernel stack has. It shows with the first
 * request.
 *
 * Device: none
 * Rule: stack-overflow, pool-overrun
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Deep"
#define LINK_NAME L"\\DosDevices\\Deep"
#include "../include/legacy.h"

#ifdef FIXED
#define NUMBERS 512
#else
#define NUMBERS 4096
#endif
#define IOCTL_DEEP_SORT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F5, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* As in the C library: the compiler asks for each page of a large frame. */
VOID ___chkstk_ms(VOID);
__asm__(".globl ___chkstk_ms\n___chkstk_ms: ret\n");

__attribute__((noinline)) static ULONG Median(volatile ULONG *Numbers, ULONG Count)
{
    volatile ULONG Seen[NUMBERS / 2];
    ULONG Index;

    for (Index = 0; Index < NUMBERS / 2; Index++) {
        Seen[Index] = Index < Count ? Numbers[Index] : 0;
    }
    return Seen[Count / 2 % (NUMBERS / 2)];
}

__attribute__((noinline)) static ULONG Sort(const ULONG *Input, ULONG Count)
{
    volatile ULONG Numbers[NUMBERS];
    ULONG Index;

    for (Index = 0; Index < NUMBERS; Index++) {
        Numbers[Index] = Index < Count ? Input[Index] : 0;
    }
    return Median(Numbers, min(Count, NUMBERS));
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_DEEP_SORT) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG) || OutputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    *Buffer = Sort(Buffer, InputOf(Stack) / sizeof(ULONG));
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
