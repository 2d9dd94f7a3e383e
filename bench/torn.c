// Reads a shared token's memory as often as it can while a program writes contents of one letter each, and counts those
// that are mixed of two. Usage: torn FILE READS COPIES CHECKED: at least so many reads, and reads that found something new.
// With CHECKED 0, it leaves out what docs/shared-token.md demands.
#define main reader_main
#include "../examples/shared/reader.c"
#undef main

#include <fcntl.h>

static int is_torn(const struct content *found) {
    char letter = 'a' + (char)(found->generation % 26);
    if (found->value_size != 1 + 37 * found->generation % 4000)
        return 1;
    for (uint32_t at = 0; at < found->value_size; at++)
        if (found->payload[at] != letter)
            return 1;
    return 0;
}

static int copy_unchecked(const unsigned char *memory, struct content *found) {
    memcpy(found, memory + SEQUENCE, sizeof *found);
    return found->value_size <= SIZE - VALUE;
}

int main(int count, char **words) {
    static struct content found;
    int file = count == 5 ? open(words[1], O_RDONLY) : -1;
    const unsigned char *memory = file < 0 ? MAP_FAILED : mmap(NULL, SIZE, PROT_READ, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED)
        return 1;
    long long least = atoll(words[2]), least_copies = atoll(words[3]), reads = 0, copies = 0, torn = 0, none = 0;
    int checked = atoi(words[4]), known = 0;
    double began = boottime();
    for (; reads < least || copies < least_copies; reads++) {
        uint64_t sequence = __atomic_load_n((const uint64_t *)(memory + SEQUENCE), __ATOMIC_ACQUIRE);
        if (known && sequence == found.sequence)
            continue; // nothing has changed: what was copied counts
        copies++;
        known = checked ? copy(memory, &found) : copy_unchecked(memory, &found);
        none += !known;
        torn += known && is_torn(&found);
    }
    printf("{\"reads\": %lld, \"copies\": %lld, \"torn\": %lld, \"none\": %lld, \"seconds\": %f}\n", reads, copies, torn,
           none, boottime() - began);
    return 0;
}
