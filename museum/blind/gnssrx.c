/*
 * gnssrx: a satellite navigation receiver; programs ask for the next fix and get it with the satellites in view. The card has no interrupt; a timer looks.
 *
 * The card (PCI\VEN_1DA7&DEV_0003), BAR0, 32-bit registers:
 *   0x00 ID        0x474e5331
 *   0x04 STATUS    bit 0: a fix is ready (the registers below are frozen), bit 1: antenna connected
 *   0x08 COUNT     satellites in view, 0 to 32
 *   0x0c ACK       writing 1 lets the receiver make the next fix
 *   0x10, 0x14     latitude and longitude in 1e-7 degrees
 *   0x40 + 16 * n  satellite n: number, elevation, azimuth, signal
 *
 * The bug: the answer has room for 32 satellites, and only those in view are filled in; the rest goes to the program as it was: old kernel pool.
 *
 * Device: PCI\VEN_1DA7&DEV_0003
 * Rule: output-never-stored
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/held_gate.h"

#define CARD_ID 0x474e5331u
#define REG_ID 0x00
#define REG_STATUS 0x04
#define REG_COUNT 0x08
#define REG_ACK 0x0c
#define REG_LATITUDE 0x10
#define REG_LONGITUDE 0x14
#define REG_SATELLITE 0x40
#define REG_BYTES 0x240u

#define STATUS_READY 1u
#define STATUS_ANTENNA 2u
#define MOST_SATELLITES 32u
#define TICK 50        /* milliseconds */
#define LIMIT_TICKS 60 /* three seconds */
#define ONES 0xffffffffu

typedef struct _GNSS_FIX {
    LONG Latitude;
    LONG Longitude;
    ULONG Antenna;
    ULONG Count;
    struct {
        ULONG Number;
        ULONG Elevation;
        ULONG Azimuth;
        ULONG Signal;
    } Satellite[MOST_SATELLITES];
} GNSS_FIX;

#define IOCTL_GNSS_FIX CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)     /* out: GNSS_FIX, the next one */
#define IOCTL_GNSS_ANTENNA CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS) /* out: ULONG */

DRIVER_INITIALIZE DriverEntry;

/* {3F405162-7384-4950-9B3C-4D5E6F70810E} */
static const GUID GnssGuid = {0x3f405162, 0x7384, 0x4950, {0x9b, 0x3c, 0x4d, 0x5e, 0x6f, 0x70, 0x81, 0x0e}};

typedef struct _GNSS {
    XF X;
    PUCHAR Regs;
    KTIMER Timer;
    KDPC TimerDpc;
    KSPIN_LOCK Lock; /* guards the rest and the registers */
    PIRP Current;
    ULONG Ticks;
} GNSS, *PGNSS;

static ULONG Get(PGNSS g, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(g->Regs + Register));
}

static VOID Put(PGNSS g, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(g->Regs + Register), Value);
}

/* A fix is ready. The lock is held. */
static NTSTATUS TakeFix(PGNSS g, GNSS_FIX *Fix, ULONG Status)
{
    ULONG Count = Get(g, REG_COUNT), i, Base;

    if (Count > MOST_SATELLITES)
        return Count == ONES ? STATUS_NO_SUCH_DEVICE : STATUS_DEVICE_DATA_ERROR;
#ifdef FIXED
    RtlZeroMemory(Fix, sizeof(*Fix));
#endif
    Fix->Latitude = (LONG)Get(g, REG_LATITUDE);
    Fix->Longitude = (LONG)Get(g, REG_LONGITUDE);
    Fix->Antenna = (Status & STATUS_ANTENNA) != 0;
    Fix->Count = Count;
    for (i = 0; i < Count; i++) {
        Base = REG_SATELLITE + 16 * i;
        Fix->Satellite[i].Number = Get(g, Base);
        Fix->Satellite[i].Elevation = Get(g, Base + 4);
        Fix->Satellite[i].Azimuth = Get(g, Base + 8);
        Fix->Satellite[i].Signal = Get(g, Base + 12);
    }
    if (Get(g, REG_ID) != CARD_ID) /* pulled meanwhile */
        return STATUS_NO_SUCH_DEVICE;
    Put(g, REG_ACK, 1);
    return STATUS_SUCCESS;
}

static VOID NTAPI GnssTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PGNSS g = Context;
    PIRP Irp = NULL;
    ULONG Card;
    NTSTATUS Status = STATUS_PENDING;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&g->Lock);
    if (g->Current != NULL) {
        Card = Get(g, REG_STATUS);
        if (Card == ONES)
            Status = STATUS_NO_SUCH_DEVICE;
        else if (Card & STATUS_READY)
            Status = TakeFix(g, g->Current->AssociatedIrp.SystemBuffer, Card);
        else if (--g->Ticks == 0)
            Status = STATUS_IO_TIMEOUT;
        if (Status != STATUS_PENDING) {
            Irp = g->Current;
            g->Current = NULL;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&g->Lock);
    if (Irp != NULL)
        XfFinish(&g->X, Irp, Status, NT_SUCCESS(Status) ? sizeof(GNSS_FIX) : 0);
}

static VOID DevIo(PXF x, PIRP Irp)
{
    PGNSS g = CONTAINING_RECORD(x, GNSS, X);
    ULONG Code = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode, Card = Get(g, REG_STATUS), Antenna;
    KIRQL Irql;

    if (Card == ONES) {
        XfFinish(x, Irp, STATUS_NO_SUCH_DEVICE, 0);
        return;
    }
    if (Code == IOCTL_GNSS_ANTENNA) {
        Antenna = (Card & STATUS_ANTENNA) != 0;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Antenna, sizeof(Antenna));
        XfFinish(x, Irp, STATUS_SUCCESS, sizeof(Antenna));
        return;
    }
    KeAcquireSpinLock(&g->Lock, &Irql);
    Put(g, REG_ACK, 1); /* not an old one */
    g->Current = Irp;
    g->Ticks = LIMIT_TICKS;
    KeReleaseSpinLock(&g->Lock, Irql);
}

static NTSTATUS DevCheck(PXF x, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG Out = s->Parameters.DeviceIoControl.OutputBufferLength;

    UNREFERENCED_PARAMETER(x);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GNSS_FIX:
        return Out < sizeof(GNSS_FIX) ? STATUS_BUFFER_TOO_SMALL : STATUS_PENDING;
    case IOCTL_GNSS_ANTENNA:
        return Out < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : STATUS_PENDING;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS DevInit(PXF x)
{
    PGNSS g = CONTAINING_RECORD(x, GNSS, X);

    KeInitializeSpinLock(&g->Lock);
    KeInitializeTimer(&g->Timer);
    KeInitializeDpc(&g->TimerDpc, GnssTick, g);
    return STATUS_SUCCESS;
}

static VOID DevFree(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    PGNSS g = CONTAINING_RECORD(x, GNSS, X);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory = XfResource(List, CmResourceTypeMemory, 0);
    LARGE_INTEGER First;

    if (Memory == NULL || Memory->u.Memory.Length < REG_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    g->Regs = MmMapIoSpace(Memory->u.Memory.Start, REG_BYTES, MmNonCached);
    if (g->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Get(g, REG_ID) != CARD_ID) {
        MmUnmapIoSpace(g->Regs, REG_BYTES);
        g->Regs = NULL;
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    First.QuadPart = -10000LL * TICK;
    KeSetTimerEx(&g->Timer, First, TICK, &g->TimerDpc);
    return STATUS_SUCCESS;
}

static VOID DevStop(PXF x, BOOLEAN Alive)
{
    PGNSS g = CONTAINING_RECORD(x, GNSS, X);

    UNREFERENCED_PARAMETER(Alive);
    KeCancelTimer(&g->Timer);
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(g->Regs, REG_BYTES);
    g->Regs = NULL;
}

/* The timer goes on in sleep; without a current request it touches nothing. */
static VOID DevUp(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevDown(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

/* The time limit ends what is on its way. */
static VOID DevGone(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    XfInit(Driver, sizeof(GNSS), &GnssGuid, DO_BUFFERED_IO);
    return STATUS_SUCCESS;
}
