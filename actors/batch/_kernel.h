/* The batch kernel in C, without Python; `_native.c` has that side. `contract` says what it does, `pure` does the same
 * to the byte, and tests hold the one against the other.
 *
 * Nothing in here is trusted but the arguments' types: frames come from programs of this host, datagrams from anybody,
 * and what is in them, once they are authentic, from the peer. So each length is checked before it is used, and what is
 * wrong with a packet is counted.
 *
 * The cipher is the system's libcrypto, found when the module is loaded: it is the fastest there is, and this way
 * neither its headers nor its presence are needed to build. A context keeps the expanded key; per packet only the nonce
 * is set, and nothing is allocated.
 */

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    MAX_DATAGRAMS = 1024,
    MAX_PACKET_BYTES = 65535,
    MAX_UDP_PACKETS = 64, /* in a frame; Linux refused more for long (UDP_MAX_SEGMENTS) */
    MAX_STRIDE = 65535,
    TRAIN_BYTES = MAX_PACKET_BYTES + MAX_DATAGRAMS * (60 + 60 + 15 + 36), /* room for the train of any frame */
    KEY_BYTES = 32,
    HEADER_BYTES = 16, /* of a transport message: type, receiver index, counter (WireGuard paper 5.4.6) */
    TAG_BYTES = 16,
    CHANNEL_BYTES = 4, /* RFC 8656 section 12.4 */
    PADDING_BYTES = 16,
    WINDOW_PACKETS = 8192, /* see wireguard/replay.py */
    WINDOW_WORDS = WINDOW_PACKETS / 64 + 1,
};

/* struct virtio_net_hdr, in the host's byte order (virtio 1.2 section 5.1.6). */
struct vnet {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset;
};
enum { NEEDS_CSUM = 1, GSO_NONE = 0, GSO_TCPV4 = 1, GSO_TCPV6 = 4, GSO_UDP_L4 = 5, GSO_ECN = 0x80 };
enum { VNET_BYTES = 10 };
_Static_assert(sizeof(struct vnet) == VNET_BYTES, "no padding");

/* Where the fields are: RFC 791, 8200, 9293, 768. */
enum { IP4_TOS = 1, IP4_LENGTH = 2, IP4_ID = 4, IP4_FRAGMENT = 6, IP4_TTL = 8, IP4_PROTOCOL = 9, IP4_CHECKSUM = 10 };
enum { IP4_ADDRESSES = 12, IP4_BYTES = 20, IP4_DF = 0x4000, IP4_IS_FRAGMENT = 0x3fff };
enum { IP6_LENGTH = 4, IP6_NEXT = 6, IP6_HOPS = 7, IP6_ADDRESSES = 8, IP6_BYTES = 40 };
enum { TCP = 6, TCP_SEQ = 4, TCP_ACK = 8, TCP_OFFSET = 12, TCP_FLAGS = 13, TCP_WINDOW = 14, TCP_CHECKSUM = 16 };
enum { TCP_URGENT = 18, TCP_BYTES = 20, PORTS_BYTES = 4 };
enum { TCP_FIN = 0x01, TCP_PSH = 0x08, TCP_ACKED = 0x10, TCP_CWR = 0x80, TCP_ALL_FLAGS = 0x0fff };
enum { UDP = 17, UDP_LENGTH = 4, UDP_CHECKSUM = 6, UDP_BYTES = 8 };
enum { HEADERS_MAX = 120 }; /* IPv4's and TCP's longest */

static uint16_t get16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }
static uint32_t get32(const uint8_t *at) { return (uint32_t)get16(at) << 16 | get16(at + 2); }

static void put16(uint8_t *at, size_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value);
}

static uint64_t get_little64(const uint8_t *at)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | at[i];
    return value;
}

static void put_little(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++, value >>= 8)
        at[i] = (uint8_t)value;
}

/* What the processor has, as it is found when libcrypto is. */
#if defined(__x86_64__) && defined(__GNUC__)
#define IS_X86 1
#endif
static struct {
    bool avx, avx2;
} processor;

static void look_at_processor(void)
{
#ifdef IS_X86
    processor.avx = __builtin_cpu_supports("avx") != 0;
    processor.avx2 = __builtin_cpu_supports("avx2") != 0;
#endif
}

/* Checksums (RFC 1071). A sum is of words in the host's byte order, which folds to the right bytes in either; 64 bits
 * hold the carries of any packet. The compiler makes vectors of it, of twice the width where the processor has them. */

#ifdef IS_X86
#define INLINED inline __attribute__((always_inline))
#else
#define INLINED inline
#endif

static INLINED uint64_t sum_words(const uint8_t *at, size_t bytes, uint64_t sum)
{
    size_t whole = bytes & ~(size_t)3;
    for (size_t i = 0; i < whole; i += 4) {
        uint32_t word;
        memcpy(&word, at + i, 4);
        sum += word;
    }
    uint32_t rest = 0;
    if (bytes > whole)
        memcpy(&rest, at + whole, bytes - whole);
    return sum + rest;
}

#ifdef IS_X86
__attribute__((target("avx2"))) static uint64_t sum_wide(const uint8_t *at, size_t bytes, uint64_t sum)
{
    return sum_words(at, bytes, sum);
}
#endif

static uint64_t sum_bytes(const uint8_t *at, size_t bytes, uint64_t sum)
{
#ifdef IS_X86
    if (processor.avx2)
        return sum_wide(at, bytes, sum);
#endif
    return sum_words(at, bytes, sum);
}

static uint16_t fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static void put_checksum(uint8_t *at, uint16_t checksum) { memcpy(at, &checksum, 2); }

static size_t ip_header_bytes(const uint8_t *packet)
{
    return packet[0] >> 4 == 4 ? (size_t)(packet[0] & 15) * 4 : IP6_BYTES;
}

/* Return the length, by its header, of the packet in so many bytes, or 0 where no whole one is. */
static size_t packet_bytes(const uint8_t *packet, size_t there)
{
    size_t length = 0;
    if (there >= IP4_BYTES && packet[0] >> 4 == 4)
        length = get16(packet + IP4_LENGTH);
    else if (there >= IP6_BYTES && packet[0] >> 4 == 6)
        length = IP6_BYTES + (size_t)get16(packet + IP6_LENGTH);
    if (length < IP4_BYTES || length > there)
        return 0;
    return ip_header_bytes(packet) >= IP4_BYTES && ip_header_bytes(packet) <= length ? length : 0;
}

/* Where the headers of a packet are that is TCP or UDP. It is read once: what is derived from it stays as it was. */
struct headers {
    int version, protocol;
    uint16_t ip_bytes, bytes; /* of the IP header; of both */
};

/* Read how long the headers are, of which all but that is known; false if they do not fit. */
static bool measure_headers(const uint8_t *packet, size_t length, struct headers *headers)
{
    size_t transport_bytes = headers->protocol == TCP ? TCP_BYTES : UDP_BYTES;
    if (headers->ip_bytes + transport_bytes > length)
        return false;
    if (headers->protocol == TCP)
        transport_bytes = (size_t)(packet[headers->ip_bytes + TCP_OFFSET] >> 4) * 4;
    headers->bytes = (uint16_t)(headers->ip_bytes + transport_bytes);
    bool is_short = headers->protocol == TCP && transport_bytes < TCP_BYTES;
    return !is_short && headers->bytes <= length && headers->bytes <= HEADERS_MAX;
}

static uint8_t *checksum_of(uint8_t *packet, const struct headers *headers)
{
    return packet + headers->ip_bytes + (headers->protocol == TCP ? TCP_CHECKSUM : UDP_CHECKSUM);
}

static uint64_t sum_pseudo_header(const uint8_t *packet, const struct headers *headers, size_t length)
{
    bool v4 = headers->version == 4;
    uint8_t rest[4] = {0, (uint8_t)headers->protocol};
    put16(rest + 2, length - headers->ip_bytes);
    uint64_t sum = sum_bytes(rest, sizeof rest, 0);
    return sum_bytes(packet + (v4 ? IP4_ADDRESSES : IP6_ADDRESSES), v4 ? 8 : 32, sum);
}

/* Write the packet's length wherever the headers have it, and make the IPv4 header's checksum right again. */
static void put_length(uint8_t *packet, const struct headers *headers, size_t length)
{
    if (headers->version == 4) {
        put16(packet + IP4_LENGTH, length);
        put16(packet + IP4_CHECKSUM, 0);
        put_checksum(packet + IP4_CHECKSUM, (uint16_t)~fold(sum_bytes(packet, headers->ip_bytes, 0)));
    } else {
        put16(packet + IP6_LENGTH, length - IP6_BYTES);
    }
    if (headers->protocol == UDP)
        put16(packet + headers->ip_bytes + UDP_LENGTH, length - headers->ip_bytes);
}

/* libcrypto. Its types are opaque, so `void` will do. */

enum { CTRL_GET_TAG = 0x10, CTRL_SET_TAG = 0x11 }; /* EVP_CTRL_AEAD_… of openssl/evp.h */

/* SHA_CTX of openssl/sha.h. `may_authenticate` says whether it is. */
struct sha1 {
    uint32_t state[5], low, high, data[16];
    unsigned used, room[16];
};

static struct {
    void *(*context_new)(void);
    void (*context_free)(void *);
    const void *(*chacha20_poly1305)(void);
    int (*init)(void *context, const void *cipher, void *engine, const uint8_t *key, const uint8_t *iv, int encrypts);
    int (*update)(void *context, uint8_t *out, int *out_bytes, const uint8_t *in, int bytes);
    int (*final)(void *context, uint8_t *out, int *out_bytes);
    int (*ctrl)(void *context, int type, int bytes, void *data);
    const char *(*version)(int);
    int (*sha1_init)(struct sha1 *hash); /* these three may be missing */
    int (*sha1_update)(struct sha1 *hash, const void *bytes, size_t length);
    int (*sha1_final)(uint8_t *digest, struct sha1 *hash);
} crypto;

static const char *const LIBRARIES[] = {
#ifdef __APPLE__ /* a program that opens its unversioned libcrypto is ended */
    "libcrypto.3.dylib", "/opt/homebrew/opt/openssl@3/lib/libcrypto.3.dylib",
    "/usr/local/opt/openssl@3/lib/libcrypto.3.dylib", "libcrypto.1.1.dylib",
#else
    "libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.so",
#endif
};

static const struct {
    const char *name;
    void *slot;
    bool is_optional;
} SYMBOLS[] = {
    {"EVP_CIPHER_CTX_new", &crypto.context_new, false},   {"EVP_CIPHER_CTX_free", &crypto.context_free, false},
    {"EVP_chacha20_poly1305", &crypto.chacha20_poly1305, false}, {"EVP_CipherInit_ex", &crypto.init, false},
    {"EVP_CipherUpdate", &crypto.update, false},          {"EVP_CipherFinal_ex", &crypto.final, false},
    {"EVP_CIPHER_CTX_ctrl", &crypto.ctrl, false},         {"OpenSSL_version", &crypto.version, false},
    {"SHA1_Init", &crypto.sha1_init, true},               {"SHA1_Update", &crypto.sha1_update, true},
    {"SHA1_Final", &crypto.sha1_final, true},
};

/* Return why there is no libcrypto, or NULL. The library stays loaded. */
static const char *find_crypto(void)
{
    void *library = NULL;
    for (size_t i = 0; library == NULL && i < sizeof LIBRARIES / sizeof *LIBRARIES; i++)
        library = dlopen(LIBRARIES[i], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return "there is no libcrypto";
    for (size_t i = 0; i < sizeof SYMBOLS / sizeof *SYMBOLS; i++) {
        void *symbol = dlsym(library, SYMBOLS[i].name);
        if (symbol == NULL && !SYMBOLS[i].is_optional)
            return "libcrypto is older than OpenSSL 1.1";
        memcpy(SYMBOLS[i].slot, &symbol, sizeof symbol);
    }
    look_at_processor();
    return NULL;
}

static void *new_context(const uint8_t *key, bool seals)
{
    void *context = crypto.context_new();
    if (context != NULL && crypto.init(context, crypto.chacha20_poly1305(), NULL, key, NULL, seals) != 1) {
        crypto.context_free(context);
        context = NULL;
    }
    return context;
}

/* On x86, libcrypto's routines may return with the upper halves of vector registers in use, and then whatever follows
 * that was compiled for SSE, its own code too, waits for them at each instruction: with AVX-512 a third of the time that
 * a packet takes. */
static void leave_vectors(void)
{
#ifdef IS_X86
    if (processor.avx)
        __asm__ volatile("vzeroupper" ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                         "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
#endif
}

static bool update(void *context, uint8_t *text, size_t bytes)
{
    int done;
    bool is_done = bytes == 0 || crypto.update(context, text, &done, text, (int)bytes) == 1;
    leave_vectors();
    return is_done;
}

static bool finish(void *context)
{
    uint8_t nothing[TAG_BYTES];
    int done;
    bool is_done = crypto.final(context, nothing, &done) == 1;
    leave_vectors();
    return is_done;
}

/* Seal or open in place; the tag is behind the text. */
static bool transform(void *context, uint64_t counter, uint8_t *text, size_t bytes, bool seals)
{
    uint8_t nonce[12] = {0};
    put_little(nonce + 4, counter, 8);
    return crypto.init(context, NULL, NULL, NULL, nonce, seals) == 1 &&
           (seals || crypto.ctrl(context, CTRL_SET_TAG, TAG_BYTES, text + bytes) == 1) &&
           update(context, text, bytes) && finish(context) &&
           (!seals || crypto.ctrl(context, CTRL_GET_TAG, TAG_BYTES, text + bytes) == 1);
}

/* Sealing. */

struct frame {
    const uint8_t *packet;
    size_t length;
    struct vnet vnet;
    struct headers headers; /* of a packet that stands for many */
    size_t datagrams;
};

/* Read the headers of a packet that stands for many. Behind IPv6 extension headers the kernel is believed. */
static bool read_many(struct frame *frame)
{
    const uint8_t *packet = frame->packet;
    const struct vnet *vnet = &frame->vnet;
    int kind = vnet->gso_type & ~GSO_ECN, version = packet[0] >> 4;
    int protocol = kind == GSO_UDP_L4 ? UDP : TCP;
    uint16_t transport = 0;
    if (packet[version == 4 ? IP4_PROTOCOL : IP6_NEXT] == protocol)
        transport = (uint16_t)ip_header_bytes(packet);
    else if (version == 6 && vnet->flags & NEEDS_CSUM && vnet->csum_start > IP6_BYTES)
        transport = vnet->csum_start;
    if (transport == 0 || vnet->gso_size == 0)
        return false;
    if (kind != GSO_UDP_L4 && kind != (version == 4 ? GSO_TCPV4 : GSO_TCPV6))
        return false;
    frame->headers = (struct headers){.version = version, .protocol = protocol, .ip_bytes = transport};
    if (!measure_headers(packet, frame->length, &frame->headers))
        return false;
    size_t payload = frame->length - frame->headers.bytes;
    if (payload > 0)
        frame->datagrams = (payload + vnet->gso_size - 1) / vnet->gso_size;
    return frame->datagrams <= MAX_DATAGRAMS;
}

/* Say whether the frame is well-formed, and what it stands for. */
static bool read_frame(const uint8_t *bytes, size_t length, struct frame *frame)
{
    if (length <= VNET_BYTES || length > VNET_BYTES + MAX_PACKET_BYTES)
        return false;
    memcpy(&frame->vnet, bytes, VNET_BYTES);
    frame->packet = bytes + VNET_BYTES;
    frame->length = packet_bytes(frame->packet, length - VNET_BYTES);
    frame->datagrams = 1;
    if (frame->length == 0)
        return false;
    if (frame->vnet.gso_type != GSO_NONE)
        return read_many(frame);
    if (!(frame->vnet.flags & NEEDS_CSUM))
        return true;
    size_t start = frame->vnet.csum_start, field = start + frame->vnet.csum_offset;
    return start >= IP4_BYTES && field + 2 <= frame->length;
}

static size_t segment_bytes(const struct frame *frame, size_t index)
{
    if (frame->datagrams == 1)
        return frame->length;
    bool last = index + 1 == frame->datagrams;
    size_t payload = frame->length - frame->headers.bytes;
    return frame->headers.bytes + (last ? payload - index * frame->vnet.gso_size : frame->vnet.gso_size);
}

static void write_packet(const struct frame *frame, uint8_t *to)
{
    memcpy(to, frame->packet, frame->length);
    if (frame->vnet.flags & NEEDS_CSUM) {
        size_t start = frame->vnet.csum_start; /* the field has the pseudo-header's sum */
        uint16_t checksum = (uint16_t)~fold(sum_bytes(to + start, frame->length - start, 0));
        put_checksum(to + start + frame->vnet.csum_offset, checksum ? checksum : 0xffff);
    }
}

static void write_segment(const struct frame *frame, size_t index, uint8_t *to, size_t length)
{
    const struct headers *headers = &frame->headers;
    uint8_t *transport = to + headers->ip_bytes;
    size_t offset = index * frame->vnet.gso_size;
    memcpy(to, frame->packet, headers->bytes);
    memcpy(to + headers->bytes, frame->packet + headers->bytes + offset, length - headers->bytes);
    if (headers->version == 4)
        put16(to + IP4_ID, get16(to + IP4_ID) + index);
    put_length(to, headers, length);
    if (headers->protocol == TCP) {
        put32(transport + TCP_SEQ, get32(transport + TCP_SEQ) + (uint32_t)offset);
        if (index + 1 < frame->datagrams)
            transport[TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PSH);
        if (index > 0)
            transport[TCP_FLAGS] &= (uint8_t)~TCP_CWR; /* RFC 3168 section 6.1.2: once */
    }
    uint8_t *field = checksum_of(to, headers);
    put16(field, 0);
    uint64_t sum = sum_pseudo_header(to, headers, length);
    uint16_t checksum = (uint16_t)~fold(sum_bytes(transport, length - headers->ip_bytes, sum));
    put_checksum(field, checksum ? checksum : 0xffff); /* both are right; to UDP, 0 is none (RFC 768) */
}

struct sealing {
    void *context;
    uint32_t remote_index;
    int channel; /* or -1 */
    uint64_t counter;
    ptrdiff_t mtu;
};

/* What a packet is padded to. */
static size_t padded(const struct sealing *how, size_t length)
{
    ptrdiff_t whole = (ptrdiff_t)((length + PADDING_BYTES - 1) / PADDING_BYTES * PADDING_BYTES);
    ptrdiff_t to = whole < how->mtu ? whole : how->mtu;
    return to > (ptrdiff_t)length ? (size_t)to : length;
}

static size_t datagram_bytes(const struct sealing *how, size_t length)
{
    return (how->channel < 0 ? 0 : CHANNEL_BYTES) + HEADER_BYTES + padded(how, length) + TAG_BYTES;
}

static bool seal_frame(const struct sealing *how, const struct frame *frame, uint8_t *train, size_t stride)
{
    for (size_t i = 0; i < frame->datagrams; i++) {
        uint8_t *at = train + i * stride;
        size_t length = segment_bytes(frame, i), text_bytes = padded(how, length);
        if (how->channel >= 0) {
            put16(at, (size_t)how->channel);
            put16(at + 2, HEADER_BYTES + text_bytes + TAG_BYTES);
            at += CHANNEL_BYTES;
        }
        put_little(at, 4, 4);
        put_little(at + 4, how->remote_index, 4);
        put_little(at + 8, how->counter + i, 8);
        at += HEADER_BYTES;
        if (frame->vnet.gso_type != GSO_NONE)
            write_segment(frame, i, at, length);
        else
            write_packet(frame, at);
        memset(at + length, 0, text_bytes - length);
        if (!transform(how->context, how->counter + i, at, text_bytes, true))
            return false;
    }
    return true;
}

struct sealed {
    size_t datagrams, stride, total; /* nothing: the frame was malformed */
};
enum outcome { SEALED, NO_ROOM, NO_COUNTERS, NO_CIPHER };

/* Without Python. The counter moves on by what was sealed. */
static enum outcome seal_one(
    struct sealing *how, const uint8_t *bytes, size_t length, uint8_t *train, size_t room, struct sealed *done)
{
    struct frame frame;
    *done = (struct sealed){0};
    if (!read_frame(bytes, length, &frame))
        return SEALED;
    size_t stride = datagram_bytes(how, segment_bytes(&frame, 0));
    if (stride > MAX_STRIDE)
        return SEALED;
    size_t total = (frame.datagrams - 1) * stride + datagram_bytes(how, segment_bytes(&frame, frame.datagrams - 1));
    if (total > room)
        return NO_ROOM;
    if (how->counter > UINT64_MAX - frame.datagrams)
        return NO_COUNTERS;
    if (!seal_frame(how, &frame, train, stride))
        return NO_CIPHER;
    how->counter += frame.datagrams;
    *done = (struct sealed){.datagrams = frame.datagrams, .stride = stride, .total = total};
    return SEALED;
}

/* Opening, in three steps: open every datagram where it lies, group what may be merged, copy the groups to `out`. */

struct packet {
    uint32_t at, length;
    uint32_t flow; /* a hash; 0: its ports cannot be told */
    uint16_t next; /* of its group */
    struct headers headers;
    bool merges; /* with others, as far as it alone can tell */
};

struct group {
    uint32_t length;
    uint16_t first, last, packets;
    bool grows;
};

struct counts {
    ptrdiff_t datagrams, octets, keepalives, replayed, forged, malformed, over_limit;
};

struct burst {
    uint8_t *bytes;
    size_t packets, groups;
    size_t settled; /* so many groups will not grow */
    struct counts counts;
    struct packet packet[MAX_DATAGRAMS];
    struct group group[MAX_DATAGRAMS];
};

/* The replay window of wireguard/replay.py. */
static bool is_fresh(const uint64_t *state, uint64_t counter)
{
    if (counter >= state[0])
        return true;
    if (state[0] - counter > WINDOW_PACKETS)
        return false;
    return !(state[1 + counter / 64 % WINDOW_WORDS] >> counter % 64 & 1);
}

static void mark(uint64_t *state, uint64_t counter)
{
    uint64_t word = counter / 64;
    if (counter >= state[0]) {
        uint64_t passed = state[0] ? word - (state[0] - 1) / 64 : word + 1;
        for (uint64_t i = 0; i < passed && i < WINDOW_WORDS; i++)
            state[1 + (word - i) % WINDOW_WORDS] = 0;
        state[0] = counter + 1;
    }
    state[1 + word % WINDOW_WORDS] |= (uint64_t)1 << counter % 64;
}

static void open_datagram(
    void *context, uint64_t *window, uint64_t limit, struct burst *burst, uint32_t at, size_t bytes)
{
    uint8_t *datagram = burst->bytes + at;
    uint64_t counter = get_little64(datagram + 8);
    size_t text_bytes = bytes - HEADER_BYTES - TAG_BYTES;
    if (counter >= limit) {
        burst->counts.over_limit++;
    } else if (!is_fresh(window, counter)) {
        burst->counts.replayed++;
    } else if (!transform(context, counter, datagram + HEADER_BYTES, text_bytes, false)) {
        burst->counts.forged++;
    } else {
        mark(window, counter);
        burst->counts.datagrams++;
        burst->counts.octets += (ptrdiff_t)bytes;
        size_t length = packet_bytes(datagram + HEADER_BYTES, text_bytes);
        if (text_bytes == 0)
            burst->counts.keepalives++;
        else if (length == 0)
            burst->counts.malformed++;
        else
            burst->packet[burst->packets++] = (struct packet){.at = at + HEADER_BYTES, .length = (uint32_t)length};
    }
}

/* A packet's that `measure_headers` has accepted. */
static size_t payload_of(const struct packet *packet) { return packet->length - packet->headers.bytes; }

/* Say whether a packet of a known flow is such that it may be merged with others. */
static bool is_mergeable(const uint8_t *bytes, struct packet *packet)
{
    struct headers *headers = &packet->headers;
    const uint8_t *transport = bytes + headers->ip_bytes;
    size_t transport_bytes = packet->length - headers->ip_bytes;
    if (!measure_headers(bytes, packet->length, headers) || payload_of(packet) == 0)
        return false;
    if (headers->version == 4 && (headers->ip_bytes != IP4_BYTES || get16(bytes + IP4_FRAGMENT) & ~IP4_DF))
        return false;
    if (headers->protocol == TCP && (get16(transport + TCP_OFFSET) & TCP_ALL_FLAGS & ~TCP_PSH) != TCP_ACKED)
        return false;
    if (headers->protocol == UDP && get16(transport + UDP_LENGTH) != transport_bytes)
        return false;
    if (headers->protocol == UDP && get16(transport + UDP_CHECKSUM) == 0) /* it has none */
        return false;
    if (headers->version == 4 && fold(sum_bytes(bytes, IP4_BYTES, 0)) != 0xffff)
        return false;
    return fold(sum_bytes(transport, transport_bytes, sum_pseudo_header(bytes, headers, packet->length))) == 0xffff;
}

static void examine(const uint8_t *bytes, struct packet *packet)
{
    bool v4 = bytes[0] >> 4 == 4;
    uint8_t protocol = bytes[v4 ? IP4_PROTOCOL : IP6_NEXT];
    size_t ip_bytes = ip_header_bytes(bytes);
    bool is_fragment = v4 && get16(bytes + IP4_FRAGMENT) & IP4_IS_FRAGMENT;
    if ((protocol != TCP && protocol != UDP) || is_fragment || packet->length < ip_bytes + PORTS_BYTES)
        return;
    packet->headers = (struct headers){.version = v4 ? 4 : 6, .protocol = protocol, .ip_bytes = (uint16_t)ip_bytes};
    const uint8_t *addresses = bytes + (v4 ? IP4_ADDRESSES : IP6_ADDRESSES);
    uint32_t flow = protocol;
    for (int i = 0; i < (v4 ? 8 : 32); i += 4)
        flow = (flow ^ get32(addresses + i)) * 0x01000193; /* as in FNV-1a */
    flow = (flow ^ get32(bytes + ip_bytes)) * 0x01000193;
    packet->flow = flow ? flow : 1;
    packet->merges = is_mergeable(bytes, packet);
}

static bool is_same_flow(const uint8_t *bytes, const struct packet *one, const struct packet *other)
{
    const uint8_t *a = bytes + one->at, *b = bytes + other->at;
    bool v4 = one->headers.version == 4;
    size_t addresses = v4 ? IP4_ADDRESSES : IP6_ADDRESSES;
    return one->flow == other->flow && one->headers.version == other->headers.version &&
           one->headers.protocol == other->headers.protocol && !memcmp(a + addresses, b + addresses, v4 ? 8 : 32) &&
           !memcmp(a + one->headers.ip_bytes, b + other->headers.ip_bytes, PORTS_BYTES);
}

/* Say whether a group may have this packet of its flow at its end. What is not compared, a splitter derives. */
static bool continues(const struct burst *burst, const struct group *group, const struct packet *packet)
{
    const struct packet *first = &burst->packet[group->first];
    const uint8_t *a = burst->bytes + first->at, *b = burst->bytes + packet->at;
    size_t payload = payload_of(packet);
    if (!group->grows || !packet->merges || first->headers.bytes != packet->headers.bytes)
        return false;
    if (payload > payload_of(first) || group->length + payload > MAX_PACKET_BYTES)
        return false;
    if (first->headers.version == 4) {
        if (a[IP4_TOS] != b[IP4_TOS] || memcmp(a + IP4_FRAGMENT, b + IP4_FRAGMENT, 2) || a[IP4_TTL] != b[IP4_TTL])
            return false;
    } else if (memcmp(a, b, IP6_LENGTH) || a[IP6_HOPS] != b[IP6_HOPS]) {
        return false;
    }
    if (first->headers.protocol == UDP)
        return group->packets < MAX_UDP_PACKETS;
    a += first->headers.ip_bytes;
    b += first->headers.ip_bytes;
    uint32_t next = get32(a + TCP_SEQ) + (group->length - first->headers.bytes);
    size_t rest = (size_t)first->headers.bytes - first->headers.ip_bytes - TCP_URGENT;
    return get32(b + TCP_SEQ) == next && !memcmp(a + TCP_ACK, b + TCP_ACK, 4) &&
           !memcmp(a + TCP_WINDOW, b + TCP_WINDOW, 2) && !memcmp(a + TCP_URGENT, b + TCP_URGENT, rest);
}

/* Find the newest group of the packet's flow. */
static struct group *find_group(struct burst *burst, const struct packet *packet)
{
    for (size_t i = burst->groups; i > burst->settled; i--)
        if (is_same_flow(burst->bytes, packet, &burst->packet[burst->group[i - 1].first]))
            return &burst->group[i - 1];
    return NULL;
}

/* Only the newest group of a flow grows, and none after a packet of no flow that can be told: none is reordered. */
static void group_packet(struct burst *burst, uint16_t index)
{
    struct packet *packet = &burst->packet[index];
    struct group *group = packet->flow ? find_group(burst, packet) : NULL;
    if (group != NULL && continues(burst, group, packet)) {
        burst->packet[group->last].next = index;
        group->length += (uint32_t)payload_of(packet);
        group->packets++;
        group->last = index;
    } else {
        group = &burst->group[burst->groups++];
        *group = (struct group){.length = packet->length, .first = index, .last = index, .packets = 1};
    }
    if (packet->flow == 0)
        burst->settled = burst->groups;
    const uint8_t *transport = burst->bytes + packet->at + packet->headers.ip_bytes;
    group->grows = packet->merges && payload_of(packet) == payload_of(&burst->packet[group->first]) &&
                   !(packet->headers.protocol == TCP && transport[TCP_FLAGS] & TCP_PSH);
}

static void write_group(const struct burst *burst, const struct group *group, uint8_t *out)
{
    const struct packet *first = &burst->packet[group->first];
    const struct headers *headers = &first->headers;
    uint8_t *packet = out + VNET_BYTES, *at = packet + first->length;
    memset(out, 0, VNET_BYTES);
    memcpy(packet, burst->bytes + first->at, first->length);
    if (group->packets == 1)
        return;
    const struct packet *next = first;
    while (next != &burst->packet[group->last]) {
        next = &burst->packet[next->next];
        memcpy(at, burst->bytes + next->at + next->headers.bytes, payload_of(next));
        at += payload_of(next);
    }
    bool tcp = headers->protocol == TCP;
    struct vnet vnet = {
        .flags = NEEDS_CSUM,
        .gso_type = tcp ? (headers->version == 4 ? GSO_TCPV4 : GSO_TCPV6) : GSO_UDP_L4,
        .hdr_len = headers->bytes,
        .gso_size = (uint16_t)payload_of(first),
        .csum_start = headers->ip_bytes,
        .csum_offset = tcp ? TCP_CHECKSUM : UDP_CHECKSUM,
    };
    memcpy(out, &vnet, VNET_BYTES);
    put_length(packet, headers, group->length);
    if (tcp)
        packet[headers->ip_bytes + TCP_FLAGS] |= burst->bytes[next->at + headers->ip_bytes + TCP_FLAGS] & TCP_PSH;
    put_checksum(checksum_of(packet, headers), fold(sum_pseudo_header(packet, headers, group->length)));
}
