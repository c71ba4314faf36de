/*
 * live_card.h - the interrupt of a card, for drivers of live_frame.h whose EXT has an Interrupt.
 */

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context);

SHARED NTSTATUS ConnectInterrupt(EXT *ext, PCM_PARTIAL_RESOURCE_DESCRIPTOR d)
{
	NTSTATUS status = IoConnectInterrupt(&ext->Interrupt, Isr, ext, NULL, d->u.Interrupt.Vector, (KIRQL)d->u.Interrupt.Level,
		(KIRQL)d->u.Interrupt.Level, d->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
		d->ShareDisposition == CmResourceShareShared, d->u.Interrupt.Affinity, FALSE);

	if (!NT_SUCCESS(status))
		ext->Interrupt = NULL;
	return status;
}
