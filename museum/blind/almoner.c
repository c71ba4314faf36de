/*
 * ALMONER: a list of recipients, which an administrator writes into the device's key in the registry (Recipients, several strings), and which programs ask for
 * one by one. Without the value there is one recipient, the house itself.
 *
 * The bug: the strings are gone through up to the empty one that ends them. The registry keeps what was written, and a value without an ending has none; the
 * walk goes on behind the memory that holds the value.
 *
 * Device: Root\ALMONER
 * Rule: pool-overrun, wild-read, use-after-free
 * Needs: registry
 */
#include <ddk/wdm.h>
#define FRAME_RIG
#include "../include/desk_or_rig.h"

#define ALMONER_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define ALMONER_NAME CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define TAG 'omlA'
#define MOST 16
#define NAME 32                     /* characters, with the ending */

typedef struct _LIST {
    ULONG Count;
    WCHAR Names[MOST][NAME];
} LIST;

typedef struct _DEV {
    RIG Rig;
    LIST *List;                     /* under the rig's lock */
} DEV;

static const GUID Interface = { 0x6f1c02dc, 0x7a11, 0x4c52, { 0x91, 0x10, 0x2b, 0x0e, 0x53, 0x17, 0xaa, 0x0c } };

static VOID Add(LIST *list, const WCHAR *name, ULONG length)
{
    if (list->Count == MOST)
        return;
    if (length > NAME - 1)
        length = NAME - 1;
    RtlCopyMemory(list->Names[list->Count], name, length * sizeof(WCHAR));
    list->Names[list->Count][length] = 0;
    list->Count++;
}

static VOID Split(LIST *list, const WCHAR *text, ULONG characters)
{
    ULONG at = 0;

#ifndef FIXED
    (void)characters;
    while (text[at] != 0) {
        ULONG length = 0;

        while (text[at + length] != 0)
            length++;
#else
    while (at < characters && text[at] != 0) {
        ULONG length = 0;

        while (at + length < characters && text[at + length] != 0)
            length++;
#endif
        Add(list, text + at, length);
        at += length + 1;
    }
}

/* What the value holds, to be freed; NULL without it. */
static NTSTATUS Fetch(PDEVICE_OBJECT pdo, PKEY_VALUE_PARTIAL_INFORMATION *value)
{
    KEY_VALUE_PARTIAL_INFORMATION head;
    UNICODE_STRING name;
    ULONG length = 0;
    NTSTATUS status;
    HANDLE key;

    *value = NULL;
    status = IoOpenDeviceRegistryKey(pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key);
    if (!NT_SUCCESS(status))
        return STATUS_SUCCESS;
    RtlInitUnicodeString(&name, L"Recipients");
    status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, &head, FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data), &length);
    if ((status == STATUS_BUFFER_OVERFLOW || status == STATUS_BUFFER_TOO_SMALL) && length < 65536) {
        *value = ExAllocatePoolWithTag(PagedPool, length, TAG);
        if (*value == NULL) {
            ZwClose(key);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, *value, length, &length);
        if (!NT_SUCCESS(status)) {
            ExFreePoolWithTag(*value, TAG);
            *value = NULL;
        }
    }
    ZwClose(key);
    return STATUS_SUCCESS;
}

static NTSTATUS AlmonerBorn(RIG *rig)
{
    (void)rig;
    return STATUS_SUCCESS;
}

static VOID AlmonerDead(RIG *rig)
{
    (void)rig;
}

static NTSTATUS AlmonerEquip(RIG *rig, PCM_PARTIAL_RESOURCE_LIST resources)
{
    DEV *dev = (DEV *)rig;
    PKEY_VALUE_PARTIAL_INFORMATION value;
    LIST *list;
    NTSTATUS status;
    KIRQL irql;

    (void)resources;
    list = ExAllocatePoolWithTag(NonPagedPool, sizeof(LIST), TAG);
    if (list == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(list, sizeof(*list));
    status = Fetch(rig->Pdo, &value);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(list, TAG);
        return status;
    }
    if (value != NULL) {
        if (value->Type == REG_MULTI_SZ && value->DataLength >= sizeof(WCHAR))
            Split(list, (const WCHAR *)value->Data, value->DataLength / sizeof(WCHAR));
        ExFreePoolWithTag(value, TAG);
    }
    if (list->Count == 0)
        Add(list, L"House", 5);
    KeAcquireSpinLock(&rig->Lock, &irql);
    dev->List = list;
    KeReleaseSpinLock(&rig->Lock, irql);
    return STATUS_SUCCESS;
}

static VOID AlmonerStrip(RIG *rig)
{
    DEV *dev = (DEV *)rig;
    LIST *list;
    KIRQL irql;

    KeAcquireSpinLock(&rig->Lock, &irql);
    list = dev->List;
    dev->List = NULL;
    KeReleaseSpinLock(&rig->Lock, irql);
    if (list != NULL)
        ExFreePoolWithTag(list, TAG);
}

static VOID AlmonerUp(RIG *rig)
{
    (void)rig;
}

static VOID AlmonerDown(RIG *rig, BOOLEAN reachable)
{
    (void)rig;
    (void)reachable;
}

static NTSTATUS AlmonerControl(RIG *rig, TASK *task)
{
    DEV *dev = (DEV *)rig;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG index = 0;
    KIRQL irql;

    switch (task->Code) {
    case ALMONER_COUNT:
        if (task->Out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        break;
    case ALMONER_NAME:
        if (task->In < sizeof(ULONG))
            return STATUS_INVALID_PARAMETER;
        if (task->Out < NAME * sizeof(WCHAR))
            return STATUS_BUFFER_TOO_SMALL;
        index = *(PULONG)task->Buffer;
        break;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }

    KeAcquireSpinLock(&rig->Lock, &irql);
    if (!RigLive(rig)) {
        status = RIG_HOLD;
    } else if (task->Code == ALMONER_COUNT) {
        *(PULONG)task->Buffer = dev->List->Count;
        task->Info = sizeof(ULONG);
    } else if (index >= dev->List->Count) {
        status = STATUS_NO_MORE_ENTRIES;
    } else {
        RtlCopyMemory(task->Buffer, dev->List->Names[index], NAME * sizeof(WCHAR));
        task->Info = NAME * sizeof(WCHAR);
    }
    KeReleaseSpinLock(&rig->Lock, irql);
    return status;
}

static const RIG_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &Interface,
    .Born = AlmonerBorn,
    .Dead = AlmonerDead,
    .Equip = AlmonerEquip,
    .Strip = AlmonerStrip,
    .Up = AlmonerUp,
    .Down = AlmonerDown,
    .Control = AlmonerControl,
};

static NTSTATUS NTAPI AlmonerAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    return RigAdd(driver, pdo, &Ops);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    return RigEntry(driver, AlmonerAdd);
}
