/*
 * A checksum device: IOCTL_CHECKSUM_ADD adds the input's bytes to a running sum.
 *
 * The bug: the routine that computes the sum is in the pageable section PAGE, and is called with a spin lock held. It shows with the first request,
 * where Windows has paged the code out.
 *
 * Device: none
 * Rule: paged-at-raised-irql
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Checksum"
#define LINK_NAME L"\\DosDevices\\Checksum"
#include "../include/legacy.h"

#define IOCTL_CHECKSUM_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x833, METHOD_BUFFERED, FILE_ANY_ACCESS)
#ifdef FIXED
#define SUM_CODE
#else
#define SUM_CODE __attribute__((section("PAGE")))
#endif

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    ULONG Low;
    ULONG High;
} DEVICE, *PDEVICE;

__attribute__((noinline)) SUM_CODE static VOID Sum(PDEVICE Own, const UCHAR *Bytes, ULONG Length)
{
    while (Length-- > 0) {
        Own->Low = (Own->Low + *Bytes++) % 65521;
        Own->High = (Own->High + Own->Low) % 65521;
    }
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    KIRQL OldIrql;

    if (CodeOf(Stack) != IOCTL_CHECKSUM_ADD) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    Sum(Own, Irp->AssociatedIrp.SystemBuffer, InputOf(Stack));
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Own = Device->DeviceExtension;
        KeInitializeSpinLock(&Own->Lock);
        Own->Low = 1;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
