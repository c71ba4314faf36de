/*
 * plxwin: shows programs the memory of the first local space (BAR2) of a card with a PLX PCI 9050 bridge:
 * single words are read and written, and blocks of words read.
 *
 * The bug: for a block, the offset and the length are each compared with the window's length, but their sum is not.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-memory-not-mapped
 * Needs: ioctl
 */
#include "../include/kit_hooks.h"

static const GUID WinGuid = { 0x5d0f7a14, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x21, 0x04 } };

#define IOCTL_WIN_PEEK  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_WIN_POKE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WIN_BLOCK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_WIN_SIZE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x923, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _WIN_WORD {
    ULONG Offset;       /* bytes, a multiple of 4 */
    ULONG Value;        /* in: POKE; out: PEEK */
} WIN_WORD;

typedef struct _WIN_BLOCK {
    ULONG Offset;       /* bytes, a multiple of 4 */
    ULONG Length;       /* bytes, a multiple of 4 */
} WIN_BLOCK;

typedef struct _WIN {
    KIT Kit;
    PUCHAR Space;
    ULONG Length;       /* a multiple of 4 */
} WIN, *PWIN;

static NTSTATUS WinStart(PKIT Kit, PIO_STACK_LOCATION Stack)
{
    PWIN win = (PWIN)Kit;
    KIT_RESOURCES res;

    KitResources(Stack, &res);
    /* Memory: 0 is the bridge's own registers, 1 the first local space. */
    if (res.Memories < 2 || res.Memory[1].Length < sizeof(ULONG))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    win->Length = res.Memory[1].Length & ~3u;
    win->Space = MmMapIoSpace(res.Memory[1].Start, win->Length, MmNonCached);
    return win->Space ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID WinRelease(PKIT Kit, BOOLEAN Reachable)
{
    PWIN win = (PWIN)Kit;

    UNREFERENCED_PARAMETER(Reachable);
    if (win->Space) {
        MmUnmapIoSpace(win->Space, win->Length);
        win->Space = NULL;
    }
}

static const KIT_HOOKS KitHooks = { sizeof(WIN), 0, 'niWP', &WinGuid, NULL, WinStart, WinRelease, NULL, NULL, NULL, NULL };

static NTSTATUS WinWord(PWIN Win, WIN_WORD *Word, BOOLEAN Write)
{
    if ((Word->Offset & 3) || Word->Offset >= Win->Length)
        return STATUS_INVALID_PARAMETER;
    if (Write)
        WRITE_REGISTER_ULONG((PULONG)(Win->Space + Word->Offset), Word->Value);
    else
        Word->Value = READ_REGISTER_ULONG((PULONG)(Win->Space + Word->Offset));
    return STATUS_SUCCESS;
}

static NTSTATUS WinBlock(PWIN Win, PVOID Buffer, ULONG OutLength, ULONG_PTR *Information)
{
    WIN_BLOCK block = *(WIN_BLOCK *)Buffer;
    PULONG out = Buffer;
    ULONG i;

    if ((block.Offset & 3) || (block.Length & 3))
        return STATUS_INVALID_PARAMETER;
    if (block.Offset > Win->Length)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    if (block.Length > Win->Length - block.Offset)
#else
    if (block.Length > Win->Length)
#endif
        return STATUS_INVALID_PARAMETER;
    if (block.Length > OutLength)
        return STATUS_BUFFER_TOO_SMALL;
    for (i = 0; i < block.Length / sizeof(ULONG); i++)
        out[i] = READ_REGISTER_ULONG((PULONG)(Win->Space + block.Offset + i * sizeof(ULONG)));
    *Information = block.Length;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI WinControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PWIN win = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status = IoAcquireRemoveLock(&win->Kit.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    status = KitEnter(&win->Kit);
    if (NT_SUCCESS(status)) {
        switch (stack->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_WIN_PEEK:
            if (in < sizeof(WIN_WORD) || out < sizeof(WIN_WORD)) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            status = WinWord(win, buffer, FALSE);
            if (NT_SUCCESS(status))
                information = sizeof(WIN_WORD);
            break;
        case IOCTL_WIN_POKE:
            status = in < sizeof(WIN_WORD) ? STATUS_BUFFER_TOO_SMALL : WinWord(win, buffer, TRUE);
            break;
        case IOCTL_WIN_BLOCK:
            status = in < sizeof(WIN_BLOCK) ? STATUS_BUFFER_TOO_SMALL : WinBlock(win, buffer, out, &information);
            break;
        case IOCTL_WIN_SIZE:
            if (out < sizeof(ULONG)) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            *(PULONG)buffer = win->Length;
            information = sizeof(ULONG);
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
        KitLeave(&win->Kit);
    }
    KitComplete(Irp, status, information);
    IoReleaseRemoveLock(&win->Kit.RemoveLock, Irp);
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitDriver(DriverObject);
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = WinControl;
    return STATUS_SUCCESS;
}
