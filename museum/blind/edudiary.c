/*
 * edudiary: lets the edu card compute factorials, by interrupt, and keeps a diary of the last 512 answers that can be read.
 *
 * The bug: the diary lies in paged pool, but the answers are entered by the DPC (and read when the queue goes on from there): a page
 * fault at DISPATCH_LEVEL.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: paged-at-raised-irql
 * Needs: nothing
 */
#define CK_HAS_POWER
#define CK_HAS_TIMER
#define CK_HAS_UNDO
#include "../include/kept_in_order.h"

#define DY_TAG    'yraD'

#define DY_ID     0x00
#define DY_FACT   0x08
#define DY_STATUS 0x20
#define DY_ISTAT  0x24
#define DY_IACK   0x64

#define DY_BUSY   1u
#define DY_IRQ    0x80u

#define DY_ENTRIES 512u
#define DY_LARGEST 12u                      /* 13! does not fit */
#define DY_LIMIT   1000                     /* milliseconds */

#define IOCTL_DY_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9c0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_DY_FORGET    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9c1, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID DyGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x07 } };

typedef struct _DY_ENTRY {
    ULONG Number, Asked, Answer;
} DY_ENTRY, *PDY_ENTRY;

typedef struct _DY_EXT {
    CK K;
    PUCHAR Regs;
    ULONG RegsLen;
    PKINTERRUPT Interrupt;
    volatile BOOLEAN Listen;
    KDPC Dpc;
    PDY_ENTRY Diary;                        /* of the one that has the request */
    ULONG First, Held, Number;
} DY_EXT, *PDY_EXT;

static ULONG DyIn(PDY_EXT x, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + reg));
}

static VOID DyOut(PDY_EXT x, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + reg), value);
}

static BOOLEAN NTAPI DyIsr(PKINTERRUPT interrupt, PVOID context)
{
    PDY_EXT x = context;
    ULONG bits;

    UNREFERENCED_PARAMETER(interrupt);
    if (!x->Listen)
        return FALSE;
    bits = DyIn(x, DY_ISTAT);
    if (bits == 0 || bits == 0xffffffff)
        return FALSE;
    DyOut(x, DY_IACK, bits);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

/* The card has computed for this request. */
static VOID DyAnswer(PDY_EXT x, PIRP irp, ULONG answer)
{
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    PDY_ENTRY entry;

    if (x->Held == DY_ENTRIES) {
        x->First = (x->First + 1) % DY_ENTRIES;
        x->Held--;
    }
    entry = &x->Diary[(x->First + x->Held) % DY_ENTRIES];
    entry->Number = ++x->Number;
    entry->Asked = *buffer;
    entry->Answer = answer;
    x->Held++;
    *buffer = answer;
    CkDone(&x->K, irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID NTAPI DyDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PDY_EXT x = context;
    PIRP irp = NULL;
    ULONG answer = 0;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    KeAcquireSpinLockAtDpcLevel(&x->K.Q.Lock);
    if (x->K.Cur != NULL && !(DyIn(x, DY_STATUS) & DY_BUSY)) {
        irp = CkClaimLocked(&x->K);
        answer = DyIn(x, DY_FACT);
    }
    KeReleaseSpinLockFromDpcLevel(&x->K.Q.Lock);
    if (irp == NULL)
        return;
    if (answer == 0xffffffff)               /* no factorial: the card is gone */
        CkDone(&x->K, irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    else
        DyAnswer(x, irp, answer);
}

static VOID HwExpired(PCK k, PIRP irp)
{
    PDY_EXT x = (PDY_EXT)k;
    ULONG status = DyIn(x, DY_STATUS), answer = DyIn(x, DY_FACT);

    if (status == 0xffffffff || answer == 0xffffffff)
        CkDone(k, irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    else if (status & DY_BUSY)
        CkDone(k, irp, STATUS_IO_TIMEOUT, 0);
    else
        DyAnswer(x, irp, answer);           /* only its interrupt has been lost */
}

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(info);
    if (s->MajorFunction == IRP_MJ_READ)
        return s->Parameters.Read.Length < sizeof(DY_ENTRY) ? STATUS_BUFFER_TOO_SMALL : STATUS_PENDING;
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DY_FACTORIAL:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) ||
            s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return *(PULONG)irp->AssociatedIrp.SystemBuffer > DY_LARGEST ? STATUS_INVALID_PARAMETER : STATUS_PENDING;
    case IOCTL_DY_FORGET:
        return STATUS_PENDING;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    PDY_EXT x = (PDY_EXT)k;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    ULONG status, count, i;
    KIRQL irql;

    if (s->MajorFunction == IRP_MJ_READ) {
        PDY_ENTRY out = irp->AssociatedIrp.SystemBuffer;

        count = s->Parameters.Read.Length / sizeof(DY_ENTRY);
        if (count > x->Held)
            count = x->Held;
        for (i = 0; i < count; i++)
            out[i] = x->Diary[(x->First + i) % DY_ENTRIES];
        *info = count * sizeof(DY_ENTRY);
        return STATUS_SUCCESS;
    }
    if (s->Parameters.DeviceIoControl.IoControlCode == IOCTL_DY_FORGET) {
        x->First = 0;
        x->Held = 0;
        return STATUS_SUCCESS;
    }
    status = DyIn(x, DY_STATUS);
    if (status == 0xffffffff)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (status & DY_BUSY)                   /* with a number that was given up */
        return STATUS_DEVICE_BUSY;
    KeAcquireSpinLock(&k->Q.Lock, &irql);
    DyOut(x, DY_STATUS, DY_IRQ);
    DyOut(x, DY_FACT, *(PULONG)irp->AssociatedIrp.SystemBuffer);
    CkArmLocked(k, irp, DY_LIMIT);
    KeReleaseSpinLock(&k->Q.Lock, irql);
    return STATUS_PENDING;
}

static VOID HwSleep(PCK k)
{
    PDY_EXT x = (PDY_EXT)k;

    DyOut(x, DY_STATUS, 0);
    DyOut(x, DY_IACK, DyIn(x, DY_ISTAT));
    CkListen(x->Interrupt, &x->Listen, FALSE);
}

/* Every request enables its interrupt. */
static VOID HwWake(PCK k)
{
    PDY_EXT x = (PDY_EXT)k;

    CkListen(x->Interrupt, &x->Listen, TRUE);
}

static VOID DyGiveBack(PDY_EXT x)
{
    if (x->Interrupt != NULL)
        IoDisconnectInterrupt(x->Interrupt);
    x->Interrupt = NULL;
    KeFlushQueuedDpcs();
    if (x->Regs != NULL)
        MmUnmapIoSpace(x->Regs, x->RegsLen);
    x->Regs = NULL;
}

static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    PDY_EXT x = (PDY_EXT)k;
    NTSTATUS status;

    x->Regs = CkMap(r, 0, 0x100);
    if (x->Regs == NULL)
        return r->Mems != 0 ? STATUS_INSUFFICIENT_RESOURCES : STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLen = r->Mem[0].Len;
    if ((DyIn(x, DY_ID) & 0xffff) != 0x00ed) {
        DyGiveBack(x);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    DyOut(x, DY_STATUS, 0);
    DyOut(x, DY_IACK, DyIn(x, DY_ISTAT));
    x->Listen = TRUE;
    status = CkConnect(r, &x->Interrupt, DyIsr, x);
    if (!NT_SUCCESS(status)) {
        x->Interrupt = NULL;
        DyGiveBack(x);
    }
    return status;
}

static VOID HwStop(PCK k, BOOLEAN touch)
{
    PDY_EXT x = (PDY_EXT)k;

    if (touch) {
        DyOut(x, DY_STATUS, 0);
        DyOut(x, DY_IACK, DyIn(x, DY_ISTAT));
    }
    CkListen(x->Interrupt, &x->Listen, FALSE);
    DyGiveBack(x);
}

static VOID HwUndo(PCK k)
{
    ExFreePoolWithTag(((PDY_EXT)k)->Diary, DY_TAG);
}

static NTSTATUS DyInit(PCK k)
{
    PDY_EXT x = (PDY_EXT)k;

    KeInitializeDpc(&x->Dpc, DyDpc, x);
#ifdef FIXED
    x->Diary = ExAllocatePoolWithTag(NonPagedPool, DY_ENTRIES * sizeof(DY_ENTRY), DY_TAG);
#else
    x->Diary = ExAllocatePoolWithTag(PagedPool, DY_ENTRIES * sizeof(DY_ENTRY), DY_TAG);
#endif
    return x->Diary != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS NTAPI DyAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(DY_EXT), &DyGuid, DO_BUFFERED_IO, DyInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, DyAdd);
    return STATUS_SUCCESS;
}
