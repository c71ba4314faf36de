/*
 * chanplan: keeps the latest samples of a measuring program in a ring, for viewers to read. How many it keeps is
 * a value of the service's key, "Parameters\Depth".
 *
 * The bug: of the value in the registry only the upper limit is checked. With a Depth of 0 ("off") the ring has no
 * room, and the first sample is a division by zero.
 *
 * Device: none
 * Rule: divide-error, pool-zero-bytes, zero-bytes
 * Needs: registry, ioctl
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define CP_DEVICE   L"\\Device\\ChanPlan"
#define CP_LINK     L"\\DosDevices\\ChanPlan"
#define CP_TAG      FR_TAG('C', 'h', 'P', 'l')
#define CP_DEFAULT  256
#define CP_MOST     65536
#define CP_READ     1024                /* samples of one read at most */
#define CP_CHANNELS 16

#define IOCTL_CP_SUMMARY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_CP_RESET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _CP_INPUT {              /* written: one or several */
    ULONG Channel;
    LONG Value;
} CP_INPUT, *PCP_INPUT;

typedef struct _CP_SAMPLE {             /* read: one or several */
    LARGE_INTEGER Time;
    ULONG Channel;
    LONG Value;
} CP_SAMPLE, *PCP_SAMPLE;

typedef struct _CP_SUMMARY {
    ULONG Depth;
    ULONG Stored;
    ULONG Dropped;
    ULONG PerChannel[CP_CHANNELS];
} CP_SUMMARY, *PCP_SUMMARY;

typedef struct _CP_EXT {
    PCP_SAMPLE Ring;
    ULONG Depth;
    KSPIN_LOCK Lock;                    /* all below, and what Ring points to */
    ULONG Next;                         /* counts on; the place is that modulo Depth */
    ULONG Stored;
    ULONG Dropped;
    ULONG PerChannel[CP_CHANNELS];
} CP_EXT, *PCP_EXT;

static PDEVICE_OBJECT CpDevice;

/* Reads a number of the key below the service's own. */
static ULONG CpParameter(PUNICODE_STRING RegistryPath, PCWSTR Name, ULONG Default)
{
    UCHAR Space[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)] __attribute__((aligned(8)));
    PKEY_VALUE_PARTIAL_INFORMATION Info = (PKEY_VALUE_PARTIAL_INFORMATION)Space;
    UNICODE_STRING SubKey, ValueName;
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Service, Key;
    ULONG Length, Value = Default;
    NTSTATUS Status;

    InitializeObjectAttributes(&Attributes, RegistryPath, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    Status = ZwOpenKey(&Service, KEY_READ, &Attributes);
    if (!NT_SUCCESS(Status))
        return Default;
    RtlInitUnicodeString(&SubKey, L"Parameters");
    InitializeObjectAttributes(&Attributes, &SubKey, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, Service, NULL);
    Status = ZwOpenKey(&Key, KEY_READ, &Attributes);
    if (NT_SUCCESS(Status)) {
        RtlInitUnicodeString(&ValueName, Name);
        Status = ZwQueryValueKey(Key, &ValueName, KeyValuePartialInformation, Info, sizeof(Space), &Length);
        if (NT_SUCCESS(Status) && Info->Type == REG_DWORD && Info->DataLength == sizeof(ULONG))
            RtlCopyMemory(&Value, Info->Data, sizeof(ULONG));
        ZwClose(Key);
    }
    ZwClose(Service);
    return Value;
}

static NTSTATUS CpWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCP_EXT Ext = DeviceObject->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PCP_INPUT In = Irp->AssociatedIrp.SystemBuffer;
    ULONG Count = Length / sizeof(CP_INPUT), i;
    LARGE_INTEGER Now;
    KIRQL Irql;

    if (Length == 0 || Length % sizeof(CP_INPUT))
        return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    KeQuerySystemTime(&Now);
    for (i = 0; i < Count; i++) {
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        if (In[i].Channel >= CP_CHANNELS) {
            Ext->Dropped++;
        } else {
            PCP_SAMPLE Sample = &Ext->Ring[Ext->Next % Ext->Depth];
            Sample->Time = Now;
            Sample->Channel = In[i].Channel;
            Sample->Value = In[i].Value;
            if (++Ext->Next == 2 * Ext->Depth)
                Ext->Next = Ext->Depth;
            if (Ext->Stored < Ext->Depth)
                Ext->Stored++;
            Ext->PerChannel[In[i].Channel]++;
        }
        KeReleaseSpinLock(&Ext->Lock, Irql);
    }
    return FrComplete(Irp, STATUS_SUCCESS, Length);
}

/* The latest samples, the newest first; they stay. */
static NTSTATUS CpRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCP_EXT Ext = DeviceObject->DeviceExtension;
    ULONG Room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(CP_SAMPLE);
    PCP_SAMPLE Out = Irp->AssociatedIrp.SystemBuffer;
    ULONG i;
    KIRQL Irql;

    if (Room > CP_READ)
        Room = CP_READ;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    for (i = 0; i < Room && i < Ext->Stored; i++)
        Out[i] = Ext->Ring[(Ext->Next + Ext->Depth - 1 - i) % Ext->Depth];
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return FrComplete(Irp, STATUS_SUCCESS, i * sizeof(CP_SAMPLE));
}

static NTSTATUS CpControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCP_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PCP_SUMMARY Out = Irp->AssociatedIrp.SystemBuffer;
    KIRQL Irql;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CP_SUMMARY:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(CP_SUMMARY))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        Out->Depth = Ext->Depth;
        Out->Stored = Ext->Stored;
        Out->Dropped = Ext->Dropped;
        RtlCopyMemory(Out->PerChannel, Ext->PerChannel, sizeof(Out->PerChannel));
        KeReleaseSpinLock(&Ext->Lock, Irql);
        return FrComplete(Irp, STATUS_SUCCESS, sizeof(CP_SUMMARY));

    case IOCTL_CP_RESET:
        KeAcquireSpinLock(&Ext->Lock, &Irql);
        Ext->Next = Ext->Stored = Ext->Dropped = 0;
        RtlZeroMemory(Ext->PerChannel, sizeof(Ext->PerChannel));
        KeReleaseSpinLock(&Ext->Lock, Irql);
        return FrComplete(Irp, STATUS_SUCCESS, 0);
    }
    return FrComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI CpUnload(PDRIVER_OBJECT Driver)
{
    PCP_EXT Ext = CpDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    ExFreePoolWithTag(Ext->Ring, CP_TAG);
    FrDeleteControl(CpDevice, CP_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PCP_EXT Ext;
    ULONG Depth;
    NTSTATUS Status;

    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_READ] = CpRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = CpWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CpControl;
    Driver->DriverUnload = CpUnload;

    Depth = CpParameter(RegistryPath, L"Depth", CP_DEFAULT);
    if (Depth > CP_MOST)
        Depth = CP_MOST;
#ifdef FIXED
    if (Depth == 0)
        Depth = CP_DEFAULT;
#endif
    Status = FrControlDevice(Driver, CP_DEVICE, CP_LINK, sizeof(CP_EXT), DO_BUFFERED_IO, &CpDevice);
    if (!NT_SUCCESS(Status))
        return Status;
    Ext = CpDevice->DeviceExtension;
    RtlZeroMemory(Ext, sizeof(*Ext));
    KeInitializeSpinLock(&Ext->Lock);
    Ext->Depth = Depth;
    Ext->Ring = ExAllocatePoolWithTag(NonPagedPool, Depth * sizeof(CP_SAMPLE), CP_TAG);
    if (!Ext->Ring) {
        FrDeleteControl(CpDevice, CP_LINK);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    CpDevice->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
