/* edu.h: registers of QEMU's educational card. */
#ifndef EDU_H
#define EDU_H
#define EDU_ID 0x00
#define EDU_LIVE 0x04
#define EDU_FACT 0x08
#define EDU_STATUS 0x20
#define EDU_STATUS_BUSY 0x01
#define EDU_STATUS_IRQ 0x80
#define EDU_IRQ 0x24
#define EDU_RAISE 0x60
#define EDU_ACK 0x64
#define EDU_DMA_FROM 0x80
#define EDU_DMA_TO 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_CMD 0x98
#define EDU_DMA_RUN 0x01
#define EDU_DMA_TO_RAM 0x02
#define EDU_DMA_IRQ 0x04
#define EDU_BUFFER 0x40000
#define EDU_BUFFER_SIZE 4096
#define EDU_LEAST 0x100                     /* of BAR0, for the registers */

/* The card has 28 address lines. */
typedef struct _EDU_DESCRIPTION {
    DEVICE_DESCRIPTION First;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} EDU_DESCRIPTION;

LOCAL PDMA_ADAPTER EduAdapter(RIG *rig, ULONG most)
{
    EDU_DESCRIPTION description;
    PDMA_ADAPTER adapter;
    ULONG registers = 0;

    RtlZeroMemory(&description, sizeof(description));
    description.First.Version = 3;
    description.First.Master = TRUE;
    description.First.Dma32BitAddresses = TRUE;
    description.First.InterfaceType = PCIBus;
    description.First.MaximumLength = most;
    description.DmaAddressWidth = 28;
    adapter = IoGetDmaAdapter(rig->Pdo, &description.First, &registers);
    if (adapter == NULL) {
        /* Before Windows 8 there is no version 3, and who calls looks what addresses there are. */
        description.First.Version = DEVICE_DESCRIPTION_VERSION;
        adapter = IoGetDmaAdapter(rig->Pdo, &description.First, &registers);
    }
    return adapter;
}

/* Both at device level: what a driver with EDU_STATUS_IRQ needs. */
LOCAL BOOLEAN EduIsr(const PANE *pane)
{
    ULONG cause = PaneRead(pane, EDU_IRQ);

    if (cause == 0 || cause == 0xFFFFFFFF)
        return FALSE;
    PaneWrite(pane, EDU_ACK, cause);
    (void)PaneRead(pane, EDU_IRQ);
    return TRUE;
}

LOCAL VOID EduMask(const PANE *pane, BOOLEAN on)
{
    PaneWrite(pane, EDU_STATUS, on ? EDU_STATUS_IRQ : 0);
    if (!on) {
        PaneWrite(pane, EDU_ACK, 0xFFFFFFFF);
        (void)PaneRead(pane, EDU_IRQ);
    }
}

#endif
