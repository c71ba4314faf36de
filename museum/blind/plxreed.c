/*
 * plxreed: four relays on the user pins of the PLX. Programs switch them and read back which of them are closed. What they were when the
 * board lost its power is put back when it comes again.
 *
 * The bug: what the pins show is saved when the drivers below have done with the request for the lower state. The board has no power by then:
 * what is read is nothing that the relays ever were, and that is put back.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: card-without-power
 * Needs: power, device
 */
#include <ddk/wdm.h>
#include "../include/stall_frame.h"

#define IOCTL_SWITCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CLOSED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D1, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define INTCSR 0x4C
#define CNTRL  0x50
#define PINS   0x00000FFF       /* three bits for each pin: its use, its direction, its level */
#define OUTPUTS 0x00000492      /* all are outputs of the driver's */
#define LEVEL(n) (4u << 3 * (n))

#define RELAYS 4

typedef struct _SWITCH {
	ULONG Which;            /* a bit for each relay */
	ULONG Closed;
} SWITCH;

typedef struct _REED {
	PLUG P;
	PUCHAR Regs;
	ULONG Length;
	/* under the gate */
	BOOLEAN HasSaved;
	ULONG Saved;
} REED, *PREED;

static const GUID Class = { 0x8e0c1d5a, 0x11a1, 0x4f60, { 0x90, 0x11, 0x55, 0x55, 0x01, 0x02, 0x03, 0x08 } };

DRIVER_INITIALIZE DriverEntry;

static ULONG Closed(ULONG Control)
{
	ULONG i, closed = 0;

	for (i = 0; i < RELAYS; i++)
		if (Control & LEVEL(i))
			closed |= 1u << i;
	return closed;
}

static NTSTATUS Switch(PREED X, const SWITCH *Want, PULONG Now)
{
	ULONG control, i;
	KIRQL irql;

	if (Want->Which >> RELAYS || Want->Closed >> RELAYS)
		return STATUS_INVALID_PARAMETER;
	if (!PlugGrip(&X->P, &irql))
		return STATUS_DEVICE_NOT_READY;
	control = RegRead(X->Regs, CNTRL);
	for (i = 0; i < RELAYS; i++) {
		if (!(Want->Which >> i & 1))
			continue;
		if (Want->Closed >> i & 1)
			control |= LEVEL(i);
		else
			control &= ~LEVEL(i);
	}
	RegWrite(X->Regs, CNTRL, control);
	*Now = Closed(control);
	PlugLoose(&X->P, irql);
	return STATUS_SUCCESS;
}

static NTSTATUS Answer(PPLUG P, PIRP Irp, PIO_STACK_LOCATION Sp, PULONG_PTR Bytes)
{
	PREED x = (PREED)P;
	PULONG buffer = Irp->AssociatedIrp.SystemBuffer;
	NTSTATUS status;
	SWITCH want;
	ULONG now;

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
	case IOCTL_SWITCH:
		if (Sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(SWITCH))
			return STATUS_BUFFER_TOO_SMALL;
		want = *(SWITCH *)Irp->AssociatedIrp.SystemBuffer;
		break;
	case IOCTL_CLOSED:
		want.Which = want.Closed = 0;
		break;
	default:
		return STATUS_INVALID_DEVICE_REQUEST;
	}
	if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
		return STATUS_BUFFER_TOO_SMALL;
	status = Switch(x, &want, &now);
	if (!NT_SUCCESS(status))
		return status;
	*buffer = now;
	*Bytes = sizeof(ULONG);
	return STATUS_SUCCESS;
}

/* ---- hooks ---- */

static NTSTATUS Begin(PPLUG P, PCM_PARTIAL_RESOURCE_LIST List)
{
	PREED x = (PREED)P;

	return PlugMap(List, 0, 0x54, &x->Regs, &x->Length);
}

static VOID End(PPLUG P)
{
	PREED x = (PREED)P;

	PlugUnmap(&x->Regs, x->Length);
}

static VOID Awake(PPLUG P)
{
	PREED x = (PREED)P;
	ULONG control;

	RegWrite(x->Regs, INTCSR, 0);
	control = RegRead(x->Regs, CNTRL) & ~PINS;
	RegWrite(x->Regs, CNTRL, control | OUTPUTS | (x->HasSaved ? x->Saved & PINS : 0));
	(void)RegRead(x->Regs, CNTRL);
}

static VOID Save(PREED X)
{
	X->Saved = RegRead(X->Regs, CNTRL);
	X->HasSaved = TRUE;
}

#ifndef FIXED
static VOID Sunk(PPLUG P)
{
	PREED x = (PREED)P;

	if (x->Regs != NULL)
		Save(x);
}
#else
static VOID Doze(PPLUG P)
{
	Save((PREED)P);
}
#endif

static const PLUG_HOOKS Hooks = {
	.Size = sizeof(REED), .DeviceFlags = DO_BUFFERED_IO, .Class = &Class,
	.Begin = Begin, .Awake = Awake, .End = End, .Answer = Answer,
#ifndef FIXED
	.Sunk = Sunk,
#else
	.Doze = Doze,
#endif
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
