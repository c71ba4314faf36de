/*
 * damson: a table of pairs of numbers, shared by all programs on the machine: what a key stands for can be set, looked up, dropped and
 * listed. The table grows as it needs to.
 *
 * The bug: when the table is full and no larger one can be allocated, the old one is freed all the same, and stays in use. The next
 * request (or the unload routine) works on freed memory.
 *
 * Device: none
 * Rule: use-after-free, double-free, write-after-free, bad-free
 * Needs: ioctl, failure
 */
#include <ddk/wdm.h>
#include "../include/booth_or_shell.h"

#define DAMSON_SET      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: PAIR */
#define DAMSON_LOOK     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_READ_ACCESS)     /* in: ULONG key; out: ULONG value */
#define DAMSON_DROP     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x813, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: ULONG key */
#define DAMSON_LIST     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x814, METHOD_BUFFERED, FILE_READ_ACCESS)     /* out: PAIRs, as many as fit */

#define DAMSON_TAG      'smaD'
#define DAMSON_FIRST    2
#define DAMSON_MOST     2048

typedef struct PAIR {
    ULONG Key;
    ULONG Value;
} PAIR;

typedef struct DAMSON {
    FAST_MUTEX Mutex;
    PAIR *Pairs;            /* in paged pool; NULL until the first is set */
    ULONG Room;
    ULONG Count;
} DAMSON;

static PDEVICE_OBJECT DamsonDevice;

static PAIR *DamsonFind(DAMSON *Table, ULONG Key)
{
    ULONG i;

    for (i = 0; i < Table->Count; i++)
        if (Table->Pairs[i].Key == Key)
            return &Table->Pairs[i];
    return NULL;
}

static NTSTATUS DamsonGrow(DAMSON *Table)
{
    ULONG room = Table->Room == 0 ? DAMSON_FIRST : Table->Room * 2;
    PAIR *pairs;

    if (room > DAMSON_MOST)
        return STATUS_QUOTA_EXCEEDED;
    pairs = ExAllocatePoolWithTag(PagedPool, room * sizeof(PAIR), DAMSON_TAG);
#ifndef FIXED
    if (Table->Pairs != NULL) {
        if (pairs != NULL)
            RtlCopyMemory(pairs, Table->Pairs, Table->Count * sizeof(PAIR));
        ExFreePoolWithTag(Table->Pairs, DAMSON_TAG);
    }
    if (pairs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
#else
    if (pairs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Table->Pairs != NULL) {
        RtlCopyMemory(pairs, Table->Pairs, Table->Count * sizeof(PAIR));
        ExFreePoolWithTag(Table->Pairs, DAMSON_TAG);
    }
#endif
    Table->Pairs = pairs;
    Table->Room = room;
    return STATUS_SUCCESS;
}

static NTSTATUS DamsonSet(DAMSON *Table, const PAIR *Wanted)
{
    PAIR *pair = DamsonFind(Table, Wanted->Key);
    NTSTATUS status;

    if (pair != NULL) {
        pair->Value = Wanted->Value;
        return STATUS_SUCCESS;
    }
    if (Table->Count == Table->Room) {
        status = DamsonGrow(Table);
        if (!NT_SUCCESS(status))
            return status;
    }
    Table->Pairs[Table->Count++] = *Wanted;
    return STATUS_SUCCESS;
}

static NTSTATUS DamsonDrop(DAMSON *Table, ULONG Key)
{
    PAIR *pair = DamsonFind(Table, Key);

    if (pair == NULL)
        return STATUS_NOT_FOUND;
    *pair = Table->Pairs[--Table->Count];
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DamsonControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    DAMSON *table = Device->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = at->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = at->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG information = 0, fit;
    NTSTATUS status;
    PAIR *pair;

    ExAcquireFastMutex(&table->Mutex);
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case DAMSON_SET:
        status = in < sizeof(PAIR) ? STATUS_BUFFER_TOO_SMALL : DamsonSet(table, buffer);
        break;

    case DAMSON_LOOK:
        if (in < sizeof(ULONG) || out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        pair = DamsonFind(table, *(ULONG *)buffer);
        if (pair == NULL) {
            status = STATUS_NOT_FOUND;
            break;
        }
        *(ULONG *)buffer = pair->Value;
        information = sizeof(ULONG);
        status = STATUS_SUCCESS;
        break;

    case DAMSON_DROP:
        status = in < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : DamsonDrop(table, *(ULONG *)buffer);
        break;

    case DAMSON_LIST:
        fit = out / sizeof(PAIR);
        if (fit > table->Count)
            fit = table->Count;
        if (fit != 0)
            RtlCopyMemory(buffer, table->Pairs, fit * sizeof(PAIR));
        information = fit * sizeof(PAIR);
        status = STATUS_SUCCESS;
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&table->Mutex);
    return Settle(Irp, status, information);
}

static VOID NTAPI DamsonUnload(PDRIVER_OBJECT Driver)
{
    DAMSON *table = DamsonDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    if (table->Pairs != NULL)
        ExFreePoolWithTag(table->Pairs, DAMSON_TAG);
    BoothStrike(DamsonDevice, L"\\DosDevices\\Damson");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    Driver->DriverUnload = DamsonUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = BoothNod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BoothNod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = BoothNod;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DamsonControl;
    status = BoothRaise(Driver, L"\\Device\\Damson", L"\\DosDevices\\Damson", sizeof(DAMSON), 0, &DamsonDevice);
    if (NT_SUCCESS(status))     /* no one can open it before DriverEntry has returned */
        ExInitializeFastMutex(&((DAMSON *)DamsonDevice->DeviceExtension)->Mutex);
    return status;
}
