/*
 * frame.h: what the QQ drivers share. Three layers, each usable without the next:
 *
 *   rack.h   a rack of waiting requests, each of which may be cancelled at any time
 *   solo.h   a driver that makes one control device itself
 *   plug.h   a driver of a PnP device: start, stop, removal, power, and a gate that requests pass while the device works
 *   card.h   what a PCI card adds: its first memory window and its interrupt
 */
#ifndef QQ_FRAME_H
#define QQ_FRAME_H

#define QQ_TAG 'qqMF'

static inline VOID Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
}

#include "rack_of_requests.h"
#include "solo_device.h"
#include "plug_frame.h"
#include "plug_card.h"

#endif
