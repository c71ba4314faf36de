/*
 * A ring of 64 words: IOCTL_RING_PUT puts one in, IOCTL_RING_GET takes one out.
 *
 * The bug: when the ring is full, the routine that puts a word in returns without releasing the spin lock. It shows with the 65th word.
 *
 * Device: none
 * Rule: spin-lock-held-on-return
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Ring"
#define LINK_NAME L"\\DosDevices\\Ring"
#include "../include/legacy.h"

#define WORDS 64
#define IOCTL_RING_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RING_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RING_FILL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    ULONG First;
    ULONG Count;
    ULONG Words[WORDS];
} DEVICE, *PDEVICE;

static NTSTATUS Put(PDEVICE Ring, ULONG Word)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Ring->Lock, &OldIrql);
    if (Ring->Count == WORDS) {
#ifdef FIXED
        KeReleaseSpinLock(&Ring->Lock, OldIrql);
#endif
        return STATUS_BUFFER_OVERFLOW;
    }
    Ring->Words[(Ring->First + Ring->Count++) % WORDS] = Word;
    KeReleaseSpinLock(&Ring->Lock, OldIrql);
    return STATUS_SUCCESS;
}

static BOOLEAN Get(PDEVICE Ring, PULONG Word)
{
    BOOLEAN Found;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Ring->Lock, &OldIrql);
    Found = Ring->Count != 0;
    if (Found) {
        *Word = Ring->Words[Ring->First];
        Ring->First = (Ring->First + 1) % WORDS;
        Ring->Count--;
    }
    KeReleaseSpinLock(&Ring->Lock, OldIrql);
    return Found;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Ring = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG Word = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = STATUS_SUCCESS;

    switch (CodeOf(Stack)) {
    case IOCTL_RING_PUT:
        if (InputOf(Stack) < sizeof(ULONG)) {
            return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
        }
        return Complete(Irp, Put(Ring, *Word), 0);
    case IOCTL_RING_GET:
        if (OutputOf(Stack) < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        return Get(Ring, Word) ? Complete(Irp, STATUS_SUCCESS, sizeof(ULONG)) : Complete(Irp, STATUS_NO_MORE_ENTRIES, 0);
    case IOCTL_RING_FILL: /* to its end, with zeroes */
        while (Status == STATUS_SUCCESS) {
            Status = Put(Ring, 0);
        }
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        KeInitializeSpinLock(&((PDEVICE)Device->DeviceExtension)->Lock);
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
