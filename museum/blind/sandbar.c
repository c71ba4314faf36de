/*
 * sandbar: keeps what programs say of the regions they share: a cookie, a size and a state for each of eight regions. Programs of 32 and of 64 bits use it, and
 * see the same regions in structures of their own width.
 *
 * The bug: the list of all regions counts the elements that fit by the size of the caller's structure, but stores those of 64 bits for all callers. A program
 * of 32 bits has the system buffer overrun.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

#define IOCTL_SET_REGION   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GET_REGION   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LIST_REGIONS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x833, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define DEVICE_NAME L"\\Device\\Sandbar"
#define LINK_NAME   L"\\DosDevices\\Sandbar"
#define REGIONS     8

typedef struct _REGION {                      /* a program of 64 bits */
    ULONGLONG Cookie;
    ULONGLONG Bytes;
    ULONG Index;
    ULONG State;
} REGION;

typedef struct _REGION32 {                    /* a program of 32 bits */
    ULONG Cookie;
    ULONG Bytes;
    ULONG Index;
    ULONG State;
} REGION32;

typedef struct _SHORE {
    KSPIN_LOCK Lock;
    REGION Region[REGIONS];
} SHORE;

static PDEVICE_OBJECT Control;

static void Narrow(REGION32 *to, const REGION *from)
{
    to->Cookie = (ULONG)from->Cookie;
    to->Bytes = (ULONG)from->Bytes;
    to->Index = from->Index;
    to->State = from->State;
}

static NTSTATUS SetRegion(SHORE *s, const VOID *buffer, ULONG in, BOOLEAN narrow)
{
    REGION r;
    KIRQL irql;
    if (narrow) {
        const REGION32 *n = buffer;
        if (in < sizeof *n)
            return STATUS_BUFFER_TOO_SMALL;
        r.Cookie = n->Cookie;
        r.Bytes = n->Bytes;
        r.Index = n->Index;
        r.State = n->State;
    } else {
        if (in < sizeof r)
            return STATUS_BUFFER_TOO_SMALL;
        r = *(const REGION *)buffer;
    }
    if (r.Index >= REGIONS || r.State > 3)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&s->Lock, &irql);
    s->Region[r.Index] = r;
    KeReleaseSpinLock(&s->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS GetRegion(SHORE *s, PVOID buffer, ULONG in, ULONG out, BOOLEAN narrow, ULONG_PTR *information)
{
    ULONG index;
    REGION r;
    KIRQL irql;
    if (in < sizeof index || out < (narrow ? sizeof(REGION32) : sizeof(REGION)))
        return STATUS_BUFFER_TOO_SMALL;
    index = *(ULONG *)buffer;
    if (index >= REGIONS)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&s->Lock, &irql);
    r = s->Region[index];
    KeReleaseSpinLock(&s->Lock, irql);
    if (narrow) {
        Narrow(buffer, &r);
        *information = sizeof(REGION32);
    } else {
        *(REGION *)buffer = r;
        *information = sizeof(REGION);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS ListRegions(SHORE *s, PVOID buffer, ULONG out, BOOLEAN narrow, ULONG_PTR *information)
{
    ULONG each = narrow ? sizeof(REGION32) : sizeof(REGION);
    ULONG many = out / each, n;
    KIRQL irql;
    if (many == 0)
        return STATUS_BUFFER_TOO_SMALL;
    if (many > REGIONS)
        many = REGIONS;
    KeAcquireSpinLock(&s->Lock, &irql);
    for (n = 0; n < many; n++) {
#ifdef FIXED
        if (narrow) {
            Narrow((REGION32 *)buffer + n, &s->Region[n]);
            continue;
        }
#endif
        ((REGION *)buffer)[n] = s->Region[n];
    }
    KeReleaseSpinLock(&s->Lock, irql);
    *information = (ULONG_PTR)many * each;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI SandbarControl(PDEVICE_OBJECT device, PIRP irp)
{
    SHORE *s = device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    BOOLEAN narrow = IoIs32bitProcess(irp);
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SET_REGION:
        status = SetRegion(s, buffer, in, narrow);
        break;
    case IOCTL_GET_REGION:
        status = GetRegion(s, buffer, in, out, narrow, &information);
        break;
    case IOCTL_LIST_REGIONS:
        status = ListRegions(s, buffer, out, narrow, &information);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Answer(irp, status, information);
}

static VOID NTAPI SandbarUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    BoothShut(Control, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    SHORE *s;
    ULONG n;
    NTSTATUS status = BoothOpen(driver, DEVICE_NAME, LINK_NAME, sizeof(SHORE), 0, &Control);
    UNREFERENCED_PARAMETER(path);
    if (!NT_SUCCESS(status))
        return status;
    s = Control->DeviceExtension;
    KeInitializeSpinLock(&s->Lock);
    for (n = 0; n < REGIONS; n++)
        s->Region[n].Index = n;
    driver->DriverUnload = SandbarUnload;
    driver->MajorFunction[IRP_MJ_CREATE] = BoothNod;
    driver->MajorFunction[IRP_MJ_CLEANUP] = BoothNod;
    driver->MajorFunction[IRP_MJ_CLOSE] = BoothNod;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SandbarControl;
    BoothServe(Control);
    return STATUS_SUCCESS;
}
