/* What the relay reads and writes of a frame. Pure: bytes in, bytes out.
 *
 * A call and a reply begin with a MessagePack array whose second element is the id, written in nine bytes:
 *
 *     byte  0     1    2     3 .. 10
 *           0x9n  tag  0xcf  id, 64 bits: 1 (bit 63), label (bits 62..31), the caller's number (bits 30..0)
 *
 * A client sends label 0; the relay writes the client's number (the 32 bits of the routing id that the ROUTER made up) into it in
 * place, and clears it in the reply. Bit 63 keeps every encoder at nine bytes.
 *
 * A call (wire.Call) is [1, id, service, method, timeout_ms, args, keywords]; fields may follow. Of it the relay reads up to
 * timeout_ms, strictly: other encodings of the same values, which no encoder chooses, are no call. */
#ifndef DATACENTER_CALL_FRAME_H
#define DATACENTER_CALL_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LEAST_FRAME = 11, ID_AT = 3, ROUTING_ID_SIZE = 5, LONGEST_NAME = 128 };
#define ID_BIT (UINT64_C(1) << 63)
#define LABEL_SHIFT 31
#define LABEL_BITS (UINT64_C(0xffffffff) << LABEL_SHIFT)

/* The id of a call or a reply; 0 if the frame is neither. */
uint64_t frame_id(const unsigned char *data, size_t size);
/* The same of a call, with its timeout; 0 also for what is no call, or has a label already. */
uint64_t call_id(const unsigned char *data, size_t size, uint64_t *timeout_ms);
/* Writes an id into a frame that has one. */
void write_id(unsigned char *data, uint64_t id);
/* id with the label that a routing id stands for; 0 for a routing id that no ROUTER makes up. */
uint64_t labelled(uint64_t id, const unsigned char *routing_id, size_t size);
/* The routing id that the label stands for. */
void routing_id_of(uint64_t id, unsigned char routing_id[ROUTING_ID_SIZE]);

#endif
