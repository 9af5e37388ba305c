/* Stands between a client and the recorder as libzmq does: a stripped library with an exported function over hidden ones. */
int recorded_open(void);

static __attribute__((noinline)) int create_mailbox(void) {
    return recorded_open() + 1;
}

static __attribute__((noinline)) int create_socket(int type) {
    return create_mailbox() + type;
}

__attribute__((visibility("default"))) int zmq_socket(int type) {
    return create_socket(type) - 1;
}
