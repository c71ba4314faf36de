/*
 * plxdisp: drives the status display of a rack: a card with a PLX bridge whose second memory
 * (BAR2) is the text memory of 4 lines of 20 characters behind a header with a magic number.
 *
 * The bug: what START_DEVICE has mapped is released only if the whole start had succeeded, so that a failed start
 * leaves the mappings behind.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: io-space-leak, io-space-still-mapped
 * Needs: failure
 */
#include "../include/card_with_queue.h"

DEFINE_GUID(GUID_PLXDISP, 0x5d2f1b05, 0x7c41, 0x4e0a, 0x90, 0x11, 0x3a, 0x5b, 0x7e, 0x20, 0x61, 0x05);

#define LINES   4u
#define COLUMNS 20u
typedef struct { ULONG Line; CHAR Text[COLUMNS]; } DISP_LINE;
#define IOCTL_DISP_LINE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DISP_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_DISP_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x843, METHOD_BUFFERED, FILE_READ_ACCESS)

#define CNTRL      (0x50 / 4)
#define CNTRL_USER0_OUT  0x2u    /* USER0 is an output */
#define CNTRL_USER0_HIGH 0x4u    /* ... and lights the display */
#define MAGIC      0x50534944u   /* "DISP" */
#define TEXT_AT    16u

typedef struct {
    KIT Kit;
    volatile ULONG *Bridge;
    volatile UCHAR *Local;
    ULONG BridgeLen, LocalLen;
    BOOLEAN Complete;            /* the start has come to its end */
    KSPIN_LOCK Lock;             /* shadow and display */
    CHAR Shadow[LINES][COLUMNS];
} DISP, *PDISP;

static VOID DispPut(PDISP P, ULONG Line)
{
    ULONG i;
    for (i = 0; i < COLUMNS; i++)
        WRITE_REGISTER_UCHAR((PUCHAR)&P->Local[TEXT_AT + Line * COLUMNS + i], (UCHAR)P->Shadow[Line][i]);
}
static VOID DispBacklight(PDISP P, BOOLEAN On)
{
    ULONG v = READ_REGISTER_ULONG(&P->Bridge[CNTRL]);
    if (v == 0xFFFFFFFF)
        return;
    v |= CNTRL_USER0_OUT;
    v = On ? v | CNTRL_USER0_HIGH : v & ~CNTRL_USER0_HIGH;
    WRITE_REGISTER_ULONG((PULONG)&P->Bridge[CNTRL], v);
}

static NTSTATUS DispHandle(PKIT K, PIRP Irp)
{
    PDISP P = (PDISP)K;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    DISP_LINE *in = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    ULONG i;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DISP_LINE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(DISP_LINE))
            st = STATUS_INFO_LENGTH_MISMATCH;
        else if (in->Line >= LINES)
            st = STATUS_INVALID_PARAMETER;
        else {
            KeAcquireSpinLock(&P->Lock, &irql);
            for (i = 0; i < COLUMNS; i++)
                P->Shadow[in->Line][i] = in->Text[i] < ' ' ? ' ' : in->Text[i];
            DispPut(P, in->Line);
            KeReleaseSpinLock(&P->Lock, irql);
        }
        break;
    case IOCTL_DISP_CLEAR:
        KeAcquireSpinLock(&P->Lock, &irql);
        RtlFillMemory(P->Shadow, sizeof(P->Shadow), ' ');
        for (i = 0; i < LINES; i++)
            DispPut(P, i);
        KeReleaseSpinLock(&P->Lock, irql);
        break;
    case IOCTL_DISP_READ:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(P->Shadow)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&P->Lock, &irql);
        RtlCopyMemory(in, P->Shadow, sizeof(P->Shadow));
        KeReleaseSpinLock(&P->Lock, irql);
        info = sizeof(P->Shadow);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
    }
    KitFinish(K, Irp, st, info);
    return st;
}
static VOID DispPurge(PKIT K, PFILE_OBJECT File, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(K);
    UNREFERENCED_PARAMETER(File);
    UNREFERENCED_PARAMETER(Status);
}

static VOID DispUp(PKIT K)
{
    PDISP P = (PDISP)K;
    ULONG i;
    KIRQL irql;
    KeAcquireSpinLock(&P->Lock, &irql);
    for (i = 0; i < LINES; i++)
        DispPut(P, i);
    DispBacklight(P, TRUE);
    KeReleaseSpinLock(&P->Lock, irql);
}
static VOID DispDown(PKIT K, BOOLEAN Present)
{
    if (Present)
        DispBacklight((PDISP)K, FALSE);
}
static VOID DispRelease(PKIT K)
{
    PDISP P = (PDISP)K;
#ifndef FIXED
    if (!P->Complete)
        return;
#endif
    P->Complete = FALSE;
    if (P->Local) {
        MmUnmapIoSpace((PVOID)P->Local, P->LocalLen);
        P->Local = NULL;
    }
    if (P->Bridge) {
        MmUnmapIoSpace((PVOID)P->Bridge, P->BridgeLen);
        P->Bridge = NULL;
    }
}
static NTSTATUS DispStart(PKIT K, PCM_PARTIAL_RESOURCE_LIST Res)
{
    PDISP P = (PDISP)K;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR m[2] = { NULL, NULL };
    ULONG i, n = 0;

    for (i = 0; i < Res->Count && n < 2; i++)
        if (Res->PartialDescriptors[i].Type == CmResourceTypeMemory)
            m[n++] = &Res->PartialDescriptors[i];
    if (n < 2 || m[0]->u.Memory.Length < 0x54 || m[1]->u.Memory.Length < TEXT_AT + LINES * COLUMNS)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    P->BridgeLen = m[0]->u.Memory.Length;
    P->Bridge = MmMapIoSpace(m[0]->u.Memory.Start, P->BridgeLen, MmNonCached);
    if (!P->Bridge)
        return STATUS_INSUFFICIENT_RESOURCES;
    P->LocalLen = TEXT_AT + LINES * COLUMNS;
    P->Local = MmMapIoSpace(m[1]->u.Memory.Start, P->LocalLen, MmNonCached);
    if (!P->Local)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (READ_REGISTER_ULONG((PULONG)P->Local) != MAGIC)
        return STATUS_DEVICE_CONFIGURATION_ERROR;     /* another card with the same bridge */
    P->Complete = TRUE;
    return STATUS_SUCCESS;
}

static const KIT_OPS CardOps = { DispStart, DispUp, DispDown, DispRelease, DispHandle, DispPurge };

static NTSTATUS NTAPI DispAdd(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PKIT K;
    PDISP P;
    NTSTATUS st = KitAdd(Drv, Pdo, sizeof(DISP), &GUID_PLXDISP, DO_BUFFERED_IO, &K);
    if (!NT_SUCCESS(st))
        return st;
    P = (PDISP)K;
    KeInitializeSpinLock(&P->Lock);
    RtlFillMemory(P->Shadow, sizeof(P->Shadow), ' ');
    return KitAttach(K);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    KitEntry(Drv, DispAdd);
    return STATUS_SUCCESS;
}
