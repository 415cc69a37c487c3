/* Reading a UDP socket until it is empty: what Python would do with one call a datagram, at the price of the call.
 *
 * Datagrams that follow one another and are alike (source, local address, congestion mark, and the first eight bytes
 * where these are a WireGuard data message's, in a relay's channel or not) are one *run*. What is nobody's data stands
 * alone. See `ice/reading.py` and `ice/udp.py`.
 * Comes after `_kernel.h`.
 */

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    DATA_HEAD_BYTES = 8, /* type and receiver index; or channel, length and type */
    ECN_MASK = 3,
    ADDRESS_BYTES = 16,
    NAME_BYTES = 2 + 4 + ADDRESS_BYTES, /* port, scope, address */
    PLACE_BYTES = 1 + ADDRESS_BYTES,    /* mark, local address */
    MAX_DATAGRAM_BYTES = 65535,
};

struct run {
    uint8_t head[DATA_HEAD_BYTES], name[NAME_BYTES], place[PLACE_BYTES];
    uint8_t head_bytes, name_bytes, place_bytes;
    size_t first, datagrams; /* of `spans` */
};

struct reading {
    uint8_t *bytes;
    size_t end, room; /* in use, and in all */
    size_t reads;
    int error; /* of the last call: EAGAIN when the socket was empty */
    struct run *run;
    size_t runs, run_room;
    uint32_t (*spans)[2];
    size_t datagrams, span_room;
};

/* Make room for one more; false: there is no memory. */
static bool grow(void **items, size_t *room, size_t used, size_t bytes)
{
    if (used < *room)
        return true;
    size_t wanted = *room ? 2 * *room : 64;
    void *more = realloc(*items, wanted * bytes);
    if (more == NULL)
        return false;
    *items = more;
    *room = wanted;
    return true;
}

static void name_source(struct run *run, const struct sockaddr_storage *source)
{
    uint32_t scope = 0;
    if (source->ss_family == AF_INET) {
        const struct sockaddr_in *from = (const struct sockaddr_in *)source;
        memcpy(run->name, &from->sin_port, 2);
        memcpy(run->name + 6, &from->sin_addr, 4);
        run->name_bytes = 6 + 4;
    } else if (source->ss_family == AF_INET6) {
        const struct sockaddr_in6 *from = (const struct sockaddr_in6 *)source;
        scope = from->sin6_scope_id;
        memcpy(run->name, &from->sin6_port, 2);
        memcpy(run->name + 6, &from->sin6_addr, 16);
        run->name_bytes = 6 + 16;
    }
    memcpy(run->name + 2, &scope, 4);
}

static void read_ancillary(struct run *run, struct msghdr *message, size_t *segment)
{
    run->place_bytes = 1;
    for (struct cmsghdr *one = CMSG_FIRSTHDR(message); one != NULL; one = CMSG_NXTHDR(message, one)) {
        const uint8_t *data = CMSG_DATA(one);
        size_t bytes = one->cmsg_len - CMSG_LEN(0);
        int number = 0;
        memcpy(&number, data, bytes < sizeof number ? bytes : sizeof number);
        if (one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_PKTINFO && bytes >= sizeof(struct in_pktinfo)) {
            memcpy(run->place + 1, data + 4, 4); /* ipi_spec_dst: ours, also of what was sent to a group */
            run->place_bytes = 1 + 4;
        } else if (one->cmsg_level == IPPROTO_IPV6 && one->cmsg_type == IPV6_PKTINFO && bytes >= 16) {
            memcpy(run->place + 1, data, 16);
            run->place_bytes = 1 + 16;
        } else if (
            (one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_TOS) ||
            (one->cmsg_level == IPPROTO_IPV6 && one->cmsg_type == IPV6_TCLASS)) {
            run->place[0] = (bytes >= sizeof number ? number : data[0]) & ECN_MASK; /* an int, or one byte */
        } else if (one->cmsg_level == SOL_UDP && one->cmsg_type == UDP_GRO && number > 0) {
            *segment = (size_t)number;
        }
    }
}

static bool is_same_run(const struct run *one, const struct run *other)
{
    return one->head_bytes && one->head_bytes == other->head_bytes && !memcmp(one->head, other->head, DATA_HEAD_BYTES) &&
           one->name_bytes == other->name_bytes && !memcmp(one->name, other->name, one->name_bytes) &&
           one->place_bytes == other->place_bytes && !memcmp(one->place, other->place, one->place_bytes);
}

/* Whether it may be a data message, type 4 and three zeros, and as long as one at least; or one in a channel of a relay
 * (RFC 8656 section 12.4), where its head is channel, length and type. */
static bool is_data(const uint8_t *datagram, size_t bytes)
{
    static const uint8_t type[4] = {4, 0, 0, 0};
    if (bytes > CHANNEL_BYTES && (datagram[0] & 0xc0) == 0x40) {
        datagram += CHANNEL_BYTES;
        bytes -= CHANNEL_BYTES;
    }
    return bytes >= HEADER_BYTES + TAG_BYTES && !memcmp(datagram, type, sizeof type);
}

static bool add_datagram(struct reading *reading, struct run *like, size_t at, size_t bytes)
{
    like->head_bytes = 0;
    if (is_data(reading->bytes + at, bytes)) {
        memcpy(like->head, reading->bytes + at, DATA_HEAD_BYTES);
        like->head_bytes = DATA_HEAD_BYTES;
    }
    if (!grow((void **)&reading->spans, &reading->span_room, reading->datagrams, sizeof *reading->spans))
        return false;
    if (reading->runs == 0 || !is_same_run(&reading->run[reading->runs - 1], like)) {
        if (!grow((void **)&reading->run, &reading->run_room, reading->runs, sizeof *reading->run))
            return false;
        like->first = reading->datagrams;
        like->datagrams = 0;
        reading->run[reading->runs++] = *like;
    }
    reading->run[reading->runs - 1].datagrams++;
    reading->spans[reading->datagrams][0] = (uint32_t)at;
    reading->spans[reading->datagrams++][1] = (uint32_t)bytes;
    return true;
}

/* Read one message, a datagram or a train of them. False: that was the last for now, and `error` says why. */
static bool read_message(struct reading *reading, int descriptor)
{
    struct sockaddr_storage source = {0};
    union {
        struct cmsghdr aligned;
        uint8_t bytes[256];
    } ancillary;
    struct iovec place = {reading->bytes + reading->end, reading->room - reading->end};
    struct msghdr message = {
        .msg_name = &source, .msg_namelen = sizeof source, .msg_iov = &place, .msg_iovlen = 1,
        .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
    ssize_t size = recvmsg(descriptor, &message, MSG_DONTWAIT);
    reading->error = size < 0 ? errno : 0;
    if (size < 0)
        return false;
    struct run like = {0};
    size_t segment = 0, bytes = (size_t)size, at = reading->end;
    name_source(&like, &source);
    read_ancillary(&like, &message, &segment);
    if (segment == 0 || segment > bytes)
        segment = bytes;
    reading->end += bytes;
    reading->reads++;
    do {
        size_t here = at + segment < reading->end ? segment : reading->end - at;
        if (!add_datagram(reading, &like, at, here)) {
            reading->error = ENOMEM;
            return false;
        }
        at += here;
    } while (at < reading->end);
    return true;
}
