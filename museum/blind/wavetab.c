/*
 * wavetab: an arbitrary waveform generator card. A table of points is loaded by one IOCTL and played in a loop.
 * BAR0 (8 KiB): 0x00 id (0x57415645), 0x04 control (1 play, 2 interrupt enable), 0x08 number of points,
 * 0x0C interrupt status (1: a loop ended; write 1 to clear), 0x1000.. 512 points, 8 bytes each (level, ticks).
 *
 * The bug: the size of the table is computed in 32 bits from the count that the application gives, before the count is
 * compared with anything, and the product wraps.
 *
 * Device: PCI\VEN_1DA7&DEV_0101
 * Rule: pool-overrun
 * Needs: ioctl
 */
#include "../include/gated_device.h"

#define WT_ID       0x00
#define WT_CTRL     0x04
#define WT_POINTS   0x08
#define WT_IRQ      0x0C
#define WT_TABLE    0x1000
#define WT_LENGTH   0x2000
#define WT_MAGIC    0x57415645u
#define CTRL_PLAY   1u
#define CTRL_IRQ    2u
#define CARD_POINTS 512u

#define IOCTL_WAVE_LOAD  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WAVE_PLAY  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WAVE_LOOPS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _WAVE_POINT {        /* as the application gives it */
    LONG MicroVolts;
    ULONG Ticks;
    ULONG Flags;                    /* 1: repeat the level before */
} WAVE_POINT;

typedef struct _WAVE_LOAD {
    ULONG Count;
    ULONG Gain;                     /* in 1/256 */
    WAVE_POINT Points[1];
} WAVE_LOAD;

typedef struct _CARD_POINT {
    ULONG Level;
    ULONG Ticks;
} CARD_POINT;

typedef struct _WAVE {
    BQ_DEVICE Bq;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    volatile LONG Loops;
    KMUTEX Mutex;                   /* Table, Count, Playing and the registers for them */
    CARD_POINT *Table;              /* what the card plays, to load it again after D3 */
    ULONG Count;
    BOOLEAN Playing;
} WAVE, *PWAVE;

static const GUID WaveInterface = { 0xe6d0fa4d, 0x4f9c, 0x42a5, { 0xbb, 0x72, 0x05, 0x77, 0x5c, 0x90, 0x21, 0x07 } };

static ULONG Rd(PWAVE W, ULONG Reg) { return READ_REGISTER_ULONG((PULONG)(W->Regs + Reg)); }
static VOID Wr(PWAVE W, ULONG Reg, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(W->Regs + Reg), V); }

static BOOLEAN NTAPI WaveIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PWAVE w = Context;
    ULONG status = Rd(w, WT_IRQ);

    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0xFFFFFFFF || !(status & 1))
        return FALSE;
    Wr(w, WT_IRQ, 1);
    InterlockedIncrement(&w->Loops);
    return TRUE;
}

/* Puts the table into the card, which does not play meanwhile. */
static VOID WaveProgram(PWAVE W)
{
    ULONG i;

    Wr(W, WT_CTRL, 0);
    for (i = 0; i < W->Count; i++) {
        Wr(W, WT_TABLE + i * sizeof(CARD_POINT), W->Table[i].Level);
        Wr(W, WT_TABLE + i * sizeof(CARD_POINT) + 4, W->Table[i].Ticks);
    }
    Wr(W, WT_POINTS, W->Count);
    if (W->Playing && W->Count != 0)
        Wr(W, WT_CTRL, CTRL_PLAY | CTRL_IRQ);
}

static NTSTATUS WaveLoad(PWAVE W, const WAVE_LOAD *Load, ULONG Length)
{
    const ULONG head = FIELD_OFFSET(WAVE_LOAD, Points);
    CARD_POINT *table, *old;
    ULONG count, i, level = 0;

    if (Length < head)
        return STATUS_INVALID_PARAMETER;
    count = Load->Count;
#ifdef FIXED
    if (count > CARD_POINTS)
        return STATUS_INVALID_PARAMETER;
#endif
    if (count == 0 || Length - head < count * (ULONG)sizeof(WAVE_POINT))
        return STATUS_INVALID_PARAMETER;
    if (count * (ULONG)sizeof(CARD_POINT) > CARD_POINTS * sizeof(CARD_POINT))
        return STATUS_INVALID_PARAMETER;                /* more than the card has */
    table = ExAllocatePoolWithTag(NonPagedPool, count * (ULONG)sizeof(CARD_POINT), 'evaW');
    if (table == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    for (i = 0; i < count; i++) {
        if (!(Load->Points[i].Flags & 1) || i == 0)
            level = (ULONG)(((LONGLONG)Load->Points[i].MicroVolts * Load->Gain) >> 8);
        table[i].Level = level;
        table[i].Ticks = Load->Points[i].Ticks;
    }
    KeWaitForSingleObject(&W->Mutex, Executive, KernelMode, FALSE, NULL);
    old = W->Table;
    W->Table = table;
    W->Count = count;
    WaveProgram(W);
    KeReleaseMutex(&W->Mutex, FALSE);
    if (old != NULL)
        ExFreePoolWithTag(old, 'evaW');
    return STATUS_SUCCESS;
}

static NTSTATUS BqIo(PBQ_DEVICE Dev, PIRP Irp)
{
    PWAVE w = (PWAVE)Dev;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in, out;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    in = sp->Parameters.DeviceIoControl.InputBufferLength;
    out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WAVE_LOAD:
        return BqComplete(Dev, Irp, WaveLoad(w, buffer, in), 0);

    case IOCTL_WAVE_PLAY:
        if (in < sizeof(ULONG))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeWaitForSingleObject(&w->Mutex, Executive, KernelMode, FALSE, NULL);
        w->Playing = *(PULONG)buffer != 0;
        Wr(w, WT_CTRL, w->Playing && w->Count != 0 ? CTRL_PLAY | CTRL_IRQ : 0);
        KeReleaseMutex(&w->Mutex, FALSE);
        return BqComplete(Dev, Irp, STATUS_SUCCESS, 0);

    case IOCTL_WAVE_LOOPS:
        if (out < sizeof(ULONG))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PULONG)buffer = (ULONG)w->Loops;
        return BqComplete(Dev, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID BqFlush(PBQ_DEVICE Dev, PFILE_OBJECT File)
{
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(File);
}

static NTSTATUS BqStartHardware(PBQ_DEVICE Dev, PCM_RESOURCE_LIST List)
{
    PWAVE w = (PWAVE)Dev;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = BqFind(List, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = BqFind(List, CmResourceTypeInterrupt, 0);
    NTSTATUS status;

    if (mem == NULL || irq == NULL || mem->u.Memory.Length < WT_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    w->Regs = MmMapIoSpace(mem->u.Memory.Start, WT_LENGTH, MmNonCached);
    if (w->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    Wr(w, WT_CTRL, 0);
    Wr(w, WT_IRQ, 1);
    status = Rd(w, WT_ID) == WT_MAGIC ? BqConnect(&w->Interrupt, WaveIsr, w, irq) : STATUS_NO_SUCH_DEVICE;
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(w->Regs, WT_LENGTH);
        w->Regs = NULL;
        return status;
    }
    WaveProgram(w);                                     /* nothing yet, or what was there before a stop */
    return STATUS_SUCCESS;
}

static VOID BqStopHardware(PBQ_DEVICE Dev)
{
    PWAVE w = (PWAVE)Dev;

    if (BqTouchable(Dev)) {
        Wr(w, WT_CTRL, 0);
        Wr(w, WT_IRQ, 1);
    }
    IoDisconnectInterrupt(w->Interrupt);
    w->Interrupt = NULL;
    MmUnmapIoSpace(w->Regs, WT_LENGTH);
    w->Regs = NULL;
}

static VOID BqPowerDown(PBQ_DEVICE Dev)
{
    Wr((PWAVE)Dev, WT_CTRL, 0);
    Wr((PWAVE)Dev, WT_IRQ, 1);
}

static VOID BqPowerUp(PBQ_DEVICE Dev) { WaveProgram((PWAVE)Dev); }

static NTSTATUS BqInit(PBQ_DEVICE Dev)
{
    KeInitializeMutex(&((PWAVE)Dev)->Mutex, 0);
    return STATUS_SUCCESS;
}

static VOID BqUninit(PBQ_DEVICE Dev)
{
    if (((PWAVE)Dev)->Table != NULL)
        ExFreePoolWithTag(((PWAVE)Dev)->Table, 'evaW');
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    BqEntry(DriverObject, sizeof(WAVE), 0, &WaveInterface);
    return STATUS_SUCCESS;
}
