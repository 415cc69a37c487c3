/* Checks of idle peers (STUN Binding requests as RFC 8445 section 7 and RFC 7675 have them), answered where they are read.
 *
 * `answers.py` says what it is to Python. An *answerer* is of a session at rest: it knows the one request that changes
 * nothing but the time when the peer was last heard, but for its transaction id and what is computed from that. What
 * differs from it, came another way, or cannot be answered now, is left as it was found, and so is what comes behind it
 * with the same USERNAME in that reading. The answer is the one that `ice/packing.py` makes, to the byte.
 *
 * Comes after `_path.h`.
 */

enum {
    STUN_HEADER_BYTES = 20,
    STUN_ID_AT = 8,
    STUN_ID_BYTES = 12,
    STUN_REQUEST = 0x0001,
    STUN_SUCCESS = 0x0101,
    STUN_COOKIE = 0x2112A442,
    STUN_ATTRIBUTE_BYTES = 4, /* its type and length */
    STUN_USERNAME = 0x0006,
    STUN_INTEGRITY = 0x0008,
    STUN_MAPPED = 0x0020,
    STUN_FINGERPRINT = 0x8028,
    STUN_FINGERPRINT_XOR = 0x5354554E,
    MAC_BYTES = 20,
    INTEGRITY_BYTES = STUN_ATTRIBUTE_BYTES + MAC_BYTES,
    FINGERPRINT_BYTES = STUN_ATTRIBUTE_BYTES + 4,
    STUN_TAIL_BYTES = INTEGRITY_BYTES + FINGERPRINT_BYTES,
    ASKED_MAX = 128, /* attributes of a request; ours have 48 bytes */
    ANSWER_MAX = STUN_HEADER_BYTES + STUN_ATTRIBUTE_BYTES + 4 + ADDRESS_BYTES + STUN_TAIL_BYTES,
    NOMINATIONS_MAX = 64, /* as in ice/checks.py */
    ANSWER_BUCKETS = 4096,
    SHA1_BLOCK_BYTES = 64,
};

/* HMAC-SHA1 (RFC 2104) under one key, begun: what the first block has made of the inner and the outer hash. */
struct mac_key {
    uint32_t inner[5], outer[5];
};

struct answerer {
    struct path path;
    struct mac_key key;
    uint8_t asked[ASKED_MAX]; /* the request's attributes before its integrity, USERNAME first */
    uint8_t asked_bytes, username_bytes;
    bool nominates;
    uint8_t nominations; /* so many are in use, and the next goes */
    uint8_t next_nomination;
    uint8_t nomination[NOMINATIONS_MAX][STUN_ID_BYTES]; /* the ids that have nominated: none does twice */
    double heard_at, heard_before_at; /* the last time, and the one before it */
    double quiet_s;                   /* after so long without being heard the peer is missed */
    uint64_t answered;
    uint64_t blocked; /* in this call: something of the peer was left */
    struct answerer *next; /* of its bucket */
};

struct answers {
    uint64_t call;
    struct answerer *bucket[ANSWER_BUCKETS];
};

static void resume_hash(struct sha1 *hash, const uint32_t state[5])
{
    *hash = (struct sha1){.low = 8 * SHA1_BLOCK_BYTES};
    memcpy(hash->state, state, sizeof hash->state);
}

/* Begin with a key of at most a block. */
static void begin_key(struct mac_key *key, const uint8_t *bytes, size_t length)
{
    uint8_t block[SHA1_BLOCK_BYTES];
    for (int outer = 0; outer < 2; outer++) {
        struct sha1 hash;
        for (size_t i = 0; i < sizeof block; i++)
            block[i] = (uint8_t)((i < length ? bytes[i] : 0) ^ (outer ? 0x5c : 0x36));
        crypto.sha1_init(&hash);
        crypto.sha1_update(&hash, block, sizeof block);
        memcpy(outer ? key->outer : key->inner, hash.state, sizeof hash.state);
    }
    leave_vectors();
}

/* Authenticate so many bytes behind a beginning of eight. */
static void authenticate(
    const struct mac_key *key, const uint8_t beginning[STUN_ID_AT], const uint8_t *rest, size_t bytes, uint8_t mac[MAC_BYTES])
{
    struct sha1 hash;
    resume_hash(&hash, key->inner);
    crypto.sha1_update(&hash, beginning, STUN_ID_AT);
    crypto.sha1_update(&hash, rest, bytes);
    crypto.sha1_final(mac, &hash);
    resume_hash(&hash, key->outer);
    crypto.sha1_update(&hash, mac, MAC_BYTES);
    crypto.sha1_final(mac, &hash);
    leave_vectors();
}

/* Say whether libcrypto does it as it should (RFC 2202 section 3, test case 1, whose text has eight bytes). */
static bool may_authenticate(void)
{
    static const uint8_t expected[MAC_BYTES] = {0xb6, 0x17, 0x31, 0x86, 0x55, 0x05, 0x72, 0x64, 0xe2, 0x8b,
                                                0xc0, 0xb6, 0xfb, 0x37, 0x8c, 0x8e, 0xf1, 0x46, 0xbe, 0x00};
    static const uint8_t text[] = "Hi There";
    uint8_t bytes[20], mac[MAC_BYTES];
    struct mac_key key;
    if (crypto.sha1_init == NULL || crypto.sha1_update == NULL || crypto.sha1_final == NULL)
        return false;
    memset(bytes, 0x0b, sizeof bytes);
    begin_key(&key, bytes, sizeof bytes);
    authenticate(&key, text, text, 0, mac);
    return !memcmp(mac, expected, sizeof mac);
}

/* As zlib has it, four bits at a time: a table of one line of the cache, where these are cold. */
static uint32_t crc32_of(const uint8_t *at, size_t bytes)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= at[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static void put_attribute(uint8_t *at, unsigned type, size_t bytes)
{
    put16(at, type);
    put16(at + 2, bytes);
}

/* The beginning of a message with so many bytes behind its header. */
static void put_beginning(uint8_t *at, unsigned type, size_t bytes)
{
    put_attribute(at, type, bytes);
    put32(at + 4, STUN_COOKIE);
}

static uint32_t fingerprint_of(const uint8_t *message, size_t bytes)
{
    return crc32_of(message, bytes) ^ STUN_FINGERPRINT_XOR;
}

/* Compare in the same time wherever they differ. */
static bool is_same_mac(const uint8_t *one, const uint8_t *other)
{
    volatile uint8_t differs = 0;
    for (size_t i = 0; i < MAC_BYTES; i++)
        differs |= one[i] ^ other[i];
    return differs == 0;
}

/* Say whether integrity and fingerprint are right, of a message whose header and length have been looked at (RFC 8489
 * sections 14.5 and 14.7). */
static bool is_authentic(const struct mac_key *key, const uint8_t *message, size_t bytes)
{
    size_t covered = bytes - STUN_TAIL_BYTES;
    const uint8_t *integrity = message + covered, *fingerprint = integrity + INTEGRITY_BYTES;
    uint8_t expected[STUN_ATTRIBUTE_BYTES], beginning[STUN_ID_AT], mac[MAC_BYTES];
    put_attribute(expected, STUN_INTEGRITY, MAC_BYTES);
    if (memcmp(integrity, expected, sizeof expected))
        return false;
    put_attribute(expected, STUN_FINGERPRINT, 4);
    if (memcmp(fingerprint, expected, sizeof expected) ||
        get32(fingerprint + STUN_ATTRIBUTE_BYTES) != fingerprint_of(message, bytes - FINGERPRINT_BYTES))
        return false;
    put_beginning(beginning, STUN_REQUEST, bytes - STUN_HEADER_BYTES - FINGERPRINT_BYTES);
    authenticate(key, beginning, message + STUN_ID_AT, covered - STUN_ID_AT, mac);
    return is_same_mac(mac, integrity + STUN_ATTRIBUTE_BYTES);
}

/* Write the answer to a request that came on the path; return its length. */
static size_t put_answer(const struct answerer *answerer, const uint8_t *id, uint8_t answer[ANSWER_MAX])
{
    const struct path *path = &answerer->path;
    size_t host_bytes = path->place_bytes, attribute_bytes = STUN_ATTRIBUTE_BYTES + 4 + host_bytes;
    uint8_t beginning[STUN_ID_AT], *at = answer + STUN_HEADER_BYTES;
    put_beginning(answer, STUN_SUCCESS, attribute_bytes + STUN_TAIL_BYTES);
    memcpy(answer + STUN_ID_AT, id, STUN_ID_BYTES);
    put_attribute(at, STUN_MAPPED, 4 + host_bytes);
    put16(at + 4, host_bytes == 4 ? 1 : 2);
    put16(at + 6, get16(path->name) ^ (STUN_COOKIE >> 16));
    for (size_t i = 0; i < host_bytes; i++)
        at[8 + i] = path->name[6 + i] ^ answer[4 + i]; /* the cookie, and of IPv6 the id */
    at += attribute_bytes;
    put_beginning(beginning, STUN_SUCCESS, attribute_bytes + INTEGRITY_BYTES);
    put_attribute(at, STUN_INTEGRITY, MAC_BYTES);
    authenticate(&answerer->key, beginning, answer + STUN_ID_AT, STUN_ID_BYTES + attribute_bytes, at + STUN_ATTRIBUTE_BYTES);
    at += INTEGRITY_BYTES;
    put_attribute(at, STUN_FINGERPRINT, 4);
    put32(at + STUN_ATTRIBUTE_BYTES, fingerprint_of(answer, (size_t)(at - answer)));
    return (size_t)(at - answer) + FINGERPRINT_BYTES;
}

/* Return how long the USERNAME is that attributes begin with, its header and padding included; 0: they do not. */
static size_t username_bytes_of(const uint8_t *attributes, size_t bytes)
{
    if (bytes < STUN_ATTRIBUTE_BYTES || get16(attributes) != STUN_USERNAME)
        return 0;
    size_t whole = STUN_ATTRIBUTE_BYTES + (((size_t)get16(attributes + 2) + 3) & ~(size_t)3);
    return whole <= bytes ? whole : 0;
}

static struct answerer **answerer_bucket(struct answers *answers, const uint8_t *username, size_t bytes)
{
    uint32_t place = 0x811c9dc5;
    for (size_t i = STUN_ATTRIBUTE_BYTES; i < bytes && i < STUN_ATTRIBUTE_BYTES + 8; i++)
        place = (place ^ username[i]) * 0x01000193;
    return &answers->bucket[(place ^ place >> 16) % ANSWER_BUCKETS];
}

static struct answerer *find_answerer(struct answers *answers, const uint8_t *username, size_t bytes)
{
    struct answerer *found = *answerer_bucket(answers, username, bytes);
    while (found != NULL && (found->username_bytes != bytes || memcmp(found->asked, username, bytes)))
        found = found->next;
    return found;
}

static void note_nomination(struct answerer *answerer, const uint8_t *id)
{
    for (size_t i = 0; i < answerer->nominations; i++)
        if (!memcmp(answerer->nomination[i], id, STUN_ID_BYTES))
            return;
    memcpy(answerer->nomination[answerer->next_nomination], id, STUN_ID_BYTES);
    answerer->next_nomination = (uint8_t)((answerer->next_nomination + 1) % NOMINATIONS_MAX);
    if (answerer->nominations < NOMINATIONS_MAX)
        answerer->nominations++;
}

static void note_heard(struct answerer *answerer, double now)
{
    if (now > answerer->heard_at) {
        answerer->heard_before_at = answerer->heard_at;
        answerer->heard_at = now;
    }
    answerer->answered++;
}

static bool may_answer(const struct answers *answers, const struct answerer *answerer, const struct run *run, int descriptor,
                       const uint8_t *datagram, size_t bytes)
{
    return answerer->blocked != answers->call && descriptor == answerer->path.descriptor && came_on(&answerer->path, run) &&
           bytes == (size_t)STUN_HEADER_BYTES + answerer->asked_bytes + STUN_TAIL_BYTES &&
           !memcmp(datagram + STUN_HEADER_BYTES, answerer->asked, answerer->asked_bytes) &&
           is_authentic(&answerer->key, datagram, bytes);
}

/* Answer a datagram that a descriptor has brought; false: it is left. */
static bool answer_one(
    struct answers *answers, int descriptor, const struct run *run, const uint8_t *datagram, size_t bytes)
{
    uint8_t beginning[STUN_ID_AT], answer[ANSWER_MAX];
    if (run->head_bytes || bytes < STUN_HEADER_BYTES + STUN_TAIL_BYTES)
        return false;
    put_beginning(beginning, STUN_REQUEST, bytes - STUN_HEADER_BYTES);
    if (memcmp(datagram, beginning, sizeof beginning))
        return false;
    const uint8_t *asked = datagram + STUN_HEADER_BYTES;
    size_t username_bytes = username_bytes_of(asked, bytes - STUN_HEADER_BYTES - STUN_TAIL_BYTES);
    struct answerer *answerer = username_bytes ? find_answerer(answers, asked, username_bytes) : NULL;
    if (answerer == NULL)
        return false;
    const uint8_t *id = datagram + STUN_ID_AT;
    if (!may_answer(answers, answerer, run, descriptor, datagram, bytes) ||
        send_on(&answerer->path, answer, put_answer(answerer, id, answer), ANSWER_MAX, 0)) {
        answerer->blocked = answers->call;
        return false;
    }
    if (answerer->nominates)
        note_nomination(answerer, id);
    note_heard(answerer, now_s());
    return true;
}

/* What a reading has had before one more message. */
struct before {
    size_t runs, datagrams, end;
};

/* Answer what a message has brought. What is left keeps its place; where nothing is, the place is free again. */
static void answer_each(struct answers *answers, int descriptor, struct reading *reading, const struct before *before)
{
    size_t left = before->runs, answered = 0;
    for (size_t i = before->runs; i < reading->runs; i++) {
        const struct run *run = &reading->run[i];
        const uint32_t *span = reading->spans[run->first];
        if (answer_one(answers, descriptor, run, reading->bytes + span[0], span[1]))
            answered++;
        else
            reading->run[left++] = *run;
    }
    reading->runs = left;
    if (answered > 0 && answered == reading->datagrams - before->datagrams) {
        reading->datagrams = before->datagrams;
        reading->end = before->end;
    }
}
