/* plx.h: the PLX PCI 9052. BAR0 has its registers in memory, BAR1 the same in ports; local space 0 comes next. */
#ifndef AB_PLX_H
#define AB_PLX_H

#define PLX_INTCSR        0x4C
#define PLX_INT1_ENABLE   0x01
#define PLX_INT1_HIGH     0x02
#define PLX_INT1_STATUS   0x04
#define PLX_INT_PCI       0x40

static inline const RES *PlxConfig(PCM_RESOURCE_LIST list)
{
    const RES *r;
    ULONG n;

    for (n = 0; (r = ChartNth(list, TRUE, n)) != NULL; n++) {
        if (r->Type == CmResourceTypeMemory)
            return r;
    }
    return NULL;
}

static inline const RES *PlxLocal(PCM_RESOURCE_LIST list)
{
    const RES *r, *config = PlxConfig(list);
    BOOLEAN ports = FALSE;
    ULONG n;

    for (n = 0; (r = ChartNth(list, TRUE, n)) != NULL; n++) {
        if (r == config)
            continue;
        if (!ports && r->Type == CmResourceTypePort && r->u.Port.Length == 128) {
            ports = TRUE;
            continue;
        }
        return r;
    }
    return NULL;
}

#endif
