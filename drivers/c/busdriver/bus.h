/* What the two kinds of devices of busdriver.sys share: the bus's own (FDO), and that of each child (PDO). */
#ifndef BUSDRIVER_BUS_H
#define BUSDRIVER_BUS_H

#define BUS_TAG 'DsuB'
#define SLOTS 8

/* What is in a slot. */
#define KIND_CHILD 0    /* DIRQLBUS\Child, for which soft.inf has a driver */
#define KIND_RAW 1      /* DIRQLBUS\Raw, which needs none */
#define KIND_HUB 2      /* DIRQLBUS\Hub, a bus like this one */
#define KIND_STRANGER 3 /* DIRQLBUS\Stranger, for which there is no driver */
#define KIND_DISABLED 4 /* as KIND_CHILD, but its hardware is disabled */
#define KIND_BOX 5      /* as KIND_CHILD, in a container of its own, which stays in its slot when it is ejected */
/* As KIND_CHILD, but slow to come up (busdriver/power.h). */
#define KIND_RESIDENT 6     /* without DO_POWER_PAGABLE */
#define KIND_INRUSH 7       /* without it, and with DO_POWER_INRUSH */
#define KIND_PAGED_INRUSH 8 /* with both */
#define KIND_INRUSH_HUB 9   /* a hub that is like KIND_INRUSH: a child of its that comes up has it come up first */

/* Input: the slot, and in the second byte its kind. */
#define IOCTL_BUS_PLUG CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* The same; it ends when the child has been found and started. */
#define IOCTL_BUS_PLUG_NOW CTL_CODE(FILE_DEVICE_UNKNOWN, 0x808, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: the slot. */
#define IOCTL_BUS_UNPLUG CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: a MISTAKE_ from now on. */
#define IOCTL_BUS_MISTAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: how many device objects of children there are. */
#define IOCTL_BUS_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* The children are to be asked for again. */
#define IOCTL_BUS_AGAIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* Input: the IO_RESOURCE_REQUIREMENTS_LIST, or the CM_RESOURCE_LIST of the boot configuration, of the child that is plugged in next. */
#define IOCTL_BUS_REQUIREMENTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BUS_BOOT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x806, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* Input: the slot of a child, the slot of another one, a DEVICE_RELATION_TYPE and how it is related, a byte each: the child names the other. */
#define IOCTL_BUS_RELATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x807, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define RELATE_NOT 0
#define RELATE_RIGHT 1
#define RELATE_BARE 2 /* without a reference */
#define RELATE_NULL 3 /* a null pointer in its place */
#define RELATE_FAIL 4 /* the request fails, and the list is lost */

/* A list of resources as it is answered; Bytes is NULL if there is none. */
typedef struct _LIST {
    PVOID Bytes;
    ULONG Length;
} LIST, *PLIST;

enum {
    MISTAKE_NONE,
    MISTAKE_TWICE,          /* reports each child twice */
    MISTAKE_NULL,           /* reports a null pointer */
    MISTAKE_FUNCTION,       /* reports its own function device */
    MISTAKE_MEMORY,         /* reports memory that is no device */
    MISTAKE_NO_REFERENCE,   /* takes no reference */
    MISTAKE_SAME_IDS,       /* all children have the same instance id */
    MISTAKE_KEEPS,          /* leaves the device object of a child that is gone where it is */
    MISTAKE_TOO_EARLY,      /* deletes it when the child is unplugged */
    MISTAKE_WHILE_THERE,    /* deletes it at each removal, and reports it again */
    MISTAKE_IGNORES_REMOVE, /* completes IRP_MN_REMOVE_DEVICE of a child as it came */
    MISTAKE_REUSES,         /* as MISTAKE_KEEPS, and plugs the same device object in again */
    MISTAKE_BORROWS,        /* takes a reference back that is not its own */
    MISTAKE_NAMES_CHILD,    /* names its first child as a removal relation of the bus */
    MISTAKE_UNIQUE          /* says of its children's instance ids that no other bus has them */
};

/* First in each extension. */
typedef struct _COMMON {
    BOOLEAN IsBus;
} COMMON, *PCOMMON;

/* mingw's wdm.h lacks it. */
NTKERNELAPI NTSTATUS NTAPI IoSynchronousInvalidateDeviceRelations(PDEVICE_OBJECT Pdo, DEVICE_RELATION_TYPE Type);

typedef struct _BUS {
    COMMON Common;
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    FAST_MUTEX Lock; /* guards Slots and what is in them */
    PDEVICE_OBJECT Slots[SLOTS];
    LONG Number;
    BOOLEAN Leaving; /* it has agreed to be removed: opens fail */
    ULONG Mistake;
    LIST Requirements; /* of the next child */
    LIST Boot;
    LONG Special; /* paging, hibernation and dump files on the children */
} BUS, *PBUS;

typedef struct _CHILD {
    COMMON Common;
    PDEVICE_OBJECT Self;
    PBUS Bus; /* NULL once the bus is gone */
    ULONG Slot;
    ULONG Kind;
    BOOLEAN Present;  /* plugged in */
    BOOLEAN Known;    /* has been reported at least once */
    BOOLEAN Reported; /* was in the last list */
    BOOLEAN Locked;   /* in its slot */
    LIST Requirements;
    LIST Boot;
    PIRP Rising; /* the request for D0 that is under way */
    KTIMER Surge;
    KDPC SurgeOver;
    LONG Special; /* paging, hibernation and dump files */
    LONG Files[DeviceUsageTypeDumpFile + 1]; /* of each type */
    struct {
        ULONG How; /* a RELATE_ */
        ULONG Slot;
    } Related[RemovalRelations + 1]; /* by kind */
} CHILD, *PCHILD;

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Completes a request as it came. */
static NTSTATUS CompleteUnchanged(PIRP Irp)
{
    NTSTATUS Status = Irp->IoStatus.Status;

    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* A copy of a list, or nothing. */
static LIST CopyList(const VOID *Bytes, ULONG Length)
{
    LIST List = {NULL, 0};

    if (Length != 0) {
        List.Bytes = ExAllocatePoolWithTag(PagedPool, Length, BUS_TAG);
    }
    if (List.Bytes != NULL) {
        RtlCopyMemory(List.Bytes, Bytes, Length);
        List.Length = Length;
    }
    return List;
}

static VOID FreeList(PLIST List)
{
    if (List->Bytes != NULL) {
        ExFreePoolWithTag(List->Bytes, BUS_TAG);
    }
    List->Bytes = NULL;
    List->Length = 0;
}

/* A list of relations with room for so many devices. */
static PDEVICE_RELATIONS NewRelations(ULONG Count)
{
    SIZE_T Size = FIELD_OFFSET(DEVICE_RELATIONS, Objects) + (Count == 0 ? 1 : Count) * sizeof(PDEVICE_OBJECT);
    PDEVICE_RELATIONS Relations = ExAllocatePoolWithTag(PagedPool, Size, BUS_TAG);

    if (Relations != NULL) {
        Relations->Count = 0;
    }
    return Relations;
}

#endif
