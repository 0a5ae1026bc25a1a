/* The limit: what a server costs that does nothing but one send() per client and message.
 *
 * One thread, one epoll, no log, no HTTP beyond the first line of a request.  It writes the
 * same bytes as sse_broker does, in one chunk per message.  Messages that wait together do
 * not leave together here: in bursts, a server that joins them may cost less than this.
 *
 *   limit PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 65536, USERS = 65536 };
static int clients[MOST], used, by_user[USERS];
static int place[MOST]; /* of a descriptor in clients, from 1 on */
static unsigned long position;

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void write_all(int fd, const char *from, size_t size)
{
    while (size) {
        ssize_t sent = send(fd, from, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            poll(&room, 1, -1);
            continue;
        }
        if (sent <= 0)
            return; /* it has gone; epoll says so later */
        from += sent, size -= sent;
    }
}

static size_t frame(char *to)
{
    static const char pad[] =
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    char body[512];
    int size = sprintf(body, "id: 31770698aadb-%lu\nevent: message\ndata: t=%014.6f n=%010lu %s\n\n",
                       position, now(), position, pad);
    position++;
    return sprintf(to, "%x\r\n%s\r\n", size, body);
}

static void send_messages(int count, int to_users, int users)
{
    char text[600];

    for (int i = 0; i < count; i++) {
        size_t size = frame(text);
        if (to_users)
            write_all(by_user[i % users], text, size);
        else
            for (int c = 0; c < used; c++)
                write_all(clients[c], text, size);
    }
}

static int number(const char *text, const char *name, int otherwise)
{
    const char *at = strstr(text, name);
    return at ? atoi(at + strlen(name)) : otherwise;
}

static void answer(int fd, const char *request)
{
    static const char stream[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        "e\r\n: sse_broker\n\n\r\n";
    char text[256], body[64];
    double started = now();

    if (!strncmp(request, "GET /sse/stream", 15)) {
        const char *user = strstr(request, "user_id=");
        if (user) /* the last 12 digits of a UUID */
            by_user[atoi(user + 8 + 24) % USERS] = fd;
        write_all(fd, stream, sizeof stream - 1);
        clients[used++] = fd, place[fd] = used;
        return;
    }
    if (!strncmp(request, "POST /send", 10))
        send_messages(number(request, "n=", 1), strstr(request, "target=users") != NULL,
                      number(request, "users=", used));
    int size = sprintf(body, "{\"took\": %.9f}", now() - started);
    sprintf(text, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, body);
    write_all(fd, text, strlen(text));
}

static void forget(int fd)
{
    if (place[fd]) { /* the last one takes its place */
        int last = clients[--used];
        clients[place[fd] - 1] = last, place[last] = place[fd], place[fd] = 0;
    }
    close(fd);
}

static void serve(int fd)
{
    char request[4096]; /* the load client sends each request in one piece */
    ssize_t got = recv(fd, request, sizeof request - 1, 0);

    if (got <= 0 && !(got < 0 && errno == EAGAIN)) {
        forget(fd);
    } else if (got > 0) {
        request[got] = 0;
        answer(fd, request);
    }
}

static void admit(int ep, int listener)
{
    int fd, on = 1;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct epoll_event want = {.events = EPOLLIN, .data.fd = fd};
        if (fd >= MOST) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &want);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    int ep = epoll_create1(0);
    struct epoll_event want = {.events = EPOLLIN, .data.fd = listener}, ready[256];

    at.sin_port = htons(argc == 2 ? atoi(argv[1]) : 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 4096) < 0) {
        perror("bind");
        return 1;
    }
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &want);
    for (;;) {
        int count = epoll_wait(ep, ready, 256, -1);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.fd == listener)
                admit(ep, listener);
            else
                serve(ready[i].data.fd);
        }
    }
}
