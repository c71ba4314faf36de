/*
 * plxcopse: counts the visitors of a nature trail, by a light barrier at LINTi1 of a board behind a PLX PCI 9052. The count is kept in the device's key of
 * the registry (value "Visitors") while the board is not running; programs ask for it, or wait for the next visitor.
 *
 * The bug: the key is opened at each start, but closed only when the device is removed: each stop and start in between leaves a handle open for ever.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: handle-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/yard_frame.h"
#include "../include/yard_plx.h"

#define IOCTL_COPSE_COUNT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_COPSE_NEXT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F2, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID CopseFace = { 0x6a1f40d2, 0x3b57, 0x4c0e, { 0x91, 0x22, 0x5e, 0x77, 0x10, 0xc3, 0x4a, 0x0d } };

typedef struct _DEV {
    FRAME F;                    /* its shelf has those that wait for the next visitor */
    HANDLE Key;                 /* PnP only; NULL if it could not be opened */
    volatile LONG Visitors;
} DEV, *PDEV;

static VOID CloseKey(PDEV D)
{
    if (D->Key)
        ZwClose(D->Key);
    D->Key = NULL;
}

static VOID OpenKey(PDEV D)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR Bytes[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + sizeof(ULONG)];
    } value;
    UNICODE_STRING name;
    ULONG length;
    LONG kept;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(D->F.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ | KEY_WRITE, &D->Key))) {
        D->Key = NULL;
        return;
    }
    RtlInitUnicodeString(&name, L"Visitors");
    if (NT_SUCCESS(ZwQueryValueKey(D->Key, &name, KeyValuePartialInformation, &value, sizeof value, &length)) && value.Info.Type == REG_DWORD &&
        value.Info.DataLength == sizeof kept) {
        RtlCopyMemory(&kept, value.Info.Data, sizeof kept);
        InterlockedExchange(&D->Visitors, kept);
    }
}

static VOID Keep(PDEV D)
{
    LONG visitors = InterlockedCompareExchange(&D->Visitors, 0, 0);
    UNICODE_STRING name;

    if (!D->Key)
        return;
    RtlInitUnicodeString(&name, L"Visitors");
    ZwSetValueKey(D->Key, &name, 0, REG_DWORD, &visitors, sizeof visitors);
}

static NTSTATUS Start(PFRAME F, PCM_RESOURCE_LIST Translated)
{
    NTSTATUS status = FrameClaim(F, Translated);

    if (!NT_SUCCESS(status))
        return status;
    status = PlxCheck(F);
    if (NT_SUCCESS(status))
        status = FrameConnect(F);
    if (!NT_SUCCESS(status)) {
        FrameRelease(F);
        return status;
    }
    OpenKey((PDEV)F);
    FrameUp(F);
    return STATUS_SUCCESS;
}

static VOID Stop(PFRAME F, BOOLEAN Gone)
{
    FrameDown(F, Gone);
    Keep((PDEV)F);
#ifdef FIXED
    CloseKey((PDEV)F);
#endif
    FrameRelease(F);
}

static VOID Clear(PFRAME F)
{
    CloseKey((PDEV)F);
}

static BOOLEAN Isr(PFRAME F)
{
    if (!PlxEdge(F))
        return FALSE;
    InterlockedIncrement(&((PDEV)F)->Visitors);
    KeInsertQueueDpc(&F->Dpc, NULL, NULL);
    return TRUE;
}

static VOID Dpc(PFRAME F)
{
    PIRP irp;

    while ((irp = ShelfTake(&F->Shelf, 0, NULL)) != NULL) {
        *(PLONG)irp->AssociatedIrp.SystemBuffer = InterlockedCompareExchange(&((PDEV)F)->Visitors, 0, 0);
        ShelfEnd(&F->Shelf, irp, STATUS_SUCCESS, sizeof(LONG));
    }
}

static NTSTATUS Control(PFRAME F, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    ULONG code = Stack->Parameters.DeviceIoControl.IoControlCode;

    if (code != IOCTL_COPSE_COUNT && code != IOCTL_COPSE_NEXT)
        return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG))
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (code == IOCTL_COPSE_NEXT)
        return FramePark(F, &F->Shelf, Irp, 0);
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = InterlockedCompareExchange(&((PDEV)F)->Visitors, 0, 0);
    return Ends(Irp, STATUS_SUCCESS, sizeof(LONG));
}

static const FRAME_HOOKS Hooks = {
    .Bytes = sizeof(DEV),
    .Flags = DO_BUFFERED_IO,
    .Face = &CopseFace,
    .Clear = Clear,
    .Start = Start,
    .Stop = Stop,
    .Isr = Isr,
    .Listen = PlxListen,
    .Dpc = Dpc,
    .Control = Control,
};
