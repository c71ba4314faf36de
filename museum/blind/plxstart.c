/*
 * A driver for a card with a PLX PCI 9052 that reads and writes the memory on its local bus, through the bridge's window of 64 KiB.
 *
 * The bug: the mapping of the window is kept when the device is stopped, and taken for the new one at the next start, so that accesses go to where the card was before.
 * Shows by: the device is stopped and started with other resources (a rebalance), and then read or written.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: stale-resource-used, io-space-still-mapped
 * Needs: ioctl, device
 */
#define KIT_FREE PlxFree
#include "../include/hold_card.h"

#define PLX_TAG 'sxlP'
#define PLX_WINDOW 0x8000u                      /* of it, the half that the driver gives to applications */

typedef struct _PLX {
    KIT Kit;
    PUCHAR Window;
    FAST_MUTEX Mutex;                           /* a transfer is seen whole */
} PLX, *PPLX;

DRIVER_INITIALIZE DriverEntry;

static const GUID PlxInterface = { 0x1f6bd2c1, 0x6a0e, 0x4d2b, { 0x9c, 0x11, 0x60, 0x2e, 0x7a, 0x55, 0x01, 0x13 } };

static NTSTATUS NTAPI PlxTransfer(PDEVICE_OBJECT Device, PIRP Irp)
{
    PPLX plx = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN write = sp->MajorFunction == IRP_MJ_WRITE;
    LONGLONG at = write ? sp->Parameters.Write.ByteOffset.QuadPart : sp->Parameters.Read.ByteOffset.QuadPart;
    ULONG length = write ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
    PUCHAR bytes = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    ULONG i;

    status = KitEnter(&plx->Kit, Irp);
    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    if (length == 0)
        return KitFinish(&plx->Kit, Irp, STATUS_SUCCESS, 0);
    if (at < 0 || at >= PLX_WINDOW)
        return KitFinish(&plx->Kit, Irp, write ? STATUS_INVALID_PARAMETER : STATUS_END_OF_FILE, 0);
    length = min(length, PLX_WINDOW - (ULONG)at);
    ExAcquireFastMutex(&plx->Mutex);
    for (i = 0; i < length; i++)
        if (write)
            WRITE_REGISTER_UCHAR(plx->Window + at + i, bytes[i]);
        else
            bytes[i] = READ_REGISTER_UCHAR(plx->Window + at + i);
    ExReleaseFastMutex(&plx->Mutex);
    return KitFinish(&plx->Kit, Irp, STATUS_SUCCESS, length);
}

static NTSTATUS KitStart(PKIT Kit, PCM_PARTIAL_RESOURCE_LIST Translated)
{
    PPLX plx = CONTAINING_RECORD(Kit, PLX, Kit);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR window = HwWindow(Translated, 1, PLX_WINDOW);      /* the first one has the bridge's own registers */

    if (window == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (plx->Window == NULL)
        plx->Window = MmMapIoSpace(window->u.Memory.Start, PLX_WINDOW, MmNonCached);
    return plx->Window != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static void PlxUnmap(PPLX Plx)
{
    if (Plx->Window != NULL)
        MmUnmapIoSpace(Plx->Window, PLX_WINDOW);
    Plx->Window = NULL;
}

static void KitStop(PKIT Kit)
{
#ifdef FIXED
    PlxUnmap(CONTAINING_RECORD(Kit, PLX, Kit));
#else
    UNREFERENCED_PARAMETER(Kit);
#endif
}

static void PlxFree(PKIT Kit)
{
    PlxUnmap(CONTAINING_RECORD(Kit, PLX, Kit));
}

static void KitDrain(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitSuspend(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitResume(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);                /* the bridge loads its configuration from its EEPROM */
}

static NTSTATUS NTAPI PlxAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    NTSTATUS status = KitAttach(Driver, Pdo, sizeof(PLX), PLX_TAG, &PlxInterface, &device);

    if (!NT_SUCCESS(status))
        return status;
    ExInitializeFastMutex(&((PPLX)device->DeviceExtension)->Mutex);
    device->Flags |= DO_BUFFERED_IO;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI PlxUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitInitialize(Driver, PlxAddDevice, PlxUnload);
    Driver->MajorFunction[IRP_MJ_CREATE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_READ] = PlxTransfer;
    Driver->MajorFunction[IRP_MJ_WRITE] = PlxTransfer;
    return STATUS_SUCCESS;
}
