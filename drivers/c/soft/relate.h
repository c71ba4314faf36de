/*
 * Relations among the devices of soft.sys.
 *
 * Pages: IRP_MN_QUERY_DEVICE_RELATIONS ("RemovalRelations Request", "PowerRelations Request"), IoInvalidateDeviceRelations function.
 */
#ifndef SOFT_RELATE_H
#define SOFT_RELATE_H

static FAST_MUTEX KnownLock;
static LIST_ENTRY Known = {&Known, &Known};

static VOID KnowSoft(PSOFT Soft)
{
    ExAcquireFastMutex(&KnownLock);
    InsertTailList(&Known, &Soft->Entry);
    ExReleaseFastMutex(&KnownLock);
}

static VOID ForgetSoft(PSOFT Soft)
{
    ExAcquireFastMutex(&KnownLock);
    RemoveEntryList(&Soft->Entry);
    ExReleaseFastMutex(&KnownLock);
}

static VOID Relate(PSOFT Soft, const RELATE *Wanted)
{
    if (Wanted->Type == RemovalRelations) {
        Soft->Removal = Wanted->Number;
    } else {
        Soft->Power = Wanted->Number;
    }
    IoInvalidateDeviceRelations(Soft->Pdo, (DEVICE_RELATION_TYPE)Wanted->Type);
}

/* The physical device object of the device with this number, referenced; NULL if there is none. */
static PDEVICE_OBJECT Other(PSOFT Soft, ULONG Number)
{
    PDEVICE_OBJECT Found = NULL;
    PLIST_ENTRY Entry;

    ExAcquireFastMutex(&KnownLock);
    for (Entry = Known.Flink; Entry != &Known; Entry = Entry->Flink) {
        PSOFT One = CONTAINING_RECORD(Entry, SOFT, Entry);

        if ((ULONG)One->Number == Number) {
            Found = Soft->Manners & MISTAKE_FUNCTION ? One->Self : One->Pdo;
        }
    }
    if (Found != NULL && !(Soft->Manners & MISTAKE_BARE)) {
        ObReferenceObject(Found);
    }
    ExReleaseFastMutex(&KnownLock);
    return Found;
}

/* Adds the relation to what drivers above have named, and passes the request on. */
static NTSTATUS Relations(PSOFT Soft, PIRP Irp)
{
    DEVICE_RELATION_TYPE Type = IoGetCurrentIrpStackLocation(Irp)->Parameters.QueryDeviceRelations.Type;
    PDEVICE_RELATIONS List, Above = (PDEVICE_RELATIONS)Irp->IoStatus.Information;
    ULONG Number = Type == RemovalRelations ? Soft->Removal : Type == PowerRelations ? Soft->Power : 0;
    ULONG Count = Above == NULL ? 0 : Above->Count;
    PDEVICE_OBJECT Device;

    if (Number == 0 || (Device = Other(Soft, Number)) == NULL) {
        return PassOn(Soft, Irp);
    }
    List = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(DEVICE_RELATIONS, Objects) + (Count + 1) * sizeof(PDEVICE_OBJECT), SOFT_TAG);
    if (List == NULL) {
        ObDereferenceObject(Device);
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    DbgPrint("soft %d names soft %u\n", Soft->Number, Number);
    if (Above != NULL) {
        RtlCopyMemory(List->Objects, Above->Objects, Count * sizeof(PDEVICE_OBJECT));
        ExFreePoolWithTag(Above, 0);
    }
    List->Objects[Count] = Device;
    List->Count = Count + 1;
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = (ULONG_PTR)List;
    return PassOn(Soft, Irp);
}

#endif
