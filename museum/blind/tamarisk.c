/*
 * tamarisk: a letter box between programs. What one writes, another reads, a letter at a time; a read waits until there is one. Letters are at most 240 bytes, and
 * the box holds 64 of them, also over a stop for new resources.
 *
 * The bug: the lookaside list of the letters is initialized at each start, but deleted at removal only. After a stop and a start it is initialized again while it is
 * in use: the list of all lookaside lists is damaged, and the blocks it has kept are lost.
 *
 * Device: Root\TAMARISK
 * Rule: lookaside-initialized-twice, lookaside-leak, pool-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID TamariskFace = { 0x5d0c1c11, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x11, 0x01 } };

#define IOCTL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EMPTY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)

#ifndef POOL_NX_ALLOCATION
#define POOL_NX_ALLOCATION 512
#endif
#define LETTER_BYTES 240
#define LETTERS      64

typedef struct _LETTER {
    LIST_ENTRY Link;
    ULONG Bytes;
    UCHAR Text[LETTER_BYTES];
} LETTER;

typedef struct _STATE {
    ULONG Letters;
    ULONG Written;
    ULONG Read;
} STATE;

typedef struct _BOX {
    CRAFT Craft;
    QUAY Readers;
    KSPIN_LOCK Lock;                          /* of the rest; before that of Readers */
    LIST_ENTRY Letters;
    STATE State;
    NPAGED_LOOKASIDE_LIST Paper;
    BOOLEAN PaperReady;
} BOX;

static void MakePaper(BOX *b)
{
    ExInitializeNPagedLookasideList(&b->Paper, NULL, NULL, POOL_NX_ALLOCATION, sizeof(LETTER), WW_TAG, 0);
    b->PaperReady = TRUE;
}

/* With the lock. */
static LETTER *TakeLetter(BOX *b)
{
    if (IsListEmpty(&b->Letters))
        return NULL;
    b->State.Letters--;
    return CONTAINING_RECORD(RemoveHeadList(&b->Letters), LETTER, Link);
}

/* Gives letters to those who wait, until one of both is used up. */
static void Deliver(BOX *b)
{
    for (;;) {
        LETTER *l = NULL;
        PIRP irp = NULL;
        ULONG bytes;
        KIRQL irql;
        KeAcquireSpinLock(&b->Lock, &irql);
        if (!IsListEmpty(&b->Letters)) {
            irp = QuayTake(&b->Readers, NULL);
            if (irp) {
                l = TakeLetter(b);
                b->State.Read++;
            }
        }
        KeReleaseSpinLock(&b->Lock, irql);
        if (!irp)
            return;
        bytes = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
        if (bytes > l->Bytes)
            bytes = l->Bytes;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, l->Text, bytes);
        ExFreeToNPagedLookasideList(&b->Paper, l);
        CraftFinish(&b->Craft, irp, STATUS_SUCCESS, bytes);
    }
}

static void EmptyBox(BOX *b)
{
    LETTER *l;
    KIRQL irql;
    for (;;) {
        KeAcquireSpinLock(&b->Lock, &irql);
        l = TakeLetter(b);
        KeReleaseSpinLock(&b->Lock, irql);
        if (!l)
            return;
        ExFreeToNPagedLookasideList(&b->Paper, l);
    }
}

static NTSTATUS WriteLetter(BOX *b, PIRP irp, ULONG length)
{
    LETTER *l;
    KIRQL irql;
    if (length == 0 || length > LETTER_BYTES)
        return STATUS_INVALID_PARAMETER;
    l = ExAllocateFromNPagedLookasideList(&b->Paper);
    if (!l)
        return STATUS_INSUFFICIENT_RESOURCES;
    l->Bytes = length;
    RtlCopyMemory(l->Text, irp->AssociatedIrp.SystemBuffer, length);
    KeAcquireSpinLock(&b->Lock, &irql);
    if (b->State.Letters < LETTERS) {
        InsertTailList(&b->Letters, &l->Link);
        b->State.Letters++;
        b->State.Written++;
        l = NULL;
    }
    KeReleaseSpinLock(&b->Lock, irql);
    if (l) {
        ExFreeToNPagedLookasideList(&b->Paper, l);
        return STATUS_DEVICE_BUSY;
    }
    Deliver(b);
    irp->IoStatus.Information = length;
    return STATUS_SUCCESS;
}

static NTSTATUS TamariskServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    BOX *b = (BOX *)s;
    KIRQL irql;
    switch (sp->MajorFunction) {
    case IRP_MJ_WRITE:
        return WriteLetter(b, irp, sp->Parameters.Write.Length);
    case IRP_MJ_READ:
        if (sp->Parameters.Read.Length == 0)
            return STATUS_SUCCESS;
        QuayPut(&b->Readers, irp);
        Deliver(b);
        return STATUS_PENDING;
    default:
        break;
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATE))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&b->Lock, &irql);
        *(STATE *)irp->AssociatedIrp.SystemBuffer = b->State;
        KeReleaseSpinLock(&b->Lock, irql);
        irp->IoStatus.Information = sizeof(STATE);
        return STATUS_SUCCESS;
    case IOCTL_EMPTY:
        EmptyBox(b);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static NTSTATUS TamariskOutfit(CRAFT *s)
{
    BOX *b = (BOX *)s;
    NTSTATUS status = QuayInit(&b->Readers, &s->Lock);
    if (!NT_SUCCESS(status))
        return status;
    KeInitializeSpinLock(&b->Lock);
    InitializeListHead(&b->Letters);
#ifdef FIXED
    MakePaper(b);
#endif
    return STATUS_SUCCESS;
}

#ifndef FIXED
static NTSTATUS TamariskStart(CRAFT *s)
{
    MakePaper((BOX *)s);
    return STATUS_SUCCESS;
}
#endif

static void TamariskScuttle(CRAFT *s)
{
    QuayFlush(&((BOX *)s)->Readers, NULL, STATUS_DELETE_PENDING);
}

static void TamariskCleanup(CRAFT *s, PFILE_OBJECT file)
{
    QuayFlush(&((BOX *)s)->Readers, file, STATUS_CANCELLED);
}

static void TamariskStrip(CRAFT *s)
{
    BOX *b = (BOX *)s;
    if (!b->PaperReady)
        return;
    EmptyBox(b);
    ExDeleteNPagedLookasideList(&b->Paper);
}

static const PLAN TamariskPlan = {
    .Size = sizeof(BOX),
    .Face = &TamariskFace,
    .Buffering = DO_BUFFERED_IO,
    .Outfit = TamariskOutfit,
    .Strip = TamariskStrip,
#ifndef FIXED
    .Start = TamariskStart,
#endif
    .Scuttle = TamariskScuttle,
    .Serve = TamariskServe,
    .Cleanup = TamariskCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &TamariskPlan);
}
