/*
 * plxhoist: a stage hoist on a PLX 9050 board: user I/O 0 and 1 drive the motor up and down, user I/O 2 is the limit switch. A move lasts as
 * long as the program says, at most ten seconds, and a timer ends it. A service request reads any of the chip's registers.
 *
 * The bug: the service request compares the register's offset with the window's length as if it were the last offset that is allowed, and does
 * not ask for alignment: 32 bits are read at, or across, the window's end.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-access-past-mapping, wild-read
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define IOCTL_HOIST_MOVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x980, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_HOIST_HALT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x981, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_HOIST_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x982, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_HOIST_PEEK  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x983, METHOD_BUFFERED, FILE_READ_ACCESS)

#define CNTRL 0x50
#define USER0_OUT 0x002
#define USER0 0x004
#define USER1_IS_LLOCK 0x008
#define USER1_OUT 0x010
#define USER1 0x020
#define USER2_IS_CS2 0x040
#define USER2_OUT 0x080
#define USER2 0x100
#define GONE 0xffffffffu

#define MOVE_MAX 10000

static const GUID HoistClass = { 0x5b8e2f10, 0x7a41, 0x4c0b, { 0x9d, 0x21, 0x3e, 0x5f, 0x10, 0x6a, 0x77, 0x09 } };

enum { Still, Up, Down };

typedef struct {
    ULONG Direction;
    ULONG Milliseconds;
} MOVE;

typedef struct {
    ULONG Direction;
    ULONG AtLimit;
    ULONG Moves;
} STATE;

typedef struct {
    FRAME Frame;
    volatile UCHAR *Regs;
    ULONG RegsLength;
    KTIMER Timer;
    KDPC Dpc;

    KSPIN_LOCK Lock;            /* of CNTRL and of what follows */
    ULONG Direction;
    ULONG Moves;
    ULONGLONG Until;
} HOIST;

/* Drives the motor; FALSE when the card is gone. Lock held. */
static BOOLEAN Motor(HOIST *H, ULONG Direction)
{
    ULONG cntrl = Rd(H->Regs, CNTRL);

    H->Direction = Direction;
    if (cntrl == GONE)
        return FALSE;
    cntrl &= ~(USER0 | USER1 | USER1_IS_LLOCK | USER2_IS_CS2 | USER2_OUT | 1);
    cntrl |= USER0_OUT | USER1_OUT;
    if (Direction == Up)
        cntrl |= USER0;
    else if (Direction == Down)
        cntrl |= USER1;
    Wr(H->Regs, CNTRL, cntrl);
    return TRUE;
}

static void NTAPI MoveDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    HOIST *h = Context;
    LARGE_INTEGER due;
    ULONGLONG now;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&h->Lock);
    now = KeQueryInterruptTime();
    if (h->Direction != Still) {
        if (now >= h->Until) {
            Motor(h, Still);
        } else {
            due.QuadPart = -(LONGLONG)(h->Until - now);         /* the timer was set for a move before */
            KeSetTimer(&h->Timer, due, &h->Dpc);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&h->Lock);
}

/* PASSIVE_LEVEL; no one is within the gate. */
static void EndMove(HOIST *H, BOOLEAN Alive)
{
    KIRQL irql;

    KeAcquireSpinLock(&H->Lock, &irql);
    if (Alive)
        Motor(H, Still);
    H->Direction = Still;
    KeReleaseSpinLock(&H->Lock, irql);
    KeCancelTimer(&H->Timer);
    KeFlushQueuedDpcs();
}

static NTSTATUS Move(HOIST *H, const MOVE *M)
{
    NTSTATUS status = STATUS_SUCCESS;
    LARGE_INTEGER due;
    KIRQL irql;

    if ((M->Direction != Up && M->Direction != Down) || M->Milliseconds == 0 || M->Milliseconds > MOVE_MAX)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&H->Lock, &irql);
    if (H->Direction != Still) {
        status = STATUS_DEVICE_BUSY;
    } else if (!Motor(H, M->Direction)) {
        H->Direction = Still;
        status = STATUS_DEVICE_NOT_CONNECTED;
    } else {
        H->Moves++;
        H->Until = KeQueryInterruptTime() + M->Milliseconds * 10000ULL;
        due.QuadPart = -10000LL * M->Milliseconds;
        KeSetTimer(&H->Timer, due, &H->Dpc);
    }
    KeReleaseSpinLock(&H->Lock, irql);
    return status;
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    HOIST *h = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    STATE *state = Irp->AssociatedIrp.SystemBuffer;
    ULONG offset, cntrl;
    NTSTATUS status;
    MOVE move;
    KIRQL irql;

    status = FrameBegin(&h->Frame, Irp);
    if (!NT_SUCCESS(status))
        return status;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_HOIST_MOVE:
        if (in < sizeof(MOVE))
            return FrameEnd(&h->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        move = *(MOVE *)Irp->AssociatedIrp.SystemBuffer;
        return FrameEnd(&h->Frame, Irp, Move(h, &move), 0);

    case IOCTL_HOIST_HALT:
        KeAcquireSpinLock(&h->Lock, &irql);
        Motor(h, Still);
        KeReleaseSpinLock(&h->Lock, irql);
        return FrameEnd(&h->Frame, Irp, STATUS_SUCCESS, 0);

    case IOCTL_HOIST_STATE:
        if (out < sizeof(STATE))
            return FrameEnd(&h->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&h->Lock, &irql);
        cntrl = Rd(h->Regs, CNTRL);
        state->Direction = h->Direction;
        state->AtLimit = (cntrl & USER2) != 0;
        state->Moves = h->Moves;
        KeReleaseSpinLock(&h->Lock, irql);
        if (cntrl == GONE)
            return FrameEnd(&h->Frame, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        return FrameEnd(&h->Frame, Irp, STATUS_SUCCESS, sizeof(STATE));

    case IOCTL_HOIST_PEEK:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return FrameEnd(&h->Frame, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        offset = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
#ifdef FIXED
        if (offset % sizeof(ULONG) || offset > h->RegsLength - sizeof(ULONG))
#else
        if (offset > h->RegsLength)
#endif
            return FrameEnd(&h->Frame, Irp, STATUS_INVALID_PARAMETER, 0);
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = Rd(h->Regs, offset);
        return FrameEnd(&h->Frame, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return FrameEnd(&h->Frame, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS Start(FRAME *F, PCM_RESOURCE_LIST Translated)
{
    HOIST *h = (HOIST *)F;
    FRAME_RESOURCES r;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    FrameResources(Translated, &r);
    if (r.Memories == 0 || r.Memory[0].Length < CNTRL + sizeof(ULONG))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    h->RegsLength = r.Memory[0].Length;
    h->Regs = MmMapIoSpace(r.Memory[0].Base, h->RegsLength, MmNonCached);
    if (!h->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    KeAcquireSpinLock(&h->Lock, &irql);
    if (!Motor(h, Still))
        status = STATUS_DEVICE_NOT_CONNECTED;
    KeReleaseSpinLock(&h->Lock, irql);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace((PVOID)h->Regs, h->RegsLength);
        h->Regs = NULL;
    }
    return status;
}

static void Stop(FRAME *F)
{
    HOIST *h = (HOIST *)F;

    EndMove(h, FrameAlive(F));
    MmUnmapIoSpace((PVOID)h->Regs, h->RegsLength);
    h->Regs = NULL;
}

static void PowerDown(FRAME *F)
{
    EndMove((HOIST *)F, TRUE);
}

static void PowerUp(FRAME *F)
{
    HOIST *h = (HOIST *)F;
    KIRQL irql;

    KeAcquireSpinLock(&h->Lock, &irql);
    Motor(h, Still);            /* which sets the pins' directions again */
    KeReleaseSpinLock(&h->Lock, irql);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    FRAME *f;
    HOIST *h;
    NTSTATUS status;

    status = FrameAdd(Driver, Pdo, sizeof(HOIST), &HoistClass, DO_BUFFERED_IO, &f);
    if (!NT_SUCCESS(status))
        return status;
    h = (HOIST *)f;
    f->Start = Start;
    f->Stop = Stop;
    f->PowerDown = PowerDown;
    f->PowerUp = PowerUp;
    KeInitializeSpinLock(&h->Lock);
    KeInitializeTimer(&h->Timer);
    KeInitializeDpc(&h->Dpc, MoveDpc, h);
    f->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrameDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    return STATUS_SUCCESS;
}
