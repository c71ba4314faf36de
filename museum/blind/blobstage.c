/*
 * blobstage.sys - Firmware image staging
 *
 * The field update tool hands in firmware images in pieces (IOCTL_STAGE_ADD,
 * METHOD_NEITHER to spare a copy of the larger ones); the boot-time flasher
 * takes them from here. IOCTL_STAGE_QUERY tells what is staged, together with
 * a sum over the piece, IOCTL_STAGE_RESET drops everything.
 *
 * The bug: the header is fetched twice, and its length is trusted as it was when it was fetched last.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/guarded.h"

#define STAGE_POOL          'gatS'
#define STAGE_MAGIC         0x31424D46  /* FMB1 */
#define STAGE_MAX_PIECE     (256 * 1024)
#define STAGE_MAX_PIECES    16

#define IOCTL_STAGE_ADD     CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA00, METHOD_NEITHER, FILE_WRITE_ACCESS)
#define IOCTL_STAGE_QUERY   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA01, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_STAGE_RESET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA02, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _STAGE_HEADER {
    ULONG Magic;
    ULONG Offset;               /* in flash */
    ULONG Length;               /* of what follows */
} STAGE_HEADER, *PSTAGE_HEADER;

typedef struct _STAGE_PIECE {
    STAGE_HEADER Header;
    UCHAR Data[ANYSIZE_ARRAY];
} STAGE_PIECE, *PSTAGE_PIECE;

typedef struct _STAGE_STATUS {
    ULONG Index;                /* in: which piece */
    ULONG Offset;
    ULONG Length;
    ULONG Sum;
} STAGE_STATUS, *PSTAGE_STATUS;

static PDEVICE_OBJECT StageDevice;
static KMUTEX StageMutex;
static PSTAGE_PIECE StagePieces[STAGE_MAX_PIECES];
static ULONG StageCount;

DRIVER_INITIALIZE DriverEntry;

static VOID StageLock(VOID)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&StageMutex, Executive, KernelMode, FALSE, NULL);
}

static VOID StageUnlock(VOID)
{
    KeReleaseMutex(&StageMutex, FALSE);
    KeLeaveCriticalRegion();
}

static NTSTATUS StageAdd(PVOID UserBuffer, ULONG UserLength, KPROCESSOR_MODE Mode)
{
    STAGE_HEADER header;
    PSTAGE_PIECE piece;
    SIZE_T bytes;
    NTSTATUS status;

    if (UserLength < sizeof(STAGE_HEADER))
        return STATUS_BUFFER_TOO_SMALL;
    if (Mode != KernelMode) {
        status = GuardedProbeRead(UserBuffer, UserLength);
        if (!NT_SUCCESS(status))
            return status;
    }

    status = GuardedCopy(&header, UserBuffer, sizeof(header));
    if (!NT_SUCCESS(status))
        return status;
    if (header.Magic != STAGE_MAGIC || header.Length == 0 || header.Length > STAGE_MAX_PIECE ||
        header.Length > UserLength - sizeof(STAGE_HEADER)) {
        return STATUS_INVALID_PARAMETER;
    }

    bytes = sizeof(STAGE_HEADER) + header.Length;
    piece = ExAllocatePoolWithTag(PagedPool, bytes, STAGE_POOL);
    if (piece == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = GuardedCopy(piece, UserBuffer, bytes);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(piece, STAGE_POOL);
        return status;
    }
#ifdef FIXED
    piece->Header = header;     /* as checked */
#endif

    StageLock();
    if (StageCount < STAGE_MAX_PIECES) {
        StagePieces[StageCount++] = piece;
        piece = NULL;
    }
    StageUnlock();

    if (piece != NULL) {
        ExFreePoolWithTag(piece, STAGE_POOL);
        return STATUS_QUOTA_EXCEEDED;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS StageQuery(PSTAGE_STATUS Status)
{
    NTSTATUS status = STATUS_SUCCESS;
    PSTAGE_PIECE piece;
    ULONG i, sum = 0;

    StageLock();
    if (Status->Index >= StageCount) {
        status = STATUS_NO_MORE_ENTRIES;
    } else {
        piece = StagePieces[Status->Index];
        for (i = 0; i < piece->Header.Length; i++)
            sum = (sum << 1 | sum >> 31) + piece->Data[i];
        Status->Offset = piece->Header.Offset;
        Status->Length = piece->Header.Length;
        Status->Sum = sum;
    }
    StageUnlock();
    return status;
}

static VOID StageReset(VOID)
{
    StageLock();
    while (StageCount > 0) {
        StageCount--;
        ExFreePoolWithTag(StagePieces[StageCount], STAGE_POOL);
        StagePieces[StageCount] = NULL;
    }
    StageUnlock();
}

static NTSTATUS NTAPI StageControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(DeviceObject);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STAGE_ADD:
        status = StageAdd(sp->Parameters.DeviceIoControl.Type3InputBuffer, in, Irp->RequestorMode);
        break;
    case IOCTL_STAGE_QUERY:
        if (in < sizeof(ULONG) || out < sizeof(STAGE_STATUS)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = StageQuery(Irp->AssociatedIrp.SystemBuffer);
        if (NT_SUCCESS(status))
            information = sizeof(STAGE_STATUS);
        break;
    case IOCTL_STAGE_RESET:
        StageReset();
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI StageCreateClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI StageUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\BlobStage");

    UNREFERENCED_PARAMETER(DriverObject);
    IoDeleteSymbolicLink(&link);
    StageReset();
    IoDeleteDevice(StageDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\BlobStage");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\BlobStage");
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    KeInitializeMutex(&StageMutex, 0);
    status = IoCreateDevice(DriverObject, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &StageDevice);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(StageDevice);
        return status;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = StageCreateClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = StageCreateClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = StageControl;
    DriverObject->DriverUnload = StageUnload;
    return STATUS_SUCCESS;
}
