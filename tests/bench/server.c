/* The server of the benchmarks: one epoll loop with as little work per connection as TCP allows, so it is not the
 * bottleneck. It closes each connection after its reply.
 *
 *     server none|hello|echo|http       prints its port, ends at the end of standard input
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 512
#define BACKLOG 4096

static const char reply[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int listener(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (fd < 0 || bind(fd, (void *)&address, size) || listen(fd, BACKLOG) ||
        getsockname(fd, (void *)&address, &size))
        fail("listener");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
        fail("epoll_ctl");
}

/* Serve clients that speak first: one read, one answer. */
static void answer(int fd, int http)
{
    char buffer[4096];
    ssize_t size = read(fd, buffer, sizeof buffer);
    if (size > 0 && http)
        size = write(fd, reply, sizeof reply - 1);
    else if (size > 0)
        size = write(fd, buffer, size);
    close(fd);
}

int main(int argc, char **argv)
{
    const char *exchange = argc > 1 ? argv[1] : "none";
    int hello = !strcmp(exchange, "hello"), http = !strcmp(exchange, "http");
    int client_speaks = http || !strcmp(exchange, "echo");
    int epoll = epoll_create1(0), door = listener();
    struct epoll_event events[EVENTS];
    watch(epoll, door);
    watch(epoll, 0);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == 0)
                return 0;
            if (fd != door) {
                answer(fd, http);
                continue;
            }
            while ((fd = accept4(door, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                if (client_speaks) {
                    watch(epoll, fd);
                    continue;
                }
                if (hello && write(fd, "!", 1) < 0 && errno == EAGAIN)
                    fail("write");
                close(fd);
            }
        }
    }
}
