/* See messages.h. */
#include "messages.h"

#include <errno.h>
#include <string.h>

#define ZMQ_DONTWAIT 1
#define ZMQ_SNDMORE 2
#define ZMQ_HAUSNUMERO 156384712
#define ZMQ_ETERM (ZMQ_HAUSNUMERO + 53)

int failed(struct messages *messages) {
    int error = messages->api.zmq_errno();
    if (error == EAGAIN || error == EINTR)
        return MOVED_ALL;
    messages->error = error;
    return error == ZMQ_ETERM ? RELAY_TERMINATED : RELAY_FAILED;
}

int receive(struct messages *messages, message *part, void *socket) {
    int received;
    messages->api.zmq_msg_init(part);
    do /* a signal must not cut a message in two */
        received = messages->api.zmq_msg_recv(part, socket, ZMQ_DONTWAIT);
    while (received < 0 && messages->api.zmq_errno() == EINTR);
    if (received >= 0)
        return MOVED_ONE;
    int outcome = failed(messages);
    messages->api.zmq_msg_close(part);
    return outcome;
}

int copy(struct messages *messages, message *to, const void *data, size_t size) {
    if (messages->api.zmq_msg_init_size(to, size) < 0) {
        int outcome = failed(messages);
        messages->api.zmq_msg_init(to);
        return outcome;
    }
    memcpy(messages->api.zmq_msg_data(to), data, size);
    return MOVED_ONE;
}

int drop_rest(struct messages *messages, void *socket, bool more) {
    while (more) {
        message part;
        int outcome = receive(messages, &part, socket);
        if (outcome != MOVED_ONE)
            return outcome;
        more = messages->api.zmq_msg_more(&part);
        messages->api.zmq_msg_close(&part);
    }
    return MOVED_ONE;
}

int deliver(struct messages *messages, void *front, uint64_t id, message *frame, enum delivery *what) {
    message client;
    *what = NOT_SENT;
    if (messages->api.zmq_msg_init_size(&client, ROUTING_ID_SIZE) < 0)
        return failed(messages);
    routing_id_of(id, messages->api.zmq_msg_data(&client));
    while (messages->api.zmq_msg_send(&client, front, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) {
        int error = messages->api.zmq_errno();
        if (error == EINTR)
            continue;
        int outcome = failed(messages);
        messages->api.zmq_msg_close(&client);
        *what = error == EAGAIN ? NO_ROOM : error == EHOSTUNREACH ? NO_CLIENT : NOT_SENT;
        return *what == NOT_SENT ? outcome : MOVED_ONE;
    }
    while (messages->api.zmq_msg_send(frame, front, ZMQ_DONTWAIT) < 0)
        if (messages->api.zmq_errno() != EINTR)
            return failed(messages);
    *what = DELIVERED;
    return MOVED_ONE;
}
