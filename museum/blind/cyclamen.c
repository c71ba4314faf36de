/*
 * cyclamen: waters plants in a greenhouse. The card computes the dose from the number of plants; how the doses are meant stands in the device's
 * parameters in the registry (Season, Litres), read at each start.
 *
 * The bug: if the season in the registry is none, or is no number, the defaults are taken by a way out that leaves the device's key open, at each start.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: handle-leak
 * Needs: registry, device
 */
#include <ddk/wdm.h>
#define FRAME_HULL
#include "../include/raft_or_hull.h"
#include "../include/hull_edu.h"

#define IOCTL_CYCLAMEN_DOSE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
#define IOCTL_CYCLAMEN_POLICY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID CycClass = {0x5a1c7d10, 0x43f2, 0x4b7e, {0x9c, 0x01, 0x4f, 0x4f, 0xca, 0x10, 0x70, 0x04}};

typedef struct POLICY {
    ULONG Season;               /* 1 to 4 */
    ULONG Litres;               /* at most 100 */
} POLICY;

typedef struct DOSE {
    ULONG Plants;
    ULONG Dose;
    ULONG Season;
} DOSE;

typedef struct CYC {
    HULL Hull;
    SUM Sum;
    KSPIN_LOCK Lock;
    POLICY Policy;
} CYC;

/* STATUS_OBJECT_TYPE_MISMATCH for a value that is there and is no number */
static NTSTATUS CycNumber(HANDLE Key, PCWSTR Name, PULONG Value)
{
    struct {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR More[16];
    } value;
    UNICODE_STRING name;
    NTSTATUS status;
    ULONG length;

    RtlInitUnicodeString(&name, Name);
    status = ZwQueryValueKey(Key, &name, KeyValuePartialInformation, &value, sizeof value, &length);
    if (status == STATUS_BUFFER_OVERFLOW)
        return STATUS_OBJECT_TYPE_MISMATCH;
    if (!NT_SUCCESS(status))
        return status;
    if (value.Info.Type != REG_DWORD || value.Info.DataLength != sizeof(ULONG))
        return STATUS_OBJECT_TYPE_MISMATCH;
    RtlCopyMemory(Value, value.Info.Data, sizeof(ULONG));
    return STATUS_SUCCESS;
}

static VOID CycPolicy(CYC *x)
{
    POLICY policy = {1, 10}, found = policy;
    NTSTATUS status;
    HANDLE key;
    KIRQL irql;

    status = IoOpenDeviceRegistryKey(x->Hull.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key);
    if (!NT_SUCCESS(status))
        goto out;
    status = CycNumber(key, L"Season", &found.Season);
    if (status == STATUS_OBJECT_TYPE_MISMATCH || found.Season < 1 || found.Season > 4) {
#ifdef FIXED
        ZwClose(key);
#endif
        goto out;
    }
    status = CycNumber(key, L"Litres", &found.Litres);
    if (NT_SUCCESS(status) && found.Litres > 100)
        found.Litres = 100;
    policy = found;
    ZwClose(key);
out:
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Policy = policy;
    KeReleaseSpinLock(&x->Lock, irql);
}

static POLICY CycRead(CYC *x)
{
    POLICY policy;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    policy = x->Policy;
    KeReleaseSpinLock(&x->Lock, irql);
    return policy;
}

static VOID CycDone(HULL *h, PIRP Irp, ULONG Number, ULONG Result)
{
    POLICY policy = CycRead((CYC *)h);
    DOSE *dose;

    if (!Irp)
        return;
    dose = Irp->AssociatedIrp.SystemBuffer;
    dose->Plants = Number;
    dose->Dose = Result % (policy.Litres + 1);
    dose->Season = policy.Season;
    HullReply(h, Irp, STATUS_SUCCESS, sizeof *dose);
}

static VOID CycBegin(HULL *h, PIRP Irp)
{
    SumStart(&((CYC *)h)->Sum, Irp, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
}

static NTSTATUS CycAsk(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    ULONG in, room;

    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = Sl->Parameters.DeviceIoControl.InputBufferLength;
    room = Sl->Parameters.DeviceIoControl.OutputBufferLength;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CYCLAMEN_DOSE:
        if (in < sizeof(ULONG) || room < sizeof(DOSE))
            return STATUS_BUFFER_TOO_SMALL;
        if (*(PULONG)Irp->AssociatedIrp.SystemBuffer > 1000)
            return STATUS_INVALID_PARAMETER;
        return HullSail(h, Irp);
    case IOCTL_CYCLAMEN_POLICY:
        if (room < sizeof(POLICY))
            return STATUS_BUFFER_TOO_SMALL;
        *(POLICY *)Irp->AssociatedIrp.SystemBuffer = CycRead((CYC *)h);
        *Info = sizeof(POLICY);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS CycLay(HULL *h)
{
    CYC *x = (CYC *)h;

    KeInitializeSpinLock(&x->Lock);
    SumLay(&x->Sum, h, CycDone);
    return STATUS_SUCCESS;
}

static NTSTATUS CycRise(HULL *h, PCM_RESOURCE_LIST Resources)
{
    CYC *x = (CYC *)h;

    CycPolicy(x);
    return EduRise(&x->Sum.Edu, Resources, SumAnswer, &x->Sum);
}

static VOID CycStill(HULL *h, BOOLEAN touch)
{
    SumStill(&((CYC *)h)->Sum, touch);
}

static VOID CycSink(HULL *h, BOOLEAN touch)
{
    EduSink(&((CYC *)h)->Sum.Edu, touch);
}

static VOID CycDoze(HULL *h)
{
    BellMute(&((CYC *)h)->Sum.Edu.Bell);
}

static VOID CycWake(HULL *h)
{
    BellUnmute(&((CYC *)h)->Sum.Edu.Bell);
}

static const HULL_PLAN CycPlan = {
    .Room = sizeof(CYC), .Class = &CycClass, .Patience = 500,
    .Lay = CycLay, .Rise = CycRise, .Sink = CycSink, .Still = CycStill, .Doze = CycDoze, .Wake = CycWake,
    .Ask = CycAsk, .Begin = CycBegin,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    return HullLaunch(Driver, &CycPlan);
}
