/*
 * checker: computes CRC-32 of what is written to it (direct I/O). Large buffers are mapped through windows of 64 KiB by
 * a partial MDL, to spare the system's address space. IOCTL_CHECK_GET answers sum and length so far,
 * IOCTL_CHECK_RESET begins anew. Each open handle shares the device's sum.
 *
 * The bug: the partial MDL is built anew for the next window without MmPrepareMdlForReuse, so that the mapping of every
 * window but the last stays.
 *
 * Device: ROOT\CHECKER
 * Rule: mdl-rebuilt-mapped, locked-pages-leak
 * Needs: ioctl
 */
#include "../include/gated_device.h"

#define WINDOW 65536u
#define LENGTH_MAX (16u << 20)
#define IOCTL_CHECK_GET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x950, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CHECK_RESET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _CHECK_SUM {
    ULONGLONG Bytes;
    ULONG Crc;
    ULONG Reserved;
} CHECK_SUM;

typedef struct _CHECKER {
    BQ_DEVICE Bq;
    KMUTEX Mutex;
    ULONGLONG Bytes;
    ULONG Crc;
} CHECKER, *PCHECKER;

static const GUID CheckInterface = { 0x54a2c0c1, 0x33ba, 0x4ea5, { 0x9d, 0x20, 0x7a, 0x8e, 0x02, 0x41, 0xc6, 0x0a } };

static ULONG CheckCrc(ULONG Crc, const UCHAR *Bytes, ULONG Count)
{
    ULONG bit;

    while (Count-- != 0) {
        Crc ^= *Bytes++;
        for (bit = 0; bit < 8; bit++)
            Crc = (Crc >> 1) ^ (0xEDB88320u & (0u - (Crc & 1)));
    }
    return Crc;
}

static NTSTATUS CheckWrite(PCHECKER C, PMDL Mdl, ULONG Length)
{
    PUCHAR va = MmGetMdlVirtualAddress(Mdl);
    ULONG offset = 0, crc;
    NTSTATUS status = STATUS_SUCCESS;
    PMDL window = IoAllocateMdl(va, Length < WINDOW ? Length : WINDOW, FALSE, FALSE, NULL);

    if (window == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeWaitForSingleObject(&C->Mutex, Executive, KernelMode, FALSE, NULL);
    crc = C->Crc;
    while (offset < Length) {
        ULONG n = Length - offset < WINDOW ? Length - offset : WINDOW;
        PUCHAR bytes;

#ifdef FIXED
        if (offset != 0)
            MmPrepareMdlForReuse(window);
#endif
        IoBuildPartialMdl(Mdl, window, va + offset, n);
        bytes = MmGetSystemAddressForMdlSafe(window, NormalPagePriority);
        if (bytes == NULL) {
            status = STATUS_INSUFFICIENT_RESOURCES;
            break;
        }
        crc = CheckCrc(crc, bytes, n);
        offset += n;
    }
    if (NT_SUCCESS(status)) {
        C->Crc = crc;
        C->Bytes += Length;
    }
    KeReleaseMutex(&C->Mutex, FALSE);
    IoFreeMdl(window);                                  /* with the mapping of the last window */
    return status;
}

static NTSTATUS BqIo(PBQ_DEVICE Dev, PIRP Irp)
{
    PCHECKER c = (PCHECKER)Dev;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    CHECK_SUM *sum = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;

    if (sp->MajorFunction == IRP_MJ_WRITE) {
        ULONG length = sp->Parameters.Write.Length;

        if (length > LENGTH_MAX)
            return BqComplete(Dev, Irp, STATUS_INVALID_PARAMETER, 0);
        status = length == 0 ? STATUS_SUCCESS : CheckWrite(c, Irp->MdlAddress, length);
        return BqComplete(Dev, Irp, status, NT_SUCCESS(status) ? length : 0);
    }
    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CHECK_GET:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(CHECK_SUM))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeWaitForSingleObject(&c->Mutex, Executive, KernelMode, FALSE, NULL);
        sum->Bytes = c->Bytes;
        sum->Crc = ~c->Crc;
        sum->Reserved = 0;
        KeReleaseMutex(&c->Mutex, FALSE);
        return BqComplete(Dev, Irp, STATUS_SUCCESS, sizeof(CHECK_SUM));

    case IOCTL_CHECK_RESET:
        KeWaitForSingleObject(&c->Mutex, Executive, KernelMode, FALSE, NULL);
        c->Bytes = 0;
        c->Crc = 0xFFFFFFFF;
        KeReleaseMutex(&c->Mutex, FALSE);
        return BqComplete(Dev, Irp, STATUS_SUCCESS, 0);
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
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(List);
    return STATUS_SUCCESS;
}

static VOID BqStopHardware(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }
static VOID BqPowerDown(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }
static VOID BqPowerUp(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }
static VOID BqUninit(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }

static NTSTATUS BqInit(PBQ_DEVICE Dev)
{
    PCHECKER c = (PCHECKER)Dev;

    KeInitializeMutex(&c->Mutex, 0);
    c->Crc = 0xFFFFFFFF;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    BqEntry(DriverObject, sizeof(CHECKER), DO_DIRECT_IO, &CheckInterface);
    return STATUS_SUCCESS;
}
