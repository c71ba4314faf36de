/*
 * pantry: shelves of equal size in the kernel in which programs keep small things between their runs. How many shelves there are and
 * how many bytes each has stands in the registry (Parameters\Shelves and Parameters\ShelfBytes).
 *
 * The bug: the two values are multiplied in 32 bits, and only the product is held against the limit. Where it wraps the pool block
 * is far smaller than the shelves that are then offered, and storing something writes behind it.
 *
 * Device: none
 * Rule: pool-overrun, wild-write, wild-read, pool-zero-bytes, bad-pointer
 * Needs: ioctl, registry
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"

#define PANTRY_TAG 'rtnP'
#define PANTRY_NAME L"\\Device\\Pantry"
#define PANTRY_LINK L"\\DosDevices\\Pantry"
#define PANTRY_MOST (1024 * 1024)
#define PANTRY_SHELVES 16
#define PANTRY_BYTES 256

#define IOCTL_PANTRY_PUT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PANTRY_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PANTRY_SIZE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _PANTRY_PUT {
    ULONG Shelf;
    UCHAR Goods[4];         /* to the end of the buffer, at most as many as a shelf takes */
} PANTRY_PUT;

typedef struct _PANTRY_SIZE {
    ULONG Shelves;
    ULONG ShelfBytes;
} PANTRY_SIZE;

typedef struct _PANTRY {
    FAST_MUTEX Mutex;
    PUCHAR Room;
    ULONG Shelves;
    ULONG ShelfBytes;
} PANTRY;

static PDEVICE_OBJECT PantryDevice;

/* A number in the key, or what it is without one. */
static ULONG PantryNumber(HANDLE Key, PCWSTR Name, ULONG Default)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR Room[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + 16];
    } v;
    UNICODE_STRING name;
    ULONG got, number;

    RtlInitUnicodeString(&name, Name);
    if (!NT_SUCCESS(ZwQueryValueKey(Key, &name, KeyValuePartialInformation, &v, sizeof(v), &got)))
        return Default;
    if (v.Info.Type != REG_DWORD || v.Info.DataLength != sizeof(ULONG))
        return Default;
    RtlCopyMemory(&number, v.Info.Data, sizeof(number));
    return number != 0 ? number : Default;
}

static VOID PantryRead(PANTRY *P, PUNICODE_STRING RegistryPath)
{
    OBJECT_ATTRIBUTES attributes;
    UNICODE_STRING sub;
    HANDLE service, key;

    P->Shelves = PANTRY_SHELVES;
    P->ShelfBytes = PANTRY_BYTES;
    InitializeObjectAttributes(&attributes, RegistryPath, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenKey(&service, KEY_READ, &attributes)))
        return;
    RtlInitUnicodeString(&sub, L"Parameters");
    InitializeObjectAttributes(&attributes, &sub, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, service, NULL);
    if (NT_SUCCESS(ZwOpenKey(&key, KEY_READ, &attributes))) {
        P->Shelves = PantryNumber(key, L"Shelves", PANTRY_SHELVES);
        P->ShelfBytes = PantryNumber(key, L"ShelfBytes", PANTRY_BYTES);
        ZwClose(key);
    }
    ZwClose(service);
#ifndef FIXED
    if (P->Shelves * P->ShelfBytes > PANTRY_MOST) {
#else
    if ((ULONGLONG)P->Shelves * P->ShelfBytes > PANTRY_MOST) {
#endif
        P->Shelves = PANTRY_SHELVES;
        P->ShelfBytes = PANTRY_BYTES;
    }
}

static NTSTATUS PantryPut(PANTRY *P, const PANTRY_PUT *Put, ULONG Length)
{
    ULONG n;
    PUCHAR shelf;

    if (Length < FIELD_OFFSET(PANTRY_PUT, Goods))
        return STATUS_INVALID_PARAMETER;
    n = Length - FIELD_OFFSET(PANTRY_PUT, Goods);
    if (Put->Shelf >= P->Shelves || n > P->ShelfBytes)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&P->Mutex);
    shelf = P->Room + (SIZE_T)Put->Shelf * P->ShelfBytes;
    RtlCopyMemory(shelf, Put->Goods, n);
    RtlZeroMemory(shelf + n, P->ShelfBytes - n);
    ExReleaseFastMutex(&P->Mutex);
    return STATUS_SUCCESS;
}

static NTSTATUS PantryFetch(PANTRY *P, PVOID Buffer, ULONG In, ULONG Out, ULONG_PTR *Information)
{
    ULONG shelf, n;

    if (In < sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    shelf = *(ULONG *)Buffer;
    if (shelf >= P->Shelves)
        return STATUS_INVALID_PARAMETER;
    n = Out < P->ShelfBytes ? Out : P->ShelfBytes;
    ExAcquireFastMutex(&P->Mutex);
    RtlCopyMemory(Buffer, P->Room + (SIZE_T)shelf * P->ShelfBytes, n);
    ExReleaseFastMutex(&P->Mutex);
    *Information = n;
    return n < P->ShelfBytes ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;
}

static NTSTATUS NTAPI PantryControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PANTRY *p = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PANTRY_PUT:
        status = PantryPut(p, buffer, in);
        break;
    case IOCTL_PANTRY_FETCH:
        status = PantryFetch(p, buffer, in, out, &information);
        break;
    case IOCTL_PANTRY_SIZE:
        if (out < sizeof(PANTRY_SIZE)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            ((PANTRY_SIZE *)buffer)->Shelves = p->Shelves;
            ((PANTRY_SIZE *)buffer)->ShelfBytes = p->ShelfBytes;
            information = sizeof(PANTRY_SIZE);
            status = STATUS_SUCCESS;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return desk_reply(Irp, status, information);
}

static VOID NTAPI PantryUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    desk_withdraw(PANTRY_LINK);
    ExFreePoolWithTag(((PANTRY *)PantryDevice->DeviceExtension)->Room, PANTRY_TAG);
    IoDeleteDevice(PantryDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PANTRY *p;
    NTSTATUS status;

    Driver->MajorFunction[IRP_MJ_CREATE] = desk_nod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = desk_nod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = desk_nod;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PantryControl;
    Driver->DriverUnload = PantryUnload;

    status = desk_make(Driver, PANTRY_NAME, sizeof(PANTRY), 0, &PantryDevice);
    if (!NT_SUCCESS(status))
        return status;
    p = PantryDevice->DeviceExtension;
    ExInitializeFastMutex(&p->Mutex);
    PantryRead(p, RegistryPath);
    p->Room = ExAllocatePoolWithTag(PagedPool, p->Shelves * p->ShelfBytes, PANTRY_TAG);
    if (p->Room == NULL) {
        IoDeleteDevice(PantryDevice);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(p->Room, p->Shelves * p->ShelfBytes);
    status = desk_publish(PANTRY_LINK, PANTRY_NAME);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(p->Room, PANTRY_TAG);
        IoDeleteDevice(PantryDevice);
    }
    return status;
}
