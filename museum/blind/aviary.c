/*
 * aviary: a register of ringed birds. Programs enter birds by ring number with species and weight, strike them out, look one up, and
 * get the whole register in one request.
 *
 * The bug: when the register does not fit into the buffer LIST copies what does and says STATUS_BUFFER_OVERFLOW, but has the bytes
 * that would be needed in Information. That status is no error, so the system copies that many to the program, from behind the buffer.
 *
 * Device: none
 * Rule: information-too-large
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"

#define AVIARY_TAG 'ivaA'
#define AVIARY_NAME L"\\Device\\Aviary"
#define AVIARY_LINK L"\\DosDevices\\Aviary"
#define AVIARY_MOST 256

#define IOCTL_AVIARY_ENTER  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_AVIARY_STRIKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_AVIARY_LOOKUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_AVIARY_LIST   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x863, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _BIRD {
    ULONG Ring;
    USHORT Species;
    USHORT Grams;
} BIRD;

typedef struct _PERCH {
    LIST_ENTRY Entry;
    BIRD Bird;
} PERCH;

typedef struct _AVIARY {
    FAST_MUTEX Mutex;
    LIST_ENTRY Perches;
    ULONG Count;
} AVIARY;

static PDEVICE_OBJECT AviaryDevice;

static PERCH *AviaryFind(AVIARY *A, ULONG Ring)
{
    PLIST_ENTRY e;

    for (e = A->Perches.Flink; e != &A->Perches; e = e->Flink) {
        PERCH *p = CONTAINING_RECORD(e, PERCH, Entry);

        if (p->Bird.Ring == Ring)
            return p;
    }
    return NULL;
}

/* A ring that is known gets its new species and weight. */
static NTSTATUS AviaryEnter(AVIARY *A, const BIRD *Bird)
{
    PERCH *p = AviaryFind(A, Bird->Ring);

    if (p == NULL) {
        if (A->Count >= AVIARY_MOST)
            return STATUS_QUOTA_EXCEEDED;
        p = ExAllocatePoolWithTag(PagedPool, sizeof(*p), AVIARY_TAG);
        if (p == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
        InsertTailList(&A->Perches, &p->Entry);
        A->Count++;
    }
    p->Bird = *Bird;
    return STATUS_SUCCESS;
}

static NTSTATUS AviaryStrike(AVIARY *A, ULONG Ring)
{
    PERCH *p = AviaryFind(A, Ring);

    if (p == NULL)
        return STATUS_NOT_FOUND;
    RemoveEntryList(&p->Entry);
    A->Count--;
    ExFreePoolWithTag(p, AVIARY_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS AviaryList(AVIARY *A, BIRD *Out, ULONG Room, ULONG_PTR *Information)
{
    ULONG n = Room / sizeof(BIRD), i = 0;
    PLIST_ENTRY e;

    for (e = A->Perches.Flink; e != &A->Perches && i < n; e = e->Flink)
        Out[i++] = CONTAINING_RECORD(e, PERCH, Entry)->Bird;
#ifndef FIXED
    *Information = A->Count * sizeof(BIRD);
#else
    *Information = i * sizeof(BIRD);
#endif
    return i < A->Count ? STATUS_BUFFER_OVERFLOW : STATUS_SUCCESS;
}

static NTSTATUS NTAPI AviaryControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    AVIARY *a = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status;
    PERCH *p;

    ExAcquireFastMutex(&a->Mutex);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_AVIARY_ENTER:
        status = in == sizeof(BIRD) ? AviaryEnter(a, buffer) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_AVIARY_STRIKE:
        status = in == sizeof(ULONG) ? AviaryStrike(a, *(ULONG *)buffer) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_AVIARY_LOOKUP:
        if (in < sizeof(ULONG) || out < sizeof(BIRD)) {
            status = STATUS_INVALID_PARAMETER;
        } else if ((p = AviaryFind(a, *(ULONG *)buffer)) == NULL) {
            status = STATUS_NOT_FOUND;
        } else {
            *(BIRD *)buffer = p->Bird;
            information = sizeof(BIRD);
            status = STATUS_SUCCESS;
        }
        break;
    case IOCTL_AVIARY_LIST:
        status = AviaryList(a, buffer, out, &information);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&a->Mutex);
    return desk_reply(Irp, status, information);
}

static VOID NTAPI AviaryUnload(PDRIVER_OBJECT Driver)
{
    AVIARY *a = AviaryDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    desk_withdraw(AVIARY_LINK);
    while (!IsListEmpty(&a->Perches))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&a->Perches), PERCH, Entry), AVIARY_TAG);
    IoDeleteDevice(AviaryDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    AVIARY *a;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = desk_nod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = desk_nod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = desk_nod;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = AviaryControl;
    Driver->DriverUnload = AviaryUnload;

    status = desk_make(Driver, AVIARY_NAME, sizeof(AVIARY), 0, &AviaryDevice);
    if (!NT_SUCCESS(status))
        return status;
    a = AviaryDevice->DeviceExtension;
    ExInitializeFastMutex(&a->Mutex);
    InitializeListHead(&a->Perches);
    status = desk_publish(AVIARY_LINK, AVIARY_NAME);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(AviaryDevice);
    return status;
}
