/* Time, figures, connections, requests. */
#include "load.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <time.h>

double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

/* Sums of these tell sets of numbers apart (the finalizer of splitmix64). */
uint64_t mixed(uint64_t number)
{
    number += 0x9e3779b97f4a7c15ull;
    number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9ull;
    number = (number ^ number >> 27) * 0x94d049bb133111ebull;
    return number ^ number >> 31;
}

void die(const char *what)
{
    perror(what);
    exit(1);
}

void note(struct figures *figures, double value)
{
    if (figures->used == figures->room) {
        figures->room = figures->room ? 2 * figures->room : 4096;
        figures->all = realloc(figures->all, figures->room * sizeof(float));
        if (!figures->all)
            die("realloc");
    }
    figures->all[figures->used++] = (float)value;
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

void print_figures(const char *name, struct figures *f)
{
    if (!f->used)
        return;
    qsort(f->all, f->used, sizeof(float), by_size);
    printf(", \"%s\": {\"count\": %zu, \"p50_ms\": %.4f, \"p90_ms\": %.4f, \"p99_ms\": %.4f,"
           " \"max_ms\": %.4f}", name, f->used, 1e3 * f->all[f->used / 2],
           1e3 * f->all[f->used * 9 / 10], 1e3 * f->all[f->used * 99 / 100],
           1e3 * f->all[f->used - 1]);
}

int connection(int number, uint64_t key)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}, from = to;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct epoll_event want = {.events = EPOLLIN | EPOLLOUT, .data.u64 = key};

    if (fd < 0)
        die("socket");
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    from.sin_port = 0;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + number % addresses);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0)
        die("bind");
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        die("connect");
    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &want) < 0)
        die("epoll_ctl");
    return fd;
}

void only_read(int fd, uint64_t key)
{
    struct epoll_event want = {.events = EPOLLIN, .data.u64 = key};
    epoll_ctl(ep, EPOLL_CTL_MOD, fd, &want);
}

/* Copy a request with its fields filled in; stamps and numbers have a fixed width, so that
 * Content-Length stays right. */
size_t fill(char *to, const char *text, unsigned long number, const char *id)
{
    char *at = to;
    while (*text) {
        if (!strncmp(text, "@STAMP@", 7)) {
            at += sprintf(at, "%014.6f", now()), text += 7;
        } else if (!strncmp(text, "@NUMBER@", 8)) {
            at += sprintf(at, "%010lu", (unsigned long)numbered++), text += 8;
        } else if (!strncmp(text, "@CLIENT@", 8)) {
            at += sprintf(at, "%012lu", number), text += 8;
        } else if (!strncmp(text, "@RESUME@", 8)) {
            at += id && *id ? sprintf(at, "Last-Event-ID: %s\r\n", id) : 0, text += 8;
        } else {
            *at++ = *text++;
        }
    }
    return at - to;
}

void set_text(char *to, const char *from)
{
    for (; *from && *from != '\n'; from++) {
        if (from[0] == '\\' && from[1] == 'r')
            *to++ = '\r', from++;
        else if (from[0] == '\\' && from[1] == 'n')
            *to++ = '\n', from++;
        else
            *to++ = *from;
    }
    *to = 0;
}
