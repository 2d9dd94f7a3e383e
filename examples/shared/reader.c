// Reads a grant's token in memory that brokerd keeps current (docs/shared-token.md): C, with libc alone.
// Usage: reader GRANT, then a line on stdin for each read; or: reader check FILE NOW, which reads a copy of such memory.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 65536, BEAT = 8, CHECKSUM = 16, SEQUENCE = 24, VALUE = 72, TRIES = 100 };
enum { TOKEN = 1, NONE = 2, CLOSED = 3 };

struct content { // a copy of the memory from SEQUENCE on
    uint64_t sequence;
    uint32_t state, value_size, rest_size, nothing;
    uint64_t generation;
    double expires, lifetime;
    char payload[SIZE - VALUE];
};

static uint32_t crc32_of(const unsigned char *data, size_t size) {
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0);
            table[i] = value;
        }
    uint32_t crc = ~0u;
    while (size--)
        crc = crc >> 8 ^ table[(crc ^ *data++) & 255];
    return ~crc;
}

// copy takes one whole content out of the memory; 0: there is none that could be read.
static int copy(const unsigned char *memory, struct content *found) {
    if (memcmp(memory, "brokerd\1", 8))
        return 0;
    for (int try = 0; try < TRIES; try++) {
        uint32_t checksum;
        uint64_t before = __atomic_load_n((const uint64_t *)(memory + SEQUENCE), __ATOMIC_ACQUIRE);
        memcpy(&checksum, memory + CHECKSUM, sizeof checksum);
        memcpy(found, memory + SEQUENCE, VALUE - SEQUENCE);
        uint64_t end = (uint64_t)VALUE + found->value_size + found->rest_size;
        if (before % 2 || found->sequence != before || end > SIZE)
            continue;
        memcpy(found->payload, memory + VALUE, end - VALUE);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        uint64_t after = __atomic_load_n((const uint64_t *)(memory + SEQUENCE), __ATOMIC_RELAXED);
        if (after == before && crc32_of((unsigned char *)found, end - SEQUENCE) == checksum)
            return 1;
    }
    return 0;
}

static double boottime(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// usable says whether the token that was copied may be used. The beat and the time are looked at for each use.
static int usable(const unsigned char *memory, const struct content *found, double now) {
    double beat;
    memcpy(&beat, memory + BEAT, sizeof beat);
    return found->state == TOKEN && now >= beat && now - beat < 1.0 && now < found->expires;
}

static void say(const unsigned char *memory, double now) {
    static struct content found;
    if (!copy(memory, &found) || (found.state != CLOSED && !usable(memory, &found, now)))
        puts("ask by get");
    else if (found.state == CLOSED)
        puts("closed");
    else
        printf("%.*s\n", (int)found.value_size, found.payload);
    fflush(stdout);
}

// ask sends the request share and takes the descriptor that comes with its answer.
static int ask(int sock, const char *grant) {
    unsigned char request[160] = "\x94\0\1\xa5share\x91\x81\xa5grant\xd9"; // [0, 1, "share", [{"grant": …}]]
    size_t length = strlen(grant), size = 18;
    if (length > 128)
        return -1;
    request[size++] = (unsigned char)length;
    memcpy(request + size, grant, length);
    if (write(sock, request, size + length) != (ssize_t)(size + length))
        return -1;
    char room[CMSG_SPACE(sizeof(int))], answer[4096];
    struct iovec part = {answer, sizeof answer};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    if (recvmsg(sock, &message, MSG_CMSG_CLOEXEC) < 4)
        return -1;
    struct cmsghdr *head = CMSG_FIRSTHDR(&message); // an error comes without
    if (!head || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
        return -1;
    int descriptor;
    memcpy(&descriptor, CMSG_DATA(head), sizeof descriptor);
    return descriptor;
}

int main(int count, char **words) {
    static unsigned char copied[SIZE] __attribute__((aligned(8)));
    if (count == 4 && !strcmp(words[1], "check")) {
        FILE *file = fopen(words[2], "rb");
        if (!file || fread(copied, 1, SIZE, file) == 0)
            return 1;
        say(copied, strtod(words[3], NULL));
        return 0;
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("BROKERD_SOCKET");
    strncpy(address.sun_path, path ? path : "/run/brokerd/brokerd.sock", sizeof address.sun_path - 1);
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); // stays open: the shared token ends with it
    if (count != 2 || connect(sock, (struct sockaddr *)&address, sizeof address))
        return 1;
    int descriptor = ask(sock, words[1]);
    if (descriptor < 0) {
        fputs("brokerd shares no token\n", stderr);
        return 1;
    }
    const unsigned char *memory = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (memory == MAP_FAILED)
        return 1;
    for (int sign; (sign = getchar()) != EOF;)
        if (sign == '\n')
            say(memory, boottime());
    return 0;
}
