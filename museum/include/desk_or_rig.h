/* frame.h: row.h (requests that wait), desk.h (FRAME_DESK: a named device), rig.h (FRAME_RIG: PnP) with crew.h, edu.h, plx.h. */
#ifndef FRAME_H
#define FRAME_H
#include "row_of_requests.h"
#ifdef FRAME_DESK
#include "desk_device.h"
#endif
#ifdef FRAME_RIG
#include "rig_of_blocks.h"
#include "rig_crew.h"
#include "rig_edu.h"
#include "rig_plx.h"
#endif
#endif
