/* A disk that needs 2 ms to sync, for LD_PRELOAD. Waits, and syncs nothing: only the wait is measured. */
#include <time.h>

static int wait_2_ms(void) {
    struct timespec left = {0, 2000000};
    while (nanosleep(&left, &left) != 0) {
    }
    return 0;
}

int fsync(int fd) {
    (void)fd;
    return wait_2_ms();
}

int fdatasync(int fd) {
    (void)fd;
    return wait_2_ms();
}
