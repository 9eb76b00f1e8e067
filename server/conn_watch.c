// SPDX-License-Identifier: Apache-2.0
// See conn_watch.h. A watch is a slot of a table; a ticket is slot and generation, so that an event
// that comes late for a slot in new use is told apart.
#include "server/conn_watch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

// Descriptors are given lowest first; a server of this many connections is beyond our threads.
#define SCAN_DESCRIPTORS_MAX 8192
#define EVENTS_PER_WAIT 64
#define STOP_TICKET UINT64_MAX

struct slot {
    void (*gone)(void *context);
    void *context;
    uint32_t generation;
    int32_t next_free;
    int socket; // -1: free
};

struct conn_watch {
    pthread_mutex_t mutex;
    pthread_t thread;
    int epoll, stop;
    struct slot *slots;
    int32_t slot_count, free_first;
};

static void report(struct conn_watch *watch, uint64_t ticket)
{
    pthread_mutex_lock(&watch->mutex);
    struct slot *slot = &watch->slots[(uint32_t)ticket];
    if (slot->socket >= 0 && slot->generation == ticket >> 32 && slot->gone != NULL) {
        epoll_ctl(watch->epoll, EPOLL_CTL_DEL, slot->socket, NULL);
        slot->gone(slot->context); // under the mutex: never after remove
        slot->gone = NULL;
    }
    pthread_mutex_unlock(&watch->mutex);
}

static void *run(void *context)
{
    struct conn_watch *watch = context;
    pthread_setname_np(pthread_self(), "sora-watch");
    struct epoll_event events[EVENTS_PER_WAIT];
    for (;;) {
        int count = epoll_wait(watch->epoll, events, EVENTS_PER_WAIT, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.u64 == STOP_TICKET)
                return NULL;
            report(watch, events[i].data.u64);
        }
    }
}

static void free_watch(struct conn_watch *watch)
{
    if (watch->epoll >= 0)
        close(watch->epoll);
    if (watch->stop >= 0)
        close(watch->stop);
    free(watch->slots);
    pthread_mutex_destroy(&watch->mutex);
    free(watch);
}

sora_status conn_watch_start(int32_t watches_max, struct conn_watch **watch, struct sora_error *err)
{
    struct conn_watch *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to watch connections");
    pthread_mutex_init(&made->mutex, NULL);
    made->slots = calloc((size_t)watches_max, sizeof *made->slots);
    made->epoll = epoll_create1(EPOLL_CLOEXEC);
    made->stop = eventfd(0, EFD_CLOEXEC);
    struct epoll_event stop = {.events = EPOLLIN, .data.u64 = STOP_TICKET};
    if (made->slots == NULL || made->epoll < 0 || made->stop < 0 ||
        epoll_ctl(made->epoll, EPOLL_CTL_ADD, made->stop, &stop) != 0)
        goto failed;
    made->slot_count = watches_max;
    for (int32_t i = 0; i < watches_max; i++) {
        made->slots[i].socket = -1;
        made->slots[i].next_free = i + 1 < watches_max ? i + 1 : -1;
    }
    if (pthread_create(&made->thread, NULL, run, made) != 0)
        goto failed;
    *watch = made;
    return SORA_OK;
failed:
    free_watch(made);
    return sora_fail(err, SORA_IO, "cannot watch connections: %s", strerror(errno));
}

void conn_watch_stop(struct conn_watch *watch)
{
    if (watch == NULL)
        return;
    uint64_t one = 1;
    ssize_t written = write(watch->stop, &one, sizeof one);
    (void)written; // an eventfd at zero takes a one
    pthread_join(watch->thread, NULL);
    free_watch(watch);
}

int64_t conn_watch_add(struct conn_watch *watch, int socket, void (*gone)(void *context),
                       void *context)
{
    if (socket < 0)
        return -1;
    pthread_mutex_lock(&watch->mutex);
    int64_t ticket = -1;
    int32_t index = watch->free_first;
    if (index >= 0) {
        struct slot *slot = &watch->slots[index];
        uint32_t generation = (slot->generation + 1) & INT32_MAX;
        uint64_t name = (uint64_t)generation << 32 | (uint32_t)index;
        struct epoll_event event = {.events = EPOLLRDHUP | EPOLLHUP | EPOLLERR, .data.u64 = name};
        if (epoll_ctl(watch->epoll, EPOLL_CTL_ADD, socket, &event) == 0) {
            watch->free_first = slot->next_free;
            slot->generation = generation;
            slot->socket = socket;
            slot->gone = gone;
            slot->context = context;
            ticket = (int64_t)name;
        }
    }
    pthread_mutex_unlock(&watch->mutex);
    return ticket;
}

void conn_watch_remove(struct conn_watch *watch, int64_t ticket)
{
    if (ticket < 0)
        return;
    pthread_mutex_lock(&watch->mutex);
    int32_t index = (int32_t)(uint32_t)ticket;
    struct slot *slot = &watch->slots[index];
    if (slot->gone != NULL)
        epoll_ctl(watch->epoll, EPOLL_CTL_DEL, slot->socket, NULL);
    slot->socket = -1;
    slot->gone = NULL;
    slot->next_free = watch->free_first;
    watch->free_first = index;
    pthread_mutex_unlock(&watch->mutex);
}

// IPv4 as its IPv6 mapping, so that both compare.
static bool to_address(const char *text, struct in6_addr *address)
{
    struct in_addr v4;
    if (inet_pton(AF_INET6, text, address) == 1)
        return true;
    if (inet_pton(AF_INET, text, &v4) != 1)
        return false;
    memset(address, 0, sizeof *address);
    address->s6_addr[10] = address->s6_addr[11] = 0xff;
    memcpy(&address->s6_addr[12], &v4, sizeof v4);
    return true;
}

static bool address_of(const struct sockaddr_storage *from, struct in6_addr *address, int *port)
{
    char text[INET6_ADDRSTRLEN];
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
        *port = ntohs(v4->sin_port);
        return inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text) != NULL &&
               to_address(text, address);
    }
    if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)from;
        *port = ntohs(v6->sin6_port);
        *address = v6->sin6_addr;
        return true;
    }
    return false;
}

int conn_watch_socket(const char *peer_address, int peer_port, int local_port)
{
    struct in6_addr wanted;
    struct rlimit limit;
    if (!to_address(peer_address, &wanted) || getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return -1;
    int count = limit.rlim_cur < SCAN_DESCRIPTORS_MAX ? (int)limit.rlim_cur : SCAN_DESCRIPTORS_MAX;
    for (int socket = 0; socket < count; socket++) {
        struct sockaddr_storage peer, local;
        socklen_t peer_bytes = sizeof peer, local_bytes = sizeof local;
        struct in6_addr address;
        int port = 0;
        if (getpeername(socket, (struct sockaddr *)&peer, &peer_bytes) != 0 ||
            !address_of(&peer, &address, &port) || port != peer_port ||
            memcmp(&address, &wanted, sizeof wanted) != 0)
            continue;
        if (getsockname(socket, (struct sockaddr *)&local, &local_bytes) == 0 &&
            address_of(&local, &address, &port) && port == local_port)
            return socket;
    }
    return -1;
}
