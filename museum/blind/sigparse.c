/*
 * THIMBLE: translates names of signals into numbers for applications.  The table is read from the
 * multi-string value "Signals" of the device's hardware key ("NAME=number" each) when the device
 * starts; LOOKUP translates a name, ENTRY returns one line of the table, COUNT its size.
 *
 * The bug: the registry does not check that a REG_MULTI_SZ ends with two terminators, and the
 * driver goes through the strings until it meets an empty one; a value without them makes it read
 * on beyond the end of the pool block the value is in.
 *
 * Device: ROOT\THIMBLE
 * Rule: pool-overrun
 * Needs: registry
 */
#include "../include/jetty_pnp.h"

/* {0B6C2D0C-0D3E-4B07-8B8A-51D3F0F2C7A4} */
static const GUID ThimbleInterface =
    { 0x0b6c2d0c, 0x0d3e, 0x4b07, { 0x8b, 0x8a, 0x51, 0xd3, 0xf0, 0xf2, 0xc7, 0xa4 } };

#define IOCTL_THIMBLE_LOOKUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_THIMBLE_ENTRY  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_THIMBLE_COUNT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x853, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define THIMBLE_CHARS 32        /* with the terminator */
#define THIMBLE_ENTRIES 64
#define THIMBLE_VALUE_BYTES 65536

/* What is allocated behind the value. */
#ifdef FIXED
#define THIMBLE_SLACK (3 * sizeof(WCHAR))       /* two terminators, at an odd length too */
#else
#define THIMBLE_SLACK 0
#endif

/* LOOKUP: Name in, all out.  ENTRY: the index (a ULONG) in, all out. */
typedef struct _THIMBLE_ENTRY {
    ULONG Number;
    WCHAR Name[THIMBLE_CHARS];
} THIMBLE_ENTRY, *PTHIMBLE_ENTRY;

typedef struct _THIMBLE {
    JETTY_COMMON Common;
    FAST_MUTEX Mutex;           /* the table */
    ULONG Count;
    THIMBLE_ENTRY Table[THIMBLE_ENTRIES];
} THIMBLE, *PTHIMBLE;

/* One "NAME=number"; what does not look like that is skipped. */
static VOID ThimbleAddSignal(PTHIMBLE t, PCWSTR Text, ULONG Chars)
{
    PTHIMBLE_ENTRY entry;
    ULONG name = 0, number = 0, i;

    while (name < Chars && Text[name] != L'=')
        name++;
    if (name == 0 || name >= THIMBLE_CHARS || Chars - name < 2 || Chars - name > 9)
        return;
    for (i = name + 1; i < Chars; i++) {
        if (Text[i] < L'0' || Text[i] > L'9')
            return;
        number = number * 10 + (Text[i] - L'0');
    }
    if (t->Count >= THIMBLE_ENTRIES)
        return;
    entry = &t->Table[t->Count++];
    RtlZeroMemory(entry, sizeof(*entry));
    entry->Number = number;
    RtlCopyMemory(entry->Name, Text, name * sizeof(WCHAR));
}

static VOID ThimbleParse(PTHIMBLE t, PCWSTR Strings)
{
    ExAcquireFastMutex(&t->Mutex);
    while (*Strings) {
        ULONG chars = 0;

        while (Strings[chars])
            chars++;
        ThimbleAddSignal(t, Strings, chars);
        Strings += chars + 1;
    }
    ExReleaseFastMutex(&t->Mutex);
}

/* Without the value there is simply no signal. */
static NTSTATUS ThimbleReadSignals(PTHIMBLE t, HANDLE Key)
{
    PKEY_VALUE_PARTIAL_INFORMATION value;
    UNICODE_STRING name;
    ULONG needed = 0, got;
    NTSTATUS status;

    RtlInitUnicodeString(&name, L"Signals");
    status = ZwQueryValueKey(Key, &name, KeyValuePartialInformation, NULL, 0, &needed);
    if (status != STATUS_BUFFER_TOO_SMALL && status != STATUS_BUFFER_OVERFLOW)
        return STATUS_SUCCESS;
    if (needed < FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + sizeof(WCHAR) ||
        needed > FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + THIMBLE_VALUE_BYTES)
        return STATUS_SUCCESS;

    value = ExAllocatePoolWithTag(PagedPool, needed + THIMBLE_SLACK, JETTY_TAG);
    if (!value)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(value, needed + THIMBLE_SLACK);
    status = ZwQueryValueKey(Key, &name, KeyValuePartialInformation, value, needed, &got);
    if (NT_SUCCESS(status) && value->Type == REG_MULTI_SZ)
        ThimbleParse(t, (PCWSTR)value->Data);
    ExFreePoolWithTag(value, JETTY_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS ThimbleStart(PVOID Ext, PCM_RESOURCE_LIST Translated)
{
    PTHIMBLE t = Ext;
    NTSTATUS status;
    HANDLE key;

    UNREFERENCED_PARAMETER(Translated);
    ExAcquireFastMutex(&t->Mutex);
    t->Count = 0;
    ExReleaseFastMutex(&t->Mutex);
    status = IoOpenDeviceRegistryKey(t->Common.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key);
    if (!NT_SUCCESS(status))
        return STATUS_SUCCESS;
    status = ThimbleReadSignals(t, key);
    ZwClose(key);
    return status;
}

static VOID ThimbleNothing(PVOID Ext)
{
    UNREFERENCED_PARAMETER(Ext);
}

static NTSTATUS ThimbleLookup(PTHIMBLE t, PTHIMBLE_ENTRY Entry)
{
    NTSTATUS status = STATUS_OBJECT_NAME_NOT_FOUND;
    ULONG chars = 0, bytes, i;

    while (chars < THIMBLE_CHARS && Entry->Name[chars])
        chars++;
    if (chars == 0 || chars == THIMBLE_CHARS)
        return STATUS_INVALID_PARAMETER;
    bytes = (chars + 1) * sizeof(WCHAR);        /* with the terminator */

    ExAcquireFastMutex(&t->Mutex);
    for (i = 0; i < t->Count; i++) {
        if (RtlCompareMemory(t->Table[i].Name, Entry->Name, bytes) == bytes) {
            *Entry = t->Table[i];
            status = STATUS_SUCCESS;
            break;
        }
    }
    ExReleaseFastMutex(&t->Mutex);
    return status;
}

static NTSTATUS ThimbleEntry(PTHIMBLE t, PVOID Buffer)
{
    NTSTATUS status = STATUS_NO_MORE_ENTRIES;
    ULONG index = *(PULONG)Buffer;

    ExAcquireFastMutex(&t->Mutex);
    if (index < t->Count) {
        *(PTHIMBLE_ENTRY)Buffer = t->Table[index];
        status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&t->Mutex);
    return status;
}

static NTSTATUS NTAPI ThimbleControl(PDEVICE_OBJECT Fdo, PIRP Irp)
{
    PTHIMBLE t = Fdo->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status = IoAcquireRemoveLock(&t->Common.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return JettyComplete(Irp, status, 0);

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_THIMBLE_LOOKUP:
        if (in < sizeof(THIMBLE_ENTRY) || out < sizeof(THIMBLE_ENTRY)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = ThimbleLookup(t, buffer);
        if (NT_SUCCESS(status))
            information = sizeof(THIMBLE_ENTRY);
        break;

    case IOCTL_THIMBLE_ENTRY:
        if (in < sizeof(ULONG) || out < sizeof(THIMBLE_ENTRY)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = ThimbleEntry(t, buffer);
        if (NT_SUCCESS(status))
            information = sizeof(THIMBLE_ENTRY);
        break;

    case IOCTL_THIMBLE_COUNT:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(PULONG)buffer = t->Count;
        information = sizeof(ULONG);
        status = STATUS_SUCCESS;
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return JettyFinish(t, Irp, status, information);
}

static VOID ThimbleInit(PVOID Ext)
{
    PTHIMBLE t = Ext;

    ExInitializeFastMutex(&t->Mutex);
}

static const JETTY_HOOKS ThimbleHooks = {
    .Init = ThimbleInit,
    .Start = ThimbleStart,
    .Stop = ThimbleNothing,
    .Gone = ThimbleNothing,
};

static NTSTATUS NTAPI ThimbleAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return JettyAdd(Driver, Pdo, sizeof(THIMBLE), &ThimbleHooks, &ThimbleInterface, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    JettyDriver(Driver, ThimbleAddDevice);
    Driver->MajorFunction[IRP_MJ_CREATE] = JettyCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = JettyCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = JettyCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ThimbleControl;
    return STATUS_SUCCESS;
}
