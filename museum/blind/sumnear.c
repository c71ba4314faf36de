/*
 * sumnear: computes a checksum of a block that stays where the application has it (METHOD_NEITHER); the block
 * begins with a small header that says which sum is wanted.
 *
 * The bug: when the header is not of the expected kind the MDL is freed without unlocking its pages.
 *
 * Device: none
 * Rule: mdl-freed-locked
 * Needs: ioctl
 * Compiler: clang
 */
#include "../include/try.h"

#define IOCTL_SUM_BLOCK  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA01, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_SUM_TOTALS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA02, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define SUM_MAGIC    0x4D55534EUL
#define SUM_MOST     (1024 * 1024)
#define SUM_FLETCHER 1
#define SUM_XOR      2

typedef struct _SUM_HEADER {
    ULONG Magic;
    ULONG Kind;
} SUM_HEADER;

typedef struct _SUM_RESULT {
    ULONG Kind;
    ULONG Sum;
} SUM_RESULT;

typedef struct _SUM_TOTALS {
    ULONG Blocks;
    ULONG Refused;
} SUM_TOTALS;

static volatile LONG g_blocks, g_refused;

static ULONG Fletcher(const volatile UCHAR *Data, ULONG Length)
{
    ULONG a = 0, b = 0;

    while (Length--) {
        a = (a + *Data++) % 65535;
        b = (b + a) % 65535;
    }
    return (b << 16) | a;
}

static ULONG XorSum(const volatile UCHAR *Data, ULONG Length)
{
    ULONG x = 0, i;

    for (i = 0; i < Length; i++)
        x ^= (ULONG)Data[i] << (8 * (i & 3));
    return x;
}

/* The pages are locked: reading them cannot fault. The application may write to them meanwhile. */
static NTSTATUS SumPages(const volatile UCHAR *Block, ULONG Length, SUM_RESULT *Result)
{
    const volatile SUM_HEADER *header = (const volatile SUM_HEADER *)Block;

    Result->Kind = header->Kind;
    switch (Result->Kind) {
    case SUM_FLETCHER:
        Result->Sum = Fletcher(Block + sizeof(SUM_HEADER), Length - sizeof(SUM_HEADER));
        return STATUS_SUCCESS;
    case SUM_XOR:
        Result->Sum = XorSum(Block + sizeof(SUM_HEADER), Length - sizeof(SUM_HEADER));
        return STATUS_SUCCESS;
    }
    return STATUS_NOT_SUPPORTED;
}

static NTSTATUS SumBlock(PVOID Block, ULONG Length, KPROCESSOR_MODE Mode, SUM_RESULT *Result)
{
    const volatile UCHAR *mapped;
    NTSTATUS status;
    PMDL mdl;

    if (Length < sizeof(SUM_HEADER) || Length > SUM_MOST || ((ULONG_PTR)Block & 3))
        return STATUS_INVALID_PARAMETER;
    mdl = IoAllocateMdl(Block, Length, FALSE, FALSE, NULL);
    if (!mdl)
        return STATUS_INSUFFICIENT_RESOURCES;
    __try {
        MmProbeAndLockPages(mdl, Mode, IoReadAccess);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = GetExceptionCode();
        IoFreeMdl(mdl);
        return status;
    }
    mapped = MmGetSystemAddressForMdlSafe(mdl, NormalPagePriority);
    if (!mapped) {
        MmUnlockPages(mdl);
        IoFreeMdl(mdl);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (((const volatile SUM_HEADER *)mapped)->Magic != SUM_MAGIC) {
#ifdef FIXED
        MmUnlockPages(mdl);
#endif
        IoFreeMdl(mdl);
        return STATUS_INVALID_USER_BUFFER;
    }
    status = SumPages(mapped, Length, Result);
    MmUnlockPages(mdl);
    IoFreeMdl(mdl);
    return status;
}

static NTSTATUS GiveResult(PVOID Out, ULONG Length, KPROCESSOR_MODE Mode, const SUM_RESULT *Result)
{
    NTSTATUS status = STATUS_SUCCESS;

    if (Length < sizeof(*Result))
        return STATUS_BUFFER_TOO_SMALL;
    __try {
        if (Mode != KernelMode)
            ProbeForWrite(Out, sizeof(*Result), 4);
        *(volatile SUM_RESULT *)Out = *Result;
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = GetExceptionCode();
    }
    return status;
}

static NTSTATUS NTAPI SumControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS status;
    ULONG_PTR info = 0;
    SUM_RESULT result;

    UNREFERENCED_PARAMETER(Device);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SUM_BLOCK:
        status = SumBlock(stack->Parameters.DeviceIoControl.Type3InputBuffer,
                          stack->Parameters.DeviceIoControl.InputBufferLength, Irp->RequestorMode, &result);
        if (NT_SUCCESS(status))
            status = GiveResult(Irp->UserBuffer, out, Irp->RequestorMode, &result);
        if (NT_SUCCESS(status)) {
            info = sizeof(result);
            InterlockedIncrement(&g_blocks);
        } else {
            InterlockedIncrement(&g_refused);
        }
        break;
    case IOCTL_SUM_TOTALS:
        if (out < sizeof(SUM_TOTALS)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            SUM_TOTALS *totals = Irp->AssociatedIrp.SystemBuffer;

            totals->Blocks = (ULONG)g_blocks;
            totals->Refused = (ULONG)g_refused;
            info = sizeof(*totals);
            status = STATUS_SUCCESS;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Irp->IoStatus.Status = status;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI SumOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI SumUnload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, L"\\DosDevices\\SumNear");
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    RtlInitUnicodeString(&name, L"\\Device\\SumNear");
    RtlInitUnicodeString(&link, L"\\DosDevices\\SumNear");
    Driver->MajorFunction[IRP_MJ_CREATE] = SumOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = SumOpenClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SumControl;
    Driver->DriverUnload = SumUnload;
    status = IoCreateDevice(Driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(device);
    return status;
}
