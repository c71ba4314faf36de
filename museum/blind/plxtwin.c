/*
 * plxtwin: a board with a PLX 9050 and two contact inputs on LINTi1 and LINTi2, used edge triggered. A program waits for the next edge
 * of an input; an input is armed (its interrupt enabled) as long as a program waits for it, and the ISR disarms it when it fires.
 *
 * The bug: arming changes INTCSR by reading, changing and writing it without keeping the ISR and the DPC away; a change of the other
 * input's enable bit that comes between is undone: its waiters are never woken (or an input that none waits for is armed).
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: request-forgotten, register-update-race, register-update-lost
 * Needs: schedule
 */
#define CK_HAS_POWER
#define CK_HAS_FLUSH
#include "../include/kept_in_order.h"

#define PT_INTCSR  0x4c

#define PT_EN1     0x0001u
#define PT_POL1    0x0002u
#define PT_ST1     0x0004u
#define PT_EN2     0x0008u
#define PT_POL2    0x0010u
#define PT_ST2     0x0020u
#define PT_PCI     0x0040u
#define PT_EDGE1   0x0100u
#define PT_EDGE2   0x0200u
#define PT_CLR1    0x0400u
#define PT_CLR2    0x0800u
#define PT_CLR     (PT_CLR1 | PT_CLR2)

#define IOCTL_PT_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9e0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PT_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9e1, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID PtGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x09 } };

typedef struct _PT_STATE {
    ULONG Edges[2];                         /* that have been seen */
    ULONG Pins;                             /* bit 0: input 1, bit 1: input 2 */
} PT_STATE, *PPT_STATE;

typedef struct _PT_EXT {
    CK K;
    PUCHAR Lcr;
    ULONG LcrLen;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN On, Touch;                      /* On: the ISR and the arming may work; changed in step with the ISR */
    ULONG Base;                             /* INTCSR as the board wants it, with nothing enabled */
    volatile LONG Fired;                    /* bit per input */
    volatile LONG Edges[2];
    CKQ Wait[2];
} PT_EXT, *PPT_EXT;

typedef struct _PT_ARM {
    PPT_EXT X;
    ULONG Input;
} PT_ARM, *PPT_ARM;

static ULONG PtIn(PPT_EXT x)
{
    return READ_REGISTER_ULONG((PULONG)(x->Lcr + PT_INTCSR));
}

static VOID PtOut(PPT_EXT x, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Lcr + PT_INTCSR), value);
}

static BOOLEAN NTAPI PtIsr(PKINTERRUPT interrupt, PVOID context)
{
    PPT_EXT x = context;
    ULONG csr, fired = 0;

    UNREFERENCED_PARAMETER(interrupt);
    if (!x->On)
        return FALSE;
    csr = PtIn(x);
    if (csr == 0xffffffff || !(csr & PT_PCI))
        return FALSE;
    csr &= ~PT_CLR;
    if ((csr & (PT_EN1 | PT_ST1)) == (PT_EN1 | PT_ST1)) {
        fired |= 1;
        csr = (csr & ~PT_EN1) | PT_CLR1;
    }
    if ((csr & (PT_EN2 | PT_ST2)) == (PT_EN2 | PT_ST2)) {
        fired |= 2;
        csr = (csr & ~PT_EN2) | PT_CLR2;
    }
    if (fired == 0)
        return FALSE;
    PtOut(x, csr);
    InterlockedOr(&x->Fired, (LONG)fired);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI PtArmRoutine(PVOID context)
{
    PPT_ARM arm = context;
    ULONG enable = arm->Input == 0 ? PT_EN1 : PT_EN2;
    ULONG csr;

    if (!arm->X->On)
        return TRUE;
    csr = PtIn(arm->X);
    if (csr != 0xffffffff && !(csr & enable))           /* an edge of an armed input must not be cleared */
        PtOut(arm->X, (csr & ~PT_CLR) | enable | (arm->Input == 0 ? PT_CLR1 : PT_CLR2));
    return TRUE;
}

static VOID PtArm(PPT_EXT x, ULONG input)
{
    PT_ARM arm;

    arm.X = x;
    arm.Input = input;
#ifdef FIXED
    KeSynchronizeExecution(x->Interrupt, PtArmRoutine, &arm);
#else
    PtArmRoutine(&arm);
#endif
}

/* Interrupts on, no input armed. */
static BOOLEAN NTAPI PtOnRoutine(PVOID context)
{
    PPT_EXT x = context;

    PtOut(x, x->Base | PT_CLR | PT_PCI);
    x->On = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI PtOffRoutine(PVOID context)
{
    PPT_EXT x = context;

    x->On = FALSE;
    if (x->Touch)
        PtOut(x, x->Base | PT_CLR);
    return TRUE;
}

/* Behind this the ISR starts no DPC, and no DPC arms anything. */
static VOID PtOff(PPT_EXT x, BOOLEAN touch)
{
    x->Touch = touch;
    KeSynchronizeExecution(x->Interrupt, PtOffRoutine, x);
    KeFlushQueuedDpcs();
}

/* After a start and after D3: the inputs that programs have been waiting for all along. */
static VOID PtOn(PPT_EXT x)
{
    BOOLEAN waits;
    KIRQL irql;
    ULONG i;

    KeSynchronizeExecution(x->Interrupt, PtOnRoutine, x);
    for (i = 0; i < 2; i++) {
        KeAcquireSpinLock(&x->Wait[i].Lock, &irql);
        waits = !IsListEmpty(&x->Wait[i].List);
        KeReleaseSpinLock(&x->Wait[i].Lock, irql);
        if (waits)
            PtArm(x, i);
    }
}

static VOID NTAPI PtDpc(PKDPC dpc, PVOID context, PVOID a, PVOID b)
{
    PPT_EXT x = context;
    LONG fired = InterlockedExchange(&x->Fired, 0);
    BOOLEAN more;
    ULONG i, number;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a);
    UNREFERENCED_PARAMETER(b);
    for (i = 0; i < 2; i++) {
        if (!(fired & (1 << i)))
            continue;
        number = (ULONG)InterlockedIncrement(&x->Edges[i]);
        KeAcquireSpinLockAtDpcLevel(&x->Wait[i].Lock);
        irp = CkqTakeLocked(&x->Wait[i], NULL);
        more = !IsListEmpty(&x->Wait[i].List);
        KeReleaseSpinLockFromDpcLevel(&x->Wait[i].Lock);
        if (more)
            PtArm(x, i);
        if (irp != NULL) {
            *(PULONG)irp->AssociatedIrp.SystemBuffer = number;
            CkComplete(irp, STATUS_SUCCESS, sizeof(ULONG));
            IoReleaseRemoveLock(&x->K.Rl, irp);
        }
    }
}

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;

    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(info);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PT_WAIT:                     /* the input's number (0, 1) in, the number of the edge out */
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return *(PULONG)irp->AssociatedIrp.SystemBuffer < 2 ? STATUS_PENDING : STATUS_INVALID_PARAMETER;
    case IOCTL_PT_STATE:
        return out < sizeof(PT_STATE) ? STATUS_BUFFER_TOO_SMALL : STATUS_PENDING;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    PPT_EXT x = (PPT_EXT)k;
    ULONG input, csr;
    NTSTATUS status;
    PPT_STATE state;
    KIRQL irql;

    csr = PtIn(x);
    if (csr == 0xffffffff)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.IoControlCode == IOCTL_PT_STATE) {
        state = irp->AssociatedIrp.SystemBuffer;
        state->Edges[0] = (ULONG)x->Edges[0];
        state->Edges[1] = (ULONG)x->Edges[1];
        state->Pins = (csr & PT_ST1 ? 1 : 0) | (csr & PT_ST2 ? 2 : 0);
        *info = sizeof *state;
        return STATUS_SUCCESS;
    }
    input = *(PULONG)irp->AssociatedIrp.SystemBuffer;
    KeAcquireSpinLock(&x->Wait[input].Lock, &irql);
    status = CkqPutLocked(&x->Wait[input], irp);
    KeReleaseSpinLock(&x->Wait[input].Lock, irql);
    if (status != STATUS_PENDING)
        return status;
    PtArm(x, input);
    return CK_KEPT;
}

static VOID HwFlush(PCK k, PFILE_OBJECT file, NTSTATUS status, BOOLEAN close)
{
    PPT_EXT x = (PPT_EXT)k;
    ULONG i;

    for (i = 0; i < 2; i++) {
        if (close)
            CkqClose(&x->Wait[i], status);
        else
            CkqFlush(&x->Wait[i], file, status);
    }
}

static VOID HwSleep(PCK k)
{
    PtOff((PPT_EXT)k, TRUE);
}

static VOID HwWake(PCK k)
{
    PtOn((PPT_EXT)k);
}

static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    PPT_EXT x = (PPT_EXT)k;
    NTSTATUS status;
    ULONG csr;

    x->Lcr = CkMap(r, 0, PT_INTCSR + 8);
    if (x->Lcr == NULL)
        return r->Mems != 0 ? STATUS_INSUFFICIENT_RESOURCES : STATUS_DEVICE_CONFIGURATION_ERROR;
    x->LcrLen = r->Mem[0].Len;
    csr = PtIn(x);
    if (csr == 0xffffffff) {
        status = STATUS_NO_SUCH_DEVICE;
    } else {
        x->Base = (csr & (PT_POL1 | PT_POL2)) | PT_EDGE1 | PT_EDGE2;
        PtOut(x, x->Base | PT_CLR);
        x->Fired = 0;
        x->On = FALSE;
        status = CkConnect(r, &x->Interrupt, PtIsr, x);
    }
    if (!NT_SUCCESS(status)) {
        x->Interrupt = NULL;
        MmUnmapIoSpace(x->Lcr, x->LcrLen);
        x->Lcr = NULL;
        return status;
    }
    PtOn(x);
    return STATUS_SUCCESS;
}

/* Who waits goes on waiting for a new start. */
static VOID HwStop(PCK k, BOOLEAN touch)
{
    PPT_EXT x = (PPT_EXT)k;

    PtOff(x, touch);
    IoDisconnectInterrupt(x->Interrupt);
    x->Interrupt = NULL;
    MmUnmapIoSpace(x->Lcr, x->LcrLen);
    x->Lcr = NULL;
}

static NTSTATUS PtInit(PCK k)
{
    PPT_EXT x = (PPT_EXT)k;

    KeInitializeDpc(&x->Dpc, PtDpc, x);
    CkqInit(&x->Wait[0], &k->Rl);
    CkqInit(&x->Wait[1], &k->Rl);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI PtAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(PT_EXT), &PtGuid, DO_BUFFERED_IO, PtInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, PtAdd);
    return STATUS_SUCCESS;
}
