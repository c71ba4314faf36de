/*
 * Keeps a ledger of processes a monitoring service is interested in: the service names a process by its id, and can ask
 * at any time which of its processes still run and for how long they have.
 *
 * The bug: naming a process that is in the ledger already leaves the reference behind that the look-up took.
 * Shows by: IOCTL_LEDGER_TRACK twice with the same process id; the process then never goes away when it ends.
 *
 * Device: none
 * Rule: object-reference-leak
 * Needs: ioctl
 */
#include "../include/shared_frame.h"

typedef VOID (NTAPI *PCREATE_PROCESS_NOTIFY_ROUTINE)(HANDLE ParentId, HANDLE ProcessId, BOOLEAN Create);
NTKERNELAPI NTSTATUS NTAPI PsSetCreateProcessNotifyRoutine(PCREATE_PROCESS_NOTIFY_ROUTINE Routine, BOOLEAN Remove);
NTKERNELAPI LONGLONG NTAPI PsGetProcessCreateTimeQuadPart(PEPROCESS Process);

#define DEVICE_NAME L"\\Device\\ProcLedger"
#define LINK_NAME   L"\\DosDevices\\ProcLedger"

#define IOCTL_LEDGER_TRACK   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG pid */
#define IOCTL_LEDGER_UNTRACK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: ULONG pid */
#define IOCTL_LEDGER_QUERY   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_READ_ACCESS)  /* out: LEDGER_LINE[] */

NTKERNELAPI NTSTATUS NTAPI PsLookupProcessByProcessId(HANDLE ProcessId, PEPROCESS *Process);

#define LEDGER_LINES 32

typedef struct _LEDGER_LINE {
    ULONG ProcessId;
    ULONG Reserved;
    LONGLONG Age; /* in 100 ns */
} LEDGER_LINE;

typedef struct _TRACKED {
    PEPROCESS Process; /* referenced; NULL: the line is free */
    HANDLE ProcessId;
    PFILE_OBJECT Owner;
    LONGLONG Created;
} TRACKED;

typedef struct _EXTENSION {
    FAST_MUTEX Mutex;
    ULONG Ended;
    TRACKED Lines[LEDGER_LINES];
} EXTENSION;

static EXTENSION *Ledger; /* the notify routine has no context */

static NTSTATUS Track(EXTENSION *Ext, PFILE_OBJECT File, HANDLE ProcessId)
{
    TRACKED *empty = NULL;
    PEPROCESS process;
    NTSTATUS status;
    ULONG i;

    status = PsLookupProcessByProcessId(ProcessId, &process);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ExAcquireFastMutex(&Ext->Mutex);
    for (i = 0; i < LEDGER_LINES; i++) {
        TRACKED *line = &Ext->Lines[i];

        if (line->Process == process) {
            ExReleaseFastMutex(&Ext->Mutex);
#ifdef FIXED
            ObDereferenceObject(process);
#endif
            return STATUS_SUCCESS; /* nothing more to do */
        }
        if (line->Process == NULL && empty == NULL) {
            empty = line;
        }
    }
    if (empty != NULL) {
        empty->Process = process;
        empty->ProcessId = ProcessId;
        empty->Owner = File;
        empty->Created = PsGetProcessCreateTimeQuadPart(process);
    }
    ExReleaseFastMutex(&Ext->Mutex);
    if (empty == NULL) {
        ObDereferenceObject(process);
        return STATUS_QUOTA_EXCEEDED;
    }
    return STATUS_SUCCESS;
}

/* Takes a process off the ledger: by its id, or, with a file, the first one that this handle put there. */
static BOOLEAN Untrack(EXTENSION *Ext, HANDLE ProcessId, PFILE_OBJECT File, BOOLEAN Ended)
{
    PEPROCESS process = NULL;
    ULONG i;

    ExAcquireFastMutex(&Ext->Mutex);
    for (i = 0; i < LEDGER_LINES; i++) {
        TRACKED *line = &Ext->Lines[i];

        if (line->Process != NULL && (File != NULL ? line->Owner == File : line->ProcessId == ProcessId)) {
            process = line->Process;
            line->Process = NULL;
            line->Owner = NULL;
            if (Ended) {
                Ext->Ended++;
            }
            break;
        }
    }
    ExReleaseFastMutex(&Ext->Mutex);
    if (process == NULL) {
        return FALSE;
    }
    ObDereferenceObject(process);
    return TRUE;
}

static VOID NTAPI ProcessNotify(HANDLE ParentId, HANDLE ProcessId, BOOLEAN Create)
{
    UNREFERENCED_PARAMETER(ParentId);
    if (!Create) {
        (void)Untrack(Ledger, ProcessId, NULL, TRUE);
    }
}

static NTSTATUS Query(EXTENSION *Ext, LEDGER_LINE *Out, ULONG OutLength, ULONG_PTR *Information)
{
    ULONG room = OutLength / sizeof(LEDGER_LINE), n = 0, i;
    NTSTATUS status = STATUS_SUCCESS;
    LARGE_INTEGER now;

    KeQuerySystemTime(&now);
    ExAcquireFastMutex(&Ext->Mutex);
    for (i = 0; i < LEDGER_LINES; i++) {
        if (Ext->Lines[i].Process == NULL) {
            continue;
        }
        if (n == room) {
            status = STATUS_BUFFER_OVERFLOW;
            break;
        }
        Out[n].ProcessId = (ULONG)(ULONG_PTR)Ext->Lines[i].ProcessId;
        Out[n].Reserved = 0;
        Out[n].Age = now.QuadPart - Ext->Lines[i].Created;
        n++;
    }
    ExReleaseFastMutex(&Ext->Mutex);
    *Information = n * sizeof(LEDGER_LINE);
    return status;
}

static NTSTATUS NTAPI Close(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;

    while (Untrack(ext, NULL, IoGetCurrentIrpStackLocation(Irp)->FileObject, FALSE)) {
    }
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LEDGER_TRACK:
        if (in < sizeof(ULONG)) {
            status = STATUS_INVALID_PARAMETER;
        } else {
            status = Track(ext, sp->FileObject, (HANDLE)(ULONG_PTR)*(PULONG)buffer);
        }
        break;
    case IOCTL_LEDGER_UNTRACK:
        if (in < sizeof(ULONG)) {
            status = STATUS_INVALID_PARAMETER;
        } else {
            status = Untrack(ext, (HANDLE)(ULONG_PTR)*(PULONG)buffer, NULL, FALSE) ? STATUS_SUCCESS : STATUS_NOT_FOUND;
        }
        break;
    case IOCTL_LEDGER_QUERY:
        status = Query(ext, buffer, sp->Parameters.DeviceIoControl.OutputBufferLength, &information);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitComplete(Irp, status, information);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    (void)PsSetCreateProcessNotifyRoutine(ProcessNotify, TRUE);
    KitDeleteControl(Driver->DeviceObject, LINK_NAME); /* no handle is open, so the ledger is empty */
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    status = KitCreateControl(Driver, DEVICE_NAME, LINK_NAME, sizeof(EXTENSION), &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    Ledger = device->DeviceExtension;
    ExInitializeFastMutex(&Ledger->Mutex);
    status = PsSetCreateProcessNotifyRoutine(ProcessNotify, FALSE);
    if (!NT_SUCCESS(status)) {
        KitDeleteControl(device, LINK_NAME);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = Close;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
