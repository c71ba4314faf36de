/*
 * A virtual bus: an application plugs mailboxes in and out of it, each of which is a raw child device with an interface of
 * its own, written by one application and read by another.
 *
 * The bug: a child's remove request deletes its device object as soon as the child has been unplugged, though the PnP manager has not yet been given that by a relations query, so a device node is left with a device object that is no more.
 * Shows by: a child device is being removed or disabled while the application unplugs it, so that IRP_MN_REMOVE_DEVICE comes before the next IRP_MN_QUERY_DEVICE_RELATIONS of the bus.
 *
 * Device: Root\VMAILBUS
 * Rule: child-deleted-early
 * Needs: ioctl
 */
#include "../include/function_kit.h"

#define BUS_TAG             'suBV'
#define FILE_DEVICE_MAILBOX 0x8A01
#define BUS_MAX_CHILDREN    16
#define BOX_MAX_MESSAGE     256
#define BOX_MAX_QUEUED      32

#define IOCTL_BUS_PLUG      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BUS_UNPLUG    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BUS_LIST      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x942, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_BOX_INFO      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x948, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* {3B1E7C50-6A0D-4B55-9C1B-0E62D0A9B901}, {3B1E7C50-6A0D-4B55-9C1B-0E62D0A9B902} */
static const GUID BusInterface = { 0x3b1e7c50, 0x6a0d, 0x4b55, { 0x9c, 0x1b, 0x0e, 0x62, 0xd0, 0xa9, 0xb9, 0x01 } };
static const GUID BoxInterface = { 0x3b1e7c50, 0x6a0d, 0x4b55, { 0x9c, 0x1b, 0x0e, 0x62, 0xd0, 0xa9, 0xb9, 0x02 } };
static const GUID BusType = { 0x3b1e7c50, 0x6a0d, 0x4b55, { 0x9c, 0x1b, 0x0e, 0x62, 0xd0, 0xa9, 0xb9, 0x03 } };

typedef struct _BUS_ENTRY { ULONG Serial; ULONG Started; ULONG Handles; ULONG Missing; } BUS_ENTRY;
typedef struct _BOX_INFO { ULONG Serial; ULONG Queued; ULONG Readers; } BOX_INFO;

typedef struct _BUS {
    FDO_KIT Kit;
    FAST_MUTEX Mutex;                   /* guards the list of children and what the bus knows of each */
    LIST_ENTRY Children;
    ULONG ChildCount;
} BUS, *PBUS;

typedef struct _MAIL { LIST_ENTRY Link; ULONG Length; UCHAR Bytes[1]; } MAIL, *PMAIL;

typedef enum _BOX_STATE { BoxAdded, BoxStarted, BoxRemovePending, BoxGone } BOX_STATE;

typedef struct _BOX {
    PDEVICE_OBJECT Self;
    PBUS Bus;
    ULONG Serial;

    LIST_ENTRY Link;                    /* of the bus's list; these under the bus's Mutex */
    BOOLEAN Reported;
    BOOLEAN Missing;
    BOOLEAN ReportedMissing;

    KSPIN_LOCK Lock;                    /* guards what follows */
    BOX_STATE State;
    ULONG Handles;
    LIST_ENTRY Mails;
    ULONG MailCount;
    LIST_ENTRY Readers;

    UNICODE_STRING Interface;           /* used by PnP requests only, which come one at a time */
} BOX, *PBOX;

/* A mailbox's data */

static VOID NTAPI BoxCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBOX box = Device->DeviceExtension;
    KIRQL irql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&box->Lock, &irql);
    RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
    KeReleaseSpinLock(&box->Lock, irql);
    KitComplete(Irp, STATUS_CANCELLED, 0);
}

/* With Lock held: a waiting read of this file's (NULL: any file's) that is not being cancelled. */
static PIRP BoxTakeReader(PBOX Box, PFILE_OBJECT File)
{
    PLIST_ENTRY e, next;

    for (e = Box->Readers.Flink; e != &Box->Readers; e = next) {
        PIRP irp = CONTAINING_RECORD(e, IRP, Tail.Overlay.ListEntry);
        next = e->Flink;
        if (File && IoGetCurrentIrpStackLocation(irp)->FileObject != File) continue;
        if (!IoSetCancelRoutine(irp, NULL)) continue;           /* its cancel routine unlinks it */
        RemoveEntryList(e);
        return irp;
    }
    return NULL;
}

static VOID BoxEndReaders(PBOX Box, PFILE_OBJECT File, NTSTATUS Status)
{
    PIRP irp;
    KIRQL irql;

    do {
        KeAcquireSpinLock(&Box->Lock, &irql);
        irp = BoxTakeReader(Box, File);
        KeReleaseSpinLock(&Box->Lock, irql);
        if (irp) KitComplete(irp, Status, 0);
    } while (irp);
}

static VOID BoxFreeMails(PBOX Box)
{
    LIST_ENTRY mails;
    KIRQL irql;

    InitializeListHead(&mails);
    KeAcquireSpinLock(&Box->Lock, &irql);
    while (!IsListEmpty(&Box->Mails)) InsertTailList(&mails, RemoveHeadList(&Box->Mails));
    Box->MailCount = 0;
    KeReleaseSpinLock(&Box->Lock, irql);
    while (!IsListEmpty(&mails)) ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&mails), MAIL, Link), BUS_TAG);
}

static ULONG MailCopy(PIRP Irp, const VOID *Bytes, ULONG Length)
{
    ULONG room = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    if (Length > room) Length = room;
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Bytes, Length);
    return Length;
}

static NTSTATUS BoxRead(PBOX Box, PIRP Irp)
{
    PMAIL mail = NULL;
    ULONG length;
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0) return KitComplete(Irp, STATUS_SUCCESS, 0);
    KeAcquireSpinLock(&Box->Lock, &irql);
    if (Box->State == BoxGone || Box->State == BoxAdded) {
        KeReleaseSpinLock(&Box->Lock, irql);
        return KitComplete(Irp, STATUS_NO_SUCH_DEVICE, 0);
    }
    if (!IsListEmpty(&Box->Mails)) {
        mail = CONTAINING_RECORD(RemoveHeadList(&Box->Mails), MAIL, Link);
        Box->MailCount--;
        KeReleaseSpinLock(&Box->Lock, irql);
        length = MailCopy(Irp, mail->Bytes, mail->Length);
        ExFreePoolWithTag(mail, BUS_TAG);
        return KitComplete(Irp, STATUS_SUCCESS, length);
    }
    IoMarkIrpPending(Irp);
    InsertTailList(&Box->Readers, &Irp->Tail.Overlay.ListEntry);
    IoSetCancelRoutine(Irp, BoxCancel);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL)) {
        RemoveEntryList(&Irp->Tail.Overlay.ListEntry);
        KeReleaseSpinLock(&Box->Lock, irql);
        KitComplete(Irp, STATUS_CANCELLED, 0);
        return STATUS_PENDING;
    }
    KeReleaseSpinLock(&Box->Lock, irql);
    return STATUS_PENDING;
}

static NTSTATUS BoxWrite(PBOX Box, PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length, moved;
    NTSTATUS status = STATUS_SUCCESS;
    PIRP reader = NULL;
    PMAIL mail;
    KIRQL irql;

    if (length == 0 || length > BOX_MAX_MESSAGE) return KitComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    mail = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(MAIL, Bytes) + length, BUS_TAG);
    if (!mail) return KitComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    mail->Length = length;
    RtlCopyMemory(mail->Bytes, Irp->AssociatedIrp.SystemBuffer, length);

    KeAcquireSpinLock(&Box->Lock, &irql);
    if (Box->State == BoxGone || Box->State == BoxAdded) status = STATUS_NO_SUCH_DEVICE;
    else if ((reader = BoxTakeReader(Box, NULL)) != NULL) {}
    else if (Box->MailCount >= BOX_MAX_QUEUED) status = STATUS_DEVICE_BUSY;
    else {
        InsertTailList(&Box->Mails, &mail->Link);
        Box->MailCount++;
        mail = NULL;
    }
    KeReleaseSpinLock(&Box->Lock, irql);
    if (reader) {
        moved = MailCopy(reader, mail->Bytes, mail->Length);
        KitComplete(reader, STATUS_SUCCESS, moved);
    }
    if (mail) ExFreePoolWithTag(mail, BUS_TAG);
    return KitComplete(Irp, status, NT_SUCCESS(status) ? length : 0);
}

static NTSTATUS BoxInfo(PBOX Box, PIRP Irp, ULONG Room)
{
    BOX_INFO *info = Irp->AssociatedIrp.SystemBuffer;
    PLIST_ENTRY e;
    KIRQL irql;

    if (Room < sizeof(*info)) return KitComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&Box->Lock, &irql);
    info->Serial = Box->Serial;
    info->Queued = Box->MailCount;
    info->Readers = 0;
    for (e = Box->Readers.Flink; e != &Box->Readers; e = e->Flink) info->Readers++;
    KeReleaseSpinLock(&Box->Lock, irql);
    return KitComplete(Irp, STATUS_SUCCESS, sizeof(*info));
}

static NTSTATUS BoxFile(PBOX Box, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    switch (sp->MajorFunction) {
    case IRP_MJ_CREATE:
        KeAcquireSpinLock(&Box->Lock, &irql);
        if (Box->State == BoxStarted) Box->Handles++;
        else status = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&Box->Lock, irql);
        return KitComplete(Irp, status, 0);
    case IRP_MJ_CLEANUP:
        BoxEndReaders(Box, sp->FileObject, STATUS_CANCELLED);
        return KitComplete(Irp, STATUS_SUCCESS, 0);
    case IRP_MJ_CLOSE:
        KeAcquireSpinLock(&Box->Lock, &irql);
        Box->Handles--;
        KeReleaseSpinLock(&Box->Lock, irql);
        return KitComplete(Irp, STATUS_SUCCESS, 0);
    case IRP_MJ_READ:
        return BoxRead(Box, Irp);
    case IRP_MJ_WRITE:
        return BoxWrite(Box, Irp);
    default:
        if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_BOX_INFO)
            return BoxInfo(Box, Irp, sp->Parameters.DeviceIoControl.OutputBufferLength);
        return KitComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* A mailbox as a device */

static BOX_STATE BoxSetState(PBOX Box, BOX_STATE State)
{
    BOX_STATE old;
    KIRQL irql;
    KeAcquireSpinLock(&Box->Lock, &irql);
    old = Box->State;
    Box->State = State;
    KeReleaseSpinLock(&Box->Lock, irql);
    return old;
}

/* Takes a child out of the list and its device object away. With the bus's Mutex held. */
static VOID BoxDelete(PBOX Box)
{
    RemoveEntryList(&Box->Link);
    Box->Bus->ChildCount--;
    IoDeleteDevice(Box->Self);
}

static PWCHAR BoxText(const WCHAR *Text, ULONG Bytes)
{
    PWCHAR copy = ExAllocatePoolWithTag(PagedPool, Bytes, BUS_TAG);
    if (copy) RtlCopyMemory(copy, Text, Bytes);
    return copy;
}

static PWCHAR BoxSerialText(ULONG Serial)
{
    WCHAR digits[9];
    ULONG i;
    for (i = 0; i < 8; i++) digits[i] = L"0123456789ABCDEF"[(Serial >> (28 - 4 * i)) & 15];
    digits[8] = 0;
    return BoxText(digits, sizeof(digits));
}

static NTSTATUS BoxQueryId(PBOX Box, PIRP Irp)
{
    static const WCHAR device[] = L"VMAILBUS\\Mailbox", hardware[] = L"VMAILBUS\\Mailbox\0", compatible[] = L"VMAILBUS\\Raw\0";
    PWCHAR text;

    switch (IoGetCurrentIrpStackLocation(Irp)->Parameters.QueryId.IdType) {
    case BusQueryDeviceID: text = BoxText(device, sizeof(device)); break;
    case BusQueryHardwareIDs: text = BoxText(hardware, sizeof(hardware)); break;
    case BusQueryCompatibleIDs: text = BoxText(compatible, sizeof(compatible)); break;
    case BusQueryInstanceID: text = BoxSerialText(Box->Serial); break;
    default: return Irp->IoStatus.Status;
    }
    Irp->IoStatus.Information = (ULONG_PTR)text;
    return text ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS BoxQueryCapabilities(PBOX Box, PIRP Irp)
{
    PDEVICE_CAPABILITIES caps = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceCapabilities.Capabilities;
    ULONG i;

    if (caps->Version != 1 || caps->Size < sizeof(*caps)) return STATUS_UNSUCCESSFUL;
    caps->Removable = TRUE;
    caps->SurpriseRemovalOK = TRUE;
    caps->RawDeviceOK = TRUE;
    caps->SilentInstall = TRUE;
    caps->UniqueID = FALSE;
    caps->Address = Box->Serial;
    caps->UINumber = Box->Serial;
    caps->DeviceState[PowerSystemWorking] = PowerDeviceD0;
    for (i = PowerSystemSleeping1; i < PowerSystemMaximum; i++) caps->DeviceState[i] = PowerDeviceD3;
    caps->SystemWake = PowerSystemUnspecified;
    caps->DeviceWake = PowerDeviceUnspecified;
    return STATUS_SUCCESS;
}

static NTSTATUS BoxQueryText(PIRP Irp)
{
    static const WCHAR description[] = L"Virtual mailbox", location[] = L"On the virtual mail bus";
    DEVICE_TEXT_TYPE type = IoGetCurrentIrpStackLocation(Irp)->Parameters.QueryDeviceText.DeviceTextType;
    PWCHAR text;

    if (type == DeviceTextDescription) text = BoxText(description, sizeof(description));
    else if (type == DeviceTextLocationInformation) text = BoxText(location, sizeof(location));
    else return Irp->IoStatus.Status;
    Irp->IoStatus.Information = (ULONG_PTR)text;
    return text ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID BoxDisableInterface(PBOX Box)
{
    if (!Box->Interface.Buffer) return;
    IoSetDeviceInterfaceState(&Box->Interface, FALSE);
    RtlFreeUnicodeString(&Box->Interface);
    Box->Interface.Buffer = NULL;
}

static NTSTATUS BoxStart(PBOX Box)
{
    NTSTATUS status = STATUS_SUCCESS;

    if (!Box->Interface.Buffer) status = IoRegisterDeviceInterface(Box->Self, &BoxInterface, NULL, &Box->Interface);
    if (!NT_SUCCESS(status)) {
        Box->Interface.Buffer = NULL;
        return status;
    }
    BoxSetState(Box, BoxStarted);
    IoSetDeviceInterfaceState(&Box->Interface, TRUE);
    return STATUS_SUCCESS;
}

static NTSTATUS BoxRemove(PBOX Box, PIRP Irp)
{
    PBUS bus = Box->Bus;
    BOOLEAN gone;

    BoxDisableInterface(Box);
    BoxSetState(Box, BoxAdded);
    BoxEndReaders(Box, NULL, STATUS_NO_SUCH_DEVICE);
    BoxFreeMails(Box);
    ExAcquireFastMutex(&bus->Mutex);
#ifdef FIXED
    gone = Box->ReportedMissing;
#else
    gone = Box->Missing;
#endif
    if (gone) BoxDelete(Box);
    ExReleaseFastMutex(&bus->Mutex);
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS BoxPnp(PBOX Box, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;
    KIRQL irql;

    switch (sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        status = BoxStart(Box);
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
        status = STATUS_UNSUCCESSFUL;           /* it has no resources that could be rebalanced */
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
        status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
        KeAcquireSpinLock(&Box->Lock, &irql);
        status = Box->Handles ? STATUS_DEVICE_BUSY : STATUS_SUCCESS;
        if (NT_SUCCESS(status) && Box->State == BoxStarted) Box->State = BoxRemovePending;
        KeReleaseSpinLock(&Box->Lock, irql);
        break;
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        KeAcquireSpinLock(&Box->Lock, &irql);
        if (Box->State == BoxRemovePending) Box->State = BoxStarted;
        KeReleaseSpinLock(&Box->Lock, irql);
        status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        BoxSetState(Box, BoxGone);
        BoxDisableInterface(Box);
        BoxEndReaders(Box, NULL, STATUS_NO_SUCH_DEVICE);
        status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        return BoxRemove(Box, Irp);
    case IRP_MN_QUERY_ID:
        status = BoxQueryId(Box, Irp);
        break;
    case IRP_MN_QUERY_CAPABILITIES:
        status = BoxQueryCapabilities(Box, Irp);
        break;
    case IRP_MN_QUERY_DEVICE_TEXT:
        status = BoxQueryText(Irp);
        break;
    case IRP_MN_QUERY_DEVICE_RELATIONS:
        if (sp->Parameters.QueryDeviceRelations.Type == TargetDeviceRelation) {
            PDEVICE_RELATIONS relations = ExAllocatePoolWithTag(PagedPool, sizeof(*relations), BUS_TAG);
            status = STATUS_INSUFFICIENT_RESOURCES;
            if (relations) {
                relations->Count = 1;
                relations->Objects[0] = Box->Self;
                ObReferenceObject(Box->Self);
                Irp->IoStatus.Information = (ULONG_PTR)relations;
                status = STATUS_SUCCESS;
            }
        }
        break;
    case IRP_MN_QUERY_BUS_INFORMATION: {
        PPNP_BUS_INFORMATION information = ExAllocatePoolWithTag(PagedPool, sizeof(*information), BUS_TAG);
        status = STATUS_INSUFFICIENT_RESOURCES;
        if (information) {
            information->BusTypeGuid = BusType;
            information->LegacyBusType = PNPBus;
            information->BusNumber = 0;
            Irp->IoStatus.Information = (ULONG_PTR)information;
            status = STATUS_SUCCESS;
        }
        break;
    }
    default:
        break;
    }
    Irp->IoStatus.Status = status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS BoxPower(PBOX Box, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = Irp->IoStatus.Status;

    if (sp->MinorFunction == IRP_MN_SET_POWER || sp->MinorFunction == IRP_MN_QUERY_POWER) status = STATUS_SUCCESS;
    if (sp->MinorFunction == IRP_MN_SET_POWER && sp->Parameters.Power.Type == DevicePowerState)
        PoSetPowerState(Box->Self, DevicePowerState, sp->Parameters.Power.State);
    PoStartNextPowerIrp(Irp);
    Irp->IoStatus.Status = status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

/* The bus */

/* With Mutex held. */
static PBOX BusFind(PBUS Bus, ULONG Serial)
{
    PLIST_ENTRY e;
    for (e = Bus->Children.Flink; e != &Bus->Children; e = e->Flink) {
        PBOX box = CONTAINING_RECORD(e, BOX, Link);
        if (box->Serial == Serial) return box;
    }
    return NULL;
}

static NTSTATUS BusPlug(PBUS Bus, ULONG Serial)
{
    NTSTATUS status;
    PDEVICE_OBJECT device;
    PBOX box;

    ExAcquireFastMutex(&Bus->Mutex);
    box = BusFind(Bus, Serial);
    if (box) status = box->Missing ? STATUS_DEVICE_BUSY : STATUS_OBJECT_NAME_COLLISION;
    else if (Bus->ChildCount >= BUS_MAX_CHILDREN) status = STATUS_INSUFFICIENT_RESOURCES;
    else {
        status = IoCreateDevice(Bus->Kit.Self->DriverObject, sizeof(BOX), NULL, FILE_DEVICE_MAILBOX,
                                FILE_AUTOGENERATED_DEVICE_NAME | FILE_DEVICE_SECURE_OPEN, FALSE, &device);
        if (NT_SUCCESS(status)) {
            box = device->DeviceExtension;
            RtlZeroMemory(box, sizeof(*box));
            box->Self = device;
            box->Bus = Bus;
            box->Serial = Serial;
            KeInitializeSpinLock(&box->Lock);
            InitializeListHead(&box->Mails);
            InitializeListHead(&box->Readers);
            device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
            InsertTailList(&Bus->Children, &box->Link);
            Bus->ChildCount++;
            device->Flags &= ~DO_DEVICE_INITIALIZING;
        }
    }
    ExReleaseFastMutex(&Bus->Mutex);
    if (NT_SUCCESS(status)) IoInvalidateDeviceRelations(Bus->Kit.Pdo, BusRelations);
    return status;
}

static NTSTATUS BusUnplug(PBUS Bus, ULONG Serial)
{
    NTSTATUS status = STATUS_NO_SUCH_DEVICE;
    PBOX box;

    ExAcquireFastMutex(&Bus->Mutex);
    box = BusFind(Bus, Serial);
    if (box && !box->Missing) {
        box->Missing = TRUE;
        status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Bus->Mutex);
    if (NT_SUCCESS(status)) IoInvalidateDeviceRelations(Bus->Kit.Pdo, BusRelations);
    return status;
}

static ULONG BusList(PBUS Bus, BUS_ENTRY *Entries, ULONG Room)
{
    ULONG count = 0;
    PLIST_ENTRY e;
    KIRQL irql;

    ExAcquireFastMutex(&Bus->Mutex);
    for (e = Bus->Children.Flink; e != &Bus->Children && (count + 1) * sizeof(BUS_ENTRY) <= Room; e = e->Flink, count++) {
        PBOX box = CONTAINING_RECORD(e, BOX, Link);
        Entries[count].Serial = box->Serial;
        Entries[count].Missing = box->Missing;
        KeAcquireSpinLock(&box->Lock, &irql);
        Entries[count].Started = box->State == BoxStarted;
        Entries[count].Handles = box->Handles;
        KeReleaseSpinLock(&box->Lock, irql);
    }
    ExReleaseFastMutex(&Bus->Mutex);
    return count * sizeof(BUS_ENTRY);
}

/* Who is on the bus: this is where the PnP manager learns of what was plugged in and out. */
static NTSTATUS BusRelate(PBUS Bus, PIRP Irp)
{
    PDEVICE_RELATIONS old = (PDEVICE_RELATIONS)Irp->IoStatus.Information, relations;
    ULONG before = old ? old->Count : 0, count;
    PLIST_ENTRY e, next;

    ExAcquireFastMutex(&Bus->Mutex);
    count = before + Bus->ChildCount;
    relations = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(DEVICE_RELATIONS, Objects) + (count + 1) * sizeof(PDEVICE_OBJECT), BUS_TAG);
    if (!relations) {
        ExReleaseFastMutex(&Bus->Mutex);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    relations->Count = before;
    if (before) RtlCopyMemory(relations->Objects, old->Objects, before * sizeof(PDEVICE_OBJECT));
    for (e = Bus->Children.Flink; e != &Bus->Children; e = next) {
        PBOX box = CONTAINING_RECORD(e, BOX, Link);
        next = e->Flink;
        if (!box->Missing) {
            box->Reported = TRUE;
            ObReferenceObject(box->Self);
            relations->Objects[relations->Count++] = box->Self;
        } else if (!box->Reported) BoxDelete(box);
        else box->ReportedMissing = TRUE;
    }
    ExReleaseFastMutex(&Bus->Mutex);
    if (old) ExFreePool(old);
    Irp->IoStatus.Information = (ULONG_PTR)relations;
    return STATUS_SUCCESS;
}

static NTSTATUS BusStart(PVOID Ext, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Ext);
    UNREFERENCED_PARAMETER(Raw);
    UNREFERENCED_PARAMETER(Translated);
    return STATUS_SUCCESS;
}

static VOID BusStop(PVOID Ext, BOOLEAN Gone)
{
    PBUS bus = Ext;
    PLIST_ENTRY e;

    if (!Gone) return;
    ExAcquireFastMutex(&bus->Mutex);
    for (e = bus->Children.Flink; e != &bus->Children; e = e->Flink) {
        PBOX box = CONTAINING_RECORD(e, BOX, Link);
        box->Missing = TRUE;
        if (box->Reported) box->ReportedMissing = TRUE;     /* all are gone with the bus, and that is known */
    }
    ExReleaseFastMutex(&bus->Mutex);
}

static VOID BusFlush(PVOID Ext)
{
    UNREFERENCED_PARAMETER(Ext);
}

/* What is left are children that have been removed, and those that were never reported. */
static VOID BusDelete(PVOID Ext)
{
    PBUS bus = Ext;

    ExAcquireFastMutex(&bus->Mutex);
    while (!IsListEmpty(&bus->Children)) BoxDelete(CONTAINING_RECORD(bus->Children.Flink, BOX, Link));
    ExReleaseFastMutex(&bus->Mutex);
}

static const FDO_HOOKS BusHooks = { BusStart, BusStop, BusFlush, NULL, NULL, BusDelete };

static NTSTATUS BusControl(PBUS Bus, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status = KitEnter(&Bus->Kit, Irp);

    if (!NT_SUCCESS(status)) return KitComplete(Irp, status, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BUS_PLUG:
        status = in < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : BusPlug(Bus, *buffer);
        break;
    case IOCTL_BUS_UNPLUG:
        status = in < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : BusUnplug(Bus, *buffer);
        break;
    case IOCTL_BUS_LIST:
        if (out == 0) status = STATUS_BUFFER_TOO_SMALL;
        else information = BusList(Bus, (BUS_ENTRY *)buffer, out);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    KitComplete(Irp, status, information);
    IoReleaseRemoveLock(&Bus->Kit.RemoveLock, Irp);
    return status;
}

/* Dispatch: for the bus or for a child */

static BOOLEAN IsBox(PDEVICE_OBJECT Device)
{
    return Device->DeviceType == FILE_DEVICE_MAILBOX;
}

static NTSTATUS NTAPI VbusFile(PDEVICE_OBJECT Device, PIRP Irp)
{
    PBUS bus = Device->DeviceExtension;
    NTSTATUS status = STATUS_SUCCESS;

    if (IsBox(Device)) return BoxFile(Device->DeviceExtension, Irp);
    switch (IoGetCurrentIrpStackLocation(Irp)->MajorFunction) {
    case IRP_MJ_CREATE:
        status = KitOpen(&bus->Kit);
        break;
    case IRP_MJ_CLEANUP:
        break;
    case IRP_MJ_CLOSE:
        KitClosed(&bus->Kit);
        break;
    case IRP_MJ_DEVICE_CONTROL:
        return BusControl(bus, Irp);
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return KitComplete(Irp, status, 0);
}

static NTSTATUS NTAPI VbusPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PBUS bus = Device->DeviceExtension;
    NTSTATUS status;

    if (IsBox(Device)) return BoxPnp(Device->DeviceExtension, Irp);
    if (sp->MinorFunction == IRP_MN_QUERY_DEVICE_RELATIONS && sp->Parameters.QueryDeviceRelations.Type == BusRelations) {
        status = BusRelate(bus, Irp);
        if (!NT_SUCCESS(status)) return KitComplete(Irp, status, Irp->IoStatus.Information);
        Irp->IoStatus.Status = STATUS_SUCCESS;
    }
    return KitPnp(Device, Irp);
}

static NTSTATUS NTAPI VbusPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    return IsBox(Device) ? BoxPower(Device->DeviceExtension, Irp) : KitPower(Device, Irp);
}

static NTSTATUS NTAPI VbusSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    NTSTATUS status = Irp->IoStatus.Status;

    if (!IsBox(Device)) return KitSystemControl(Device, Irp);
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI VbusAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PFDO_KIT kit;
    PBUS bus;
    NTSTATUS status = KitAdd(Driver, Pdo, sizeof(BUS), &BusInterface, &BusHooks, BUS_TAG, &kit);

    if (!NT_SUCCESS(status)) return status;
    bus = (PBUS)kit;
    ExInitializeFastMutex(&bus->Mutex);
    InitializeListHead(&bus->Children);
    kit->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI VbusUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = VbusAddDevice;
    Driver->MajorFunction[IRP_MJ_CREATE] = VbusFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = VbusFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = VbusFile;
    Driver->MajorFunction[IRP_MJ_READ] = VbusFile;
    Driver->MajorFunction[IRP_MJ_WRITE] = VbusFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = VbusFile;
    Driver->MajorFunction[IRP_MJ_PNP] = VbusPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = VbusPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = VbusSystemControl;
    Driver->DriverUnload = VbusUnload;
    return STATUS_SUCCESS;
}
