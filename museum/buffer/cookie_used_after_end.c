/*
 * Sessions of an application: one is begun, which answers with its cookie, has words put into it, and is ended.
 *
 * The bug: a session that is ended stays in the table, so its cookie finds memory that has been freed. It shows when the cookie that was answered is given
 * to be ended, and then once more.
 *
 * Device: none
 * Rule: use-after-free, double-free
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Sessions"
#define LINK_NAME L"\\DosDevices\\Sessions"
#include "../include/legacy.h"

#define IOCTL_BEGIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC72, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC73, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_END CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC74, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define SESSIONS 4
#define SALT 0x5C3A9100

typedef struct _SESSION {
    ULONG Words;
    ULONG Last;
} SESSION, *PSESSION;

typedef struct _PUT {
    ULONG Cookie;
    ULONG Word;
} PUT, *PPUT;

static FAST_MUTEX Mutex;
static PSESSION Table[SESSIONS];

static NTSTATUS Begin(PULONG Cookie, ULONG Bytes, PULONG_PTR Information)
{
    ULONG Index;

    if (Bytes < sizeof(*Cookie)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    for (Index = 0; Index < SESSIONS; Index++) {
        if (Table[Index] == NULL) {
            Table[Index] = ExAllocatePoolWithTag(NonPagedPool, sizeof(SESSION), 'sseS');
            if (Table[Index] == NULL) {
                return STATUS_INSUFFICIENT_RESOURCES;
            }
            RtlZeroMemory(Table[Index], sizeof(SESSION));
            *Cookie = SALT + Index;
            *Information = sizeof(*Cookie);
            return STATUS_SUCCESS;
        }
    }
    return STATUS_TOO_MANY_SESSIONS;
}

static PSESSION *Slot(ULONG Cookie)
{
    ULONG Index = Cookie - SALT;

    return Index < SESSIONS && Table[Index] != NULL ? &Table[Index] : NULL;
}

static NTSTATUS Put(PPUT Put, ULONG Bytes)
{
    PSESSION *One = Bytes < sizeof(*Put) ? NULL : Slot(Put->Cookie);

    if (One == NULL) {
        return STATUS_INVALID_HANDLE;
    }
    (*One)->Words++;
    (*One)->Last = Put->Word;
    return STATUS_SUCCESS;
}

static NTSTATUS End(PULONG Cookie, ULONG Bytes)
{
    PSESSION *One = Bytes < sizeof(*Cookie) ? NULL : Slot(*Cookie);

    if (One == NULL) {
        return STATUS_INVALID_HANDLE;
    }
    ExFreePoolWithTag(*One, 'sseS');
#ifdef FIXED
    *One = NULL;
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    ExAcquireFastMutex(&Mutex);
    switch (CodeOf(Stack)) {
    case IOCTL_BEGIN:
        Status = Begin(Buffer, OutputOf(Stack), &Information);
        break;
    case IOCTL_PUT:
        Status = Put(Buffer, InputOf(Stack));
        break;
    case IOCTL_END:
        Status = End(Buffer, InputOf(Stack));
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&Mutex);
    return Complete(Irp, Status, Information);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    ULONG Index;

    for (Index = 0; Index < SESSIONS; Index++) {
        if (Table[Index] != NULL) {
            ExFreePoolWithTag(Table[Index], 'sseS');
        }
    }
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    ExInitializeFastMutex(&Mutex);
    Status = LegacyCreate(Driver, 0, DO_BUFFERED_IO, &Device);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
