/* The lane: ordinary packets of sessions that are up, from a socket to the device and back, in one call for a wake-up.
 *
 * `lanes.py` says what it is to Python. What is not ordinary is left as it was found, for Python, and so is what comes
 * behind it for the same peer, so that nothing overtakes. What was carried is noted in the lane's books, which Python
 * reads a moment later.
 *
 * Comes after `_answer.h`; no Python in here but that a lane is an object, and `_lanes.h` has that side.
 */

#include <unistd.h>

enum {
    BUCKETS = 1024,      /* of lanes by receiver index */
    KNOWN_SETS = 1024, /* of inner addresses whose lane is known; a hash says in which one an address is */
    KNOWN_WAYS = 4,    /* so many have room in one */
    OWN_ADDRESSES_MAX = 8,
    PASS_BYTES = 65536, /* so much lies in the buffer before it is opened, unless the socket is empty: caches hold it */
    SEGMENTS_MAX = 64,  /* as in ice/trains.py */
    TRAIN_SENT_MAX = 65507,
    SMALL_FRAME = VNET_BYTES + HEADERS_MAX, /* so long may a SYN be whose segment size is lowered, see device/mss.py */
    CONTROL_NEXT_HEADER = 255,              /* see peer/control_packet.py */
    TCP_SYN = 0x02,
    ECT_0 = 2, /* what it does to an inner mark is nothing (RFC 6040 section 4.2) */
};

struct address {
    uint8_t version, bytes[ADDRESS_BYTES];
};

/* What was carried since the books were read last. A time of 0 is none. */
struct books {
    struct counts opened;
    double received_at, received_before_at; /* the last time, and the one before it */
    double delivered_at, owed_at;           /* a frame was given to the device; data came first since anything went */
    uint64_t sent, sent_octets;
    double sent_at, unanswered_at; /* the last time; the first time since anything came */
};

struct lane {
    void *seals, *opens; /* libcrypto's contexts */
    uint64_t *window, *counter;
    uint32_t local_index, remote_index;
    uint64_t reject_after, seal_before;
    double expires_at;
    ptrdiff_t mtu;
    size_t limit; /* bytes of a packet, beyond which the path has to be asked; 0: none */
    struct path path;
    bool is_noted;
    uint64_t blocked; /* in this call: something of the peer was left */
    struct lane *next; /* of its bucket */
    struct books books;
};

struct known {
    struct address address;
    struct lane *lane;
};

/* What was sealed, and waits for more of its kind. */
struct train {
    struct lane *lane;
    size_t start, end, stride, datagrams;
    uint8_t ecn;
};

struct lanes {
    int device; /* -1: none */
    size_t header; /* so many bytes are before each frame here, and not at the device */
    bool merges;
    double now;
    uint64_t call;
    struct address own[OWN_ADDRESSES_MAX]; /* where what goes out may come from; none: anywhere */
    size_t owns;
    struct known known[KNOWN_SETS][KNOWN_WAYS]; /* the latest is first */
    struct lane *bucket[BUCKETS];
    struct lane *noted[MAX_DATAGRAMS]; /* those with something new in their books, in this call */
    size_t notes;
    struct burst burst;
    struct lane *stopped; /* whose burst was not all carried, and how far it was */
    uint8_t stopped_ecn;
    size_t stopped_group, stopped_at;
    struct train train, unsent[2];
    size_t refused; /* of `unsent`, with */
    int refusal;    /* this errno */
    struct answers answers;
};

/* Of an index, the upper bits are the peer's, and the lower ones count. */
static size_t bucket_of(uint32_t index) { return (index ^ index >> 8) % BUCKETS; }

static struct lane *find_lane(const struct lanes *lanes, uint32_t index)
{
    struct lane *lane = lanes->bucket[bucket_of(index)];
    while (lane != NULL && lane->local_index != index)
        lane = lane->next;
    return lane;
}

/* Read one of a packet's addresses; false: it is no whole header. */
static bool read_address(const uint8_t *packet, size_t length, bool is_source, struct address *address)
{
    *address = (struct address){0};
    if (length >= IP4_BYTES && packet[0] >> 4 == 4)
        memcpy(address->bytes, packet + IP4_ADDRESSES + (is_source ? 0 : 4), 4);
    else if (length >= IP6_BYTES && packet[0] >> 4 == 6)
        memcpy(address->bytes, packet + IP6_ADDRESSES + (is_source ? 0 : 16), 16);
    else
        return false;
    address->version = packet[0] >> 4;
    return true;
}

static bool is_equal(const struct address *one, const struct address *other)
{
    return !memcmp(one, other, sizeof *one);
}

static size_t known_set(const struct address *address)
{
    uint32_t place = address->version;
    for (size_t i = 0; i < ADDRESS_BYTES; i += 4)
        place = (place ^ get32(address->bytes + i)) * 0x01000193;
    return (place ^ place >> 16) % KNOWN_SETS;
}

static struct lane *lane_of(const struct lanes *lanes, const struct address *address)
{
    const struct known *known = lanes->known[known_set(address)];
    for (size_t i = 0; i < KNOWN_WAYS; i++)
        if (is_equal(&known[i].address, address))
            return known[i].lane;
    return NULL;
}

/* From now on an address is that lane's; of those in its set, the one that was told first is forgotten if need be. */
static void know_lane(struct lanes *lanes, const struct address *address, struct lane *lane)
{
    struct known *known = lanes->known[known_set(address)];
    size_t way = 0, free = KNOWN_WAYS - 1;
    while (way < KNOWN_WAYS && !is_equal(&known[way].address, address))
        way++;
    for (size_t i = KNOWN_WAYS; i > 0; i--)
        if (known[i - 1].lane == NULL)
            free = i - 1;
    for (way = way < KNOWN_WAYS ? way : free; way > 0; way--)
        known[way] = known[way - 1];
    known[0] = (struct known){*address, lane};
}

/* Say whether the sender of a small frame may have to be asked for shorter segments. */
static bool may_be_syn(const uint8_t *packet, size_t length)
{
    bool v4 = packet[0] >> 4 == 4;
    size_t flags = ip_header_bytes(packet) + TCP_FLAGS;
    return packet[v4 ? IP4_PROTOCOL : IP6_NEXT] == TCP && length > flags && packet[flags] & TCP_SYN;
}

static void note(struct lanes *lanes, struct lane *lane)
{
    if (!lane->is_noted && lanes->notes < MAX_DATAGRAMS) {
        lane->is_noted = true;
        lanes->noted[lanes->notes++] = lane;
    }
}

/* From the socket to the device. */

static void note_received(struct lanes *lanes, struct lane *lane, const struct counts *counts)
{
    struct books *books = &lane->books;
    const ptrdiff_t *from = &counts->datagrams;
    ptrdiff_t *to = &books->opened.datagrams;
    for (size_t i = 0; i < sizeof *counts / sizeof *from; i++)
        to[i] += from[i];
    note(lanes, lane);
    if (counts->datagrams == 0)
        return;
    if (lanes->now != books->received_at)
        books->received_before_at = books->received_at;
    books->received_at = lanes->now;
    books->unanswered_at = 0;
    if (counts->datagrams == counts->keepalives)
        return;
    if (books->owed_at == 0)
        books->owed_at = lanes->now;
}

/* Say whether a frame may go to the device with nothing else done about it. */
static bool may_enter(const struct lanes *lanes, const struct lane *lane, const uint8_t *packet, size_t length)
{
    struct address source;
    return packet[IP6_NEXT] != CONTROL_NEXT_HEADER && read_address(packet, length, true, &source) &&
           lane_of(lanes, &source) == lane && (length > SMALL_FRAME - VNET_BYTES || !may_be_syn(packet, length));
}

/* Open at most so many datagrams as a burst has, and give the device what they bring. False: not all was taken. */
static bool open_some(
    struct lanes *lanes, struct lane *lane, uint8_t *bytes, const uint32_t (*spans)[2], size_t datagrams, uint8_t *out)
{
    struct burst *burst = &lanes->burst;
    burst->bytes = bytes;
    burst->packets = burst->groups = burst->settled = 0;
    burst->counts = (struct counts){0};
    for (size_t i = 0; i < datagrams; i++)
        open_datagram(lane->opens, lane->window, lane->reject_after, burst, spans[i][0], spans[i][1]);
    note_received(lanes, lane, &burst->counts);
    for (size_t i = 0; i < burst->packets; i++) {
        if (lanes->merges && burst->packets > 1)
            examine(bytes + burst->packet[i].at, &burst->packet[i]);
        group_packet(burst, (uint16_t)i);
    }
    size_t at = 0;
    for (size_t i = 0; i < burst->groups; i++) {
        write_group(burst, &burst->group[i], out + at);
        at += VNET_BYTES + burst->group[i].length;
    }
    at = 0;
    for (size_t i = 0; i < burst->groups; i++) {
        size_t length = burst->group[i].length;
        const uint8_t *frame = out + at + lanes->header;
        if (!may_enter(lanes, lane, out + at + VNET_BYTES, length) ||
            write(lanes->device, frame, VNET_BYTES - lanes->header + length) < 0) {
            lanes->stopped = lane;
            lanes->stopped_group = i;
            lanes->stopped_at = at;
            return false;
        }
        lane->books.delivered_at = lanes->now;
        at += VNET_BYTES + length;
    }
    return true;
}

/* Return the lane that a run is for; NULL: it is nobody's. */
static struct lane *lane_of_run(const struct lanes *lanes, const struct run *run)
{
    if (run->head_bytes != DATA_HEAD_BYTES || run->head[0] != 4)
        return NULL;
    const uint8_t *index = run->head + 4;
    return find_lane(lanes, index[0] | (uint32_t)index[1] << 8 | (uint32_t)index[2] << 16 | (uint32_t)index[3] << 24);
}

/* Say whether a run came on the path in use, in time, and with a mark that changes nothing. */
static bool may_pass(const struct lanes *lanes, const struct lane *lane, const struct run *run)
{
    return lane->blocked != lanes->call && lanes->now < lane->expires_at && !(run->place[0] & ~ECT_0) &&
           came_on(&lane->path, run);
}

/* Carry what was read; true: nothing is left. */
static bool pass(struct lanes *lanes, struct reading *reading, uint8_t *out, bool *data)
{
    size_t left = 0;
    for (size_t i = 0; i < reading->runs; i++) {
        struct run run = reading->run[i];
        struct lane *lane = lanes->stopped == NULL ? lane_of_run(lanes, &run) : NULL;
        if (lane != NULL && may_pass(lanes, lane, &run)) {
            *data |= run.datagrams > 1 || reading->spans[run.first][1] > HEADER_BYTES + TAG_BYTES;
            while (run.datagrams > 0 && lanes->stopped == NULL) {
                size_t datagrams = run.datagrams < MAX_DATAGRAMS ? run.datagrams : MAX_DATAGRAMS;
                if (!open_some(lanes, lane, reading->bytes, reading->spans + run.first, datagrams, out))
                    lanes->stopped_ecn = run.place[0];
                run.first += datagrams;
                run.datagrams -= datagrams;
            }
        } else if (lane != NULL) {
            lane->blocked = lanes->call;
        }
        if (run.datagrams > 0)
            reading->run[left++] = run;
    }
    reading->runs = left;
    return left == 0 && lanes->stopped == NULL;
}

/* Read as `receive` does, and carry or answer what can be. `is_lonely`: the first is expected to be the only one, unless it
 * is ordinary data. The buffer's end is the same each time: it is used again when all in it has been carried. */
static void receive_and_pass(
    struct lanes *lanes, struct reading *reading, int descriptor, size_t most, bool is_lonely, uint8_t *out, bool *data)
{
    size_t begin = reading->end, taken = begin;
    bool passes = lanes->device >= 0;
    while (reading->reads < most && reading->room - taken >= MAX_DATAGRAM_BYTES) {
        struct before before = {reading->runs, reading->datagrams, reading->end};
        if (!read_message(reading, descriptor))
            break;
        taken += reading->end - before.end;
        answer_each(&lanes->answers, descriptor, reading, &before);
        if (is_lonely && reading->reads == 1 && (reading->runs == 0 || lane_of_run(lanes, &reading->run[0]) == NULL))
            break;
        if (passes && reading->end - begin >= PASS_BYTES) {
            passes = pass(lanes, reading, out, data);
            if (passes) {
                reading->end = begin;
                reading->datagrams = 0;
            }
        }
    }
    if (passes && pass(lanes, reading, out, data))
        reading->end = begin;
}

/* From the device to the socket. */

/* Return who carries a frame that needs nothing but to be sealed and sent. */
static struct lane *lane_for(struct lanes *lanes, const uint8_t *frame, size_t bytes)
{
    struct address source, destination;
    if (bytes <= VNET_BYTES)
        return NULL;
    const uint8_t *packet = frame + VNET_BYTES;
    size_t length = bytes - VNET_BYTES, own = 0;
    if (!read_address(packet, length, true, &source) || !read_address(packet, length, false, &destination))
        return NULL;
    while (own < lanes->owns && !is_equal(&lanes->own[own], &source))
        own++;
    if (lanes->owns > 0 && own == lanes->owns)
        return NULL;
    struct lane *lane = lane_of(lanes, &destination);
    if (lane == NULL || lane->blocked == lanes->call)
        return NULL;
    if (lanes->now >= lane->expires_at || *lane->counter + MAX_DATAGRAMS > lane->seal_before ||
        (bytes <= SMALL_FRAME ? may_be_syn(packet, length) : lane->limit && length > lane->limit)) {
        lane->blocked = lanes->call;
        return NULL;
    }
    return lane;
}

/* Send what waits. What the kernel refuses is for Python, which knows what to do about it. */
static void send_waiting(struct lanes *lanes, const uint8_t *bytes)
{
    struct train *train = &lanes->train;
    size_t most = train->stride ? TRAIN_SENT_MAX / train->stride : 1;
    most = (most < SEGMENTS_MAX ? most ? most : 1 : SEGMENTS_MAX) * train->stride;
    while (lanes->refused == 0 && train->start < train->end) {
        size_t piece = train->end - train->start < most ? train->end - train->start : most;
        lanes->refusal = send_on(&train->lane->path, bytes + train->start, piece, train->stride, train->ecn);
        if (lanes->refusal)
            break;
        train->start += piece;
    }
    if (train->start < train->end)
        lanes->unsent[lanes->refused++] = *train;
    *train = (struct train){.start = train->end, .end = train->end};
}

static void note_sent(struct lanes *lanes, struct lane *lane, size_t datagrams, size_t octets)
{
    struct books *books = &lane->books;
    books->sent += datagrams;
    books->sent_octets += octets;
    books->sent_at = lanes->now;
    books->owed_at = 0;
    if (books->unanswered_at == 0)
        books->unanswered_at = lanes->now;
    note(lanes, lane);
}

/* Seal a frame behind what waits, and send what it does not go with. False: it was left alone. */
static bool seal_for(
    struct lanes *lanes, struct lane *lane, const uint8_t *frame, size_t bytes, uint8_t *sealed, size_t room)
{
    struct train *train = &lanes->train;
    if (room - train->end < TRAIN_BYTES) {
        send_waiting(lanes, sealed);
        if (lanes->refused)
            return false;
        *train = (struct train){0};
    }
    struct sealing how = {.context = lane->seals, .remote_index = lane->remote_index, .channel = -1,
                          .counter = *lane->counter, .mtu = lane->mtu};
    struct sealed done;
    if (seal_one(&how, frame, bytes, sealed + train->end, room - train->end, &done) != SEALED || done.datagrams == 0)
        return false;
    *lane->counter = how.counter; /* before anything is sent */
    note_sent(lanes, lane, done.datagrams, done.total);
    const uint8_t *packet = frame + VNET_BYTES;
    uint8_t ecn = (packet[0] >> 4 == 4 ? packet[1] : packet[1] >> 4) & ECN_MASK;
    bool fits = train->datagrams > 0 && train->lane == lane && train->ecn == ecn &&
                (done.stride == train->stride || (done.datagrams == 1 && done.total < train->stride));
    if (!fits) {
        send_waiting(lanes, sealed);
        train->lane = lane;
        train->stride = done.stride;
        train->ecn = ecn;
    }
    train->end += done.total;
    train->datagrams += done.datagrams;
    bool is_ended = (train->end - train->start) % train->stride != 0; /* nothing may follow a shorter one */
    if (is_ended || train->datagrams >= MAX_DATAGRAMS || lanes->refused)
        send_waiting(lanes, sealed);
    return lanes->refused == 0;
}

/* What was read from the device, and is left for Python. */
struct left {
    size_t frames, read, end;
    int error; /* the last errno; -1 at the end */
    uint32_t spans[MAX_DATAGRAMS][2];
};

/* Read frames while there is room for one of any size, and carry what can be. A place is used again when what was there
 * has been carried, yet no more is read than has room. */
static void read_and_pass(
    struct lanes *lanes, uint8_t *buffer, size_t room, size_t most, uint8_t *sealed, size_t sealed_room, struct left *left)
{
    enum { FRAME_MAX = VNET_BYTES + MAX_PACKET_BYTES };
    size_t taken = 0;
    lanes->train = (struct train){0};
    while (left->read < most && room - taken >= FRAME_MAX) {
        uint8_t *at = buffer + left->end;
        ssize_t size = read(lanes->device, at + lanes->header, FRAME_MAX - lanes->header);
        if (size <= 0) {
            left->error = size < 0 ? errno : -1;
            break;
        }
        memset(at, 0, lanes->header);
        size_t bytes = (size_t)size + lanes->header;
        left->read++;
        taken += bytes;
        struct lane *lane = lanes->refused == 0 ? lane_for(lanes, at, bytes) : NULL;
        uint64_t before = lane == NULL ? 0 : *lane->counter;
        if (lane != NULL && !seal_for(lanes, lane, at, bytes, sealed, sealed_room))
            lane->blocked = lanes->call;
        if (lane != NULL && *lane->counter != before)
            continue;
        left->spans[left->frames][0] = (uint32_t)left->end;
        left->spans[left->frames++][1] = (uint32_t)bytes;
        left->end += bytes;
    }
    send_waiting(lanes, sealed);
}
