// SPDX-License-Identifier: Apache-2.0
// Notices at once when a client closes its connection while its request waits or runs. One thread
// sleeps in epoll on the sockets of all such requests; it reads nothing. Any thread may add and
// remove. CivetWeb's public interface does not give a connection's socket away: conn_watch_socket
// finds it among the process's descriptors by its four-tuple of addresses and ports, which is
// unique while the connection is open.
#ifndef SERVER_CONN_WATCH_H
#define SERVER_CONN_WATCH_H

#include <stdint.h>

#include "sora/status.h"

struct conn_watch;

SORA_CHECKED sora_status conn_watch_start(int32_t watches_max, struct conn_watch **watch,
                                          struct sora_error *err);
void conn_watch_stop(struct conn_watch *watch); // accepts NULL

// Calls gone(context) on the watch's thread when the peer closes or resets, at most once, and never
// after conn_watch_remove has returned. Returns a ticket, or -1 (not watched: too many, bad
// descriptor), which remove accepts.
int64_t conn_watch_add(struct conn_watch *watch, int socket, void (*gone)(void *context),
                       void *context);
void conn_watch_remove(struct conn_watch *watch, int64_t ticket);

// The descriptor of the connected socket with this peer and local port, or -1.
int conn_watch_socket(const char *peer_address, int peer_port, int local_port);

#endif
