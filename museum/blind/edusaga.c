/*
 * edusaga: reads as factorials. Reading four bytes at offset n of the device gives n!, which the card computes; its interrupt says when it is done.
 *
 * The bug: that the card is to interrupt behind a computation is written to it when the device is started, and not again when it has got its power back. The first
 * reading behind a sleep waits for an interrupt that does not come.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irp-never-completed, request-forgotten
 * Needs: power
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#define FRAME_CARD
#include "../include/park_frame.h"

static const GUID SagaInterface = { 0x6a1f0d31, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x11 } };

#define IOCTL_SAGA_TOLD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_ANY_ACCESS)   /* answers how many were computed */

#define EDU_ID        0x00
#define EDU_FACTORIAL 0x08
#define EDU_STATUS    0x20
#define EDU_IRQ       0x24
#define EDU_ACK       0x64
#define STATUS_COMPUTING  0x01
#define STATUS_IRQ_BEHIND 0x80

#define LARGEST 40

typedef struct _SAGA {
    STATION Station;
    BELL Bell;
    LANE Lane;
    ULONG Number;    /* of the one that the lane begins */
    LONG Informed;
} SAGA;

#define REGISTERS(s) (&(s)->Bell.Card.Window[0])

static VOID SagaReady(PVOID Owner, PIRP Irp)
{
    ((SAGA *)Owner)->Number = (ULONG)IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.ByteOffset.QuadPart;
}

static VOID SagaGo(PVOID Owner)
{
    SAGA *s = Owner;
    CardWrite(REGISTERS(s), EDU_FACTORIAL, s->Number);
}

static VOID NTAPI SagaDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    SAGA *s = Context;
    PIRP irp;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    if (!BellFetch(&s->Bell) || !LaneDone(&s->Lane, &irp))
        return;
    if (irp) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = CardRead(REGISTERS(s), EDU_FACTORIAL);
        InterlockedIncrement(&s->Informed);
        StationEnd(&s->Station, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    LaneNext(&s->Lane);
}

static NTSTATUS SagaAdded(STATION *S)
{
    SAGA *s = (SAGA *)S;
    LaneInit(&s->Lane, S, SagaReady, SagaGo);
    BellInit(&s->Bell, SagaDpc, s, EDU_IRQ, EDU_ACK, BELL_NO_ENABLE, 1);
    return STATUS_SUCCESS;
}

/* A computation from before a stop may not be over: the card would ignore the next number. */
static VOID SagaIdle(SAGA *S)
{
    LARGE_INTEGER nap;
    ULONG i, status;
    nap.QuadPart = -10000;   /* 1 ms */
    for (i = 0; i < 1000; i++) {
        status = CardRead(REGISTERS(S), EDU_STATUS);
        if (status == 0xFFFFFFFF || !(status & STATUS_COMPUTING))
            return;
        KeDelayExecutionThread(KernelMode, FALSE, &nap);
    }
}

static VOID SagaArm(SAGA *S)
{
    BellOn(&S->Bell);
    CardWrite(REGISTERS(S), EDU_STATUS, STATUS_IRQ_BEHIND);
}

static NTSTATUS SagaStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    SAGA *s = (SAGA *)S;
    NTSTATUS status = BellOpen(&s->Bell, Translated, 0x1000);
    if (!NT_SUCCESS(status))
        return status;
    if ((CardRead(REGISTERS(s), EDU_ID) & 0xFFFF) != 0x00ED) {
        BellClose(&s->Bell, TRUE);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    SagaIdle(s);
    SagaArm(s);
    LaneGo(&s->Lane);
    return STATUS_SUCCESS;
}

static VOID SagaStop(STATION *S, BOOLEAN Reachable)
{
    SAGA *s = (SAGA *)S;
    LaneHalt(&s->Lane);
    if (Reachable)
        CardWrite(REGISTERS(s), EDU_STATUS, 0);
    BellClose(&s->Bell, Reachable);
    LaneReset(&s->Lane);
}

static VOID SagaSleep(STATION *S)
{
    SAGA *s = (SAGA *)S;
    LaneHalt(&s->Lane);
    CardWrite(REGISTERS(s), EDU_STATUS, 0);
    BellOff(&s->Bell);
    LaneReset(&s->Lane);
}

static VOID SagaWake(STATION *S)
{
    SAGA *s = (SAGA *)S;
    SagaIdle(s);
#ifndef FIXED
    BellOn(&s->Bell);
#else
    SagaArm(s);
#endif
    LaneGo(&s->Lane);
}

static VOID SagaAbandon(STATION *S, PFILE_OBJECT File, NTSTATUS Status)
{
    LaneFlush(&((SAGA *)S)->Lane, File, Status);
}

static NTSTATUS SagaIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    SAGA *s = (SAGA *)S;
    if (Sp->MajorFunction == IRP_MJ_READ) {
        LONGLONG n = Sp->Parameters.Read.ByteOffset.QuadPart;
        if (Sp->Parameters.Read.Length < sizeof(ULONG) || n < 0 || n > LARGEST)
            return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
        ParkWait(&s->Lane.Waiting, Irp);
        LanePump(&s->Lane);
        return STATUS_PENDING;
    }
    if (Sp->MajorFunction == IRP_MJ_DEVICE_CONTROL && Sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_SAGA_TOLD) {
        if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG))
            return StationEnd(S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(LONG *)Irp->AssociatedIrp.SystemBuffer = InterlockedCompareExchange(&s->Informed, 0, 0);
        return StationEnd(S, Irp, STATUS_SUCCESS, sizeof(LONG));
    }
    return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const STATION_OPS StationOps = {
    .Size = sizeof(SAGA),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &SagaInterface,
    .Added = SagaAdded,
    .Start = SagaStart,
    .Stop = SagaStop,
    .Sleep = SagaSleep,
    .Wake = SagaWake,
    .Abandon = SagaAbandon,
    .Io = SagaIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}
