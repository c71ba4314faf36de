/*
 * framebuf: frame memory of an invented display card. IOCTL_FB_WRITE and IOCTL_FB_READ copy
 * into and out of it (offset and length multiples of 4), IOCTL_FB_INFO tells its size,
 * IOCTL_FB_VSYNC waits for the next vertical blank.
 * Registers (BAR0): 0x00 identification 0xF00D0001, 0x04 bytes of frame memory, 0x08 interrupt
 * status (1 vertical blank; write 1 to clear), 0x0C interrupt enable, 0x10 blanks counted;
 * the frame memory begins at 0x1000.
 *
 * The bug: the check of offset and length against the memory's size adds them in 32 bits.
 *
 * Device: PCI\VEN_1DA7&DEV_0001
 * Rule: wild-read, wild-write
 * Needs: ioctl
 */
#include "../include/pausing_frame.h"

#define R_ID      0x00
#define R_SIZE    0x04
#define R_STATUS  0x08
#define R_ENABLE  0x0C
#define R_BLANKS  0x10
#define MEMORY    0x1000u
#define I_BLANK   1u

#define IOCTL_FB_INFO  CTL_CODE(FILE_DEVICE_VIDEO, 0x930, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_FB_WRITE CTL_CODE(FILE_DEVICE_VIDEO, 0x931, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FB_READ  CTL_CODE(FILE_DEVICE_VIDEO, 0x932, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_FB_VSYNC CTL_CODE(FILE_DEVICE_VIDEO, 0x933, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID FrameInterface = { 0xd2b70c11, 0x3f7e, 0x4a02, { 0x90, 0x6b, 0x27, 0xe1, 0x5d, 0x03, 0xc4, 0x01 } };

typedef struct { ULONG Offset, Length; } FB_RANGE;      /* WRITE: the data follow */

typedef struct {
    FRAME Frame;
    FRQ Syncs;
    PUCHAR Regs;
    SIZE_T Mapped;
    ULONG Size;                 /* of the frame memory */
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    volatile LONG Blanks;
} FBUF, *PFBUF;

static inline ULONG Rd(PFBUF F, ULONG R) { return READ_REGISTER_ULONG((PULONG)(F->Regs + R)); }
static inline VOID Wr(PFBUF F, ULONG R, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(F->Regs + R), V); }

static BOOLEAN InMemory(PFBUF F, ULONG Offset, ULONG Length)
{
    if ((Offset | Length) & 3)
        return FALSE;
#ifdef FIXED
    return Offset <= F->Size && Length <= F->Size - Offset;
#else
    return Offset + Length <= F->Size;
#endif
}

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Ctx)
{
    PFBUF f = Ctx;
    ULONG status = Rd(f, R_STATUS);
    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0xFFFFFFFF || !(status & I_BLANK))
        return FALSE;
    Wr(f, R_STATUS, I_BLANK);
    InterlockedIncrement(&f->Blanks);
    KeInsertQueueDpc(&f->Dpc, NULL, NULL);
    return TRUE;
}

static VOID DpcRoutine(PKDPC Dpc, PVOID Ctx, PVOID A, PVOID B)
{
    PFBUF f = Ctx;
    ULONG left;
    PIRP irp;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    for (left = *(volatile ULONG *)&f->Syncs.Count; left && (irp = FrqTake(&f->Syncs, NULL)) != NULL; left--) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = (ULONG)f->Blanks;
        irp->IoStatus.Information = sizeof(ULONG);
        FrDone(&f->Frame, irp, STATUS_SUCCESS);
    }
}

static VOID Stop(PDEVICE_OBJECT Dev)
{
    PFBUF f = Dev->DeviceExtension;
    if (f->Interrupt) {
        Wr(f, R_ENABLE, 0);
        IoDisconnectInterrupt(f->Interrupt);
        f->Interrupt = NULL;
    }
    KeFlushQueuedDpcs();
    if (f->Regs)
        MmUnmapIoSpace(f->Regs, f->Mapped);
    f->Regs = NULL;
}

static NTSTATUS Start(PDEVICE_OBJECT Dev, PCM_RESOURCE_LIST Translated, PCM_RESOURCE_LIST Raw)
{
    PFBUF f = Dev->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = FrResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = FrResource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Raw);
    if (!mem || !irq || mem->u.Memory.Length < MEMORY)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    f->Mapped = mem->u.Memory.Length;
    f->Regs = MmMapIoSpace(mem->u.Memory.Start, f->Mapped, MmNonCached);
    if (!f->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Rd(f, R_ID) != 0xF00D0001) {
        Stop(Dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    f->Size = Rd(f, R_SIZE) & ~3u;
    if (f->Size > f->Mapped - MEMORY)       /* the card promises more than its window holds */
        f->Size = (ULONG)(f->Mapped - MEMORY) & ~3u;
    Wr(f, R_ENABLE, 0);
    Wr(f, R_STATUS, I_BLANK);
    status = FrConnect(&f->Interrupt, Isr, f, irq);
    if (!NT_SUCCESS(status)) {
        f->Interrupt = NULL;
        Stop(Dev);
        return status;
    }
    Wr(f, R_ENABLE, I_BLANK);
    return STATUS_SUCCESS;
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    Wr(Dev->DeviceExtension, R_ENABLE, 0);
    KeFlushQueuedDpcs();
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    Wr(Dev->DeviceExtension, R_STATUS, I_BLANK);
    Wr(Dev->DeviceExtension, R_ENABLE, I_BLANK);
}

static VOID Flush(PDEVICE_OBJECT Dev) { FrqShut(&((PFBUF)Dev->DeviceExtension)->Syncs); }
static VOID Cleanup(PDEVICE_OBJECT Dev, PFILE_OBJECT File) { FrqCancelFile(&((PFBUF)Dev->DeviceExtension)->Syncs, File); }

static NTSTATUS Io(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFBUF f = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PUCHAR buf = Irp->AssociatedIrp.SystemBuffer;
    FB_RANGE r;
    ULONG i;
    NTSTATUS status;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FB_INFO:
        if (out < 2 * sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        status = FrEnter(&f->Frame);
        if (NT_SUCCESS(status)) {
            ((ULONG *)buf)[0] = f->Size;
            ((ULONG *)buf)[1] = Rd(f, R_BLANKS);
            FrLeave(&f->Frame);
            Irp->IoStatus.Information = 2 * sizeof(ULONG);
        }
        return status;
    case IOCTL_FB_WRITE:
    case IOCTL_FB_READ:
        if (in < sizeof r)
            return STATUS_BUFFER_TOO_SMALL;
        r = *(FB_RANGE *)buf;
        if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_FB_WRITE ? r.Length > in - sizeof r : r.Length > out)
            return STATUS_BUFFER_TOO_SMALL;
        if (r.Length == 0)
            return STATUS_SUCCESS;
        status = FrEnter(&f->Frame);
        if (!NT_SUCCESS(status))
            return status;
        if (!InMemory(f, r.Offset, r.Length))
            status = STATUS_INVALID_PARAMETER;
        else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_FB_WRITE)
            for (i = 0; i < r.Length / 4; i++)
                WRITE_REGISTER_ULONG((PULONG)(f->Regs + MEMORY + r.Offset) + i, ((PULONG)(buf + sizeof r))[i]);
        else {
            for (i = 0; i < r.Length / 4; i++)
                ((PULONG)buf)[i] = READ_REGISTER_ULONG((PULONG)(f->Regs + MEMORY + r.Offset) + i);
            Irp->IoStatus.Information = r.Length;
        }
        FrLeave(&f->Frame);
        return status;
    case IOCTL_FB_VSYNC:
        return out < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : FrqPut(&f->Syncs, Irp);
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const FRAME_OPS Ops = {
    .Start = Start, .Stop = Stop, .Flush = Flush, .PowerDown = PowerDown, .PowerUp = PowerUp, .Cleanup = Cleanup, .Io = Io
};

static NTSTATUS Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PFBUF f;
    NTSTATUS status = FrAdd(Driver, Pdo, sizeof(FBUF), &Ops, &FrameInterface, 0, &dev);
    if (!NT_SUCCESS(status))
        return status;
    f = dev->DeviceExtension;
    KeInitializeDpc(&f->Dpc, DpcRoutine, f);
    status = FrqInit(&f->Syncs, &f->Frame);
    if (!NT_SUCCESS(status)) {
        FrUnadd(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    FrInit(Driver, Add);
    return STATUS_SUCCESS;
}
