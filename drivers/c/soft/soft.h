/* What soft.sys knows of a device, what can be asked of it, and how requests are completed and passed on. */
#ifndef SOFT_SOFT_H
#define SOFT_SOFT_H

#define SOFT_TAG 'tfoS'

/* Input: the number of a property. Output: its value. */
#define IOCTL_SOFT_WHO CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: REFUSES_ and MISTAKE_ bits. */
#define IOCTL_SOFT_MANNERS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SOFT_EJECT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: a RELATE. The driver invalidates these relations. */
#define IOCTL_SOFT_RELATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: a PNP_DEVICE_STATE that the device has from now on. */
#define IOCTL_SOFT_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Input: a NEXT_. */
#define IOCTL_SOFT_NEXT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x805, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: how many paging, hibernation and dump files are on the device, and its DO_POWER_PAGABLE. */
#define IOCTL_SOFT_SPECIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x806, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* Input: a DEVICE_POWER_STATE, for which a request is sent; its end is not waited for. */
#define IOCTL_SOFT_POWER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x807, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define NO_INTERRUPTS 0x77

#define REFUSES_REMOVE 0x01
#define REFUSES_STOP 0x02
#define REFUSES_SPECIAL 0x04         /* to have special files */
#define MISTAKE_STAYS_PAGABLE 0x08   /* leaves DO_POWER_PAGABLE set */
#define MISTAKE_AGREES 0x10          /* to be removed or stopped with special files */
#define MISTAKE_FAILS_END 0x20       /* fails to hear that a special file is gone */
#define MISTAKE_BARE 0x40            /* names a relation without a reference */
#define MISTAKE_FUNCTION 0x80        /* names the other's function device */
#define REFUSES_START 0x100          /* to be started again */
#define MISTAKE_WAITS 0x200          /* waits in its dispatch routine for power requests */
#define MISTAKE_PAGED 0x400          /* calls a routine there that may be paged out */

/* What the device does that is added next. */
#define NEXT_FAILS_ADD 1
#define NEXT_FAILS_START 2
#define NEXT_IS_FAILED 3
#define NEXT_IS_DISABLED 4

typedef struct _RELATE {
    ULONG Type;   /* a DEVICE_RELATION_TYPE */
    ULONG Number; /* of the other device; 0: of none */
} RELATE;

typedef struct _SOFT {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    LIST_ENTRY Entry; /* of all devices of the driver */
    LONG Number;
    BOOLEAN Leaving; /* it has agreed to be removed: opens fail */
    ULONG Manners;
    ULONG Next;
    ULONG State;
    ULONG Removal; /* the number of its removal relation, and of its power relation */
    ULONG Power;
    LONG Special[3]; /* paging, hibernation and dump files */
} SOFT, *PSOFT;

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS PassOn(PSOFT Soft, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Soft->Lower, Irp);
}

/* The bytes that a control code needs. */
static ULONG InputOf(ULONG Code)
{
    switch (Code) {
    case IOCTL_SOFT_WHO:
    case IOCTL_SOFT_MANNERS:
    case IOCTL_SOFT_STATE:
    case IOCTL_SOFT_NEXT:
    case IOCTL_SOFT_POWER:
        return sizeof(ULONG);
    case IOCTL_SOFT_RELATE:
        return sizeof(RELATE);
    default:
        return 0;
    }
}

#include "power.h"

#include "relate.h"

#include "special.h"

#endif
