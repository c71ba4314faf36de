/*
 * frame.h: what the drivers of this folder share.
 *
 *   pen.h    a pen keeps requests that wait; each of them can be cancelled
 *   raft.h   a driver with one control device of its own        (#define FRAME_RAFT before)
 *   hull.h   a driver of a PnP device: start, stop, power, turns (#define FRAME_HULL before)
 *   hatch.h  windows and interrupts of a card                    (with FRAME_HULL)
 */
#ifndef FRAME_H
#define FRAME_H

#define FRAME_TAG 'marF'

#include "pen_of_requests.h"
#ifdef FRAME_RAFT
#include "raft_device.h"
#endif
#ifdef FRAME_HULL
#include "hull_hatch.h"
#include "hull_frame.h"
#endif

#endif
