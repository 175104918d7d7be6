/* replay SCRIPT UNITS READER LAMP [READER LAMP ...]: send recorded APDUs to the cards in PC/SC readers, one thread a reader.

   SCRIPT   a line "EID <32 digits>" begins a unit, every following line is one APDU in hex, in the order to be sent. The
            first APDUs of all units are the same up to the one whose answer holds the EID (5A 10 ...): it selects the unit.
   UNITS    ends after so many units
   LAMP     path of the Unix socket that hears of the verdict, 00 02 E2 02, and that a head is free, 00 02 E2 00

   Prints {"units": n, "cpu_s": s}. As little as a program can do between a card and the next: what a station is measured
   against. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <winscard.h>

#define MAX_APDU 262
#define EID_BYTES 16

struct apdu { unsigned char bytes[MAX_APDU]; DWORD size; };
struct unit { unsigned char eid[EID_BYTES]; struct apdu *apdus; size_t count, room; };
struct head { const char *reader, *lamp; pthread_t thread; };

static struct unit *units;
static size_t unit_count;
static atomic_int left;

static void die(const char *what, long code) {
    fprintf(stderr, "replay: %s (%08lX)\n", what, (unsigned long)code & 0xFFFFFFFF);
    exit(1);
}

static size_t unhex(const char *text, unsigned char *out, size_t room) {
    size_t n = 0;
    unsigned int octet;
    while (n < room && sscanf(text + 2 * n, "%2x", &octet) == 1) out[n++] = (unsigned char)octet;
    return n;
}

static void read_script(const char *path) {
    char line[4096];
    FILE *file = fopen(path, "r");
    if (!file) die("cannot read the script", 0);
    while (fgets(line, sizeof line, file)) {
        if (!strncmp(line, "EID ", 4)) {
            units = realloc(units, (unit_count + 1) * sizeof *units);
            memset(&units[unit_count], 0, sizeof *units);
            unhex(line + 4, units[unit_count++].eid, EID_BYTES);
            continue;
        }
        struct unit *unit = &units[unit_count - 1];
        if (unit->count == unit->room) {
            unit->room = unit->room ? 2 * unit->room : 256;
            unit->apdus = realloc(unit->apdus, unit->room * sizeof *unit->apdus);
        }
        struct apdu *apdu = &unit->apdus[unit->count++];
        apdu->size = unhex(line, apdu->bytes, MAX_APDU);
    }
    fclose(file);
}

static struct unit *find(const unsigned char *answer, DWORD size) {
    for (DWORD at = 0; at + 2 + EID_BYTES <= size; at++)
        if (answer[at] == 0x5A && answer[at + 1] == EID_BYTES)
            for (size_t n = 0; n < unit_count; n++)
                if (!memcmp(units[n].eid, answer + at + 2, EID_BYTES)) return &units[n];
    return NULL;
}

static void load(SCARDHANDLE card, const SCARD_IO_REQUEST *protocol) {
    struct unit *unit = &units[0], *known = NULL;
    for (size_t n = 0; n < unit->count; n++) {
        unsigned char answer[300];
        DWORD size = sizeof answer;
        LONG code = SCardTransmit(card, protocol, unit->apdus[n].bytes, unit->apdus[n].size, NULL, answer, &size);
        if (code != SCARD_S_SUCCESS || size < 2) die("no answer", code);
        if (!known && (known = find(answer, size))) unit = known;
    }
    if (!known) die("a card without a known EID", 0);
}

static void wait_for(SCARDCONTEXT context, SCARD_READERSTATE *state, int present) {
    while (!!(state->dwCurrentState & SCARD_STATE_PRESENT) != present && atomic_load(&left) > 0) {
        LONG code = SCardGetStatusChange(context, 500, state, 1);
        if (code != SCARD_S_SUCCESS && code != SCARD_E_TIMEOUT) die("no state", code);
        if (code == SCARD_S_SUCCESS) state->dwCurrentState = state->dwEventState & ~SCARD_STATE_CHANGED;
    }
}

static void *serve(void *argument) {
    static const unsigned char pass[4] = {0, 2, 0xE2, 2}, off[4] = {0, 2, 0xE2, 0};
    struct head *head = argument;
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    SCARDCONTEXT context;
    SCARD_READERSTATE state = {.szReader = head->reader};
    int lamp = socket(AF_UNIX, SOCK_STREAM, 0);
    strncpy(place.sun_path, head->lamp, sizeof place.sun_path - 1);
    if (connect(lamp, (struct sockaddr *)&place, sizeof place)) die("no lamp", 0);
    if (SCardEstablishContext(SCARD_SCOPE_SYSTEM, NULL, NULL, &context)) die("no pcscd", 0);
    for (;;) {
        SCARDHANDLE card;
        DWORD protocol, any = SCARD_PROTOCOL_T0 | SCARD_PROTOCOL_T1;
        if (atomic_load(&left) <= 0) break;
        if (write(lamp, off, sizeof off) != sizeof off) die("no lamp", 0);
        wait_for(context, &state, 1);
        if (atomic_load(&left) <= 0) break;
        LONG code = SCardConnect(context, head->reader, SCARD_SHARE_EXCLUSIVE, any, &card, &protocol);
        if (code == SCARD_S_SUCCESS)
            code = SCardReconnect(card, SCARD_SHARE_EXCLUSIVE, any, SCARD_UNPOWER_CARD, &protocol);
        if (code != SCARD_S_SUCCESS) die("no card", code);
        load(card, protocol == SCARD_PROTOCOL_T0 ? SCARD_PCI_T0 : SCARD_PCI_T1);
        SCardDisconnect(card, SCARD_UNPOWER_CARD);
        if (write(lamp, pass, sizeof pass) != sizeof pass) die("no lamp", 0);
        atomic_fetch_sub(&left, 1);
        wait_for(context, &state, 0);
    }
    SCardReleaseContext(context);
    return NULL;
}

int main(int argc, char **argv) {
    int heads = (argc - 3) / 2;
    struct head all[64];
    struct rusage used;
    if (heads < 1 || heads > 64) die("usage: replay SCRIPT UNITS READER LAMP ...", 0);
    read_script(argv[1]);
    int total = atoi(argv[2]);
    atomic_store(&left, total);
    for (int n = 0; n < heads; n++) {
        all[n] = (struct head){.reader = argv[3 + 2 * n], .lamp = argv[4 + 2 * n]};
        if (pthread_create(&all[n].thread, NULL, serve, &all[n])) die("no thread", 0);
    }
    for (int n = 0; n < heads; n++) pthread_join(all[n].thread, NULL);
    getrusage(RUSAGE_SELF, &used);
    printf("{\"units\": %d, \"cpu_s\": %.4f}\n", total,
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + 1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec));
    return 0;
}
