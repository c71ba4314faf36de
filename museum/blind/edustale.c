/*
 * edustale: tables of factorials from an edu card, without its interrupt: up to 16 numbers a request, the timer of the frame looks ten times a second
 * for the result and puts in the next number.
 *
 * The bug: a request that follows one that was given up does not look whether the card is still busy with that one; the card ignores the new number,
 * and its old result is handed out as the answer to it.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored
 * Needs: device
 */
#include "../include/served_by_ticks.h"

#define EDU_ID 0x00
#define EDU_FACT 0x08
#define EDU_STATUS 0x20
#define EDU_ACK 0x64
#define EDU_IS 0x010000edu
#define BUSY 0x01u
#define WINDOW 0x100
#define NUMBERS 16

#define IOCTL_TABLE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB20, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TABLE_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB21, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID TableInterface = { 0x6d1d0a58, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x08 } };

typedef struct _DEV {
    BF B;
    PVOID Regs;
    ULONG At, Number; /* of the active request; under B.Lock */
    volatile LONG Tables, Late;
} DEV, *PDEV;

static NTSTATUS Start(PBF b, PBF_RES res)
{
    PDEV d = (PDEV)b;

    if (res->Windows < 1 || res->Window[0].Size < WINDOW)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->Regs = MmMapIoSpace(res->Window[0].At, WINDOW, MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (BfIn(d->Regs, EDU_ID) != EDU_IS) {
        MmUnmapIoSpace(d->Regs, WINDOW);
        d->Regs = NULL;
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    BfOut(d->Regs, EDU_STATUS, 0); /* no interrupts, and none left from before */
    BfOut(d->Regs, EDU_ACK, ~0u);
    return STATUS_SUCCESS;
}

static VOID Stop(PBF b)
{
    PDEV d = (PDEV)b;

    MmUnmapIoSpace(d->Regs, WINDOW);
    d->Regs = NULL;
}

static NTSTATUS StartIo(PBF b, PIRP irp)
{
    PDEV d = (PDEV)b;
    PULONG numbers = irp->AssociatedIrp.SystemBuffer;
    ULONG status = BfIn(d->Regs, EDU_STATUS);

    if (status == ~0u)
        return STATUS_DEVICE_NOT_CONNECTED;
#ifdef FIXED
    if (status & BUSY)
        return STATUS_DEVICE_BUSY;
#endif
    d->At = 0;
    d->Number = IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.InputBufferLength / sizeof(ULONG);
    BfOut(d->Regs, EDU_FACT, numbers[0]);
    return STATUS_PENDING;
}

/* Every result stands where its number stood. */
static VOID Poll(PBF b)
{
    PDEV d = (PDEV)b;
    PIRP irp = NULL;
    PULONG numbers;
    ULONG value;
    NTSTATUS st = STATUS_SUCCESS;

    KeAcquireSpinLockAtDpcLevel(&b->Lock);
    if (b->Active && !(BfIn(d->Regs, EDU_STATUS) & BUSY)) {
        numbers = b->Active->AssociatedIrp.SystemBuffer;
        value = BfIn(d->Regs, EDU_FACT);
        if (value == ~0u)
            st = STATUS_DEVICE_NOT_CONNECTED;
        else
            numbers[d->At++] = value;
        if (!NT_SUCCESS(st) || d->At == d->Number) {
            irp = b->Active;
            b->Active = NULL;
        } else {
            BfOut(d->Regs, EDU_FACT, numbers[d->At]);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&b->Lock);
    if (!irp)
        return;
    InterlockedIncrement(&d->Tables);
    BfDone(b, irp, st, NT_SUCCESS(st) ? d->Number * sizeof(ULONG) : 0);
}

static VOID Expire(PBF b, PIRP irp)
{
    InterlockedIncrement(&((PDEV)b)->Late);
    BfDone(b, irp, STATUS_IO_TIMEOUT, 0);
}

static NTSTATUS Io(PBF b, PIRP irp, PIO_STACK_LOCATION sp)
{
    PDEV d = (PDEV)b;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG numbers = irp->AssociatedIrp.SystemBuffer;
    ULONG i;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TABLE:
        if (in == 0 || in % sizeof(ULONG) != 0 || in > NUMBERS * sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        if (out < in)
            return STATUS_BUFFER_TOO_SMALL;
        for (i = 0; i < in / sizeof(ULONG); i++) {
            if (numbers[i] > 12)
                return STATUS_INVALID_PARAMETER;
        }
        return BF_QUEUE;

    case IOCTL_TABLE_COUNTS:
        if (out < 2 * sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        numbers[0] = (ULONG)d->Tables;
        numbers[1] = (ULONG)d->Late;
        irp->IoStatus.Information = 2 * sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID PowerUp(PBF b)
{
    BfOut(((PDEV)b)->Regs, EDU_STATUS, 0);
}

static const BF_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &TableInterface,
    .Limit = 30,
    .Start = Start,
    .Stop = Stop,
    .PowerUp = PowerUp,
    .StartIo = StartIo,
    .Poll = Poll,
    .Expire = Expire,
    .Io = Io,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}
