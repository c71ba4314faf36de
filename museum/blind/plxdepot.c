/*
 * plxdepot: a battery-backed memory behind a PLX PCI 9050, as a file: the first window of the local bus is the memory. Reads and writes of up to
 * 64 KiB (direct I/O) are copied in pieces, each of which is mapped by a partial MDL of its own, so that large buffers do not eat up the
 * system's address space.
 *
 * The bug: the partial MDL is built anew for each piece without MmPrepareMdlForReuse. The mapping of the piece before is forgotten and never
 * undone: each transfer of more than one piece eats system page table entries until nothing can be mapped any more.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: mdl-rebuilt-mapped, locked-pages-leak
 * Needs: ioctl
 */
#include "../include/gated_queue.h"

#define PLX_INTCSR 0x4C
#define INTCSR_PCI_ENABLE 0x040
#define PLX_SIZE 128
#define DEPOT_MIN 4096
#define DEPOT_MAX (1024 * 1024)
#define TRANSFER_MAX (64 * 1024)
#define PIECE 4096
#define ALL_ONES 0xFFFFFFFF

#define IOCTL_PLXDEPOT_SIZE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PLXDEPOT_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID PlxdepotGuid = {0x6a1d0f11, 0x2c5e, 0x4b0a, {0x9f, 0x31, 0x51, 0x0c, 0x77, 0xd2, 0x18, 0x23}};

typedef struct _PLXDEPOT {
    AK Ak;
    PUCHAR Plx;
    PUCHAR Depot;
    volatile ULONG Size; /* 0 until the first start; the same at each */
} PLXDEPOT, *PPLXDEPOT;

/* input of CLEAR */
typedef struct _RANGE {
    ULONG Offset;
    ULONG Length;
} RANGE, *PRANGE;

static BOOLEAN Present(PPLXDEPOT d)
{
    return READ_REGISTER_ULONG((PULONG)(d->Plx + PLX_INTCSR)) != ALL_ONES;
}

/* Copies between the caller's buffer and the memory. <= DISPATCH */
static NTSTATUS Transfer(PPLXDEPOT d, PMDL mdl, BOOLEAN write, ULONG offset, ULONG length)
{
    PUCHAR va = MmGetMdlVirtualAddress(mdl);
    PMDL part = IoAllocateMdl(va, length, FALSE, FALSE, NULL);
    NTSTATUS status = STATUS_SUCCESS;

    if (!part)
        return STATUS_INSUFFICIENT_RESOURCES;
    while (length) {
        ULONG n = length < PIECE ? length : PIECE;
        PUCHAR data;

        IoBuildPartialMdl(mdl, part, va, n);
        data = MmGetSystemAddressForMdlSafe(part, NormalPagePriority);
        if (!data) {
            status = STATUS_INSUFFICIENT_RESOURCES;
            break;
        }
        if (write)
            WRITE_REGISTER_BUFFER_UCHAR(d->Depot + offset, data, n);
        else
            READ_REGISTER_BUFFER_UCHAR(d->Depot + offset, data, n);
#ifdef FIXED
        MmPrepareMdlForReuse(part);
#endif
        va += n;
        offset += n;
        length -= n;
    }
    IoFreeMdl(part);
    return status;
}

static VOID Clear(PPLXDEPOT d, const RANGE *range)
{
    ULONG i;

    for (i = 0; i < range->Length; i++)
        WRITE_REGISTER_UCHAR(d->Depot + range->Offset + i, 0);
}

static VOID PlxdepotStartIo(PAK k, PIRP Irp)
{
    PPLXDEPOT d = (PPLXDEPOT)k;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG length = 0;

    switch (s->MajorFunction) {
    case IRP_MJ_READ:
        length = s->Parameters.Read.Length;
        status = Transfer(d, Irp->MdlAddress, FALSE, s->Parameters.Read.ByteOffset.LowPart, length);
        break;
    case IRP_MJ_WRITE:
        length = s->Parameters.Write.Length;
        status = Transfer(d, Irp->MdlAddress, TRUE, s->Parameters.Write.ByteOffset.LowPart, length);
        break;
    default:
        Clear(d, Irp->AssociatedIrp.SystemBuffer);
        break;
    }
    if (NT_SUCCESS(status) && !Present(d))
        status = STATUS_DEVICE_NOT_CONNECTED; /* what was read was nothing */
    AkDone(k, Irp, status, NT_SUCCESS(status) ? length : 0);
}

static NTSTATUS PlxdepotIo(PAK k, PIRP Irp, PIO_STACK_LOCATION s)
{
    PPLXDEPOT d = (PPLXDEPOT)k;
    PRANGE range = Irp->AssociatedIrp.SystemBuffer;
    LONGLONG offset;
    ULONG length;

    if (s->MajorFunction == IRP_MJ_DEVICE_CONTROL) {
        switch (s->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_PLXDEPOT_SIZE:
            if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
                return STATUS_BUFFER_TOO_SMALL;
            *(PULONG)Irp->AssociatedIrp.SystemBuffer = d->Size;
            Irp->IoStatus.Information = sizeof(ULONG);
            return STATUS_SUCCESS;

        case IOCTL_PLXDEPOT_CLEAR:
            if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof *range)
                return STATUS_INVALID_PARAMETER;
            if (range->Length > TRANSFER_MAX || range->Offset > d->Size || range->Length > d->Size - range->Offset)
                return STATUS_INVALID_PARAMETER;
            return AkQueue(k, Irp);

        default:
            return STATUS_INVALID_DEVICE_REQUEST;
        }
    }
    offset = s->MajorFunction == IRP_MJ_READ ? s->Parameters.Read.ByteOffset.QuadPart : s->Parameters.Write.ByteOffset.QuadPart;
    length = s->MajorFunction == IRP_MJ_READ ? s->Parameters.Read.Length : s->Parameters.Write.Length;
    if (length == 0)
        return STATUS_SUCCESS; /* there is no MDL then */
    if (length > TRANSFER_MAX || offset < 0 || offset >= d->Size || length > d->Size - (ULONG)offset)
        return STATUS_INVALID_PARAMETER;
    return AkQueue(k, Irp);
}

static VOID Unmap(PPLXDEPOT d)
{
    if (d->Depot)
        MmUnmapIoSpace(d->Depot, d->Size);
    if (d->Plx)
        MmUnmapIoSpace(d->Plx, PLX_SIZE);
    d->Depot = d->Plx = NULL;
}

static NTSTATUS PlxdepotStart(PAK k, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PPLXDEPOT d = (PPLXDEPOT)k;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR plx = AkMemory(Translated, 0), depot = AkMemory(Translated, 1);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG size, csr;

    UNREFERENCED_PARAMETER(Raw);
    if (!plx || !depot || plx->u.Memory.Length < PLX_SIZE || depot->u.Memory.Length < DEPOT_MIN)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    size = depot->u.Memory.Length < DEPOT_MAX ? depot->u.Memory.Length : DEPOT_MAX;
    if (d->Size && d->Size != size)
        return STATUS_DEVICE_CONFIGURATION_ERROR; /* requests that wait were checked against the old size */
    d->Size = size;
    d->Plx = MmMapIoSpace(plx->u.Memory.Start, PLX_SIZE, MmNonCached);
    d->Depot = MmMapIoSpace(depot->u.Memory.Start, size, MmNonCached);
    if (!d->Plx || !d->Depot) {
        status = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        csr = READ_REGISTER_ULONG((PULONG)(d->Plx + PLX_INTCSR));
        if (csr == ALL_ONES)
            status = STATUS_NO_SUCH_DEVICE;
        else /* the board has nothing to interrupt for */
            WRITE_REGISTER_ULONG((PULONG)(d->Plx + PLX_INTCSR), csr & ~INTCSR_PCI_ENABLE);
    }
    if (!NT_SUCCESS(status))
        Unmap(d);
    return status;
}

static VOID PlxdepotStop(PAK k, BOOLEAN Touch)
{
    UNREFERENCED_PARAMETER(Touch);
    Unmap((PPLXDEPOT)k);
}

static VOID PlxdepotPowerUp(PAK k)
{
    PPLXDEPOT d = (PPLXDEPOT)k;
    ULONG csr = READ_REGISTER_ULONG((PULONG)(d->Plx + PLX_INTCSR));

    if (csr != ALL_ONES)
        WRITE_REGISTER_ULONG((PULONG)(d->Plx + PLX_INTCSR), csr & ~INTCSR_PCI_ENABLE);
}

static const AK_OPS AkOps = {
    .Interface = &PlxdepotGuid,
    .ExtSize = sizeof(PLXDEPOT),
    .DeviceFlags = DO_DIRECT_IO,
    .Start = PlxdepotStart,
    .Stop = PlxdepotStop,
    .PowerUp = PlxdepotPowerUp,
    .Io = PlxdepotIo,
    .StartIo = PlxdepotStartIo,
};

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return AkEntry(Driver);
}
