/*
 * tapline: a trace tap. Applications write trace records into a ring of the driver's; a viewer fetches a
 * snapshot of the ring (METHOD_NEITHER), or the counters.
 *
 * The bug: the snapshot's block comes from pool as it is, and only the records in use and of each text only its
 * length is filled in; the whole block goes to the application, with what was in the pool before.
 *
 * Device: none
 * Rule: output-never-stored, information-too-large
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FR_GUARDED
#include "../include/pnp_with_turns.h"

#define TAP_DEVICE  L"\\Device\\TapLine"
#define TAP_LINK    L"\\DosDevices\\TapLine"
#define TAP_TAG     FR_TAG('T', 'a', 'p', 'L')
#define TAP_RING    32
#define TAP_TEXT    96

#define IOCTL_TAP_SNAPSHOT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_NEITHER, FILE_READ_ACCESS)
#define IOCTL_TAP_COUNTERS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TAP_LEVEL    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TAP_CLEAR    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _TAP_INPUT {             /* what is written */
    USHORT Level;                       /* 0 to 7 */
    USHORT Length;                      /* of the text behind it */
    UCHAR Text[1];
} TAP_INPUT, *PTAP_INPUT;

typedef struct _TAP_RECORD {
    LARGE_INTEGER Time;
    ULONG Sequence;
    USHORT Level;
    USHORT Length;
    UCHAR Text[TAP_TEXT];
} TAP_RECORD, *PTAP_RECORD;

typedef struct _TAP_SNAPSHOT {
    ULONG Count;
    ULONG Lost;
    TAP_RECORD Record[TAP_RING];
} TAP_SNAPSHOT, *PTAP_SNAPSHOT;

typedef struct _TAP_COUNTERS {
    ULONG Written;
    ULONG Suppressed;
    ULONG Lost;
    ULONG Level;
} TAP_COUNTERS, *PTAP_COUNTERS;

typedef struct _TAP_EXT {
    KSPIN_LOCK Lock;                    /* all below */
    ULONG Head;                         /* the oldest record */
    ULONG Count;
    ULONG Sequence;
    TAP_COUNTERS Counters;
    TAP_RECORD Ring[TAP_RING];
} TAP_EXT, *PTAP_EXT;

static PDEVICE_OBJECT TapDevice;

static NTSTATUS TapWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTAP_EXT Ext = DeviceObject->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PTAP_INPUT In = Irp->AssociatedIrp.SystemBuffer;
    LARGE_INTEGER Now;
    KIRQL Irql;

    if (Length < FIELD_OFFSET(TAP_INPUT, Text))
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    if (In->Level > 7 || In->Length > TAP_TEXT || In->Length > Length - FIELD_OFFSET(TAP_INPUT, Text))
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);

    KeQuerySystemTime(&Now);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    if (In->Level > Ext->Counters.Level) {
        Ext->Counters.Suppressed++;
    } else {
        PTAP_RECORD Record;
        if (Ext->Count == TAP_RING) {
            Ext->Head = (Ext->Head + 1) % TAP_RING;
            Ext->Count--;
            Ext->Counters.Lost++;
        }
        Record = &Ext->Ring[(Ext->Head + Ext->Count) % TAP_RING];
        Record->Time = Now;
        Record->Sequence = ++Ext->Sequence;
        Record->Level = In->Level;
        Record->Length = In->Length;
        RtlCopyMemory(Record->Text, In->Text, In->Length);
        Ext->Count++;
        Ext->Counters.Written++;
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return FrComplete(Irp, STATUS_SUCCESS, Length);
}

/* Copies the ring, the oldest record first. */
static VOID TapFill(PTAP_EXT Ext, PTAP_SNAPSHOT Snapshot)
{
    ULONG i;
    KIRQL Irql;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Snapshot->Count = Ext->Count;
    Snapshot->Lost = Ext->Counters.Lost;
    for (i = 0; i < Ext->Count; i++) {
        const TAP_RECORD *From = &Ext->Ring[(Ext->Head + i) % TAP_RING];
        PTAP_RECORD To = &Snapshot->Record[i];
        To->Time = From->Time;
        To->Sequence = From->Sequence;
        To->Level = From->Level;
        To->Length = From->Length;
        RtlCopyMemory(To->Text, From->Text, From->Length);
    }
    KeReleaseSpinLock(&Ext->Lock, Irql);
}

static NTSTATUS TapSnapshot(PTAP_EXT Ext, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PTAP_SNAPSHOT Snapshot;
    NTSTATUS Status;

    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(TAP_SNAPSHOT))
        return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    Snapshot = ExAllocatePoolWithTag(NonPagedPool, sizeof(TAP_SNAPSHOT), TAP_TAG);
    if (!Snapshot)
        return FrComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
#ifdef FIXED
    RtlZeroMemory(Snapshot, sizeof(TAP_SNAPSHOT));
#endif
    TapFill(Ext, Snapshot);
    Status = FrCopyOut(Irp->UserBuffer, Snapshot, sizeof(TAP_SNAPSHOT));
    ExFreePoolWithTag(Snapshot, TAP_TAG);
    return FrComplete(Irp, Status, NT_SUCCESS(Status) ? sizeof(TAP_SNAPSHOT) : 0);
}

static NTSTATUS TapControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTAP_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    KIRQL Irql;
    ULONG Level;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TAP_SNAPSHOT:
        return TapSnapshot(Ext, Irp, Stack);

    case IOCTL_TAP_COUNTERS:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(TAP_COUNTERS))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        *(PTAP_COUNTERS)Buffer = Ext->Counters;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        return FrComplete(Irp, STATUS_SUCCESS, sizeof(TAP_COUNTERS));

    case IOCTL_TAP_LEVEL:
        if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        Level = *(PULONG)Buffer;
        if (Level > 7)
            return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        Ext->Counters.Level = Level;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        return FrComplete(Irp, STATUS_SUCCESS, 0);

    case IOCTL_TAP_CLEAR:
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        Ext->Head = Ext->Count = 0;
        KeReleaseSpinLock(&Ext->Lock, Irql);
        return FrComplete(Irp, STATUS_SUCCESS, 0);
    }
    return FrComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI TapUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    FrDeleteControl(TapDevice, TAP_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PTAP_EXT Ext;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_WRITE] = TapWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TapControl;
    Driver->DriverUnload = TapUnload;

    Status = FrControlDevice(Driver, TAP_DEVICE, TAP_LINK, sizeof(TAP_EXT), DO_BUFFERED_IO, &TapDevice);
    if (!NT_SUCCESS(Status))
        return Status;
    Ext = TapDevice->DeviceExtension;
    RtlZeroMemory(Ext, sizeof(*Ext));
    KeInitializeSpinLock(&Ext->Lock);
    Ext->Counters.Level = 4;
    TapDevice->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
