/*
 * plxgulp: empties the sample FIFO of a converter board behind a PLX PCI 9050. The local space at BAR2 has 0x00 data
 * (each read takes one 32-bit word out), 0x04 words in the FIFO, 0x08 control (1 run, 2 reset). Reads are direct and
 * answer what there is, of any length in bytes; the rest of a word that is not asked for is dropped. IOCTLs run and
 * reset it. PLX: INTCSR (0x4C) is kept zero, the board is polled.
 *
 * The bug: the number of words is rounded up and whole words are stored, so a read whose length is not a multiple of
 * four has up to three bytes stored behind its end.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: bad-pointer
 * Needs: device, ioctl
 */
#include "../include/gated_device.h"

#define INTCSR      0x4C
#define PLX_LENGTH  0x54
#define FIFO_DATA   0x00
#define FIFO_WORDS  0x04
#define FIFO_CTRL   0x08
#define FIFO_LENGTH 0x0C
#define CTRL_RUN    1u
#define CTRL_RESET  2u
#define FIFO_DEPTH  4096u

#define IOCTL_GULP_RUN   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GULP_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GULP_LEVEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _GULP {
    BQ_DEVICE Bq;
    PUCHAR Plx;
    PUCHAR Fifo;
    KMUTEX Mutex;                   /* the FIFO and Running */
    BOOLEAN Running;
} GULP, *PGULP;

static const GUID GulpInterface = { 0x11b50b69, 0x41c0, 0x49cd, { 0x90, 0x0f, 0x7a, 0x44, 0x3e, 0xd3, 0x11, 0x05 } };

static ULONG Rd(PUCHAR Base, ULONG Reg) { return READ_REGISTER_ULONG((PULONG)(Base + Reg)); }
static VOID Wr(PUCHAR Base, ULONG Reg, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(Base + Reg), V); }

static BOOLEAN GulpAway(PGULP G) { return Rd(G->Plx, INTCSR) == 0xFFFFFFFF; }

static NTSTATUS GulpRead(PGULP G, PUCHAR Buffer, ULONG Length, PULONG Done)
{
    ULONG words = Length / sizeof(ULONG) + (Length % sizeof(ULONG) != 0);
    ULONG there = Rd(G->Fifo, FIFO_WORDS);
    ULONG i;

    *Done = 0;
    if (there > FIFO_DEPTH)
        return GulpAway(G) ? STATUS_DEVICE_NOT_CONNECTED : STATUS_IO_DEVICE_ERROR;
    if (words > there)
        words = there;
    for (i = 0; i < words; i++) {
        ULONG word = Rd(G->Fifo, FIFO_DATA);
#ifdef FIXED
        ULONG left = Length - i * sizeof(ULONG);

        RtlCopyMemory(Buffer + i * sizeof(ULONG), &word, left < sizeof(word) ? left : sizeof(word));
#else
        RtlCopyMemory(Buffer + i * sizeof(ULONG), &word, sizeof(word));
#endif
    }
    *Done = words * sizeof(ULONG) < Length ? words * sizeof(ULONG) : Length;
    return STATUS_SUCCESS;
}

static NTSTATUS BqIo(PBQ_DEVICE Dev, PIRP Irp)
{
    PGULP g = (PGULP)Dev;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG done = 0;

    if (sp->MajorFunction == IRP_MJ_READ) {
        PUCHAR buffer;

        if (sp->Parameters.Read.Length == 0)
            return BqComplete(Dev, Irp, STATUS_SUCCESS, 0);
        buffer = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
        if (buffer == NULL)
            return BqComplete(Dev, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        KeWaitForSingleObject(&g->Mutex, Executive, KernelMode, FALSE, NULL);
        status = GulpRead(g, buffer, sp->Parameters.Read.Length, &done);
        KeReleaseMutex(&g->Mutex, FALSE);
        return BqComplete(Dev, Irp, status, done);
    }
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);

    KeWaitForSingleObject(&g->Mutex, Executive, KernelMode, FALSE, NULL);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GULP_RUN:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        g->Running = *(PULONG)Irp->AssociatedIrp.SystemBuffer != 0;
        Wr(g->Fifo, FIFO_CTRL, g->Running ? CTRL_RUN : 0);
        break;
    case IOCTL_GULP_RESET:
        Wr(g->Fifo, FIFO_CTRL, CTRL_RESET);
        Wr(g->Fifo, FIFO_CTRL, g->Running ? CTRL_RUN : 0);
        break;
    case IOCTL_GULP_LEVEL:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Rd(g->Fifo, FIFO_WORDS);
        done = sizeof(ULONG);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    KeReleaseMutex(&g->Mutex, FALSE);
    return BqComplete(Dev, Irp, status, done);
}

static VOID BqFlush(PBQ_DEVICE Dev, PFILE_OBJECT File)
{
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(File);
}

static VOID GulpUnmap(PGULP G)
{
    if (G->Fifo != NULL)
        MmUnmapIoSpace(G->Fifo, FIFO_LENGTH);
    G->Fifo = NULL;
    if (G->Plx != NULL)
        MmUnmapIoSpace(G->Plx, PLX_LENGTH);
    G->Plx = NULL;
}

static NTSTATUS BqStartHardware(PBQ_DEVICE Dev, PCM_RESOURCE_LIST List)
{
    PGULP g = (PGULP)Dev;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR plx = BqFind(List, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR fifo = BqFind(List, CmResourceTypeMemory, 1);

    if (plx == NULL || fifo == NULL || plx->u.Memory.Length < PLX_LENGTH || fifo->u.Memory.Length < FIFO_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    g->Plx = MmMapIoSpace(plx->u.Memory.Start, PLX_LENGTH, MmNonCached);
    g->Fifo = MmMapIoSpace(fifo->u.Memory.Start, FIFO_LENGTH, MmNonCached);
    if (g->Plx == NULL || g->Fifo == NULL) {
        GulpUnmap(g);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Wr(g->Plx, INTCSR, 0);
    Wr(g->Fifo, FIFO_CTRL, CTRL_RESET);
    Wr(g->Fifo, FIFO_CTRL, g->Running ? CTRL_RUN : 0);
    return STATUS_SUCCESS;
}

static VOID BqStopHardware(PBQ_DEVICE Dev)
{
    if (BqTouchable(Dev))
        Wr(((PGULP)Dev)->Fifo, FIFO_CTRL, 0);
    GulpUnmap((PGULP)Dev);
}

static VOID BqPowerDown(PBQ_DEVICE Dev) { Wr(((PGULP)Dev)->Fifo, FIFO_CTRL, 0); }

static VOID BqPowerUp(PBQ_DEVICE Dev)
{
    PGULP g = (PGULP)Dev;

    Wr(g->Plx, INTCSR, 0);
    Wr(g->Fifo, FIFO_CTRL, CTRL_RESET);
    Wr(g->Fifo, FIFO_CTRL, g->Running ? CTRL_RUN : 0);
}

static NTSTATUS BqInit(PBQ_DEVICE Dev)
{
    KeInitializeMutex(&((PGULP)Dev)->Mutex, 0);
    return STATUS_SUCCESS;
}

static VOID BqUninit(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    BqEntry(DriverObject, sizeof(GULP), DO_DIRECT_IO, &GulpInterface);
    return STATUS_SUCCESS;
}
