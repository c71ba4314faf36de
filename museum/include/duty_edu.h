/*
 * edu.h: registers of QEMU's educational card, in BAR0.
 */
#ifndef EDU_REGISTERS_H
#define EDU_REGISTERS_H

#define EDU_IDENT   0x00
#define EDU_LIVE    0x04        /* reads the inverse of what was written */
#define EDU_FACT    0x08        /* a number is written, its factorial read when it is ready */
#define EDU_STATUS  0x20
#define EDU_CAUSE   0x24
#define EDU_RAISE   0x60
#define EDU_ACK     0x64
#define EDU_SOURCE  0x80
#define EDU_TARGET  0x88
#define EDU_COUNT   0x90
#define EDU_COMMAND 0x98

#define EDU_COMPUTING 0x01u     /* of STATUS */
#define EDU_FACTIRQ   0x80u
#define EDU_RUN       0x01u     /* of COMMAND */
#define EDU_TORAM     0x02u
#define EDU_MEMORY    0x40000u  /* where the card's own 4096 bytes are for its DMA */
#define EDU_MEMBYTES  4096u
#define EDU_REACH     (1ull << 28)

#define EDU_BYTES     0x100u    /* of BAR0 that the drivers map */
#define EDU_ABSENT    0xffffffffu

FRAME ULONG edu_get(PUCHAR Regs, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(Regs + Register));
}

FRAME VOID edu_set(PUCHAR Regs, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Regs + Register), Value);
}

FRAME NTSTATUS edu_map(PCM_RESOURCE_LIST List, PUCHAR *Regs)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = station_resource(List, CmResourceTypeMemory, 0);

    if (d == NULL || d->u.Memory.Length < EDU_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    *Regs = MmMapIoSpace(d->u.Memory.Start, EDU_BYTES, MmNonCached);
    return *Regs != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

#endif
