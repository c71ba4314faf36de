/*
 * rebase: sets and reads the counter of a small timing card.
 * The card's registers (BAR0, memory, 256 bytes): 0x00 ident 0x52454241; 0x04 control (bit 0: runs); 0x08 count (read only);
 * 0x0C reload value. It has no interrupt; control and reload are lost in D3.
 *
 * The bug: the registers' mapping is kept when the device is stopped and taken again at the next start, although the
 * new resources may lie elsewhere (rebalance).
 *
 * Device: PCI\VEN_1DA7&DEV_0003
 * Rule: io-space-still-mapped, stale-resource-used
 * Needs: nothing
 */
#include "../include/caller_frame.h"

#define IOCTL_REBASE_SET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC21, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_REBASE_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC22, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define R_IDENT 0x00
#define R_CONTROL 0x04
#define R_COUNT 0x08
#define R_RELOAD 0x0C

typedef struct _REBASE_SET {
    ULONG Run;
    ULONG Reload;
} REBASE_SET, *PREBASE_SET;

typedef struct _REBASE {
    FRAME F;
    PUCHAR Regs;
    ULONG RegsLen;
    REBASE_SET Last;        /* by the owner of the frame */
} REBASE, *PREBASE;

static const GUID RebaseClass = {0x6c1e2a0e, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x0e}};

static ULONG In(PREBASE r, ULONG n) { return READ_REGISTER_ULONG((PULONG)(r->Regs + n)); }
static VOID Out(PREBASE r, ULONG n, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(r->Regs + n), v); }

static VOID Program(PREBASE r)
{
    Out(r, R_CONTROL, 0);
    Out(r, R_RELOAD, r->Last.Reload);
    Out(r, R_CONTROL, r->Last.Run ? 1 : 0);
}

static VOID Unmap(PREBASE r)
{
    MmUnmapIoSpace(r->Regs, r->RegsLen);
    r->Regs = NULL;
}

static NTSTATUS HwStart(PDEVICE_OBJECT dev, PFRAME_RES res)
{
    PREBASE r = dev->DeviceExtension;

    if (res->Mems == 0 || res->MemLen[0] < 0x10)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    if (r->Regs == NULL) {
        r->RegsLen = res->MemLen[0];
        r->Regs = MmMapIoSpace(res->Mem[0], r->RegsLen, MmNonCached);
        if (r->Regs == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (In(r, R_IDENT) == 0xFFFFFFFFu) {
        Unmap(r);
        return STATUS_DEVICE_DOES_NOT_EXIST;
    }
    Program(r);
    FrameReady(&r->F);
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
    PREBASE r = dev->DeviceExtension;

    if (touchable)
        Out(r, R_CONTROL, 0);
#ifndef FIXED
    if (r->F.Gone)
#endif
        Unmap(r);
}

static VOID HwSleep(PDEVICE_OBJECT dev)
{
    FrameUnready(FR(dev));
}

static VOID HwWake(PDEVICE_OBJECT dev)
{
    PREBASE r = dev->DeviceExtension;

    Program(r);
    FrameReady(&r->F);
}

static NTSTATUS NTAPI RebaseControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PREBASE r = dev->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR info = 0;
    NTSTATUS status = IoAcquireRemoveLock(&r->F.Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_REBASE_SET:
        if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(REBASE_SET)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = FrameEnter(&r->F);
        if (!NT_SUCCESS(status))
            break;
        r->Last = *(PREBASE_SET)buffer;
        Program(r);
        FrameLeave(&r->F);
        break;
    case IOCTL_REBASE_READ:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = FrameEnter(&r->F);
        if (!NT_SUCCESS(status))
            break;
        *(PULONG)buffer = In(r, R_COUNT);
        if (In(r, R_IDENT) == 0xFFFFFFFFu)       /* all ones: the card has gone */
            status = STATUS_NO_SUCH_DEVICE;
        else
            info = sizeof(ULONG);
        FrameLeave(&r->F);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    FrameComplete(irp, status, info);
    IoReleaseRemoveLock(&r->F.Remove, irp);
    return status;
}

static NTSTATUS NTAPI RebaseAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    NTSTATUS status = FrameAdd(driver, pdo, &RebaseClass, sizeof(REBASE), DO_BUFFERED_IO, &dev);

    if (NT_SUCCESS(status))
        dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    FrameEntry(driver, RebaseAdd);
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RebaseControl;
    return STATUS_SUCCESS;
}
