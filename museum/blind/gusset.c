/*
 * gusset: a ring of trace records for a family of drivers and services. How many records it keeps stands in the registry, as Depth in the
 * driver's key, and is rounded up to a power of two, so that the place of a record is a mask away.
 *
 * The bug: Depth has a lower bound, but no upper one: above 80000000h the number that is doubled until it is large enough
 * becomes zero, and DriverEntry doubles it for ever.
 *
 * Device: none
 * Rule: endless-loop, livelock, stuck
 * Needs: registry
 */
#include <ddk/wdm.h>
#include "../include/gated_frame.h"

#define GUSSET_NAME L"\\Device\\Gusset"
#define GUSSET_LINK L"\\DosDevices\\Gusset"
#define GUSSET_TAG 'ssuG'
#define GUSSET_FEWEST 16
#define GUSSET_MOST 4096
#define GUSSET_USUAL 128

#define IOCTL_GUSSET_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_GUSSET_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _GUSSET_RECORD {
    ULONG Code;
    ULONG Argument;
    LARGE_INTEGER Time;
} GUSSET_RECORD, *PGUSSET_RECORD;

typedef struct _GUSSET_STATE {
    ULONG Depth;
    ULONG Kept;
    ULONG Lost;
} GUSSET_STATE, *PGUSSET_STATE;

typedef struct _GUSSET {
    KSPIN_LOCK Lock;
    PGUSSET_RECORD Ring;
    ULONG Mask;
    ULONG First;
    ULONG Kept;
    ULONG Lost;
} GUSSET, *PGUSSET;

static PDEVICE_OBJECT GussetDevice;

/* What the registry says, or what is usual. */
static ULONG GussetDepth(PUNICODE_STRING RegistryPath)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Information;
        UCHAR Bytes[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + sizeof(ULONG)];
    } value;
    OBJECT_ATTRIBUTES attributes;
    ULONG depth = GUSSET_USUAL, length;
    UNICODE_STRING name;
    NTSTATUS status;
    HANDLE key;

    InitializeObjectAttributes(&attributes, RegistryPath, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    status = ZwOpenKey(&key, KEY_READ, &attributes);
    if (!NT_SUCCESS(status))
        return depth;
    RtlInitUnicodeString(&name, L"Depth");
    status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, &value, sizeof(value), &length);
    if (NT_SUCCESS(status) && value.Information.Type == REG_DWORD && value.Information.DataLength == sizeof(ULONG))
        RtlCopyMemory(&depth, value.Information.Data, sizeof(ULONG));
    ZwClose(key);
    return depth;
}

static ULONG GussetRoundUp(ULONG Depth)
{
    ULONG rounded = GUSSET_FEWEST;

#ifdef FIXED
    if (Depth > GUSSET_MOST)
        Depth = GUSSET_MOST;
#endif
    while (rounded < Depth)
        rounded <<= 1;
    return rounded;
}

static NTSTATUS NTAPI GussetRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PGUSSET g = DeviceObject->DeviceExtension;
    ULONG room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(GUSSET_RECORD);
    PGUSSET_RECORD record = Irp->AssociatedIrp.SystemBuffer;
    KIRQL irql;
    ULONG i;

    KeAcquireSpinLock(&g->Lock, &irql);
    for (i = 0; i < room && g->Kept != 0; i++) {
        record[i] = g->Ring[g->First++ & g->Mask];
        g->Kept--;
    }
    KeReleaseSpinLock(&g->Lock, irql);
    return Finish(Irp, STATUS_SUCCESS, i * sizeof(GUSSET_RECORD));
}

static NTSTATUS NTAPI GussetControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PGUSSET g = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PULONG in = Irp->AssociatedIrp.SystemBuffer;
    PGUSSET_STATE state = Irp->AssociatedIrp.SystemBuffer;
    PGUSSET_RECORD record;
    LARGE_INTEGER now;
    KIRQL irql;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GUSSET_PUT:
        if (stack->Parameters.DeviceIoControl.InputBufferLength < 2 * sizeof(ULONG))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeQuerySystemTime(&now);
        KeAcquireSpinLock(&g->Lock, &irql);
        record = &g->Ring[(g->First + g->Kept) & g->Mask];
        record->Code = in[0];
        record->Argument = in[1];
        record->Time = now;
        if (g->Kept <= g->Mask)
            g->Kept++;
        else {
            g->First++;
            g->Lost++;
        }
        KeReleaseSpinLock(&g->Lock, irql);
        return Finish(Irp, STATUS_SUCCESS, 0);

    case IOCTL_GUSSET_STATE:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*state))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&g->Lock, &irql);
        state->Depth = g->Mask + 1;
        state->Kept = g->Kept;
        state->Lost = g->Lost;
        KeReleaseSpinLock(&g->Lock, irql);
        return Finish(Irp, STATUS_SUCCESS, sizeof(*state));
    }
    return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI GussetUnload(PDRIVER_OBJECT DriverObject)
{
    PGUSSET g = GussetDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(DriverObject);
    DeskHide(GUSSET_LINK);
    ExFreePoolWithTag(g->Ring, GUSSET_TAG);
    IoDeleteDevice(GussetDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    ULONG depth;
    PGUSSET g;

    depth = GussetRoundUp(GussetDepth(RegistryPath));
    status = DeskBuild(DriverObject, sizeof(GUSSET), GUSSET_NAME, DO_BUFFERED_IO, &GussetDevice);
    if (!NT_SUCCESS(status))
        return status;
    g = GussetDevice->DeviceExtension;
    KeInitializeSpinLock(&g->Lock);
    g->First = g->Kept = g->Lost = 0;
    g->Mask = depth - 1;
    g->Ring = ExAllocatePoolWithTag(POOL_DATA, (SIZE_T)depth * sizeof(GUSSET_RECORD), GUSSET_TAG);
    if (g->Ring == NULL) {
        IoDeleteDevice(GussetDevice);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = DeskOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = DeskOpenClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = GussetRead;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GussetControl;
    DriverObject->DriverUnload = GussetUnload;
    status = DeskShow(GUSSET_NAME, GUSSET_LINK);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(g->Ring, GUSSET_TAG);
        IoDeleteDevice(GussetDevice);
    }
    return status;
}
