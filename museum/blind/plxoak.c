/*
 * plxoak: a board with battery-backed memory in the PLX's first local space. Programs read and write it like a file, and ask how large it
 * is and how often it has been written since the start.
 *
 * The bug: a request is checked by the low half of its offset, and served by the whole of it. An offset of 4 GB and more passes if its low
 * half does, and the copy goes far behind the board's memory.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: wild-read, wild-write, bad-pointer, device-memory-not-mapped, device-access-past-mapping
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define IOCTL_GEOMETRY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define INTCSR 0x4C

#define LONGEST 256             /* at once: the gate is held meanwhile */

typedef struct _GEOMETRY {
	ULONG Size;
	ULONG Writes;
} GEOMETRY;

typedef struct _OAK {
	PLUG P;
	PUCHAR Regs;
	ULONG RegsLength;
	PUCHAR Memory;
	ULONG Size;
	ULONG Writes;           /* under the gate */
} OAK, *POAK;

static const GUID Class = { 0x8e0c1d5a, 0x11a1, 0x4f60, { 0x90, 0x11, 0x55, 0x55, 0x01, 0x02, 0x03, 0x07 } };

DRIVER_INITIALIZE DriverEntry;

/* The board has an eight-bit bus: byte by byte. */
static VOID FromBoard(PUCHAR To, const UCHAR *From, ULONG Length)
{
	const volatile UCHAR *board = From;
	ULONG i;

	for (i = 0; i < Length; i++)
		To[i] = board[i];
}

static VOID ToBoard(PUCHAR To, const UCHAR *From, ULONG Length)
{
	volatile UCHAR *board = To;
	ULONG i;

	for (i = 0; i < Length; i++)
		board[i] = From[i];
}

static NTSTATUS Move(POAK X, PUCHAR Buffer, LARGE_INTEGER Offset, ULONG Length, BOOLEAN Write, PULONG_PTR Bytes)
{
	NTSTATUS status = STATUS_SUCCESS;
	KIRQL irql;

	if (Length == 0)
		return STATUS_SUCCESS;
	if (Length > LONGEST)
		return STATUS_INVALID_PARAMETER;
	if (!PlugGrip(&X->P, &irql))
		return STATUS_DEVICE_NOT_READY;
#ifndef FIXED
	if (Offset.LowPart >= X->Size || Length > X->Size - Offset.LowPart) {
#else
	if (Offset.QuadPart < 0 || Offset.QuadPart >= X->Size || Length > X->Size - Offset.LowPart) {
#endif
		status = STATUS_INVALID_PARAMETER;
	} else if (Write) {
		ToBoard(X->Memory + Offset.QuadPart, Buffer, Length);
		X->Writes++;
		*Bytes = Length;
	} else {
		FromBoard(Buffer, X->Memory + Offset.QuadPart, Length);
		*Bytes = Length;
	}
	PlugLoose(&X->P, irql);
	return status;
}

static NTSTATUS Answer(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	POAK x = (POAK)P;
	GEOMETRY geometry;
	KIRQL irql;

	switch (Sp->MajorFunction) {
	case IRP_MJ_CREATE:
	case IRP_MJ_CLOSE:
	case IRP_MJ_CLEANUP:
		return STATUS_SUCCESS;
	case IRP_MJ_READ:
		return Move(x, Irp->AssociatedIrp.SystemBuffer, Sp->Parameters.Read.ByteOffset, Sp->Parameters.Read.Length, FALSE, Bytes);
	case IRP_MJ_WRITE:
		return Move(x, Irp->AssociatedIrp.SystemBuffer, Sp->Parameters.Write.ByteOffset, Sp->Parameters.Write.Length, TRUE, Bytes);
	case IRP_MJ_DEVICE_CONTROL:
		if (Sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_GEOMETRY)
			return STATUS_INVALID_DEVICE_REQUEST;
		if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(GEOMETRY))
			return STATUS_BUFFER_TOO_SMALL;
		if (!PlugGrip(P, &irql))
			return STATUS_DEVICE_NOT_READY;
		geometry.Size = x->Size;
		geometry.Writes = x->Writes;
		PlugLoose(P, irql);
		*(GEOMETRY *)Irp->AssociatedIrp.SystemBuffer = geometry;
		*Bytes = sizeof(GEOMETRY);
		return STATUS_SUCCESS;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
}

/* ---- hooks ---- */

static VOID End(PPLUG P)
{
	POAK x = (POAK)P;

	PlugUnmap(&x->Memory, x->Size);
	PlugUnmap(&x->Regs, x->RegsLength);
}

static NTSTATUS Begin(PPLUG P, PCM_PARTIAL_RESOURCE_LIST List)
{
	POAK x = (POAK)P;
	NTSTATUS status;

	status = PlugMap(List, 0, 0x54, &x->Regs, &x->RegsLength);
	if (NT_SUCCESS(status))
		status = PlugMap(List, 1, 1, &x->Memory, &x->Size);
	if (!NT_SUCCESS(status))
		End(P);
	return status;
}

static VOID Awake(PPLUG P)
{
	POAK x = (POAK)P;

	RegWrite(x->Regs, INTCSR, 0);           /* no interrupts: no one would serve them */
	(void)RegRead(x->Regs, INTCSR);
	x->Writes = 0;
}

static const PLUG_HOOKS Hooks = {
	.Size = sizeof(OAK), .DeviceFlags = DO_BUFFERED_IO, .Class = &Class,
	.Begin = Begin, .Awake = Awake, .End = End, .Answer = Answer,
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
