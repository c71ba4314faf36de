/*
 * plxpeer: gives applications bytes of local space 0 (BAR2) behind a PLX PCI 9050 bridge, and takes bytes for it;
 * the place is in the input, the data in the direct buffer.
 *
 * The bug: the end of a transfer is computed as Offset + Length in 32 bits, which wraps for an offset near 4 GB.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-memory-not-mapped
 * Needs: ioctl
 */
#include "../include/held_core.h"

#define IOCTL_PEER_GET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x891, METHOD_OUT_DIRECT, FILE_READ_ACCESS)
#define IOCTL_PEER_SET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x892, METHOD_IN_DIRECT, FILE_WRITE_ACCESS)
#define IOCTL_PEER_SIZE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x893, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID InterfaceGuid = { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x02, 0x02 } };

typedef struct _PLACE {
    ULONG Offset;
    ULONG Length;
} PLACE;

typedef struct _DEV {
    CORE Core;
    FAST_MUTEX Gate;
    PUCHAR Space;
    ULONG Size;
} DEV;

/* Is the place within the space, and within the caller's buffer? */
static BOOLEAN Fits(const DEV *Dev, const PLACE *Place, ULONG Buffer)
{
    if (Place->Length == 0 || Place->Length > Buffer)
        return FALSE;
#ifdef FIXED
    return Place->Length <= Dev->Size && Place->Offset <= Dev->Size - Place->Length;
#else
    return Place->Offset + Place->Length <= Dev->Size;
#endif
}

static NTSTATUS Transfer(DEV *Dev, PIRP Irp, PIO_STACK_LOCATION Stack, BOOLEAN ToCard, PULONG_PTR Info)
{
    PUCHAR data, card;
    NTSTATUS status = STATUS_SUCCESS;
    PLACE place;
    ULONG i;

    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(PLACE) || !Irp->MdlAddress)
        return STATUS_INVALID_PARAMETER;
    place = *(PLACE *)Irp->AssociatedIrp.SystemBuffer;
    data = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (!data)
        return STATUS_INSUFFICIENT_RESOURCES;
    ExAcquireFastMutex(&Dev->Gate);
    if (Dev->Core.Hold) {
        status = STATUS_DEVICE_NOT_READY;
    } else if (!Fits(Dev, &place, Stack->Parameters.DeviceIoControl.OutputBufferLength)) {
        status = STATUS_INVALID_PARAMETER;
    } else {
        card = Dev->Space + place.Offset;
        if (ToCard) {
            for (i = 0; i < place.Length; i++)
                WRITE_REGISTER_UCHAR(card + i, data[i]);
        } else {
            for (i = 0; i < place.Length; i++)
                data[i] = READ_REGISTER_UCHAR(card + i);
        }
        *Info = place.Length;
    }
    ExReleaseFastMutex(&Dev->Gate);
    return status;
}

static NTSTATUS NTAPI PeerControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    DEV *dev = Device->DeviceExtension;
    NTSTATUS status = CoreEnter(&dev->Core, Irp);
    ULONG_PTR info = 0;

    if (!NT_SUCCESS(status))
        return status;
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PEER_GET:
        status = Transfer(dev, Irp, stack, FALSE, &info);
        break;
    case IOCTL_PEER_SET:
        status = Transfer(dev, Irp, stack, TRUE, &info);
        break;
    case IOCTL_PEER_SIZE:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ExAcquireFastMutex(&dev->Gate);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = dev->Size;
        ExReleaseFastMutex(&dev->Gate);
        info = sizeof(ULONG);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    CoreComplete(&dev->Core, Irp, status, info);
    return status;
}

static VOID HwQuiesce(CORE *Core)
{
    ExAcquireFastMutex(&((DEV *)Core)->Gate);
    ExReleaseFastMutex(&((DEV *)Core)->Gate);
}

/* The second memory resource: the first is the bridge's own. The card has no interrupt to be served. */
static NTSTATUS HwStart(CORE *Core, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR bar = CoreResource(Translated, CmResourceTypeMemory, 1);
    DEV *dev = (DEV *)Core;
    PUCHAR space;

    if (!bar || bar->u.Memory.Length == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    space = MmMapIoSpace(bar->u.Memory.Start, bar->u.Memory.Length, MmNonCached);
    if (!space)
        return STATUS_INSUFFICIENT_RESOURCES;
    ExAcquireFastMutex(&dev->Gate);
    dev->Space = space;
    dev->Size = bar->u.Memory.Length;
    ExReleaseFastMutex(&dev->Gate);
    return STATUS_SUCCESS;
}

static VOID HwStop(CORE *Core, BOOLEAN Touch)
{
    DEV *dev = (DEV *)Core;
    PUCHAR space;
    ULONG size;

    UNREFERENCED_PARAMETER(Touch);
    ExAcquireFastMutex(&dev->Gate);
    space = dev->Space;
    size = dev->Size;
    dev->Space = NULL;
    dev->Size = 0;
    ExReleaseFastMutex(&dev->Gate);
    MmUnmapIoSpace(space, size);
}

static VOID HwKick(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwAbort(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwFini(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwSleep(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwWake(CORE *Core) { UNREFERENCED_PARAMETER(Core); }

static NTSTATUS NTAPI PeerAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    CORE *core;
    NTSTATUS status = CoreAdd(Driver, Pdo, sizeof(DEV), &InterfaceGuid, &core);

    (void)CoreConnect;
    if (NT_SUCCESS(status)) {
        ExInitializeFastMutex(&((DEV *)core)->Gate);
        core->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    }
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    CoreEntry(Driver, PeerAdd);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PeerControl;
    return STATUS_SUCCESS;
}
