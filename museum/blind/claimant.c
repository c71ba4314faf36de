/*
 * claimant: boards of 64 bytes under a number, shared by the handles that claim the number; a board lives while
 * a program claims it.
 *
 * The bug: the last release counts the claims down before it takes the lock, so that another handle may find the
 * board in the list in between, claim it, and keep a board that is then freed.
 *
 * Device: none
 * Rule: use-after-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>

#define AE_NAME L"AeClaimant"
#define MAX_CLAIMS 8
#define BOARD_SIZE 64

#define IOCTL_CLAIM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RELEASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_STORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct BOARD {
	LIST_ENTRY link;
	LONG refs;
	ULONG number;
	UCHAR data[BOARD_SIZE];
} BOARD;

typedef struct CLAIMS {
	BOARD *board[MAX_CLAIMS];	/* under the lock of the extension */
} CLAIMS;

typedef struct STORE {
	ULONG number;
	UCHAR data[BOARD_SIZE];
} STORE;

typedef struct AE_EXT {
	KSPIN_LOCK lock;
	LIST_ENTRY boards;
} AE_EXT;

#include "../include/loft_control.h"

static NTSTATUS LegInit(PDRIVER_OBJECT driver, PDEVICE_OBJECT dev, PUNICODE_STRING path)
{
	AE_EXT *x = dev->DeviceExtension;

	UNREFERENCED_PARAMETER(driver);
	UNREFERENCED_PARAMETER(path);
	KeInitializeSpinLock(&x->lock);
	InitializeListHead(&x->boards);
	return STATUS_SUCCESS;
}

static void LegExit(PDEVICE_OBJECT dev)
{
	UNREFERENCED_PARAMETER(dev);
}

static void PutBoard(AE_EXT *x, BOARD *b)
{
	KIRQL irql;

#ifndef FIXED
	if (InterlockedDecrement(&b->refs) != 0)
		return;
	KeAcquireSpinLock(&x->lock, &irql);
#else
	KeAcquireSpinLock(&x->lock, &irql);
	if (InterlockedDecrement(&b->refs) != 0) {
		KeReleaseSpinLock(&x->lock, irql);
		return;
	}
#endif
	RemoveEntryList(&b->link);
	KeReleaseSpinLock(&x->lock, irql);
	ExFreePoolWithTag(b, AE_TAG);
}

/* the slot of a handle that claims a number; under the lock */
static BOARD **Claimed(CLAIMS *c, ULONG number)
{
	ULONG i;

	for (i = 0; i < MAX_CLAIMS; i++)
		if (c->board[i] != NULL && c->board[i]->number == number)
			return &c->board[i];
	return NULL;
}

static NTSTATUS Claim(AE_EXT *x, CLAIMS *c, ULONG number)
{
	NTSTATUS s = STATUS_SUCCESS;
	BOARD *fresh, *b = NULL;
	PLIST_ENTRY e;
	KIRQL irql;
	ULONG i;

	fresh = ExAllocatePoolWithTag(NonPagedPool, sizeof *fresh, AE_TAG);
	if (fresh == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	RtlZeroMemory(fresh, sizeof *fresh);
	fresh->number = number;
	fresh->refs = 1;
	KeAcquireSpinLock(&x->lock, &irql);
	for (i = 0; i < MAX_CLAIMS && c->board[i] != NULL; i++)
		;
	if (Claimed(c, number) != NULL)
		s = STATUS_OBJECT_NAME_COLLISION;
	else if (i == MAX_CLAIMS)
		s = STATUS_QUOTA_EXCEEDED;
	else {
		for (e = x->boards.Flink; e != &x->boards; e = e->Flink)
			if (CONTAINING_RECORD(e, BOARD, link)->number == number) {
				b = CONTAINING_RECORD(e, BOARD, link);
				InterlockedIncrement(&b->refs);
				break;
			}
		if (b == NULL) {
			b = fresh;
			InsertTailList(&x->boards, &b->link);
			fresh = NULL;
		}
		c->board[i] = b;
	}
	KeReleaseSpinLock(&x->lock, irql);
	if (fresh != NULL)
		ExFreePoolWithTag(fresh, AE_TAG);
	return s;
}

static NTSTATUS Release(AE_EXT *x, CLAIMS *c, ULONG number)
{
	BOARD **slot, *b = NULL;
	KIRQL irql;

	KeAcquireSpinLock(&x->lock, &irql);
	slot = Claimed(c, number);
	if (slot != NULL) {
		b = *slot;
		*slot = NULL;
	}
	KeReleaseSpinLock(&x->lock, irql);
	if (b == NULL)
		return STATUS_NOT_FOUND;
	PutBoard(x, b);
	return STATUS_SUCCESS;
}

static NTSTATUS LegCreate(PDEVICE_OBJECT dev, PIO_STACK_LOCATION sp)
{
	CLAIMS *c = ExAllocatePoolWithTag(NonPagedPool, sizeof *c, AE_TAG);

	UNREFERENCED_PARAMETER(dev);
	if (c == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	RtlZeroMemory(c, sizeof *c);
	sp->FileObject->FsContext = c;
	return STATUS_SUCCESS;
}

static void LegCleanup(PDEVICE_OBJECT dev, PFILE_OBJECT file)
{
	UNREFERENCED_PARAMETER(dev);
	UNREFERENCED_PARAMETER(file);
}

/* no request of the handle is under way any more */
static void LegClose(PDEVICE_OBJECT dev, PFILE_OBJECT file)
{
	AE_EXT *x = dev->DeviceExtension;
	CLAIMS *c = file->FsContext;
	ULONG i;

	for (i = 0; i < MAX_CLAIMS; i++)
		if (c->board[i] != NULL)
			PutBoard(x, c->board[i]);
	ExFreePoolWithTag(c, AE_TAG);
}

static NTSTATUS LegControl(PDEVICE_OBJECT dev, PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
	AE_EXT *x = dev->DeviceExtension;
	CLAIMS *c = sp->FileObject->FsContext;
	STORE *in = irp->AssociatedIrp.SystemBuffer;
	UCHAR data[BOARD_SIZE];
	BOARD **slot;
	KIRQL irql;
	ULONG code = sp->Parameters.DeviceIoControl.IoControlCode;

	if (code != IOCTL_CLAIM && code != IOCTL_RELEASE && code != IOCTL_STORE && code != IOCTL_FETCH)
		return STATUS_INVALID_DEVICE_REQUEST;
	if (sp->Parameters.DeviceIoControl.InputBufferLength < (code == IOCTL_STORE ? sizeof(STORE) : sizeof(ULONG)))
		return STATUS_BUFFER_TOO_SMALL;
	if (code == IOCTL_FETCH && sp->Parameters.DeviceIoControl.OutputBufferLength < BOARD_SIZE)
		return STATUS_BUFFER_TOO_SMALL;
	if (code == IOCTL_CLAIM)
		return Claim(x, c, in->number);
	if (code == IOCTL_RELEASE)
		return Release(x, c, in->number);
	KeAcquireSpinLock(&x->lock, &irql);
	slot = Claimed(c, in->number);
	if (slot != NULL) {
		if (code == IOCTL_STORE)
			RtlCopyMemory((*slot)->data, in->data, BOARD_SIZE);
		else
			RtlCopyMemory(data, (*slot)->data, BOARD_SIZE);
	}
	KeReleaseSpinLock(&x->lock, irql);
	if (slot == NULL)
		return STATUS_NOT_FOUND;
	if (code == IOCTL_FETCH) {
		RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, data, BOARD_SIZE);
		*info = BOARD_SIZE;
	}
	return STATUS_SUCCESS;
}
