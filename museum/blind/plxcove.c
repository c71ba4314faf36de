/*
 * plxcove: the log book of a machine. Each edge on the first local interrupt line of the PLX (a part has been made) is an entry, and programs
 * add entries of their own (a shift begins, a tool was changed). The book has sixteen entries; programs fetch them, which makes room.
 *
 * The bug: whether there is room in the book is looked up before the lock is acquired under which the entry is written. Two that see the last
 * place free both write, the second behind the book's end.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: pool-overrun, data-race, wild-write
 * Needs: ioctl, schedule, device
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define TAG UU_TAG('P', 'c', 'v', 'e')

#define IOCTL_NOTE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LOST  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F2, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define INTCSR 0x4C
#define LINE1_ON    0x001
#define LINE1_HIGH  0x002
#define LINE1_IS    0x004
#define PCI_ON      0x040
#define LINE1_EDGE  0x100
#define LINE1_CLEAR 0x400
#define LATCHING (LINE1_HIGH | LINE1_EDGE)
#define ENABLED (LATCHING | LINE1_ON | PCI_ON)

#define ENTRIES 16
#define KIND_PART 0             /* all others are the programs' */

typedef struct _NOTE {
	ULONG Kind;
	ULONG Remark;
} NOTE;

typedef struct _ENTRY {
	ULONG Serial;
	NOTE Note;
} ENTRY, *PENTRY;

typedef struct _COVE {
	PLUG P;
	PUCHAR Regs;
	ULONG Length;
	KDPC Dpc;
	ULONG Edges;            /* under the interrupt's lock */
	volatile LONG Lost;
	KSPIN_LOCK BookLock;
	PENTRY Book;
	ULONG Used;
	ULONG Serial;
} COVE, *PCOVE;

static const GUID Class = { 0x8e0c1d5a, 0x11a1, 0x4f60, { 0x90, 0x11, 0x55, 0x55, 0x01, 0x02, 0x03, 0x0a } };

DRIVER_INITIALIZE DriverEntry;

/* ---- the book ---- */

static BOOLEAN Write(PCOVE X, const NOTE *Note)
{
	BOOLEAN written = TRUE;
	PENTRY entry;
	KIRQL irql;

#ifndef FIXED
	if (X->Used >= ENTRIES) {
		InterlockedIncrement(&X->Lost);
		return FALSE;
	}
	KeAcquireSpinLock(&X->BookLock, &irql);
	entry = &X->Book[X->Used++];
	entry->Serial = X->Serial++;
	entry->Note = *Note;
	KeReleaseSpinLock(&X->BookLock, irql);
#else
	KeAcquireSpinLock(&X->BookLock, &irql);
	if (X->Used >= ENTRIES) {
		InterlockedIncrement(&X->Lost);
		written = FALSE;
	} else {
		entry = &X->Book[X->Used++];
		entry->Serial = X->Serial++;
		entry->Note = *Note;
	}
	KeReleaseSpinLock(&X->BookLock, irql);
#endif
	return written;
}

static ULONG Fetch(PCOVE X, PENTRY To, ULONG Room)
{
	ULONG count;
	KIRQL irql;

	KeAcquireSpinLock(&X->BookLock, &irql);
	count = X->Used < Room ? X->Used : Room;
	RtlCopyMemory(To, X->Book, count * sizeof(ENTRY));
	X->Used -= count;
	RtlMoveMemory(X->Book, X->Book + count, X->Used * sizeof(ENTRY));
	KeReleaseSpinLock(&X->BookLock, irql);
	return count;
}

/* ---- the interrupt ---- */

static BOOLEAN NTAPI Service(PKINTERRUPT Interrupt, PVOID Context)
{
	PCOVE x = Context;
	ULONG csr;

	(void)Interrupt;
	if (!x->P.Armed)
		return FALSE;
	csr = RegRead(x->Regs, INTCSR);
	if (csr == 0xFFFFFFFF || !(csr & LINE1_IS))
		return FALSE;
	RegWrite(x->Regs, INTCSR, ENABLED | LINE1_CLEAR);
	(void)RegRead(x->Regs, INTCSR);
	x->Edges++;
	KeInsertQueueDpc(&x->Dpc, NULL, NULL);
	return TRUE;
}

static BOOLEAN NTAPI Arm(PVOID Context)
{
	PCOVE x = Context;

	RegWrite(x->Regs, INTCSR, LATCHING);
	RegWrite(x->Regs, INTCSR, LATCHING | LINE1_CLEAR);
	RegWrite(x->Regs, INTCSR, ENABLED);
	(void)RegRead(x->Regs, INTCSR);
	x->P.Armed = TRUE;
	return TRUE;
}

static BOOLEAN NTAPI Disarm(PVOID Context)
{
	PCOVE x = Context;

	RegWrite(x->Regs, INTCSR, 0);
	(void)RegRead(x->Regs, INTCSR);
	x->P.Armed = FALSE;
	return TRUE;
}

static BOOLEAN NTAPI TakeEdges(PVOID Context)
{
	PULONG *both = Context;

	*both[0] = *both[1];
	*both[1] = 0;
	return TRUE;
}

static VOID NTAPI Deferred(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
	static const NOTE part = { KIND_PART, 0 };
	PCOVE x = Context;
	ULONG edges;
	PULONG both[2] = { &edges, &x->Edges };

	(void)Dpc; (void)A1; (void)A2;
	KeSynchronizeExecution(x->P.Int, TakeEdges, both);
	for (; edges != 0; edges--)
		Write(x, &part);
}

static NTSTATUS Answer(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PCOVE x = (PCOVE)P;
	PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
	ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
	ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
	NOTE note;

	switch (Sp->MajorFunction) {
	case IRP_MJ_CREATE:
	case IRP_MJ_CLOSE:
	case IRP_MJ_CLEANUP:
		return STATUS_SUCCESS;
	case IRP_MJ_DEVICE_CONTROL:
		break;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
	switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
	case IOCTL_NOTE:
		if (in < sizeof(NOTE))
			return STATUS_BUFFER_TOO_SMALL;
		note = *(NOTE *)buffer;
		if (note.Kind == KIND_PART)
			return STATUS_INVALID_PARAMETER;
		return Write(x, &note) ? STATUS_SUCCESS : STATUS_DISK_FULL;
	case IOCTL_FETCH:
		if (out < sizeof(ENTRY))
			return STATUS_BUFFER_TOO_SMALL;
		*Bytes = Fetch(x, buffer, out / sizeof(ENTRY)) * sizeof(ENTRY);
		return STATUS_SUCCESS;
	case IOCTL_LOST:
		if (out < sizeof(LONG))
			return STATUS_BUFFER_TOO_SMALL;
		*(PLONG)buffer = InterlockedExchange(&x->Lost, 0);
		*Bytes = sizeof(LONG);
		return STATUS_SUCCESS;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

/* ---- hooks ---- */

static NTSTATUS Prepare(PPLUG P)
{
	PCOVE x = (PCOVE)P;

	KeInitializeSpinLock(&x->BookLock);
	KeInitializeDpc(&x->Dpc, Deferred, x);
	x->Book = ExAllocatePoolWithTag(NonPagedPool, ENTRIES * sizeof(ENTRY), TAG);
	return x->Book != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID Bury(PPLUG P)
{
	ExFreePoolWithTag(((PCOVE)P)->Book, TAG);
}

static VOID End(PPLUG P)
{
	PCOVE x = (PCOVE)P;

	PlugDisconnect(P);
	PlugUnmap(&x->Regs, x->Length);
}

static NTSTATUS Begin(PPLUG P, PCM_PARTIAL_RESOURCE_LIST List)
{
	PCOVE x = (PCOVE)P;
	NTSTATUS status;

	status = PlugMap(List, 0, 0x54, &x->Regs, &x->Length);
	if (NT_SUCCESS(status))
		status = PlugConnect(P, List, Service);
	if (!NT_SUCCESS(status))
		End(P);
	return status;
}

static VOID Awake(PPLUG P)
{
	KeSynchronizeExecution(P->Int, Arm, P);
}

static VOID Doze(PPLUG P)
{
	KeSynchronizeExecution(P->Int, Disarm, P);
}

static VOID Settle(PPLUG P)
{
	(void)P;
	KeFlushQueuedDpcs();
}

static const PLUG_HOOKS Hooks = {
	.Size = sizeof(COVE), .DeviceFlags = DO_BUFFERED_IO, .Class = &Class,
	.Prepare = Prepare, .Begin = Begin, .Awake = Awake, .Doze = Doze, .Settle = Settle, .End = End, .Bury = Bury, .Answer = Answer,
};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
	return PlugAdd(Driver, Pdo, &Hooks);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
	(void)Driver;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
	(void)Path;
	PlugEntries(Driver, AddDevice, Unload);
	return STATUS_SUCCESS;
}
