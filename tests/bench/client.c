/* The C client for the comparison with the engine: a closed loop over one epoll descriptor, without any recording.
 *
 *     client PORT CLIENTS SECONDS none|hello rst|fin [eager]     prints: connections, seconds, seconds of CPU
 *
 * Each client connects without blocking, waits in epoll, waits for a byte with "hello", closes, and starts again.
 * "eager" reads TCP_INFO right after connect(), as the engine does, and saves the wait if the handshake is complete.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 512
#define ESTABLISHED 1
#define CLOSE_WAIT 8

static struct sockaddr_in peer = {.sin_family = AF_INET};
static int epoll, hello, reset, eager;
static long connections;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void end(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    if (reset && setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger))
        fail("SO_LINGER");
    close(fd);
    connections++;
}

static void watch(int fd, int operation, unsigned events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, operation, fd, &event))
        fail("epoll_ctl");
}

/* Start one client; with "eager", and nothing to wait for, as many connections as `burst` says. */
static void start(int burst)
{
    while (burst--) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        unsigned char state = 0;
        socklen_t size = 1;
        if (fd < 0)
            fail("socket");
        if (connect(fd, (void *)&peer, sizeof peer) && errno != EINPROGRESS)
            fail("connect");
        if (eager && getsockopt(fd, IPPROTO_TCP, TCP_INFO, &state, &size))
            fail("TCP_INFO");
        if (state != ESTABLISHED && state != CLOSE_WAIT) {
            watch(fd, EPOLL_CTL_ADD, EPOLLOUT);
            return;
        }
        if (hello) {
            watch(fd, EPOLL_CTL_ADD, EPOLLIN);
            return;
        }
        end(fd);
    }
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return 2;
    int clients = atoi(argv[2]), waiting_for_more = 0;
    double seconds = atof(argv[3]), begun, took;
    struct epoll_event events[EVENTS];
    struct rusage usage;
    peer.sin_port = htons(atoi(argv[1]));
    peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    hello = !strcmp(argv[4], "hello");
    reset = !strcmp(argv[5], "rst");
    eager = argc > 6 && !strcmp(argv[6], "eager");
    epoll = epoll_create1(0);
    begun = now();
    if (eager && !hello)
        waiting_for_more = 1; /* nobody ever waits: loop below starts bursts */
    for (int i = 0; i < clients; i++)
        start(1);
    while (now() - begun < seconds) {
        int ready = epoll_wait(epoll, events, EVENTS, waiting_for_more ? 0 : 100);
        if (waiting_for_more)
            start(128);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd, error = 0;
            socklen_t size = sizeof error;
            char byte;
            if (events[i].events & EPOLLOUT) {
                if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) || error)
                    fail("SO_ERROR");
                if (hello) {
                    watch(fd, EPOLL_CTL_MOD, EPOLLIN);
                    continue;
                }
            } else if (read(fd, &byte, 1) != 1)
                fail("read");
            end(fd);
            start(1);
        }
    }
    took = now() - begun;
    getrusage(RUSAGE_SELF, &usage);
    printf("%ld %f %f\n", connections, took,
           usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    return 0;
}
