/*
 * A read waits 1 ms for a timer, whose DPC completes it. Unload does not flush DPCs: a routine that runs then comes to its end before the image goes.
 *
 * The bug: the DPC counts the read in the device extension when it has completed it: with the last handle closed in between, Unload has deleted the device. It
 * shows with a schedule in which the DPC is interrupted there.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: schedule
 */
#define DEVICE_NAME L"\\Device\\Clepsydra"
#define LINK_NAME L"\\DosDevices\\Clepsydra"
#include "../include/legacy.h"

typedef struct _DEVICE {
    PIRP Waiting;
    LONG Served;
} DEVICE, *PDEVICE;

/* What a DPC that runs at unload may use: it lies in the image. */
static KTIMER Timer;
static KDPC Dpc;
static LONG Runs;

static VOID NTAPI Fired(PKDPC This, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE Own = Context;
    PIRP Irp = InterlockedExchangePointer((PVOID *)&Own->Waiting, NULL);

    UNREFERENCED_PARAMETER(This);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (Irp == NULL) {
        return;
    }
#ifdef FIXED
    InterlockedIncrement(&Own->Served);
    Complete(Irp, STATUS_SUCCESS, 0);
#else
    Complete(Irp, STATUS_SUCCESS, 0);
    InterlockedIncrement(&Own->Served);
#endif
    InterlockedIncrement(&Runs);
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    LARGE_INTEGER Due;

    IoMarkIrpPending(Irp);
    if (InterlockedCompareExchangePointer((PVOID *)&Own->Waiting, Irp, NULL) != NULL) {
        Complete(Irp, STATUS_DEVICE_BUSY, 0);
        return STATUS_PENDING;
    }
    Due.QuadPart = -10000;
    KeSetTimer(&Timer, Due, &Dpc);
    return STATUS_PENDING;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KeCancelTimer(&Timer);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    KeInitializeTimer(&Timer);
    KeInitializeDpc(&Dpc, Fired, Device->DeviceExtension);
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
