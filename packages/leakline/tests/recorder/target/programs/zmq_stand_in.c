/* Opens as libzmq does: a stripped library with an exported function over hidden ones. */
#include <sys/eventfd.h>

static __attribute__((noinline)) int create_mailbox(void) {
    return eventfd(0, 0) + 1;
}

static __attribute__((noinline)) int create_socket(int type) {
    return create_mailbox() + type;
}

__attribute__((visibility("default"))) int zmq_socket(int type) {
    return create_socket(type) - 1;
}
