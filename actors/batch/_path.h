/* Between which addresses something goes: what came that way, and what is sent back. Comes after `_receive.h`. */

#include <time.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

struct path {
    int descriptor;
    uint8_t name[NAME_BYTES], place[ADDRESS_BYTES]; /* theirs, as in a run; ours, an address */
    uint8_t name_bytes, place_bytes;
};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Say whether both ends have addresses of one family. */
static bool is_path(const struct path *path)
{
    return (path->place_bytes == 4 && path->name_bytes == 6 + 4) || (path->place_bytes == 16 && path->name_bytes == 6 + 16);
}

static bool came_on(const struct path *path, const struct run *run)
{
    return run->place_bytes == 1 + path->place_bytes && !memcmp(run->place + 1, path->place, path->place_bytes) &&
           run->name_bytes == path->name_bytes && !memcmp(run->name, path->name, path->name_bytes);
}

static socklen_t destination_of(const struct path *path, struct sockaddr_in6 *to)
{
    *to = (struct sockaddr_in6){0};
    if (path->place_bytes == 4) {
        struct sockaddr_in v4 = {.sin_family = AF_INET};
        memcpy(&v4.sin_port, path->name, 2);
        memcpy(&v4.sin_addr, path->name + 6, 4);
        memcpy(to, &v4, sizeof v4);
        return sizeof v4;
    }
    to->sin6_family = AF_INET6;
    memcpy(&to->sin6_port, path->name, 2);
    memcpy(&to->sin6_scope_id, path->name + 2, 4);
    memcpy(&to->sin6_addr, path->name + 6, 16);
    return sizeof *to;
}

/* Send a datagram, or a train of them `stride` bytes each; 0, or errno. */
static int send_on(const struct path *path, const uint8_t *datagrams, size_t bytes, size_t stride, uint8_t ecn)
{
    union {
        struct cmsghdr aligned;
        uint8_t bytes[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(uint16_t))];
    } ancillary = {0};
    struct sockaddr_in6 to;
    struct iovec text = {(void *)(uintptr_t)datagrams, bytes};
    struct msghdr message = {
        .msg_name = &to, .msg_namelen = destination_of(path, &to), .msg_iov = &text, .msg_iovlen = 1,
        .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
    bool v4 = path->place_bytes == 4;
    struct in_pktinfo from4 = {0};
    struct in6_pktinfo from6 = {0};
    int mark = ecn;
    uint16_t segment = (uint16_t)stride;
    memcpy(v4 ? (void *)&from4.ipi_spec_dst : (void *)&from6.ipi6_addr, path->place, path->place_bytes);
    const struct {
        int level, type;
        const void *data;
        size_t bytes;
    } said[] = {
        {v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_PKTINFO : IPV6_PKTINFO, v4 ? (void *)&from4 : (void *)&from6,
         v4 ? sizeof from4 : sizeof from6},
        {v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, &mark, ecn ? sizeof mark : 0},
        {SOL_UDP, UDP_SEGMENT, &segment, bytes > stride ? sizeof segment : 0},
    };
    size_t used = 0;
    struct cmsghdr *one = CMSG_FIRSTHDR(&message);
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        if (said[i].bytes == 0)
            continue;
        one->cmsg_level = said[i].level;
        one->cmsg_type = said[i].type;
        one->cmsg_len = CMSG_LEN(said[i].bytes);
        memcpy(CMSG_DATA(one), said[i].data, said[i].bytes);
        used += CMSG_SPACE(said[i].bytes);
        one = (struct cmsghdr *)(void *)(ancillary.bytes + used);
    }
    message.msg_controllen = used;
    return sendmsg(path->descriptor, &message, MSG_DONTWAIT) < 0 ? errno : 0;
}
