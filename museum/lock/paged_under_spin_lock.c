/*
 * A dictionary of 100 words of the user's, guarded by a spin lock.
 *
 * The bug: the words are in paged pool, and are searched with the lock held, at DISPATCH_LEVEL. It shows with the first search, where Windows has paged it
 * out.
 *
 * Device: none
 * Rule: paged-at-raised-irql
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Dictionary"
#define LINK_NAME L"\\DosDevices\\Dictionary"
#include "../include/legacy.h"

#ifdef FIXED
#define POOL NonPagedPool
#else
#define POOL PagedPool
#endif
#define WORDS 100
#define WORDS_TAG 'droW'
#define IOCTL_DICTIONARY_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DICTIONARY_FIND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    ULONG Count;
    PULONG64 Words;
} DEVICE, *PDEVICE;

static NTSTATUS Search(PDEVICE Own, ULONG64 Word, BOOLEAN Add)
{
    NTSTATUS Status = STATUS_NOT_FOUND;
    ULONG Index;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Own->Lock, &OldIrql);
    for (Index = 0; Index < Own->Count && Status != STATUS_SUCCESS; Index++) {
        Status = Own->Words[Index] == Word ? STATUS_SUCCESS : STATUS_NOT_FOUND;
    }
    if (Add && Status != STATUS_SUCCESS && Own->Count < WORDS) {
        Own->Words[Own->Count++] = Word;
        Status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&Own->Lock, OldIrql);
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = CodeOf(Stack);

    if (Code != IOCTL_DICTIONARY_ADD && Code != IOCTL_DICTIONARY_FIND) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) != sizeof(ULONG64)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    return Complete(Irp, Search(Device->DeviceExtension, *(PULONG64)Irp->AssociatedIrp.SystemBuffer, Code == IOCTL_DICTIONARY_ADD),
                    0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ExFreePoolWithTag(((PDEVICE)Driver->DeviceObject->DeviceExtension)->Words, WORDS_TAG);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    KeInitializeSpinLock(&Own->Lock);
    Own->Words = ExAllocatePoolWithTag(POOL, WORDS * sizeof(ULONG64), WORDS_TAG);
    if (Own->Words == NULL) {
        LegacyDelete(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
