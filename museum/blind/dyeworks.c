/*
 * dyeworks: a card that doses dye. A write is a recipe, a byte for each of up to 256 doses; the card takes one recipe at a time and interrupts when it is
 * done. Recipes that come meanwhile wait.
 *
 * The bug: if the recipe of a waiting write can not be mapped, the write fails, but the card stays reserved for it. No later recipe is ever begun.
 *
 * Device: PCI\VEN_1D6A&DEV_0705
 * Rule: irp-never-completed, request-forgotten, irp-forgotten
 * Needs: failure
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#define FRAME_CARD
#include "../include/park_frame.h"

static const GUID DyeInterface = { 0x6a1f0d55, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x35 } };

#define IOCTL_DYE_DONE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers recipes and doses */

/* of the card */
#define ENABLE 0x04
#define STATUS 0x08
#define ACK    0x0C
#define DOSE   0x10
#define START  0x14
#define DYED   0x00000001

#define MOST_DOSES 256

typedef struct _DYE {
    STATION Station;
    BELL Bell;
    PARK Waiting, Active;
    KSPIN_LOCK Lock;                               /* all below */
    enum { IDLE, RESERVED, DYEING } State;         /* RESERVED: a recipe is about to begin or to end */
    BOOLEAN Halt;
    ULONG Doses;                                   /* of the recipe that the card is at */
    ULONG Done[2];
} DYE;

#define REGISTERS(d) (&(d)->Bell.Card.Window[0])

static BOOLEAN DyeReserve(DYE *D, ULONG From)
{
    BOOLEAN mine;
    KIRQL irql;
    KeAcquireSpinLock(&D->Lock, &irql);
    mine = (ULONG)D->State == From && !(From == IDLE && D->Halt);
    if (mine)
        D->State = RESERVED;
    KeReleaseSpinLock(&D->Lock, irql);
    return mine;
}

static VOID DyeIdle(DYE *D)
{
    KIRQL irql;
    KeAcquireSpinLock(&D->Lock, &irql);
    D->State = IDLE;
    KeReleaseSpinLock(&D->Lock, irql);
}

static VOID DyePump(DYE *D)
{
    PIRP irp;
    PUCHAR recipe;
    ULONG i, doses;
    KIRQL irql;
    while (DyeReserve(D, IDLE)) {
        irp = ParkTake(&D->Waiting, NULL);
        if (!irp) {
            DyeIdle(D);
            if (ParkEmpty(&D->Waiting))
                return;
            continue;
        }
        recipe = MmGetSystemAddressForMdlSafe(irp->MdlAddress, NormalPagePriority);
        if (!recipe) {
#ifndef FIXED
            StationEnd(&D->Station, irp, STATUS_INSUFFICIENT_RESOURCES, 0);
            return;
#else
            StationEnd(&D->Station, irp, STATUS_INSUFFICIENT_RESOURCES, 0);
            DyeIdle(D);
            continue;
#endif
        }
        doses = IoGetCurrentIrpStackLocation(irp)->Parameters.Write.Length;
        for (i = 0; i < doses; i++)
            CardWrite(REGISTERS(D), DOSE, ((volatile UCHAR *)recipe)[i]);
        ParkWait(&D->Active, irp);
        KeAcquireSpinLock(&D->Lock, &irql);
        D->Doses = doses;
        D->State = DYEING;
        CardWrite(REGISTERS(D), START, doses);
        KeReleaseSpinLock(&D->Lock, irql);
        return;
    }
}

static VOID NTAPI DyeDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    DYE *d = Context;
    PIRP irp;
    ULONG doses;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    if (!BellFetch(&d->Bell) || !DyeReserve(d, DYEING))
        return;
    irp = ParkTake(&d->Active, NULL);
    KeAcquireSpinLockAtDpcLevel(&d->Lock);
    doses = d->Doses;
    d->Done[0]++;
    d->Done[1] += doses;
    KeReleaseSpinLockFromDpcLevel(&d->Lock);
    if (irp)
        StationEnd(&d->Station, irp, STATUS_SUCCESS, doses);
    DyeIdle(d);
    DyePump(d);
}

static NTSTATUS DyeAdded(STATION *S)
{
    DYE *d = (DYE *)S;
    KeInitializeSpinLock(&d->Lock);
    d->State = IDLE;
    d->Halt = TRUE;
    ParkInit(&d->Waiting, StationEnds, S);
    ParkInit(&d->Active, StationEnds, S);
    BellInit(&d->Bell, DyeDpc, d, STATUS, ACK, ENABLE, DYED);
    return STATUS_SUCCESS;
}

static VOID DyeHalt(DYE *D, BOOLEAN Halt)
{
    KIRQL irql;
    KeAcquireSpinLock(&D->Lock, &irql);
    D->Halt = Halt;
    KeReleaseSpinLock(&D->Lock, irql);
}

/* With the card quiet: the recipe that it was at is begun again later, from its beginning. */
static VOID DyeReset(DYE *D)
{
    PIRP irp = ParkTake(&D->Active, NULL);
    if (irp)
        ParkWait(&D->Waiting, irp);
    DyeIdle(D);
}

static VOID DyeWake(STATION *S)
{
    DYE *d = (DYE *)S;
    BellOn(&d->Bell);
    DyeHalt(d, FALSE);
    DyePump(d);
}

static NTSTATUS DyeStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    NTSTATUS status = BellOpen(&((DYE *)S)->Bell, Translated, 0x20);
    if (NT_SUCCESS(status))
        DyeWake(S);
    return status;
}

static VOID DyeStop(STATION *S, BOOLEAN Reachable)
{
    DYE *d = (DYE *)S;
    DyeHalt(d, TRUE);
    BellClose(&d->Bell, Reachable);
    DyeReset(d);
}

static VOID DyeSleep(STATION *S)
{
    DYE *d = (DYE *)S;
    DyeHalt(d, TRUE);
    BellOff(&d->Bell);
    DyeReset(d);
}

static VOID DyeAbandon(STATION *S, PFILE_OBJECT File, NTSTATUS Status)
{
    DYE *d = (DYE *)S;
    ParkFlush(&d->Waiting, File, Status);
    ParkFlush(&d->Active, File, Status);
}

static NTSTATUS DyeIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    DYE *d = (DYE *)S;
    KIRQL irql;
    if (Sp->MajorFunction == IRP_MJ_WRITE) {
        if (Sp->Parameters.Write.Length > MOST_DOSES)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        if (!Sp->Parameters.Write.Length)
            return StationEnd(S, Irp, STATUS_SUCCESS, 0);
        ParkWait(&d->Waiting, Irp);
        DyePump(d);
        return STATUS_PENDING;
    }
    if (Sp->MajorFunction == IRP_MJ_DEVICE_CONTROL && Sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_DYE_DONE) {
        ULONG *done = Irp->AssociatedIrp.SystemBuffer;
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof d->Done)
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&d->Lock, &irql);
        done[0] = d->Done[0];
        done[1] = d->Done[1];
        KeReleaseSpinLock(&d->Lock, irql);
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof d->Done);
    }
    return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const STATION_OPS StationOps = {
    .Size = sizeof(DYE),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_DIRECT_IO,
    .Interface = &DyeInterface,
    .Added = DyeAdded,
    .Start = DyeStart,
    .Stop = DyeStop,
    .Sleep = DyeSleep,
    .Wake = DyeWake,
    .Abandon = DyeAbandon,
    .Io = DyeIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}
