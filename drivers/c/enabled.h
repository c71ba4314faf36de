/*
 * What drivers of the card `bench` share whose card interrupts while they let it: registers, and the routines of function.h that have nothing else
 * to do. The device's extension begins with its FUNCTION.
 */
#ifndef ENABLED_H
#define ENABLED_H

#include "function.h"

#define BENCH_RAISE 0x08
#define BENCH_STATUS 0x0C /* write one to clear */
#define BENCH_ENABLE 0x14

/* Connects, and lets the card interrupt. */
static NTSTATUS ConnectAndEnable(PDEVICE_OBJECT Device)
{
    PFUNCTION Function = Device->DeviceExtension;
    NTSTATUS Status = Connect(Function);

    if (NT_SUCCESS(Status)) {
        Write(Function, BENCH_ENABLE, 1);
    }
    return Status;
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    Write(Device->DeviceExtension, BENCH_ENABLE, On ? 1 : 0);
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    if (Present) {
        Write(Device->DeviceExtension, BENCH_ENABLE, 0);
        Read(Device->DeviceExtension, BENCH_ENABLE);
    }
}

#endif
