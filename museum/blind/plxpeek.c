/*
 * plxpeek: lets a service look into and write to the first local space (BAR2, memory) of a card with a PLX 9050
 * bridge, a number of 32-bit words at a time.
 *
 * The bug: a look checks that it begins within the local space, but not that it ends there.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-memory-not-mapped
 * Needs: ioctl
 */
#include "../include/caller_frame.h"

#define IOCTL_PEEK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB11, METHOD_OUT_DIRECT, FILE_READ_DATA)
#define IOCTL_POKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB12, METHOD_IN_DIRECT, FILE_READ_DATA | FILE_WRITE_DATA)
#define IOCTL_SIZE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB13, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define INTCSR 0x4C
#define MOST 0x10000            /* bytes in one request */

typedef struct _PEEK {
    FRAME F;
    PUCHAR Bridge, Space;
    ULONG BridgeLen, SpaceLen;
} PEEK, *PPEEK;

static const GUID PeekClass = {0x6c1e2a0a, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x0a}};

static NTSTATUS HwStart(PDEVICE_OBJECT dev, PFRAME_RES res)
{
    PPEEK p = dev->DeviceExtension;

    if (res->Mems < 2 || res->MemLen[0] < 0x54 || res->MemLen[1] < sizeof(ULONG))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    p->BridgeLen = res->MemLen[0];
    p->SpaceLen = res->MemLen[1];
    p->Bridge = MmMapIoSpace(res->Mem[0], p->BridgeLen, MmNonCached);
    if (p->Bridge == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    p->Space = MmMapIoSpace(res->Mem[1], p->SpaceLen, MmNonCached);
    if (p->Space == NULL) {
        MmUnmapIoSpace(p->Bridge, p->BridgeLen);
        p->Bridge = NULL;
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    WRITE_REGISTER_ULONG((PULONG)(p->Bridge + INTCSR), 0);     /* no interrupts */
    FrameReady(&p->F);
    return STATUS_SUCCESS;
}

static VOID HwHold(PDEVICE_OBJECT dev)
{
    FrameUnready(FR(dev));
}

static VOID HwAbort(PDEVICE_OBJECT dev)
{
    FrameUnready(FR(dev));
}

static VOID HwRelease(PDEVICE_OBJECT dev, BOOLEAN touchable)
{
    PPEEK p = dev->DeviceExtension;

    UNREFERENCED_PARAMETER(touchable);
    MmUnmapIoSpace(p->Space, p->SpaceLen);
    MmUnmapIoSpace(p->Bridge, p->BridgeLen);
    p->Space = p->Bridge = NULL;
}

static VOID HwSleep(PDEVICE_OBJECT dev)
{
    FrameUnready(FR(dev));
}

static VOID HwWake(PDEVICE_OBJECT dev)
{
    PPEEK p = dev->DeviceExtension;

    WRITE_REGISTER_ULONG((PULONG)(p->Bridge + INTCSR), 0);
    FrameReady(&p->F);
}

/* The direct buffer of the request, in system space. */
static NTSTATUS Words(PIRP irp, ULONG length, PULONG *words)
{
    if (length == 0 || length > MOST || length % sizeof(ULONG) != 0 || irp->MdlAddress == NULL)
        return STATUS_INVALID_BUFFER_SIZE;
    *words = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority);
    return *words == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

/* The frame is entered, thus the space is mapped and powered. */
static NTSTATUS Peek(PPEEK p, ULONG offset, PULONG words, ULONG length)
{
    ULONG i;

#ifdef FIXED
    if (offset % sizeof(ULONG) != 0 || offset >= p->SpaceLen || length > p->SpaceLen - offset)
#else
    if (offset % sizeof(ULONG) != 0 || offset >= p->SpaceLen)
#endif
        return STATUS_INVALID_PARAMETER;
    for (i = 0; i < length; i += sizeof(ULONG))
        words[i / sizeof(ULONG)] = READ_REGISTER_ULONG((PULONG)(p->Space + offset + i));
    return STATUS_SUCCESS;
}

static NTSTATUS Poke(PPEEK p, ULONG offset, PULONG words, ULONG length)
{
    ULONG i;

    if (offset % sizeof(ULONG) != 0 || offset >= p->SpaceLen || length > p->SpaceLen - offset)
        return STATUS_INVALID_PARAMETER;
    for (i = 0; i < length; i += sizeof(ULONG))
        WRITE_REGISTER_ULONG((PULONG)(p->Space + offset + i), words[i / sizeof(ULONG)]);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI PeekControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PPEEK p = dev->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG code = stack->Parameters.DeviceIoControl.IoControlCode;
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG words = NULL;
    ULONG offset;
    ULONG_PTR info = 0;
    NTSTATUS status = IoAcquireRemoveLock(&p->F.Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    switch (code) {
    case IOCTL_PEEK:
    case IOCTL_POKE:
        if (in < sizeof offset) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        offset = *(PULONG)irp->AssociatedIrp.SystemBuffer;
        status = Words(irp, out, &words);
        if (!NT_SUCCESS(status))
            break;
        status = FrameEnter(&p->F);
        if (!NT_SUCCESS(status))
            break;
        status = code == IOCTL_PEEK ? Peek(p, offset, words, out) : Poke(p, offset, words, out);
        FrameLeave(&p->F);
        if (NT_SUCCESS(status))
            info = out;
        break;
    case IOCTL_SIZE:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(PULONG)irp->AssociatedIrp.SystemBuffer = p->SpaceLen;
        info = sizeof(ULONG);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    FrameComplete(irp, status, info);
    IoReleaseRemoveLock(&p->F.Remove, irp);
    return status;
}

static NTSTATUS NTAPI PeekAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    NTSTATUS status = FrameAdd(driver, pdo, &PeekClass, sizeof(PEEK), DO_DIRECT_IO, &dev);

    if (NT_SUCCESS(status))
        dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    FrameEntry(driver, PeekAdd);
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PeekControl;
    return STATUS_SUCCESS;
}
