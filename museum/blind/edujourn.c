/*
 * edujourn: a teaching aid for QEMU's "edu" card. Programs raise interrupts on the card; the driver keeps a journal of the last 64 interrupts with cause and
 * time, which programs take out.
 *
 * The bug: if the caller has room for a part of the journal only, the part is put in and the answer is STATUS_BUFFER_OVERFLOW with the size of the whole journal as
 * the number of bytes. The I/O manager copies that many: memory behind the system buffer goes to the program, over the end of its buffer.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: information-too-large
 * Needs: ioctl
 */
#include "../include/ticking_card.h"

#define EDU_ID 0x010000edu
#define EDU_STATUS 0x24
#define EDU_RAISE 0x60
#define EDU_ACK 0x64
#define ONES 0xffffffffu
#define ENTRIES 64

#define IOCTL_JOURN_RAISE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9c0, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_JOURN_TAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9c1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_JOURN_LIVE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9c2, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID JOURN_GUID = {0x5d0b6c18, 0x2a7e, 0x4b53, {0x90, 0x11, 0x1f, 0x3d, 0x5b, 0x2c, 0x77, 0x08}};

typedef struct _JOURN_ENTRY {
    ULONG64 Time;
    ULONG Cause;
    ULONG Number;
} JOURN_ENTRY, *PJOURN_ENTRY;

typedef struct _JOURN_TAKE {
    ULONG Present; /* in the journal, before they were taken out */
    ULONG Lost;    /* overwritten since the last time */
    JOURN_ENTRY Entry[1];
} JOURN_TAKE, *PJOURN_TAKE;

#define HEAD ((ULONG)FIELD_OFFSET(JOURN_TAKE, Entry))

typedef struct _JOURN {
    ZDEV Dev;
    PUCHAR Regs;
    JOURN_ENTRY Ring[ENTRIES]; /* all these under the interrupt's lock */
    ULONG First, Count;
    ULONG Number, Lost;
} JOURN, *PJOURN;

typedef struct _TAKING {
    PJOURN Journ;
    PJOURN_TAKE Out;
    ULONG Room; /* entries */
    ULONG Taken;
} TAKING, *PTAKING;

static BOOLEAN JournIsr(PZDEV d)
{
    PJOURN x = CONTAINING_RECORD(d, JOURN, Dev);
    ULONG Cause = ZRead(x->Regs, EDU_STATUS);
    PJOURN_ENTRY e;

    if (!Cause || Cause == ONES)
        return FALSE;
    ZWrite(x->Regs, EDU_ACK, Cause);
    if (x->Count == ENTRIES) {
        x->First = (x->First + 1) % ENTRIES;
        x->Count--;
        x->Lost++;
    }
    e = &x->Ring[(x->First + x->Count) % ENTRIES];
    e->Time = KeQueryInterruptTime();
    e->Cause = Cause;
    e->Number = x->Number++;
    x->Count++;
    return TRUE;
}

static BOOLEAN NTAPI TakeOut(PVOID Context)
{
    PTAKING t = Context;
    PJOURN x = t->Journ;

    t->Out->Present = x->Count;
    t->Out->Lost = x->Lost;
    x->Lost = 0;
    for (t->Taken = 0; t->Taken < t->Room && x->Count; t->Taken++) {
        t->Out->Entry[t->Taken] = x->Ring[x->First];
        x->First = (x->First + 1) % ENTRIES;
        x->Count--;
    }
    return TRUE;
}

static NTSTATUS Take(PJOURN x, PIRP Irp, ULONG OutLength)
{
    TAKING t;

    t.Journ = x;
    t.Out = Irp->AssociatedIrp.SystemBuffer;
    t.Room = (OutLength - HEAD) / sizeof(JOURN_ENTRY);
    KeSynchronizeExecution(x->Dev.Interrupt, TakeOut, &t);
    if (t.Taken < t.Out->Present) {
#ifdef FIXED
        Irp->IoStatus.Information = HEAD + t.Taken * sizeof(JOURN_ENTRY);
#else
        Irp->IoStatus.Information = HEAD + t.Out->Present * sizeof(JOURN_ENTRY);
#endif
        return STATUS_BUFFER_OVERFLOW;
    }
    Irp->IoStatus.Information = HEAD + t.Taken * sizeof(JOURN_ENTRY);
    return STATUS_SUCCESS;
}

static NTSTATUS JournBegin(PZDEV d, PIRP Irp)
{
    PJOURN x = CONTAINING_RECORD(d, JOURN, Dev);
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_JOURN_TAKE: /* needs no card */
        return Take(x, Irp, sl->Parameters.DeviceIoControl.OutputBufferLength);
    case IOCTL_JOURN_RAISE:
        if (ZRead(x->Regs, 0) != EDU_ID)
            return STATUS_NO_SUCH_DEVICE;
        ZWrite(x->Regs, EDU_RAISE, *Buffer);
        return STATUS_SUCCESS;
    default: { /* IOCTL_JOURN_LIVE */
        ULONG Value = *Buffer, Answer;

        ZWrite(x->Regs, 4, Value);
        Answer = ZRead(x->Regs, 4);
        if (Answer != ~Value || ZRead(x->Regs, 0) != EDU_ID)
            return STATUS_NO_SUCH_DEVICE;
        *Buffer = Answer;
        Irp->IoStatus.Information = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    }
}

static NTSTATUS JournRequest(PZDEV d, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength, OutLength;
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;

    if (sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    InLength = sl->Parameters.DeviceIoControl.InputBufferLength;
    OutLength = sl->Parameters.DeviceIoControl.OutputBufferLength;
    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_JOURN_RAISE:
        /* all ones would look like a card that is gone */
        if (InLength < sizeof(ULONG) || !*Buffer || *Buffer > 0xffff)
            return STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_JOURN_LIVE:
        if (InLength < sizeof(ULONG) || OutLength < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_JOURN_TAKE:
        if (OutLength < HEAD)
            return STATUS_BUFFER_TOO_SMALL;
        break;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    return ZSubmit(d, Irp);
}

static VOID Hush(PJOURN x)
{
    ULONG Cause = ZRead(x->Regs, EDU_STATUS);

    if (Cause && Cause != ONES)
        ZWrite(x->Regs, EDU_ACK, Cause);
}

static NTSTATUS JournUp(PZDEV d)
{
    PJOURN x = CONTAINING_RECORD(d, JOURN, Dev);

    if (ZRead(x->Regs, 0) != EDU_ID)
        return STATUS_NO_SUCH_DEVICE;
    Hush(x);
    ZHwOn(d);
    return STATUS_SUCCESS;
}

/* Nothing is in flight, so the card raises nothing any more; what it has raised is answered here if the ISR has not done so. */
static VOID JournDown(PZDEV d)
{
    Hush(CONTAINING_RECORD(d, JOURN, Dev));
    ZHwOff(d);
}

static NTSTATUS JournStart(PZDEV d, PCM_RESOURCE_LIST List)
{
    PJOURN x = CONTAINING_RECORD(d, JOURN, Dev);
    NTSTATUS Status;

    Status = ZResources(d, List);
    if (NT_SUCCESS(Status))
        Status = ZMap(d, 0, 0x100);
    x->Regs = d->Bar[0].Va;
    if (NT_SUCCESS(Status)) {
        Hush(x);
        Status = ZConnect(d);
    }
    if (NT_SUCCESS(Status))
        Status = JournUp(d);
    if (!NT_SUCCESS(Status))
        ZReleaseHw(d);
    return Status;
}

static VOID JournStop(PZDEV d, BOOLEAN Touch)
{
    if (Touch)
        JournDown(d);
    ZReleaseHw(d);
}

static const ZOPS JournOps = {
    .Interface = &JOURN_GUID,
    .ExtensionSize = sizeof(JOURN),
    .Start = JournStart,
    .Stop = JournStop,
    .Up = JournUp,
    .Down = JournDown,
    .Request = JournRequest,
    .Begin = JournBegin,
    .Isr = JournIsr,
};

static NTSTATUS NTAPI JournAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return ZAddDevice(Driver, Pdo, &JournOps);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    return ZDriver(Driver, JournAddDevice);
}
