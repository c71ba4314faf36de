/*
 * keyfifo: a keypad card with a fifo of 16 keys; a read brings the keys that were pressed, at least one: it waits for it.
 *
 * The bug: the DPC empties the fifo and acknowledges the interrupt afterwards; a key that comes between is acknowledged with the others
 * but stays in the fifo, and its reader sleeps until another key is pressed.
 *
 * Device: PCI\VEN_1DA7&DEV_0003
 * Rule: request-forgotten
 * Needs: schedule
 *
 * The card (one memory window of 256 bytes, one interrupt):
 *   00 ID       4B455946
 *   04 CONTROL  bit 0 interrupt enable, bit 1 empty the fifo (clears itself)
 *   08 CAUSE    bit 0 a key has come to the fifo (once per key, whatever is in the fifo); write 1 to clear
 *   0C LEVEL    keys in the fifo, 0 to 16; keys beyond are lost
 *   10 KEY      the oldest key (bits 0-15), taken out by the reading
 */
#define CK_HAS_POWER
#define CK_HAS_FLUSH
#include "../include/kept_in_order.h"

#define KF_ID       0x00
#define KF_CONTROL  0x04
#define KF_CAUSE    0x08
#define KF_LEVEL    0x0c
#define KF_KEY      0x10

#define KF_MAGIC    0x4b455946u
#define KF_IRQ      1u
#define KF_EMPTY    2u

#define KF_FIFO     16u
#define KF_KEYS     128u                    /* kept in memory */
#define KF_AT_ONCE  64u                     /* per DPC */

#define IOCTL_KF_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa20, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID KfGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x0e } };

typedef struct _KF_COUNTS {
    ULONG Keys, Lost, Kept;
} KF_COUNTS, *PKF_COUNTS;

typedef struct _KF_EXT {
    CK K;
    PUCHAR Regs;
    ULONG RegsLen;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN On;                             /* the card may interrupt and the DPC may touch it; in step with the ISR */
    BOOLEAN Masked, Touch;
    CKQ Readers;                            /* its lock guards the rest */
    USHORT Key[KF_KEYS];
    ULONG First, Count;
    ULONG Keys, Lost;
} KF_EXT, *PKF_EXT;

static ULONG KfIn(PKF_EXT x, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + reg));
}

static VOID KfOut(PKF_EXT x, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + reg), value);
}

/* Masks the card: the DPC does the rest. */
static BOOLEAN NTAPI KfIsr(PKINTERRUPT interrupt, PVOID context)
{
    PKF_EXT x = context;
    ULONG cause;

    UNREFERENCED_PARAMETER(interrupt);
    if (!x->On || x->Masked)
        return FALSE;
    cause = KfIn(x, KF_CAUSE);
    if (cause == 0xffffffff || !(cause & 1))
        return FALSE;
    KfOut(x, KF_CONTROL, 0);
    x->Masked = TRUE;
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI KfUnmask(PVOID context)
{
    PKF_EXT x = context;

    if (x->On) {
        x->Masked = FALSE;
        KfOut(x, KF_CONTROL, KF_IRQ);
    }
    return TRUE;
}

/* Once more; not any more when it is being switched off. */
static BOOLEAN NTAPI KfAgain(PVOID context)
{
    PKF_EXT x = context;

    if (x->On)
        KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI KfSwitchOn(PVOID context)
{
    PKF_EXT x = context;

    x->On = TRUE;
    x->Masked = TRUE;                       /* a DPC follows, as if it had interrupted */
    return TRUE;
}

static BOOLEAN NTAPI KfSwitchOff(PVOID context)
{
    PKF_EXT x = context;

    x->On = FALSE;
    if (x->Touch)
        KfOut(x, KF_CONTROL, 0);
    return TRUE;
}

/* Behind this no DPC touches the card. */
static VOID KfOff(PKF_EXT x, BOOLEAN touch)
{
    x->Touch = touch;
    KeSynchronizeExecution(x->Interrupt, KfSwitchOff, x);
    KeFlushQueuedDpcs();
}

static VOID KfOn(PKF_EXT x)
{
    KeSynchronizeExecution(x->Interrupt, KfSwitchOn, x);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
}

/* Takes keys to a reader's buffer; the lock is held. */
static ULONG KfTake(PKF_EXT x, PIRP irp)
{
    ULONG room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(USHORT), n;
    PUSHORT to = irp->AssociatedIrp.SystemBuffer;

    for (n = 0; n < room && x->Count != 0; n++) {
        to[n] = x->Key[x->First];
        x->First = (x->First + 1) % KF_KEYS;
        x->Count--;
    }
    return n * sizeof(USHORT);
}

/* As long as there are keys and readers. */
static VOID KfDeliver(PKF_EXT x)
{
    ULONG bytes = 0;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&x->Readers.Lock, &irql);
        irp = x->Count != 0 ? CkqTakeLocked(&x->Readers, NULL) : NULL;
        if (irp != NULL)
            bytes = KfTake(x, irp);
        KeReleaseSpinLock(&x->Readers.Lock, irql);
        if (irp == NULL)
            return;
        CkComplete(irp, STATUS_SUCCESS, bytes);
        IoReleaseRemoveLock(&x->K.Rl, irp);
    }
}

/* FALSE: there may be more. */
static BOOLEAN KfDrain(PKF_EXT x)
{
    ULONG level, key, n;

    for (n = 0; n < KF_AT_ONCE; n++) {
        level = KfIn(x, KF_LEVEL);
        if (level == 0 || level > KF_FIFO)  /* all ones: it is gone */
            return TRUE;
        key = KfIn(x, KF_KEY);
        KeAcquireSpinLockAtDpcLevel(&x->Readers.Lock);
        if (x->Count == KF_KEYS) {          /* the oldest one goes */
            x->First = (x->First + 1) % KF_KEYS;
            x->Count--;
            x->Lost++;
        }
        x->Key[(x->First + x->Count) % KF_KEYS] = (USHORT)key;
        x->Count++;
        x->Keys++;
        KeReleaseSpinLockFromDpcLevel(&x->Readers.Lock);
    }
    return FALSE;
}

static VOID NTAPI KfDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PKF_EXT x = context;
    BOOLEAN empty;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    if (!x->On)                             /* the one that switches off waits for this DPC */
        return;
#ifdef FIXED
    KfOut(x, KF_CAUSE, 1);
    empty = KfDrain(x);
#else
    empty = KfDrain(x);
    KfOut(x, KF_CAUSE, 1);
#endif
    KfDeliver(x);
    KeSynchronizeExecution(x->Interrupt, empty ? KfUnmask : KfAgain, x);
}

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    PKF_EXT x = (PKF_EXT)k;
    PKF_COUNTS counts = irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;

    if (s->MajorFunction == IRP_MJ_READ)
        return s->Parameters.Read.Length < sizeof(USHORT) ? STATUS_BUFFER_TOO_SMALL : STATUS_PENDING;
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL || s->Parameters.DeviceIoControl.IoControlCode != IOCTL_KF_COUNTS)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof *counts)
        return STATUS_BUFFER_TOO_SMALL;
    KeAcquireSpinLock(&x->Readers.Lock, &irql);
    counts->Keys = x->Keys;
    counts->Lost = x->Lost;
    counts->Kept = x->Count;
    KeReleaseSpinLock(&x->Readers.Lock, irql);
    *info = sizeof *counts;
    return STATUS_SUCCESS;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    PKF_EXT x = (PKF_EXT)k;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    KeAcquireSpinLock(&x->Readers.Lock, &irql);
    if (x->Count != 0)
        *info = KfTake(x, irp);
    else
        status = CkqPutLocked(&x->Readers, irp);
    KeReleaseSpinLock(&x->Readers.Lock, irql);
    return status == STATUS_PENDING ? CK_KEPT : status;
}

static VOID HwFlush(PCK k, PFILE_OBJECT file, NTSTATUS status, BOOLEAN close)
{
    PKF_EXT x = (PKF_EXT)k;

    if (close)
        CkqClose(&x->Readers, status);
    else
        CkqFlush(&x->Readers, file, status);
}

static VOID HwSleep(PCK k)
{
    KfOff((PKF_EXT)k, TRUE);
}

static VOID HwWake(PCK k)
{
    KfOn((PKF_EXT)k);
}

static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    PKF_EXT x = (PKF_EXT)k;
    NTSTATUS status;

    x->Regs = CkMap(r, 0, KF_KEY + 4);
    if (x->Regs == NULL)
        return r->Mems != 0 ? STATUS_INSUFFICIENT_RESOURCES : STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLen = r->Mem[0].Len;
    if (KfIn(x, KF_ID) != KF_MAGIC) {
        status = STATUS_DEVICE_CONFIGURATION_ERROR;
    } else {
        KfOut(x, KF_CONTROL, KF_EMPTY);     /* interrupts off */
        x->On = FALSE;
        status = CkConnect(r, &x->Interrupt, KfIsr, x);
    }
    if (!NT_SUCCESS(status)) {
        x->Interrupt = NULL;
        MmUnmapIoSpace(x->Regs, x->RegsLen);
        x->Regs = NULL;
        return status;
    }
    KfOn(x);
    return STATUS_SUCCESS;
}

/* Readers go on waiting for a new start. */
static VOID HwStop(PCK k, BOOLEAN touch)
{
    PKF_EXT x = (PKF_EXT)k;

    KfOff(x, touch);
    IoDisconnectInterrupt(x->Interrupt);
    x->Interrupt = NULL;
    MmUnmapIoSpace(x->Regs, x->RegsLen);
    x->Regs = NULL;
}

static NTSTATUS KfInit(PCK k)
{
    PKF_EXT x = (PKF_EXT)k;

    KeInitializeDpc(&x->Dpc, KfDpc, x);
    CkqInit(&x->Readers, &k->Rl);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI KfAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(KF_EXT), &KfGuid, DO_BUFFERED_IO, KfInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, KfAdd);
    return STATUS_SUCCESS;
}
