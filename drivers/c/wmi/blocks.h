/*
 * The blocks of the WMI drivers: their GUIDs. {D1B0C0DE-0000-4000-8000-0000000000NN}.
 */
#ifndef WMI_BLOCKS_H
#define WMI_BLOCKS_H

#define WMI_BLOCK(Number) {0xD1B0C0DE, 0x0000, 0x4000, {0x80, 0, 0, 0, 0, 0, 0, Number}}

#define TAG 0x20696D57u /* "Wmi " in pool listings */

#endif
