/* frame.h: what the drivers of set YY share. #define FRAME_STATION for a PnP device, FRAME_CARD for windows and a line, FRAME_DESK for a control device. */
#ifndef YY_FRAME_H
#define YY_FRAME_H
#ifdef __clang__
/* mingw's headers take clang for cl otherwise, and its own headers can not do with what they define then */
#undef _MSC_VER
#define __GNUC__ 12
#define __GNUC_MINOR__ 1
#define _CLANG_DISABLE_CRT_DEPRECATION_WARNINGS
#endif
#include <ddk/wdm.h>

#ifdef __clang__
#define YYFN static __inline
#else
#define YYFN static __attribute__((unused))
#endif
#define YY_TAG 'mrFY'

/* Ends a request that holds nothing. */
YYFN NTSTATUS YyEnd(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

YYFN PVOID YyGet(SIZE_T Bytes)
{
    PVOID p = ExAllocatePoolWithTag(NonPagedPoolNx, Bytes, YY_TAG);
    if (p)
        RtlZeroMemory(p, Bytes);
    return p;
}

YYFN VOID YyPut(PVOID Block)
{
    ExFreePoolWithTag(Block, YY_TAG);
}

#include "park_queue.h"
#ifdef FRAME_DESK
#include "park_desk.h"
#endif
#ifdef FRAME_STATION
#include "park_station.h"
#endif
#ifdef FRAME_CARD
#include "park_card.h"
#include "park_bell.h"
#include "park_lane.h"
#endif
#endif
