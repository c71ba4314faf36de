/*
 * imgtally - keeps a short history of image loads
 *
 * Every image mapped into a process is entered in a bounded history.  A
 * monitoring service opens \\.\ImgTally and drains the history, one record
 * at a time, or resets it.
 *
 * The bug: an image's name is cut to as many characters as the array has, and its end is stored behind them.
 *
 * Device: none
 * Rule: pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>

typedef struct _IMAGE_INFO {
    ULONG  ImageAddressingMode : 8;
    ULONG  SystemModeImage : 1;
    ULONG  ImageMappedToAllPids : 1;
    ULONG  ExtendedInfoPresent : 1;
    ULONG  Reserved : 21;
    PVOID  ImageBase;
    ULONG  ImageSelector;
    SIZE_T ImageSize;
    ULONG  ImageSectionNumber;
} IMAGE_INFO, *PIMAGE_INFO;

typedef VOID (NTAPI *PLOAD_IMAGE_NOTIFY_ROUTINE)(PUNICODE_STRING, HANDLE, PIMAGE_INFO);
NTKERNELAPI NTSTATUS NTAPI PsSetLoadImageNotifyRoutine(PLOAD_IMAGE_NOTIFY_ROUTINE);
NTKERNELAPI NTSTATUS NTAPI PsRemoveLoadImageNotifyRoutine(PLOAD_IMAGE_NOTIFY_ROUTINE);

#define IMT_TAG             'TgmI'
#define IMT_NAME_CHARS      64
#define IMT_DEPTH           200

#define IOCTL_IMT_NEXT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_IMT_RESET  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_WRITE_ACCESS)

/* what user mode gets */
typedef struct {
    ULONG64 ProcessId;
    ULONG   ImageSize;
    USHORT  SystemImage;
    USHORT  NameChars;
    WCHAR   Name[IMT_NAME_CHARS];
} imt_record_t;

/* what we keep */
typedef struct {
    LIST_ENTRY   link;
    ULONG64      pid;
    ULONG        size;
    USHORT       system;
    USHORT       chars;
    WCHAR        name[IMT_NAME_CHARS];
} imt_entry_t;

static struct {
    FAST_MUTEX   mutex;
    LIST_ENTRY   history;
    ULONG        depth;
    ULONG        dropped;
} g;

static UNICODE_STRING g_devname = RTL_CONSTANT_STRING(L"\\Device\\ImgTally");
static UNICODE_STRING g_symlink = RTL_CONSTANT_STRING(L"\\DosDevices\\ImgTally");

static void imt_purge(void)
{
    ExAcquireFastMutex(&g.mutex);
    while (!IsListEmpty(&g.history)) {
        imt_entry_t *e = CONTAINING_RECORD(RemoveHeadList(&g.history), imt_entry_t, link);
        ExFreePoolWithTag(e, IMT_TAG);
    }
    g.depth = 0;
    g.dropped = 0;
    ExReleaseFastMutex(&g.mutex);
}

/*
 * The loader's names are long NT paths; the last part is the interesting one,
 * so we keep the tail of those that do not fit.  Names are stored terminated,
 * the service prints them with %ls.
 */
static void imt_set_name(imt_entry_t *e, PUNICODE_STRING full)
{
    USHORT chars, skip = 0;

    e->chars = 0;
    e->name[0] = L'\0';
    if (full == NULL || full->Buffer == NULL)
        return;

    chars = full->Length / sizeof(WCHAR);
#ifdef FIXED
    if (chars > IMT_NAME_CHARS - 1) {
        skip = chars - (IMT_NAME_CHARS - 1);
        chars = IMT_NAME_CHARS - 1;
    }
#else
    if (chars > IMT_NAME_CHARS) {
        skip = chars - IMT_NAME_CHARS;
        chars = IMT_NAME_CHARS;
    }
#endif
    RtlCopyMemory(e->name, full->Buffer + skip, chars * sizeof(WCHAR));
    e->name[chars] = L'\0';
    e->chars = chars;
}

static VOID NTAPI imt_on_load(PUNICODE_STRING FullImageName, HANDLE ProcessId, PIMAGE_INFO Info)
{
    imt_entry_t *e, *old = NULL;

    e = ExAllocatePoolWithTag(PagedPool, sizeof(*e), IMT_TAG);
    if (e == NULL) {
        ExAcquireFastMutex(&g.mutex);
        g.dropped++;
        ExReleaseFastMutex(&g.mutex);
        return;
    }
    RtlZeroMemory(e, sizeof(*e));
    e->pid = (ULONG64)(ULONG_PTR)ProcessId;
    e->size = (ULONG)Info->ImageSize;
    e->system = (USHORT)Info->SystemModeImage;
    imt_set_name(e, FullImageName);

    ExAcquireFastMutex(&g.mutex);
    if (g.depth == IMT_DEPTH) {
        old = CONTAINING_RECORD(RemoveHeadList(&g.history), imt_entry_t, link);
        g.dropped++;
    } else {
        g.depth++;
    }
    InsertTailList(&g.history, &e->link);
    ExReleaseFastMutex(&g.mutex);

    if (old != NULL)
        ExFreePoolWithTag(old, IMT_TAG);
}

static NTSTATUS imt_next(imt_record_t *out, ULONG outlen, ULONG_PTR *info)
{
    imt_entry_t *e = NULL;

    if (outlen < sizeof(*out))
        return STATUS_BUFFER_TOO_SMALL;

    ExAcquireFastMutex(&g.mutex);
    if (!IsListEmpty(&g.history)) {
        e = CONTAINING_RECORD(RemoveHeadList(&g.history), imt_entry_t, link);
        g.depth--;
    }
    ExReleaseFastMutex(&g.mutex);

    if (e == NULL)
        return STATUS_NO_MORE_ENTRIES;

    RtlZeroMemory(out, sizeof(*out));
    out->ProcessId = e->pid;
    out->ImageSize = e->size;
    out->SystemImage = e->system;
    out->NameChars = e->chars;
    RtlCopyMemory(out->Name, e->name, e->chars * sizeof(WCHAR));
    ExFreePoolWithTag(e, IMT_TAG);
    *info = sizeof(*out);
    return STATUS_SUCCESS;
}

static NTSTATUS imt_done(PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return st;
}

static NTSTATUS NTAPI imt_open_close(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return imt_done(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI imt_ioctl(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    ULONG_PTR info = 0;
    NTSTATUS st;

    UNREFERENCED_PARAMETER(dev);

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_IMT_NEXT:
        st = imt_next(irp->AssociatedIrp.SystemBuffer,
                      s->Parameters.DeviceIoControl.OutputBufferLength, &info);
        break;
    case IOCTL_IMT_RESET:
        imt_purge();
        st = STATUS_SUCCESS;
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return imt_done(irp, st, info);
}

static VOID NTAPI imt_unload(PDRIVER_OBJECT drv)
{
    PsRemoveLoadImageNotifyRoutine(imt_on_load);
    IoDeleteSymbolicLink(&g_symlink);
    imt_purge();
    IoDeleteDevice(drv->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING reg)
{
    PDEVICE_OBJECT dev = NULL;
    NTSTATUS st;

    UNREFERENCED_PARAMETER(reg);

    ExInitializeFastMutex(&g.mutex);
    InitializeListHead(&g.history);

    st = IoCreateDevice(drv, 0, &g_devname, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(st))
        return st;

    st = IoCreateSymbolicLink(&g_symlink, &g_devname);
    if (!NT_SUCCESS(st))
        goto fail_device;

    drv->MajorFunction[IRP_MJ_CREATE] = imt_open_close;
    drv->MajorFunction[IRP_MJ_CLOSE] = imt_open_close;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = imt_ioctl;
    drv->DriverUnload = imt_unload;

    st = PsSetLoadImageNotifyRoutine(imt_on_load);
    if (!NT_SUCCESS(st))
        goto fail_link;

    return STATUS_SUCCESS;

fail_link:
    IoDeleteSymbolicLink(&g_symlink);
fail_device:
    IoDeleteDevice(dev);
    return st;
}
