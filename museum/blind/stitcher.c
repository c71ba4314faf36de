/*
 * stitcher: takes two pieces of a program's memory as if they were one and answers their common checksum and how often each byte's
 * upper nibble occurs. Both pieces are locked and mapped while it works.
 *
 * The bug: if the second piece can not be locked or mapped, the MDL of the first is freed without its pages being unlocked.
 *
 * Device: none
 * Compiler: clang
 * Rule: mdl-freed-locked, locked-pages-leak
 * Needs: ioctl, failure
 */
#define FRAME_DESK
#include "../include/park_frame.h"

#define IOCTL_STITCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_NEITHER, FILE_ANY_ACCESS)

#define LONGEST 0x10000

typedef struct _PIECES {
    ULONGLONG First, Second;
    ULONG FirstLength, SecondLength;
} PIECES;

typedef struct _STITCHED {
    ULONG Sum;
    ULONG Bytes;
    ULONG Nibbles[16];
} STITCHED;

typedef struct _PIN {
    PMDL Mdl;
    PUCHAR Bytes;
    ULONG Length;
} PIN;

static DESK Desk;

static int Code(unsigned long Code, NTSTATUS *Status)
{
    *Status = (NTSTATUS)Code;
    return EXCEPTION_EXECUTE_HANDLER;
}

static VOID Unpin(PIN *Pin)
{
    MmUnlockPages(Pin->Mdl);   /* and unmaps */
    IoFreeMdl(Pin->Mdl);
    Pin->Mdl = NULL;
}

/* Nothing is left of it if it fails. */
static NTSTATUS PinDown(PIN *Pin, ULONGLONG Address, ULONG Length, KPROCESSOR_MODE Mode)
{
    NTSTATUS status = STATUS_SUCCESS;
    if (!Length || Length > LONGEST)
        return STATUS_INVALID_PARAMETER;
    Pin->Length = Length;
    Pin->Mdl = IoAllocateMdl((PVOID)(ULONG_PTR)Address, Length, FALSE, FALSE, NULL);
    if (!Pin->Mdl)
        return STATUS_INSUFFICIENT_RESOURCES;
    __try {
        MmProbeAndLockPages(Pin->Mdl, Mode, IoReadAccess);
    } __except (Code(_exception_code(), &status)) {
        IoFreeMdl(Pin->Mdl);
        Pin->Mdl = NULL;
        return status;
    }
    Pin->Bytes = MmGetSystemAddressForMdlSafe(Pin->Mdl, NormalPagePriority);
    if (!Pin->Bytes) {
        Unpin(Pin);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return STATUS_SUCCESS;
}

static VOID Sew(STITCHED *To, const PIN *Pin)
{
    ULONG i, a = To->Sum & 0xFFFF, b = To->Sum >> 16;
    for (i = 0; i < Pin->Length; i++) {
        UCHAR c = ((const volatile UCHAR *)Pin->Bytes)[i];   /* the program may change it meanwhile; once is enough */
        a = (a + c) % 65521;
        b = (b + a) % 65521;
        To->Nibbles[c >> 4]++;
    }
    To->Sum = b << 16 | a;
    To->Bytes += Pin->Length;
}

static NTSTATUS Stitch(const PIECES *Pieces, STITCHED *To, KPROCESSOR_MODE Mode)
{
    PIN first, second;
    NTSTATUS status = PinDown(&first, Pieces->First, Pieces->FirstLength, Mode);
    if (!NT_SUCCESS(status))
        return status;
    status = PinDown(&second, Pieces->Second, Pieces->SecondLength, Mode);
    if (!NT_SUCCESS(status)) {
#ifndef FIXED
        IoFreeMdl(first.Mdl);
#else
        Unpin(&first);
#endif
        return status;
    }
    RtlZeroMemory(To, sizeof *To);
    To->Sum = 1;
    Sew(To, &first);
    Sew(To, &second);
    Unpin(&second);
    Unpin(&first);
    return STATUS_SUCCESS;
}

static NTSTATUS Request(PIRP Irp, PIO_STACK_LOCATION Sp, ULONG_PTR *Info)
{
    PIECES pieces;
    STITCHED result;
    NTSTATUS status = STATUS_SUCCESS;
    if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof pieces || Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof result)
        return STATUS_INVALID_PARAMETER;
    __try {
        if (Irp->RequestorMode != KernelMode)
            ProbeForRead(Sp->Parameters.DeviceIoControl.Type3InputBuffer, sizeof pieces, 1);
        RtlCopyMemory(&pieces, Sp->Parameters.DeviceIoControl.Type3InputBuffer, sizeof pieces);
    } __except (Code(_exception_code(), &status)) {
        return status;
    }
    status = Stitch(&pieces, &result, Irp->RequestorMode);
    if (!NT_SUCCESS(status))
        return status;
    __try {
        if (Irp->RequestorMode != KernelMode)
            ProbeForWrite(Irp->UserBuffer, sizeof result, 1);
        RtlCopyMemory(Irp->UserBuffer, &result, sizeof result);
    } __except (Code(_exception_code(), &status)) {
        return status;
    }
    *Info = sizeof result;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;
    ULONG_PTR info = 0;
    UNREFERENCED_PARAMETER(Device);
    if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_STITCH)
        status = Request(Irp, sp, &info);
    return YyEnd(Irp, status, info);
}

static NTSTATUS NTAPI Always(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return YyEnd(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    DeskClose(&Desk);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = Always;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Always;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    status = DeskOpen(&Desk, Driver, L"\\Device\\Stitcher", L"\\DosDevices\\Stitcher", 0);
    if (NT_SUCCESS(status))
        DeskReady(&Desk);
    return status;
}
