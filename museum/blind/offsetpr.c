/*
 * offsetpr: the ink and register control of an offset printing press: a PCI card with one memory window. Programs set the ink keys of 32 zones, read the sheet
 * counter, and wait for the next sheet, which the card's interrupt announces.
 *
 * The bug: if the interrupt cannot be connected, the start unmaps the card's window, but leaves its address in the device extension, and the routine that clears
 * up behind IRP_MN_REMOVE_DEVICE unmaps it once more.
 *
 * Device: PCI\VEN_1D0E&DEV_0532
 * Rule: io-space-unmap
 * Needs: failure
 */
#include <ddk/wdm.h>
#include "../include/parked_frame.h"

#define ZONES 32

#define IOCTL_OP_INK     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_OP_COUNTER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_OP_SHEET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F2, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _PRESS_REGS {
    ULONG Enable;
    ULONG Status;                   /* ones clear */
    ULONG Counter;
    ULONG InkSelect;
    ULONG InkValue;
} PRESS_REGS;

#define PRESS_SHEET 0x01
#define PRESS_JAM   0x02

typedef struct _INK {
    ULONG Zone;
    ULONG Percent;
} INK;

static const GUID PressInterface = { 0x6a3d0b41, 0x5b1f, 0x4e0e, { 0x91, 0x2c, 0x0d, 0x52, 0x7c, 0x33, 0x10, 0x0D } };

typedef struct _PRESS {
    struct fdev f;
    struct hw hw;                   /* the interrupt only; the window we map ourselves */
    volatile PRESS_REGS *Regs;
    ULONG RegsLength;
    struct wlist Sheets;
    KDPC Dpc;
    LONG Causes;
    KSPIN_LOCK Lock;                /* guards InkSelect and InkValue, and Ink */
    UCHAR Ink[ZONES];
} PRESS;

static ULONG OpRead(volatile ULONG *Register)
{
    return READ_REGISTER_ULONG((PULONG)(ULONG_PTR)Register);
}

static VOID OpWrite(volatile ULONG *Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(ULONG_PTR)Register, Value);
}

static BOOLEAN OpIsr(PVOID Context)
{
    PRESS *p = Context;
    ULONG status = OpRead(&p->Regs->Status);

    if (status == 0xFFFFFFFF || !(status & (PRESS_SHEET | PRESS_JAM)))
        return FALSE;
    OpWrite(&p->Regs->Status, status);
    InterlockedOr(&p->Causes, (LONG)status);
    KeInsertQueueDpc(&p->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI OpDpc(PKDPC Dpc, PVOID Context, PVOID a, PVOID b)
{
    PRESS *p = Context;
    LONG causes = InterlockedExchange(&p->Causes, 0);
    ULONG counter;
    PIRP irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    if (!causes)
        return;
    counter = OpRead(&p->Regs->Counter);
    while ((irp = wl_take(&p->Sheets, NULL)) != NULL) {
        if (causes & PRESS_JAM) {
            wl_end(&p->Sheets, irp, STATUS_DEVICE_PAPER_EMPTY, 0);
        } else {
            *(PULONG)irp->AssociatedIrp.SystemBuffer = counter;
            wl_end(&p->Sheets, irp, STATUS_SUCCESS, sizeof(ULONG));
        }
    }
}

/* Lock held. */
static VOID OpSetInk(PRESS *p, ULONG Zone)
{
    OpWrite(&p->Regs->InkSelect, Zone);
    OpWrite(&p->Regs->InkValue, p->Ink[Zone]);
}

static NTSTATUS OpRequest(struct fdev *f, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    PRESS *p = (PRESS *)f;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    INK *ink = buffer;
    KIRQL irql;

    if (Sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_OP_INK:
        if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(INK))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (ink->Zone >= ZONES || ink->Percent > 100)
            return irp_end(Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&p->Lock, &irql);
        p->Ink[ink->Zone] = (UCHAR)ink->Percent;
        OpSetInk(p, ink->Zone);
        KeReleaseSpinLock(&p->Lock, irql);
        return irp_end(Irp, STATUS_SUCCESS, 0);

    case IOCTL_OP_COUNTER:
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PULONG)buffer = OpRead(&p->Regs->Counter);
        return irp_end(Irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_OP_SHEET:
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return irp_end(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return wl_put(&p->Sheets, Irp);

    default:
        return irp_end(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID OpUnmap(PRESS *p)
{
    if (p->Regs)
        MmUnmapIoSpace((PVOID)(ULONG_PTR)p->Regs, p->RegsLength);
    p->Regs = NULL;
}

static void OpMask(PVOID Context)
{
    PRESS *p = Context;

    OpWrite(&p->Regs->Enable, 0);
    OpRead(&p->Regs->Enable);
}

static void OpUnmask(PVOID Context)
{
    PRESS *p = Context;

    OpWrite(&p->Regs->Status, PRESS_SHEET | PRESS_JAM);
    OpWrite(&p->Regs->Enable, PRESS_SHEET | PRESS_JAM);
}

static VOID OpOn(PRESS *p)
{
    ULONG zone;
    KIRQL irql;

    KeAcquireSpinLock(&p->Lock, &irql);
    for (zone = 0; zone < ZONES; zone++)
        OpSetInk(p, zone);
    KeReleaseSpinLock(&p->Lock, irql);
    hw_turn(&p->hw, TRUE, OpUnmask);
}

static VOID OpOff(PRESS *p, BOOLEAN Touch)
{
    hw_turn(&p->hw, FALSE, Touch ? OpMask : NULL);
    KeFlushQueuedDpcs();
}

static NTSTATUS OpStart(struct fdev *f, PCM_RESOURCE_LIST List)
{
    PRESS *p = (PRESS *)f;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR window = NULL, d;
    NTSTATUS status;
    ULONG i;

    if (!List || List->Count == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    p->hw.n = 0;
    p->hw.has_line = FALSE;
    d = List->List[0].PartialResourceList.PartialDescriptors;
    for (i = 0; i < List->List[0].PartialResourceList.Count; i++, d++) {
        if (d->Type == CmResourceTypeMemory && !window) {
            window = d;
        } else if (d->Type == CmResourceTypeInterrupt) {
            p->hw.line = *d;
            p->hw.has_line = TRUE;
        }
    }
    if (!window || window->u.Memory.Length < sizeof(PRESS_REGS))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    p->RegsLength = window->u.Memory.Length;
    p->Regs = MmMapIoSpace(window->u.Memory.Start, p->RegsLength, MmNonCached);
    if (!p->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    OpMask(p);
    status = hw_connect(&p->hw, OpIsr, p);
    if (!NT_SUCCESS(status)) {
#ifndef FIXED
        MmUnmapIoSpace((PVOID)(ULONG_PTR)p->Regs, p->RegsLength);
#else
        OpUnmap(p);
#endif
        return status;
    }
    OpOn(p);
    return STATUS_SUCCESS;
}

static VOID OpQuiet(struct fdev *f, BOOLEAN Touch)
{
    PRESS *p = (PRESS *)f;

    OpOff(p, Touch);
    hw_disconnect(&p->hw);
    OpUnmap(p);
}

static VOID OpSleep(struct fdev *f)
{
    OpOff((PRESS *)f, TRUE);
}

static VOID OpWake(struct fdev *f)
{
    OpOn((PRESS *)f);
}

static VOID OpGone(struct fdev *f)
{
    wl_end_all(&((PRESS *)f)->Sheets, NULL, STATUS_NO_SUCH_DEVICE);
}

static VOID OpCleanup(struct fdev *f, PFILE_OBJECT File)
{
    wl_end_all(&((PRESS *)f)->Sheets, File, STATUS_CANCELLED);
}

static NTSTATUS OpAdd(struct fdev *f)
{
    PRESS *p = (PRESS *)f;

    KeInitializeSpinLock(&p->Lock);
    KeInitializeDpc(&p->Dpc, OpDpc, p);
    return wl_init(&p->Sheets, &f->life);
}

static VOID OpDrop(struct fdev *f)
{
    OpUnmap((PRESS *)f);
}

static const struct fops OpOps = {
    .iface = &PressInterface, .bytes = sizeof(PRESS), .flags = DO_BUFFERED_IO,
    .add = OpAdd, .drop = OpDrop, .start = OpStart, .quiet = OpQuiet, .sleep = OpSleep, .wake = OpWake,
    .request = OpRequest, .gone = OpGone, .cleanup = OpCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return fd_entry(DriverObject, &OpOps);
}
