/*
 * plx.h: the PLX PCI 9052 as far as the drivers use it: its configuration registers in BAR0, and the first window of its local bus.
 */
#ifndef PLX_REGISTERS_H
#define PLX_REGISTERS_H

#define PLX_INTCSR 0x4c
#define PLX_CNTRL  0x50
#define PLX_BYTES  0x54

#define PLX_L1_ENABLE 0x0001u   /* of INTCSR: LINTi1 */
#define PLX_L1_HIGH   0x0002u
#define PLX_L1_ACTIVE 0x0004u
#define PLX_PCI_ENABLE 0x0040u
#define PLX_L1_EDGE   0x0100u
#define PLX_L1_CLEAR  0x0400u

#define PLX_PINS      0x0fffu   /* of CNTRL: four user pins of three bits: select, output, level */
#define PLX_EE_CLOCK  0x01000000u
#define PLX_EE_SELECT 0x02000000u
#define PLX_EE_OUT    0x04000000u
#define PLX_EE_IN     0x08000000u

#define PLX_ABSENT    0xffffffffu

FRAME ULONG plx_get(PUCHAR Regs, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(Regs + Register));
}

FRAME VOID plx_set(PUCHAR Regs, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Regs + Register), Value);
}

FRAME NTSTATUS plx_map(PCM_RESOURCE_LIST List, PUCHAR *Regs)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = station_resource(List, CmResourceTypeMemory, 0);

    if (d == NULL || d->u.Memory.Length < PLX_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    *Regs = MmMapIoSpace(d->u.Memory.Start, PLX_BYTES, MmNonCached);
    return *Regs != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

/* The local bus's first window: memory, or ports on boards that are made so. */
typedef struct _PLX_WINDOW {
    PUCHAR Base;
    ULONG Bytes;
    BOOLEAN Port;
} PLX_WINDOW;

FRAME NTSTATUS plx_open(PCM_RESOURCE_LIST List, PLX_WINDOW *Window)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d = station_resource(List, CmResourceTypeMemory, 1);

    if (d != NULL) {
        Window->Port = FALSE;
        Window->Bytes = d->u.Memory.Length;
        Window->Base = MmMapIoSpace(d->u.Memory.Start, Window->Bytes, MmNonCached);
        return Window->Base != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
    }
    d = station_resource(List, CmResourceTypePort, 1);
    if (d == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Window->Port = TRUE;
    Window->Bytes = d->u.Port.Length;
    Window->Base = (PUCHAR)(ULONG_PTR)d->u.Port.Start.QuadPart;
    return STATUS_SUCCESS;
}

FRAME VOID plx_shut(PLX_WINDOW *Window)
{
    if (!Window->Port)
        MmUnmapIoSpace(Window->Base, Window->Bytes);
    Window->Base = NULL;
    Window->Bytes = 0;
}

FRAME ULONG plx_peek(const PLX_WINDOW *Window, ULONG Offset)
{
    if (Window->Port)
        return READ_PORT_ULONG((PULONG)(Window->Base + Offset));
    return READ_REGISTER_ULONG((PULONG)(Window->Base + Offset));
}

FRAME VOID plx_poke(const PLX_WINDOW *Window, ULONG Offset, ULONG Value)
{
    if (Window->Port)
        WRITE_PORT_ULONG((PULONG)(Window->Base + Offset), Value);
    else
        WRITE_REGISTER_ULONG((PULONG)(Window->Base + Offset), Value);
}

/* Service routine of a board whose LINTi1 is an edge: TRUE, and the edge taken, if it was ours. */
FRAME BOOLEAN plx_edge(PUCHAR Regs)
{
    ULONG v = plx_get(Regs, PLX_INTCSR);

    if (v == PLX_ABSENT || (v & PLX_PCI_ENABLE) == 0 || (v & PLX_L1_ENABLE) == 0 || (v & PLX_L1_ACTIVE) == 0)
        return FALSE;
    plx_set(Regs, PLX_INTCSR, v | PLX_L1_CLEAR);
    return TRUE;
}

FRAME VOID plx_edge_on(PUCHAR Regs)
{
    ULONG v = plx_get(Regs, PLX_INTCSR) | PLX_L1_HIGH | PLX_L1_EDGE;

    plx_set(Regs, PLX_INTCSR, v | PLX_L1_CLEAR);
    plx_set(Regs, PLX_INTCSR, v | PLX_L1_ENABLE | PLX_PCI_ENABLE);
}

FRAME VOID plx_edge_off(PUCHAR Regs)
{
    ULONG v = plx_get(Regs, PLX_INTCSR);

    if (v != PLX_ABSENT) {
        plx_set(Regs, PLX_INTCSR, (v & ~(PLX_L1_ENABLE | PLX_PCI_ENABLE)) | PLX_L1_CLEAR);
        plx_get(Regs, PLX_INTCSR);      /* it has arrived */
    }
}

#endif
