/* AEedu.h: the registers of QEMU's edu device, in BAR0. */
#ifndef AEEDU_H
#define AEEDU_H

#define EDU_BAR_LENGTH 0x100000
#define EDU_MAPPED 0x1000
#define EDU_ID 0x00
#define EDU_ID_VALUE 0x010000ED
#define EDU_FACT 0x08
#define EDU_STATUS 0x20
#define EDU_BUSY 0x01
#define EDU_FACT_INT 0x80
#define EDU_INT_STATUS 0x24
#define EDU_INT_ACK 0x64
#define EDU_DMA_SRC 0x80
#define EDU_DMA_DST 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_CMD 0x98
#define EDU_DMA_START 0x01
#define EDU_BUFFER 0x40000
#define EDU_BUFFER_LENGTH 4096
#define EDU_DMA_LIMIT 0x10000000		/* 28 bits */
#define EDU_ABSENT 0xFFFFFFFF

/* maps the registers and looks whether it is the device */
static inline NTSTATUS EduMap(PCM_RESOURCE_LIST trans, PUCHAR *regs)
{
	PCM_PARTIAL_RESOURCE_DESCRIPTOR r = AeFind(trans, CmResourceTypeMemory, 0);

	if (r == NULL || r->u.Memory.Length < EDU_BAR_LENGTH)
		return STATUS_DEVICE_CONFIGURATION_ERROR;
	*regs = MmMapIoSpace(r->u.Memory.Start, EDU_MAPPED, MmNonCached);
	if (*regs == NULL)
		return STATUS_INSUFFICIENT_RESOURCES;
	if (AeR(*regs, EDU_ID) != EDU_ID_VALUE) {
		MmUnmapIoSpace(*regs, EDU_MAPPED);
		*regs = NULL;
		return STATUS_NO_SUCH_DEVICE;
	}
	return STATUS_SUCCESS;
}

#endif
