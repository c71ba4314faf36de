/* What the parts of files.sys share: the lower device, which notes what it is asked, and declarations that wdm.h lacks. */
#ifndef FILES_H
#define FILES_H

#include <ddk/wdm.h>

#define STORIES "files"
#include "../control.h"

#define FILES_TAG 0x656C6946u /* "File" in pool listings */
#define LOWER_CODE(Method) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, (Method), FILE_ANY_ACCESS)
#define OBJECT_TYPE_OF(Variable) ((POBJECT_TYPE)(Variable)) /* one star too many in mingw's declarations */

extern NTKERNELAPI PEPROCESS PsInitialSystemProcess;
NTKERNELAPI HANDLE NTAPI PsGetProcessId(PEPROCESS Process);
NTKERNELAPI NTSTATUS NTAPI PsLookupProcessByProcessId(HANDLE Id, PEPROCESS *Process);
NTKERNELAPI NTSTATUS NTAPI ObCloseHandle(HANDLE Handle, KPROCESSOR_MODE Mode);
NTKERNELAPI NTSTATUS NTAPI ObOpenObjectByPointer(PVOID Object, ULONG Attributes, PACCESS_STATE State, ACCESS_MASK Access,
                                                 POBJECT_TYPE Type, KPROCESSOR_MODE Mode, PHANDLE Handle);
NTSYSAPI NTSTATUS NTAPI ZwDeviceIoControlFile(HANDLE File, HANDLE Event, PIO_APC_ROUTINE Apc, PVOID Context,
                                              PIO_STATUS_BLOCK Status, ULONG Code, PVOID Input, ULONG InputLength,
                                              PVOID Output, ULONG OutputLength);
NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Object, BOOLEAN Alertable, PLARGE_INTEGER Timeout);
wchar_t __cdecl NtTowupper(wchar_t Letter) __asm__("towupper");
int __cdecl NtWcsicmp(const wchar_t *One, const wchar_t *Two) __asm__("_wcsicmp");

static UNICODE_STRING LowerName = RTL_CONSTANT_STRING(L"\\Device\\DirqlFilesLower");
static PDEVICE_OBJECT Lower;

/* What the lower device saw last. */
static struct {
    IO_STACK_LOCATION Location;
    ACCESS_STATE State;             /* of a create */
    ACCESS_MASK Access;
    ULONG FileFlags;
    LONGLONG Allocation;
    UCHAR Bytes[32];                /* of the system buffer of a create, and of a control code's input */
    PVOID SystemBuffer, UserBuffer;
    PMDL Mdl;
    ULONG IrpFlags;
} Saw;

static PIRP Held;       /* a read that waits */
static KEVENT Arrived;  /* it is there */
static LONG Cleanups;

static VOID Note(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    RtlZeroMemory(&Saw, sizeof(Saw));
    Saw.Location = *Stack;
    Saw.SystemBuffer = Irp->AssociatedIrp.SystemBuffer;
    Saw.UserBuffer = Irp->UserBuffer;
    Saw.Mdl = Irp->MdlAddress;
    Saw.IrpFlags = Irp->Flags;
}

static NTSTATUS NTAPI LowerCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Device == Lower) {
        PIO_SECURITY_CONTEXT Context = Stack->Parameters.Create.SecurityContext;

        Note(Irp, Stack);
        Saw.State = *Context->AccessState;
        Saw.Access = Context->DesiredAccess;
        Saw.FileFlags = Stack->FileObject->Flags;
        Saw.Allocation = Irp->Overlay.AllocationSize.QuadPart;
        if (Stack->Parameters.Create.EaLength <= sizeof(Saw.Bytes) && Saw.SystemBuffer != NULL) {
            RtlCopyMemory(Saw.Bytes, Saw.SystemBuffer, Stack->Parameters.Create.EaLength);
        }
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LowerCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (Device == Lower) {
        InterlockedIncrement(&Cleanups);
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* A read at offset 77 waits until its story lets it go. */
static NTSTATUS NTAPI LowerTransfer(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Device != Lower) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Note(Irp, Stack);
    if (Stack->MajorFunction == IRP_MJ_READ && Stack->Parameters.Read.ByteOffset.QuadPart == 77) {
        IoMarkIrpPending(Irp);
        Held = Irp;
        KeSetEvent(&Arrived, IO_NO_INCREMENT, FALSE);
        return STATUS_PENDING;
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS LowerControl(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    Note(Irp, Stack);
    if (Saw.SystemBuffer != NULL && Stack->Parameters.DeviceIoControl.InputBufferLength <= sizeof(Saw.Bytes)) {
        RtlCopyMemory(Saw.Bytes, Saw.SystemBuffer, Stack->Parameters.DeviceIoControl.InputBufferLength);
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* Opens the lower device, or a name inside it. */
static NTSTATUS OpenLower(HANDLE *Handle, ACCESS_MASK Access, ULONG CreateOptions)
{
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Block;

    InitializeObjectAttributes(&Attributes, &LowerName, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    return ZwCreateFile(Handle, Access, &Attributes, &Block, NULL, 0, FILE_SHARE_READ, FILE_OPEN, CreateOptions, NULL, 0);
}

#endif
