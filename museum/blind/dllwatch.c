/*
 * dllwatch: remembers the last 256 images mapped into processes for a security agent, which
 * fetches them with a control request.
 *
 * The bug: the unload routine frees the ring of events before it removes the image notification, whose routine may
 * still write into it.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define IOCTL_DLL_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_DLL_LOST  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_READ_ACCESS)

#define EVENTS 256u
#define TAIL   64u             /* characters kept of a name: its end */
#define TAG    'wllD'

typedef struct {
    ULONGLONG Time, Base, Size;
    ULONG Process;
    USHORT Chars, Truncated;
    WCHAR Name[TAIL];
} DLL_EVENT, *PDLL_EVENT;

/* from ntddk.h */
typedef struct {
    ULONG Properties;          /* bit 8: system mode image */
    PVOID ImageBase;
    ULONG ImageSelector;
    SIZE_T ImageSize;
    ULONG ImageSectionNumber;
} LOADED_IMAGE;
#define SYSTEM_MODE_IMAGE 0x100u
typedef VOID (NTAPI *IMAGE_ROUTINE)(PUNICODE_STRING Name, HANDLE Process, LOADED_IMAGE *Image);
NTSTATUS NTAPI PsSetLoadImageNotifyRoutine(IMAGE_ROUTINE Routine);
NTSTATUS NTAPI PsRemoveLoadImageNotifyRoutine(IMAGE_ROUTINE Routine);

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DllWatch");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DllWatch");
static PDLL_EVENT Ring;
static ULONG First, Count, Lost;
static KSPIN_LOCK RingLock;

static VOID NTAPI ImageLoaded(PUNICODE_STRING Name, HANDLE Process, LOADED_IMAGE *Image)
{
    DLL_EVENT e;
    LARGE_INTEGER now;
    KIRQL irql;

    if (Process == NULL || (Image->Properties & SYSTEM_MODE_IMAGE))
        return;
    RtlZeroMemory(&e, sizeof(e));
    KeQuerySystemTime(&now);
    e.Time = (ULONGLONG)now.QuadPart;
    e.Process = (ULONG)(ULONG_PTR)Process;
    e.Base = (ULONG_PTR)Image->ImageBase;
    e.Size = Image->ImageSize;
    if (Name && Name->Buffer) {
        ULONG chars = Name->Length / sizeof(WCHAR), skip = 0;
        if (chars > TAIL) {
            skip = chars - TAIL;
            chars = TAIL;
            e.Truncated = 1;
        }
        RtlCopyMemory(e.Name, Name->Buffer + skip, chars * sizeof(WCHAR));
        e.Chars = (USHORT)chars;
    }
    KeAcquireSpinLock(&RingLock, &irql);
    if (Count == EVENTS) {
        First = (First + 1) % EVENTS;
        Count--;
        Lost++;
    }
    Ring[(First + Count) % EVENTS] = e;
    Count++;
    KeReleaseSpinLock(&RingLock, irql);
}

static NTSTATUS NTAPI WatchControl(PDEVICE_OBJECT D, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG room = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS st = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    KIRQL irql;
    UNREFERENCED_PARAMETER(D);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DLL_FETCH: {
        PDLL_EVENT out = buf;
        ULONG n = 0;
        if (room < sizeof(DLL_EVENT)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&RingLock, &irql);
        while (Count && n < room / sizeof(DLL_EVENT)) {
            out[n++] = Ring[First];
            First = (First + 1) % EVENTS;
            Count--;
        }
        KeReleaseSpinLock(&RingLock, irql);
        info = n * sizeof(DLL_EVENT);
        break;
    }
    case IOCTL_DLL_LOST:
        if (room < sizeof(ULONG)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&RingLock, &irql);
        *(PULONG)buf = Lost;
        Lost = 0;
        KeReleaseSpinLock(&RingLock, irql);
        info = sizeof(ULONG);
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
    }
    Irp->IoStatus.Status = st;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return st;
}
static NTSTATUS NTAPI WatchOpenClose(PDEVICE_OBJECT D, PIRP Irp)
{
    UNREFERENCED_PARAMETER(D);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI WatchUnload(PDRIVER_OBJECT Drv)
{
    IoDeleteSymbolicLink(&LinkName);
#ifdef FIXED
    PsRemoveLoadImageNotifyRoutine(ImageLoaded);   /* waits for those that run */
    ExFreePoolWithTag(Ring, TAG);
#else
    ExFreePoolWithTag(Ring, TAG);
    PsRemoveLoadImageNotifyRoutine(ImageLoaded);
#endif
    IoDeleteDevice(Drv->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT d;
    NTSTATUS st;
    UNREFERENCED_PARAMETER(Path);

    KeInitializeSpinLock(&RingLock);
    Ring = ExAllocatePoolWithTag(NonPagedPoolNx, EVENTS * sizeof(DLL_EVENT), TAG);
    if (!Ring)
        return STATUS_INSUFFICIENT_RESOURCES;
    st = IoCreateDevice(Drv, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &d);
    if (!NT_SUCCESS(st))
        goto free;
    st = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(st))
        goto device;
    st = PsSetLoadImageNotifyRoutine(ImageLoaded);
    if (!NT_SUCCESS(st))
        goto link;
    Drv->DriverUnload = WatchUnload;
    Drv->MajorFunction[IRP_MJ_CREATE] = WatchOpenClose;
    Drv->MajorFunction[IRP_MJ_CLOSE] = WatchOpenClose;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = WatchControl;
    return STATUS_SUCCESS;
link:
    IoDeleteSymbolicLink(&LinkName);
device:
    IoDeleteDevice(d);
free:
    ExFreePoolWithTag(Ring, TAG);
    return st;
}
